//! Fetches URLs that a stranger names: threats CI-01 to CI-03. Sends notifications to URLs and mail servers that
//! an administrator named, with the same guard ([`outgoing`], threat NT-01).
//!
//! The client resolves the name itself, checks every address, and connects to an address that it checked: so
//! DNS rebinding has no effect. It verifies TLS for the name. It follows no redirects, sends no cookies,
//! reuses no connections, and limits time and size.
//!
//! If an administrator configured a proxy for these fetches, the proxy resolves the name and chooses the
//! address. Then the only checks left are those of the name ([`WebUrl`]: no IP addresses, no local names,
//! port 443), TLS for that name, and the limits.

pub mod outgoing;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::PublicAddress;
use super::proxy::Ways;
use super::{freshness, tls};
use crate::config::{LoopbackHosts, Proxies};
use crate::oauth::web_url::WebUrl;

/// Most addresses of one name that are tried. They are tried one after the other.
const MAX_ADDRESSES: usize = 4;
/// Largest header section of a response in bytes, and most headers in it.
const MAX_HEADERS: (usize, usize) = (16 * 1024, 64);

/// The timeouts of a fetch.
#[derive(Clone, Copy, Debug)]
struct FetchTimeouts {
    /// For connecting to one address.
    connect: Duration,
    /// For the whole fetch, from name resolution to the last byte.
    total: Duration,
}

/// Timeout of a whole fetch.
pub const LONGEST_FETCH: Duration = Duration::from_secs(5);

/// The timeouts of every fetch outside tests.
const TIMES: FetchTimeouts =
    FetchTimeouts { connect: Duration::from_secs(2), total: LONGEST_FETCH };

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// One of the host's addresses is not public. Nothing was connected to.
    #[error("its host has an address that is not public")]
    ForbiddenAddress,
    /// The name does not exist, or the resolver failed.
    #[error("its host has no address")]
    NoAddress,
    /// TCP or TLS could not connect, or the connection broke.
    #[error("there was no connection: {0}")]
    Connection(String),
    /// The fetch did not finish in time.
    #[error("it was not answered in time")]
    Timeout,
    /// The status is not 200; redirects count too.
    #[error("it was answered with status {0}")]
    Status(u16),
    /// The response is not JSON, or it is compressed.
    #[error("it was not answered with plain JSON")]
    NotJson,
    /// The response is larger than allowed.
    #[error("the answer is too large")]
    TooLarge,
}

impl FetchError {
    /// Whether no HTTP response came. The reason would reveal something about our network: a stranger must
    /// not be able to tell a name that resolves to an internal address from one that does not exist.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::ForbiddenAddress | Self::NoAddress | Self::Connection(_) | Self::Timeout => true,
            Self::Status(_) | Self::NotJson | Self::TooLarge => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Fetched {
    /// The whole body, within the limit.
    pub body: Vec<u8>,
    /// How long its headers allow it to be cached; `None` if they do not say.
    pub lifetime: Option<Duration>,
}

/// Fetches JSON from public addresses. Cheap to clone.
#[derive(Clone)]
pub struct GuardedClient {
    network: Arc<Network>,
    tls: TlsConnector,
    times: FetchTimeouts,
    ways: Ways,
}

impl GuardedClient {
    /// Creates a client for public addresses. It uses `proxies`, if given. Tests can reach `loopback` hosts
    /// too.
    pub fn new(loopback: &LoopbackHosts, proxies: Option<&Proxies>) -> Self {
        let network = Network::System { named: loopback.hosts.clone() };
        Self {
            network: Arc::new(network),
            tls: trusting(&loopback.authority),
            times: TIMES,
            ways: proxies.map(Ways::of).unwrap_or_default(),
        }
    }

