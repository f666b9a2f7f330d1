//! Fetching what a stranger names: threats CI-01 to CI-03.
//!
//! We resolve the name ourselves, look at every address, and open the connection to the address that
//! was looked at: a name that resolves differently a moment later changes nothing. TLS is verified
//! for the name. No redirects, no cookies, no reuse of connections, and bounds on time and size.
//!
//! Through a proxy, where an administrator asks for that, the proxy resolves the name, and the addresses
//! are its business: what is left of the guard is the name itself ([`WebUrl`]: no addresses, no local
//! names, port 443), TLS for the name, and the bounds.

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

use super::address::PublicAddress;
use super::proxy::Ways;
use super::{freshness, tls};
use crate::config::{LoopbackHosts, Proxies};
use crate::oauth::web_url::WebUrl;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Largest header section of an answer, and most headers in it.
const MAX_HEADERS: (usize, usize) = (16 * 1024, 64);

/// How long a fetch may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// To a connection, for each address.
    connect: Duration,
    /// From the name to the last byte.
    total: Duration,
}

/// The longest time of a fetch.
pub const LONGEST_FETCH: Duration = Duration::from_secs(5);

const TIMES: Times = Times { connect: Duration::from_secs(2), total: LONGEST_FETCH };

/// Why a fetch brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// One of its addresses is not public; nothing was opened.
    #[error("its host has an address that is not public")]
    ForbiddenAddress,
    /// No such name, or the resolver does not answer.
    #[error("its host has no address")]
    NoAddress,
    /// No connection, no TLS, or it broke.
    #[error("there was no connection: {0}")]
    Connection(String),
    /// Not done in time.
    #[error("it was not answered in time")]
    Timeout,
    /// Another status than 200; a redirect is one.
    #[error("it was answered with status {0}")]
    Status(u16),
    /// Not JSON, or compressed.
    #[error("it was not answered with plain JSON")]
    NotJson,
    /// Larger than allowed.
    #[error("the answer is too large")]
    TooLarge,
}

impl FetchError {
    /// Whether no server has answered. Why not says something of our network: a stranger must not be able to
    /// tell a name that leads inside from one that nobody has.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::ForbiddenAddress | Self::NoAddress | Self::Connection(_) | Self::Timeout => true,
            Self::Status(_) | Self::NotJson | Self::TooLarge => false,
        }
    }
}

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The whole body, within the limit.
    pub body: Vec<u8>,
    /// How long its headers let it be kept; `None` when they do not say.
    pub lifetime: Option<Duration>,
}

/// Fetches JSON from public addresses. Cheap to clone.
#[derive(Clone)]
pub struct GuardedClient {
    network: Arc<Network>,
    tls: TlsConnector,
    times: Times,
    ways: Ways,
}

impl GuardedClient {
    /// A client of the public internet, through these proxies if there are any, and of `loopback` where a
    /// test asks for it.
    pub fn new(loopback: &LoopbackHosts, proxies: Option<&Proxies>) -> Self {
        let network = Network::System { named: loopback.hosts.clone() };
        Self {
            network: Arc::new(network),
            tls: trusting(&loopback.authority),
            times: TIMES,
            ways: proxies.map(Ways::of).unwrap_or_default(),
        }
    }

    /// Gets the JSON at `url`, at most `limit` bytes of it.
    pub async fn get_json(&self, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError> {
        tokio::time::timeout(self.times.total, self.exchange(url, limit))
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    async fn exchange(&self, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError> {
        let place = format!("https://{}/", url.host()).parse().map_err(broken)?;
        if let Some(hop) = self.ways.through(&place) {
            let to_proxy = super::connector(self.times.connect);
            let stream = hop.open(to_proxy, self.times.total).await.map_err(broken)?;
            return self.secured(TokioIo::new(stream), url, limit).await;
        }
        let stream = self.connect(url.host()).await?;
        self.secured(stream, url, limit).await
    }

    async fn secured<S>(&self, stream: S, url: &WebUrl, limit: usize) -> Result<Fetched, FetchError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let name = ServerName::try_from(url.host().to_owned()).map_err(broken)?;
        let stream = self.tls.connect(name, stream).await.map_err(broken)?;
        converse(stream, url, limit).await
    }

    /// A connection to an address that was looked at. One closed address among several is enough to
    /// refuse them all: whoever mixes them is trying something.
    async fn connect(&self, host: &str) -> Result<TcpStream, FetchError> {
        if let Some(address) = self.network.loopback(host) {
            return self.within(TcpStream::connect(address)).await;
        }
        let found = self.network.resolve(host).await?;
        let addresses: Option<Vec<PublicAddress>> = found
            .into_iter()
            .map(|address| PublicAddress::check(SocketAddr::new(address, 443)))
            .collect();
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

/// Asks for `url` over a connection that stands, and reads at most `limit` bytes of the answer. Open for the
/// fuzz targets alone: behind TLS, a tenth of a percent of their time would be left for the answer.
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
    // Dropped at the end of this function, and the connection with it.
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

/// The way to other machines.
enum Network {
    /// The system's resolver and sockets.
    System {
        /// What names mean, before the resolver is asked; empty but in tests. One on loopback is dialled
        /// as it is; any other is what the name resolves to, and is looked at like any address.
        named: BTreeMap<String, SocketAddr>,
    },
    /// A stage: names resolve as a test says, and every address dialled is written down.
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

    async fn dial(&self, address: PublicAddress) -> std::io::Result<TcpStream> {
        match self {
            Self::System { .. } => TcpStream::connect(address.socket()).await,
            #[cfg(test)]
            Self::Staged(stage) => stage.dial(address.socket()).await,
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

/// `application/json` or `…+json`, and not compressed: what is counted is what is read.
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
