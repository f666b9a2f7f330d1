//! Websites that publish documents and keys, over real TLS: many names, one listener on loopback, and
//! an authority of its own that vouches for them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portcullis::oauth::secret::random_text;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::Setup;

/// What stands at a URL.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Page {
    pub(crate) fn json(json: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status: 200, headers, body: json.to_string() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Default)]
struct Site {
    pages: BTreeMap<String, Page>,
    requests: Vec<String>,
}

pub(crate) struct Publisher {
    address: SocketAddr,
    hosts: Vec<String>,
    authority: PathBuf,
    site: Arc<Mutex<Site>>,
    task: JoinHandle<()>,
}

impl Publisher {
    pub(crate) async fn start(hosts: &[&str]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let (authority, config) = certified(&hosts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let site = Arc::new(Mutex::new(Site::default()));
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), site.clone()));
        Self { address, hosts, authority, site, task }
    }

    /// The tables that let a test's server read from here.
    pub(crate) fn setup(&self, more: &str) -> Setup {
        let hosts: Vec<String> =
            self.hosts.iter().map(|host| format!("\"{host}\" = \"{}\"", self.address)).collect();
        let tables = format!(
            "[client_documents]\nunsafe_loopback_hosts = {{ {} }}\nunsafe_loopback_authority = {:?}\n{more}",
            hosts.join(", "),
            self.authority.to_str().unwrap(),
        );
        Setup::toml(tables)
    }

    /// The same for a server that finds the way here by itself: no name is led here, and the authority
    /// alone is believed.
    pub(crate) fn setup_by_name(&self, more: &str) -> Setup {
        let tables = format!(
            "[client_documents]\nunsafe_loopback_authority = {:?}\n{more}",
            self.authority.to_str().unwrap(),
        );
        Setup::toml(tables)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file of the authority that vouches for it.
    pub(crate) fn authority(&self) -> &str {
        self.authority.to_str().unwrap()
    }

    pub(crate) fn publish(&self, url: &str, json: &Value) {
        self.answer(url, Page::json(json));
    }

    pub(crate) fn answer(&self, url: &str, page: Page) {
        self.site.lock().unwrap().pages.insert(url.to_owned(), page);
    }

    pub(crate) fn requests_to(&self, url: &str) -> usize {
        self.site.lock().unwrap().requests.iter().filter(|asked| *asked == url).count()
    }

    pub(crate) fn requests(&self) -> usize {
        self.site.lock().unwrap().requests.len()
    }

    /// From now on nobody answers here.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.authority);
    }
}

/// Makes a certificate for these hosts; returns the file of the authority that vouches for it.
pub(crate) fn certified(hosts: &[String]) -> (PathBuf, rustls::ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let name = format!("portcullis-authority-{}.pem", random_text());
    let authority = std::env::temp_dir().join(name);
    std::fs::write(&authority, certificate.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(hosts.to_vec()).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
        )
        .unwrap();
    (authority, config)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, site: Arc<Mutex<Site>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, site) = (acceptor.clone(), Arc::clone(&site));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&site, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(site: &Mutex<Site>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let names: Vec<&str> =
        request.headers().keys().map(hyper::header::HeaderName::as_str).collect();
    // No cookies, no credentials, nothing about who asks: CIMD-23.
    assert!(names.iter().all(|name| ["host", "accept", "user-agent"].contains(name)), "{names:?}");
    let host = request.headers()["host"].to_str().unwrap();
    let url = format!("https://{host}{}", request.uri());
    let mut site = site.lock().unwrap();
    let page = site.pages.get(&url).cloned().unwrap_or_else(|| Page::status(404));
    site.requests.push(url);
    let mut response = Response::builder().status(page.status);
    for (name, value) in &page.headers {
        response = response.header(*name, value);
    }
    response.body(Full::new(Bytes::from(page.body))).unwrap()
}