    /// Fetches the JSON document at `url`. Fails if it is larger than `limit` bytes.
    pub async fn get_json(&self, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError> {
        tokio::time::timeout(self.times.total, self.exchange(url, limit))
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    async fn exchange(&self, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError> {
        let origin = format!("https://{}/", url.host()).parse().map_err(broken)?;
        if let Some(hop) = self.ways.through(&origin) {
            let to_proxy = super::connector(self.times.connect);
            let stream = hop.open(to_proxy, self.times.total).await.map_err(broken)?;
            return self.secured(TokioIo::new(stream), url, limit).await;
        }
        let stream = self.open(url.host(), 443, Reach::Public).await?;
        self.secured(stream, url, limit).await
    }

    async fn secured<S>(&self, stream: S, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        converse(self.protect(url.host(), stream).await?, url, limit).await
    }

    /// Starts TLS over an open connection, and verifies the certificate for `host`.
    async fn protect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(broken)?;
        self.tls.connect(name, stream).await.map_err(broken)
    }

    /// Connects to a checked address. If any address of the name may not be reached, all are refused: a name
    /// that mixes them is an attack.
    async fn open(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, FetchError> {
        if let Some(address) = self.network.loopback(host) {
            return self.within(TcpStream::connect(address)).await;
        }
        let found = self.network.resolve(host).await?;
        let addresses: Option<Vec<SocketAddr>> =
            found.into_iter().map(|address| reach.admit(SocketAddr::new(address, port))).collect();
        let addresses = addresses.ok_or(FetchError::ForbiddenAddress)?;
        let mut failed = FetchError::NoAddress;
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match self.within(self.network.dial(address)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn within(
        &self,
        connecting: impl Future<Output = std::io::Result<TcpStream>>,
    ) -> Result<TcpStream, FetchError> {
        tokio::time::timeout(self.times.connect, connecting)
            .await
            .map_err(|_| FetchError::Timeout)?
            .map_err(broken)
    }
}

/// Requests `url` over an open connection, and reads at most `limit` bytes of the response. Public for the
/// fuzz targets only: through TLS they would spend all but 0.1 % of their time on encryption.
#[doc(hidden)]
pub async fn converse<S>(stream: S, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEADERS.0)
        .max_headers(MAX_HEADERS.1)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // The task is aborted at the end of this function, which closes the connection.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(url.target())
        .header(header::HOST, url.host())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "portcullis")
        .body(Empty::new())
        .map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    if !is_plain_json(answer.headers()) {
        return Err(FetchError::NotJson);
    }
    let lifetime = freshness::lifetime(answer.headers());
    if answer.body().size_hint().lower() > limit as u64 {
        return Err(FetchError::TooLarge);
    }
    let body = Limited::new(answer.into_body(), limit).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLarge
        } else {
            FetchError::Connection(error.to_string())
        }
    })?;
    Ok(Fetched { body: body.to_bytes().to_vec(), lifetime })
}

/// Which addresses a connection may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public internet.
    Public,
    /// Any: an administrator allowed it for this target.
    Anywhere,
}

impl Reach {
    /// Returns the address if it may be connected to.
    fn admit(self, address: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Public => PublicAddress::check(address).map(PublicAddress::socket),
            Self::Anywhere => Some(address),
        }
    }
}

/// Resolves names and connects.
enum Network {
    /// The system's resolver and sockets.
    System {
        /// Addresses of names, used before the resolver is asked; empty except in tests. A loopback address
        /// is connected to directly. Any other one is checked as if the resolver had returned it.
        named: BTreeMap<String, SocketAddr>,
    },
    /// For tests: names resolve as the test says, and every address that is connected to is recorded.
    #[cfg(test)]
    Staged(Arc<tests::Stage>),
}

impl Network {
    fn loopback(&self, host: &str) -> Option<SocketAddr> {
        match self {
            Self::System { named } => {
                named.get(host).copied().filter(|address| address.ip().is_loopback())
            }
            #[cfg(test)]
            Self::Staged(_) => None,
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, FetchError> {
        match self {
            Self::System { named } => match named.get(host) {
                Some(address) => Ok(vec![address.ip()]),
                None => tokio::net::lookup_host((host, 443))
                    .await
                    .map(|found| found.map(|address| address.ip()).collect())
                    .map_err(|_| FetchError::NoAddress),
            },
            #[cfg(test)]
            Self::Staged(stage) => Ok(stage.resolve(host)),
        }
    }

    async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        match self {
            Self::System { .. } => TcpStream::connect(address).await,
            #[cfg(test)]
            Self::Staged(stage) => stage.dial(address).await,
        }
    }
}

fn trusting(authority: &[u8]) -> TlsConnector {
    let config = if authority.is_empty() { tls::of_the_system() } else { tls::of(authority) };
    TlsConnector::from(Arc::new(config))
}

fn broken(error: impl std::error::Error + 'static) -> FetchError {
    FetchError::Connection(super::innermost(&error))
}

/// Whether the response is `application/json` or `…+json`, and not compressed: decompression could exceed the
/// size limit.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    let plain = text(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.trim().eq_ignore_ascii_case("identity"));
    json && plain
}

#[cfg(test)]
mod tests;
