//! The servers around the one under load: an identity provider that signs everybody in at once, each time another
//! person unless told otherwise, and an MCP server that answers everything at once. Neither remembers anything, so
//! that neither is what is measured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::http::{Failure, Http, encode};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the identity provider listens; its issuer is http:// and this
    #[arg(long, default_value = "127.0.0.1:9100")]
    provider: SocketAddr,
    /// Where the MCP server listens, at /mcp
    #[arg(long, default_value = "127.0.0.1:9200")]
    backend: SocketAddr,
    /// Sign in the same person each time, not another one
    #[arg(long)]
    one_person: bool,
    /// URL of the admin interface of an Ory Hydra, for which the provider also answers /hydra/login and
    /// /hydra/consent: yes to both, at once
    #[arg(long)]
    hydra: Option<String>,
}

struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    people: AtomicU64,
    one_person: bool,
    /// The same for everybody: only the ID token says who it is.
    access_token: String,
    hydra: Option<String>,
    http: Http,
}

type Body = Either<Full<Bytes>, Pending>;
type Pending = StreamBody<OneThenNothing>;

/// One event, and then an open stream that says nothing.
pub struct OneThenNothing(Option<Bytes>);

impl std::fmt::Debug for OneThenNothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneThenNothing")
    }
}

pub async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { provider, backend, one_person, hydra } = arguments;
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .and_then(|pkcs8| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
                .map_err(|_| aws_lc_rs::error::Unspecified)
        })
        .map_err(|_| "no key".to_owned())?;
    let issuer = format!("http://{provider}");
    let people = AtomicU64::new(0);
    let (access_token, http) = (String::new(), Http::new());
    let mut idp = Provider { issuer, key, people, one_person, access_token, hydra, http };
    idp.access_token = idp.sign(&json!({
        "iss": idp.issuer, "sub": "load", "aud": ["load", idp.issuer], "client_id": "load",
        "scope": "openid offline_access", "iat": now(), "exp": now() + 86_400, "jti": "load",
    }));
    let idp = Arc::new(idp);
    let one = listen(provider, move |request| {
        let idp = Arc::clone(&idp);
        async move { Response::map(idp.answer(request).await, Either::Left) }
    });
    let two = listen(backend, backend_answer);
    tokio::select! {
        done = one => done,
        done = two => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn listen<F, A>(address: SocketAddr, answer: F) -> Result<(), Failure>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.map_err(|e| format!("{address}: {e}"))?;
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn whole(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

fn redirect(to: &str) -> Response<Full<Bytes>> {
    let mut response = whole(302, "text/plain", "");
    if let Ok(to) = to.parse() {
        response.headers_mut().insert("location", to);
    }
    response
}

fn parameter(encoded: &[u8], name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(encoded);
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

impl Provider {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let json = |value: Value| whole(200, "application/json", value.to_string());
        let issuer = &self.issuer;
        match parts.uri.path() {
            "/.well-known/openid-configuration" => json(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "code_challenge_methods_supported": ["S256"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
            })),
            "/jwks" => {
                let point = self.key.public_key().as_ref();
                let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                json(json!({ "keys": [{
                    "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "load",
                    "x": b64(&point[1..33]), "y": b64(&point[33..65]),
                }] }))
            }
            "/authorize" => self.authorize(parts.uri.query().unwrap_or_default()),
            "/token" => json(self.token(&body)),
            "/hydra/login" => {
                let subject = format!("person-{}", self.next_person());
                let said = json!({ "subject": subject, "remember": false });
                self.accept("login", parts.uri.query().unwrap_or_default(), &said).await
            }
            "/hydra/consent" => {
                let said = json!({ "grant_scope": ["offline_access"], "remember": false });
                self.accept("consent", parts.uri.query().unwrap_or_default(), &said).await
            }
            "/userinfo" => json(json!({ "sub": "load", "name": "Load" })),
            _ => whole(404, "text/plain", "nothing here"),
        }
    }

    /// Straight back: the code carries all that the ID token will say.
    fn authorize(&self, query: &str) -> Response<Full<Bytes>> {
        let param = |name: &str| parameter(query.as_bytes(), name);
        let (nonce, client) = (param("nonce"), param("client_id").unwrap_or_default());
        let person = self.next_person();
        let code = json!([client, nonce, person]).to_string();
        let mut back = form_urlencoded::Serializer::new(String::new());
        back.append_pair("code", &URL_SAFE_NO_PAD.encode(code));
        if let Some(state) = param("state") {
            back.append_pair("state", &state);
        }
        redirect(&format!("{}?{}", param("redirect_uri").unwrap_or_default(), back.finish()))
    }

    fn next_person(&self) -> u64 {
        if self.one_person { 0 } else { self.people.fetch_add(1, Ordering::Relaxed) }
    }

    /// Accepts a challenge of Hydra (`login` or `consent`) and sends the browser where it says.
    async fn accept(&self, what: &str, query: &str, said: &Value) -> Response<Full<Bytes>> {
        match self.accepted(what, query, said).await {
            Ok(to) => redirect(&to),
            Err(failure) => whole(502, "text/plain", failure),
        }
    }

    async fn accepted(&self, what: &str, query: &str, said: &Value) -> Result<String, Failure> {
        let admin = self.hydra.as_deref().ok_or("started without --hydra")?;
        let name = format!("{what}_challenge");
        let challenge = parameter(query.as_bytes(), &name).ok_or("no challenge")?;
        let query = encode(&[(&name, &challenge)]);
        let url = format!("{admin}/admin/oauth2/auth/requests/{what}/accept?{query}");
        let kind = [("content-type", "application/json")];
        let answer = self.http.send("PUT", &url, &kind, said.to_string()).await?;
        let answer = answer.expect(&[200])?.json()?;
        answer["redirect_to"].as_str().map(str::to_owned).ok_or_else(|| answer.to_string())
    }

    fn token(&self, body: &[u8]) -> Value {
        let param = |name: &str| parameter(body, name);
        let said = param("code").or_else(|| param("refresh_token")).unwrap_or_default();
        let said = URL_SAFE_NO_PAD.decode(&said).unwrap_or_default();
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        let (client, nonce, person) = (&said[0], &said[1], &said[2]);
        let mut claims = json!({
            "iss": self.issuer, "aud": client, "sub": format!("person-{person}"),
            "name": "Somebody", "iat": now(), "exp": now() + 3600,
            "sid": format!("session-{person}"),
        });
        if !nonce.is_null() && param("code").is_some() {
            claims["nonce"] = nonce.clone();
        }
        let refresh = json!([client, nonce, person]).to_string();
        json!({
            "access_token": self.access_token,
            "id_token": self.sign(&claims),
            "refresh_token": URL_SAFE_NO_PAD.encode(refresh),
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "openid offline_access",
        })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "load" }).to_string();
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes());
        token.push('.');
        token.push_str(&signature.map(|s| URL_SAFE_NO_PAD.encode(s)).unwrap_or_default());
        token
    }
}

/// The MCP server: a POST is answered with one small result, a GET with an open stream.
async fn backend_answer(request: Request<Incoming>) -> Response<Body> {
    let is_get = request.method() == hyper::Method::GET;
    let _ = request.into_body().collect().await;
    if is_get {
        let first = Bytes::from_static(b": connected\n\n");
        let mut response =
            Response::new(Either::Right(StreamBody::new(OneThenNothing(Some(first)))));
        let kind = hyper::header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        return response;
    }
    let body = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"pong"}]}}"#;
    whole(200, "application/json", Bytes::from_static(body)).map(Either::Left)
}

impl futures_core::Stream for OneThenNothing {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.0.take() {
            Some(first) => std::task::Poll::Ready(Some(Ok(Frame::data(first)))),
            None => std::task::Poll::Pending, // until the other side goes
        }
    }
}
