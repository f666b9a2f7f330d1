//! https targets: private authorities, client certificates, and connections that come to nothing.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis::app::Reloaded;
use portcullis::oauth::secret::random_text;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::backend::{Backend, post, request, tokens};
use crate::harness::client::Tokens;
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, logs};

/// A certificate authority with a folder for its files.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    root: rustls::pki_types::CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = std::env::temp_dir().join(format!("portcullis_target_{}", random_text()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let root = certificate.der().clone();
        Self { folder, issuer: Issuer::new(params, key), root }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes a certificate for a host or a client, and writes it and its key as `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, host: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// Starts an MCP server for `host`; with `clients`, it demands a certificate of that authority.
    async fn serve(&self, host: &str, clients: Option<&Self>) -> (String, Arc<AtomicUsize>) {
        let (certificate, key) = self.issue("server", host);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.root.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (acceptor, calls) = (TlsAcceptor::from(Arc::new(config)), Arc::default());
        tokio::spawn(answer_all(listener, acceptor, Arc::clone(&calls)));
        (url, calls)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn answer_all(listener: TcpListener, acceptor: TlsAcceptor, calls: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, calls) = (acceptor.clone(), Arc::clone(&calls));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |_: Request<Incoming>| {
                calls.fetch_add(1, Ordering::SeqCst);
                let text = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
                let response = Response::builder().header("content-type", "application/json");
                let response =
                    response.header("connection", "close").body(Full::new(Bytes::from(text)));
                async move { Ok::<_, Infallible>(response.unwrap()) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn behind(target: &str, extra: &str) -> TestApp {
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\nname = \"Files\"\ntarget = \"{target}/mcp\"\nscopes = [\"read\"]\n{extra}\n"
    );
    TestApp::with(Setup::toml(resources)).await
}

async fn call(app: &TestApp, tokens: &Tokens) -> Answer {
    post(app, tokens, &[], &request("tools/call", &json!({ "name": "look" }))).await
}

/// What the client reads: that there is no way, and nothing about the target.
#[track_caller]
fn assert_tells_nothing(answer: &Answer) {
    let text = answer.assert_status(502).text();
    assert!(text.contains("The MCP server cannot be reached"), "{text}");
    for word in ["certificate", "127.0.0.1", "https", "tls", "alert"] {
        assert!(!text.to_lowercase().contains(word), "{word}: {text}");
    }
}

/// The page for administrators, and the log lines about this target.
async fn told(app: &TestApp, target: &str) -> (String, String) {
    let alice = Console::admin(app).signed_in(app, "alice").await;
    let log = logs::all();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(target)).collect();
    (alice.page("/").await, lines.join("\n"))
}

#[tokio::test]
async fn gw_44_only_the_named_authority_is_trusted_and_a_foreign_one_is_named_to_administrators() {
    let (own, other) = (Authority::new(), Authority::new());
    let (url, calls) = own.serve("127.0.0.1", None).await;

    let app = behind(&url, &format!("ca = {:?}", own.path("ca.pem"))).await;
    let (_, tokens) = tokens(&app, "alice").await;
    call(&app, &tokens).await.assert_status(200);
    app.check_targets().await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    // With another authority, with that of the system, and with another name in the certificate.
    let (misnamed, misnamed_calls) = own.serve("elsewhere.example", None).await;
    for (target, ca) in [
        (&url, format!("ca = {:?}", other.path("ca.pem"))),
        (&url, String::new()),
        (&misnamed, format!("ca = {:?}", own.path("ca.pem"))),
    ] {
        let app = behind(target, &ca).await;
        let (_, tokens) = self::tokens(&app, "alice").await;
        assert_tells_nothing(&call(&app, &tokens).await);
        let (page, log) = told(&app, target).await;
        let warned = format!("<code>{target}/mcp</code> (its certificate is not trusted (ca))");
        assert!(page.contains(&warned), "{ca}: {page}");
        assert!(log.contains("its certificate is not trusted; name the authority in ca"), "{log}");
        let failures = app.metrics().await;
        let series = format!(
            "portcullis_target_failures_total{{path=\"/mcp\",target=\"{target}\",class=\"certificate\"}}"
        );
        assert!((failures[&series] - 1.0).abs() < 0.1);
    }
    assert_eq!(calls.load(Ordering::SeqCst) + misnamed_calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_target_that_demands_a_certificate_gets_it_and_refusals_are_named() {
    let (own, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (url, calls) = own.serve("127.0.0.1", Some(&clients)).await;
    clients.issue("client", "portcullis.example");
    others.issue("client", "portcullis.example");
    let identity = |authority: &Authority| {
        format!(
            "ca = {:?}\nclient_cert = {:?}\nclient_key = {:?}",
            own.path("ca.pem"),
            authority.path("client.pem"),
            authority.path("client.key")
        )
    };

    let app = behind(&url, &identity(&clients)).await;
    let (_, tokens) = tokens(&app, "alice").await;
    call(&app, &tokens).await.assert_status(200);
    app.check_targets().await;
    let (page, _) = told(&app, &url).await;
    assert!(page.contains("Nothing needs attention."), "{page}");

    for extra in [identity(&others), format!("ca = {:?}", own.path("ca.pem"))] {
        let app = behind(&url, &extra).await;
        app.check_targets().await;
        let (page, _) = told(&app, &url).await;
        assert!(page.contains("it does not accept our certificate (client_cert)"), "{page}");
        let (_, tokens) = self::tokens(&app, "alice").await;
        assert_tells_nothing(&call(&app, &tokens).await);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn new_certificates_are_taken_over_when_their_files_change() {
    let (own, clients, next) = (Authority::new(), Authority::new(), Authority::new());
    let (url, calls) = own.serve("127.0.0.1", Some(&next)).await;
    clients.issue("client", "portcullis.example");
    let keys = format!(
        "ca = {:?}\nclient_cert = {:?}\nclient_key = {:?}",
        own.path("ca.pem"),
        clients.path("client.pem"),
        clients.path("client.key")
    );
    let app = behind(&url, &keys).await;
    let (_, tokens) = tokens(&app, "alice").await;
    assert_tells_nothing(&call(&app, &tokens).await);
    assert_eq!(app.reload().await, Reloaded::Unchanged);

    // Half a pair changes nothing: the other file is not there yet.
    next.issue("client", "portcullis.example");
    fs::copy(next.path("client.pem"), clients.path("client.pem")).unwrap();
    assert_eq!(app.reload().await, Reloaded::Invalid);
    fs::copy(next.path("client.key"), clients.path("client.key")).unwrap();
    let Reloaded::Applied { changed, waiting } = app.reload().await else { panic!() };
    assert_eq!(changed, ["resource[0].client_cert", "resource[0].client_key"]);
    assert!(waiting.is_empty());
    call(&app, &tokens).await.assert_status(200);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    // So does the authority.
    fs::copy(clients.path("ca.pem"), own.path("ca.pem")).unwrap();
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    assert_tells_nothing(&call(&app, &tokens).await);
}

#[tokio::test]
async fn a_target_whose_tls_hangs_costs_connect_timeout_and_the_call_goes_to_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and says nothing
    let hangs = format!("https://{}", listener.local_addr().unwrap());
    let plain = Backend::start().await;
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntargets = [\"{hangs}/mcp\", \"{}/mcp\"]\nscopes = [\"read\"]\nconnect_timeout = \"1s\"\n",
        plain.url
    );
    let app = TestApp::with(Setup::toml(resources)).await;
    let (_, tokens) = tokens(&app, "alice").await;

    for _ in 0..3 {
        assert_eq!(call(&app, &tokens).await.assert_status(200).status, StatusCode::OK);
    }

    assert_eq!(plain.take().len(), 3);
    let series = format!(
        "portcullis_target_failures_total{{path=\"/mcp\",target=\"{hangs}\",class=\"connect_timeout\"}}"
    );
    assert!((app.metrics().await[&series] - 1.0).abs() < 0.1, "and once only");
}
