//! A whole server in this process, with somebody signed in, and the other ends of its wires: one that plays
//! the MCP server and the identity provider, and writes down every byte that reaches it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Collected};
use hyper::body::Bytes;
use portcullis::app::App;
use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::config::{Config, TokenAlg};
use portcullis::oauth::authorization_request::AuthorizationRequest;
use portcullis::oauth::grant::Redemption;
use portcullis::oauth::scope::ScopeSet;
use portcullis::oauth::secret::{AuthorizationCode, RefreshToken, Secret, new_id, random_bytes};
use portcullis::policy::{Email, Facts};
use portcullis::server::Service;
use portcullis::signing::NewToken;
use portcullis::storage::{
    CodeExchange, GrantTerms, NewCode, Person, Redeemed, SessionUpdate, Storage, UpstreamTokens,
};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

pub const PUBLIC_URL: &str = "http://127.0.0.1:8000";
pub const CLIENT_ID: &str = "client_fuzz";
/// A name that would break a header in two, were it copied.
pub const NAME: &str = "Änne\r\nx-evil: 1 100%";
const REDIRECT_URI: &str = "http://127.0.0.1:1/cb";
const VERIFIER: &str = "a-verifier-of-43-characters-or-more-0123456789";
/// `BASE64URL(SHA256(VERIFIER))` is made when it is needed.
const START: i64 = 1_795_219_200;

/// The other end of the wires.
#[derive(Default)]
pub struct Peer {
    /// Every request, byte for byte.
    pub seen: Vec<Vec<u8>>,
    /// What is answered, by path; `{}` elsewhere.
    pub answers: BTreeMap<String, (u16, Vec<u8>)>,
}

pub struct World {
    pub app: App,
    pub clock: ManualClock,
    pub peer_url: String,
    peer: Arc<Mutex<Peer>>,
    service: Service,
    tokens: BTreeMap<String, String>,
    folder: PathBuf,
    runtime: Runtime,
}

/// What came back, and what reached the other end meanwhile.
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub seen: Vec<Vec<u8>>,
}

impl World {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let name = format!("portcullis_fuzz_{:032x}", u128::from_be_bytes(random_bytes::<16>()));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let clock = ManualClock::at(Timestamp::from_unix(START));
        let peer = Arc::<Mutex<Peer>>::default();
        let (app, peer_url, tokens) =
            runtime.block_on(assemble(&folder, Clock::Manual(clock.clone()), Arc::clone(&peer)));
        let service = Service::public(app.clone());
        Self { app, clock, peer_url, peer, service, tokens, folder, runtime }
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An access token for the resource at `path`.
    pub fn token(&self, path: &str) -> &str {
        &self.tokens[path]
    }

