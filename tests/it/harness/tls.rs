//! TLS in front of the server: an authority that issues certificates, and a client that believes it alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Setup, TestApp, raw};

/// The host of every test with TLS.
pub(crate) const HOST: &str = "mcp.example";

/// A certificate authority.
pub(crate) struct CertificateAuthority {
    /// Its own certificate, as PEM.
    pub pem: String,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub chain: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Pair {
    /// Writes both into a folder, as `cert.pem` and `key.pem`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("cert.pem"), &self.chain).unwrap();
        let key = folder.join("key.pem");
        std::fs::write(&key, &self.key).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

impl CertificateAuthority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let (pem, root) = (own.pem(), own.der().clone());
        Self { pem, root, issuer: Issuer::new(params, key) }
    }

    /// A certificate for the host of every test, valid for all years that tests know.
    pub(crate) fn issue(&self) -> Pair {
        self.issue_for(&[HOST], (2020, 2040))
    }

    pub(crate) fn issue_for(&self, names: &[&str], years: (i32, i32)) -> Pair {
        self.issue_between(names, (years.0, 1, 1), (years.1, 1, 1))
    }

    /// The same, valid from one day to another: year, month and day.
    pub(crate) fn issue_between(
        &self,
        names: &[&str],
        from: (i32, u8, u8),
        to: (i32, u8, u8),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// A client that believes this authority, and offers these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> TlsConnector {
        self.client_of(protocols, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub(crate) fn client_of(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        client_that_believes(&self.root, protocols, versions)
    }

    /// A client for which it is always this moment, in seconds since 1970.
    pub(crate) fn client_at(&self, protocols: &[&str], moment: u64) -> TlsConnector {
        let mut config = believing(&self.root, protocols, &[&rustls::version::TLS13]);
        let moment = UnixTime::since_unix_epoch(Duration::from_secs(moment));
        config.time_provider = Arc::new(Moment(moment));
        TlsConnector::from(Arc::new(config))
    }
}

/// A clock that stands still.
#[derive(Debug)]
struct Moment(UnixTime);

impl TimeProvider for Moment {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// A client that believes this authority alone.
pub(crate) fn client_that_believes(
    root: &CertificateDer<'static>,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> TlsConnector {
    TlsConnector::from(Arc::new(believing(root, protocols, versions)))
}

fn believing(
    root: &CertificateDer<'static>,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    // Each connection shows the certificate: none is resumed.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// A setup with `[tls]` and files in this folder.
pub(crate) fn with_files(folder: &Path) -> Setup {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    Setup::toml(format!("public_url = \"https://{HOST}\"")).and(format!(
        "[tls]\ncert = {:?}\nkey = {:?}",
        path("cert.pem"),
        path("key.pem")
    ))
}

/// A folder of its own, which is removed at the end.
pub(crate) struct Folder(std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("portcullis-tls-{}", portcullis::oauth::secret::random_text());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Connects by TLS to the public listener, as to the host of every test.
pub(crate) async fn connect(app: &TestApp, client: &TlsConnector) -> TlsStream<TcpStream> {
    try_connect(&app.origin, client).await.unwrap()
}

/// The same to the listener at this URL, which may refuse.
pub(crate) async fn try_connect(
    url: &str,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(HOST, raw::host(url), client).await
}

/// The same by any name, to an address.
pub(crate) async fn connect_as(
    name: &'static str,
    address: &str,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from(name).unwrap(), stream).await
}

/// The certificate that the server showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// A connection that is kept, with either protocol.
pub(crate) enum Kept {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Kept {
    /// Speaks the protocol that the handshake agreed on.
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(&b"h2"[..]);
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            return Self::Two(sender);
        }
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::One(sender)
    }

    /// Status, headers and body of a GET.
    pub(crate) async fn get(&mut self, path: &str) -> (u16, hyper::HeaderMap, String) {
        let request = |uri: String| {
            Request::get(uri).header("host", HOST).body(Empty::<Bytes>::new()).unwrap()
        };
        let answer: hyper::Response<Incoming> = match self {
            Self::One(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request(path.to_owned())).await.unwrap()
            }
            Self::Two(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request(format!("https://{HOST}{path}"))).await.unwrap()
            }
        };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
    }
}