    /// Answers a request as the server would that has read it from the wire.
    pub fn send(&self, request: Request<Body>) -> Answered {
        self.peer().seen.clear();
        let exchange = async {
            let (parts, body) = self.service.answer(request).await.into_parts();
            (parts, body.collect().await.map(Collected::to_bytes).unwrap_or_default())
        };
        let (parts, body) = self.block_on(exchange);
        // Handlers that panic are answered for.
        assert_ne!(parts.status, StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours");
        let seen = std::mem::take(&mut self.peer().seen);
        Answered { status: parts.status, headers: parts.headers, body, seen }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn assemble(
    folder: &Path,
    clock: Clock,
    peer: Arc<Mutex<Peer>>,
) -> (App, String, BTreeMap<String, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer_url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(listen(listener, peer));
    let database = format!("sqlite://{}/portcullis.db", folder.display());
    let text = config(&database, &peer_url);
    let config = Config::load(Some((Path::new("fuzz.toml"), text)), &BTreeMap::new());
    let config = config.unwrap_or_else(|problems| panic!("{problems}")).config;
    let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes().to_vec());
    let storage = Storage::open(&database, key.as_deref()).await.expect("a database");
    let app = App::new(config, clock, storage).await.expect("a server");
    let mut tokens = BTreeMap::new();
    for path in ["/mcp", "/open", "/sse"] {
        let resource = format!("{PUBLIC_URL}{path}");
        let grant_id = grant(&app, &resource).await;
        let scopes = ScopeSet::parse("read").expect("a scope");
        let new = NewToken {
            grant_id: &grant_id,
            subject: "oidc:fuzz",
            resource: &resource,
            client_id: CLIENT_ID,
            scopes: &scopes,
            alg: TokenAlg::EdDsa,
            expires_at: Timestamp::from_unix(START + 600),
        };
        tokens.insert(path.to_owned(), app.keys().mint(&new, app.clock()).expect("a token"));
    }
    (app, peer_url, tokens)
}

/// A login that ended well, and its code redeemed.
async fn grant(app: &App, resource: &str) -> String {
    let (now, scopes) = (app.now(), ScopeSet::parse("read").expect("a scope"));
    let later = now.plus(std::time::Duration::from_hours(1));
    let event = || AuditEvent::new("code_issued", Actor::Server, app.clock());
    let code = Secret::<AuthorizationCode>::generate(&new_id(app.clock()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, VERIFIER.as_bytes());
    let request = AuthorizationRequest {
        client_id: CLIENT_ID.to_owned(),
        redirect_uri: REDIRECT_URI.to_owned(),
        state: None,
        code_challenge: base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            digest,
        ),
        resource: resource.to_owned(),
        scopes: scopes.clone(),
        unknown_scopes: String::new(),
        upstream: std::collections::BTreeSet::new(),
        account: None,
        trace: None,
    };
    let email = "anne@example.com".to_owned();
    let session = SessionUpdate {
        upstream: "oidc".to_owned(),
        issuer: app.config().upstream.issuer.clone(),
        subject: "fuzz".to_owned(),
        claim_sub: None,
        sign_outs_before: 0,
        sid: None,
        person: Person {
            name: Some(NAME.to_owned()),
            email: Some(email.clone()),
            facts: Facts {
                subject: "fuzz".to_owned(),
                email: Some(Email { address: email, verified: true }),
                ..Facts::default()
            },
        },
        tokens: UpstreamTokens { access_token: "upstream".to_owned(), ..UpstreamTokens::default() },
    };
    let new = NewCode {
        code: &code,
        request: &request,
        scopes: &scopes,
        subject: "oidc:fuzz",
        expires_at: later,
    };
    app.storage().finish_login(&session, &new, now, event()).await.expect("a login");
    let terms = GrantTerms {
        absolute: std::time::Duration::from_hours(1),
        idle: std::time::Duration::from_hours(1),
        attempts: 5,
        per_client: 100,
        per_person: 100,
        from: None,
    };
    let attempt = Redemption {
        client_id: CLIENT_ID,
        redirect_uri: Some(REDIRECT_URI),
        code_verifier: Some(VERIFIER),
        resource: Some(resource),
        policy: None,
    };
    let refresh = Secret::<RefreshToken>::generate(&new_id(app.clock()));
    let exchange = CodeExchange { code: &code, attempt, refresh_token: &refresh, terms };
    let redeemed = app.storage().redeem_code(&exchange, now, event()).await;
    match redeemed.expect("a database") {
        Redeemed::First(grant) => grant.grant_id,
        Redeemed::Refused(reason) => panic!("{reason}"),
    }
}

fn config(database: &str, peer: &str) -> String {
    format!(
        r#"
public_url   = "{PUBLIC_URL}"
listen       = "127.0.0.1:8000"
database_url = "{database}"
secret_key   = "a test key that is long enough to be one, 0123456789"

[upstream]
provider      = "oidc"
name          = "the provider"
issuer        = "{peer}"
client_id     = "portcullis"
client_secret = "a secret of ours at the provider"

[[resource]]
path      = "/mcp"
target    = "{peer}/base/mcp"
scopes    = ["read", "purge"]
token_alg = "EdDSA"

[resource.tools]
"purge-todos" = ["purge"]

[[resource]]
path      = "/open"
target    = "{peer}/base/open"
scopes    = ["read"]
token_alg = "EdDSA"

[[resource]]
path      = "/sse"
target    = "{peer}/base/sse"
transport = "http+sse"
scopes    = ["read"]
token_alg = "EdDSA"

[limits]
request_rates = false
"#
    )
}

async fn listen(listener: TcpListener, peer: Arc<Mutex<Peer>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let peer = Arc::clone(&peer);
        tokio::spawn(async move { answer(stream, &peer).await });
    }
}

/// Reads requests until the connection ends, each as its own head says.
async fn answer(mut stream: TcpStream, peer: &Mutex<Peer>) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut read = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = length_of(&read) {
                break length;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let request: Vec<u8> = read.drain(..length).collect();
        let (status, body) = {
            let mut peer = peer.lock().unwrap_or_else(PoisonError::into_inner);
            let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let target = String::from_utf8_lossy(line);
            let target = target.split(' ').nth(1).unwrap_or_default();
            let path = target.split('?').next().unwrap_or_default();
            let answer = peer.answers.get(path).cloned().unwrap_or_else(|| (200, b"{}".to_vec()));
            peer.seen.push(request);
            answer
        };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

/// How long the first request in `read` is; `None` while it has not come whole.
fn length_of(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        let end = read[head..].windows(5).position(|five| five == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let length =
        text.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length = length.map_or(0, |length| length.parse::<usize>().expect("a length"));
    (read.len() >= head + length).then_some(head + length)
}
