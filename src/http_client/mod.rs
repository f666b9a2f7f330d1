//! The HTTP client for all outgoing requests except those to MCP servers: limited in time and size, without
//! redirects and cookies, and through a proxy if the environment names one ([`proxy`]). URLs that a stranger
//! names are fetched by [`guarded`], from public addresses only.

pub mod address;
mod at_address;
mod backends;
mod freshness;
pub mod guarded;
pub mod proxy;
mod route;
mod target_connections;
mod target_connector;
mod target_faults;
mod tls;
mod watched_stream;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Extensions, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::config::Proxies;
use crate::telemetry::metrics::{Answered, Metrics};
use crate::telemetry::trace::{self, OpenSpan};
use proxy::{ProxyFailed, Ways};
use route::{ProxyRoute, Used};

pub use at_address::send_to;
pub use backends::Backends;
pub use target_connections::{RequestFailed, TargetBody, TargetConnections};
pub use target_faults::TargetFault;

/// Largest response body that is read: 1 MiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a request failed. Contains nothing of the request, which may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL is not HTTPS and its host is not this machine.
    #[error("http:// is allowed on loopback only, or with allow_http in [upstream]")]
    NotHttps,
    /// The proxy did not open a tunnel.
    #[error(transparent)]
    Proxy(#[from] ProxyFailed),
    /// TCP or TLS could not connect, or the connection broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// No complete response in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The response body is larger than 1 MiB.
    #[error("the answer is too large")]
    TooLarge,
}

/// A connector for HTTPS, with the system's root certificates, and for plain HTTP.
pub type Connector = HttpsConnector<HttpConnector>;

/// Makes a connector. On a system without root certificates, HTTPS fails, and plain HTTP still works.
pub fn connector(connect_timeout: Duration) -> Connector {
    with_tls(tcp(connect_timeout))
}

fn tcp(connect_timeout: Duration) -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    http
}

fn with_tls<T>(inner: T) -> HttpsConnector<T> {
    wrapped(tls::of_the_system(), inner)
}

fn wrapped<T>(tls: ClientConfig, inner: T) -> HttpsConnector<T> {
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(inner)
}

/// Longest wait for a TCP connection, which also counts towards the timeout of the whole request.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

/// Idle timeout of pooled connections: 1 s. It must be shorter than that of servers, which would otherwise
/// close a connection while we send on it (gunicorn 2 s; Apache, Node and uvicorn 5 s).
const IDLE: Duration = Duration::from_secs(1);
/// If a pooled connection was closed all the same while we sent on it, requests that must not be sent twice
/// use new connections for this time.
const WARY: Duration = Duration::from_mins(10);

type Sender = Client<HttpsConnector<ProxyRoute>, Full<Bytes>>;

/// The HTTP client. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    /// Pools its connections for [`IDLE`].
    keeping: Sender,
    /// Opens a connection for each request.
    opening: Sender,
    /// When a pooled connection was last closed while a request was sent on it.
    lost_at: Arc<Mutex<Option<Instant>>>,
    ways: Ways,
    allow_http: bool,
    timeout: Duration,
    metrics: Option<Metrics>,
}

impl HttpClient {
    /// Creates a client whose requests each end within `timeout` and go through `proxies` where these apply.
    pub fn new(timeout: Duration, proxies: &Proxies) -> Self {
        Self::trusting(timeout, proxies, None)
    }

    /// The same, for servers whose certificates come from these authorities (PEM) instead of the system's.
    pub fn trusting(timeout: Duration, proxies: &Proxies, authority: Option<&[u8]>) -> Self {
        let (connect, ways) = (timeout.min(LONGEST_CONNECT), Ways::of(proxies));
        let route = ProxyRoute {
            ways: ways.clone(),
            direct: tcp(connect),
            to_proxy: connector(connect),
            within: connect,
        };
        let route = match authority {
            Some(authority) => wrapped(tls::of(authority), route),
            None => with_tls(route),
        };
        let mut builder = Client::builder(TokioExecutor::new());
        let keeping =
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(route.clone());
        let opening = builder.pool_max_idle_per_host(0).build(route);
        let (allow_http, metrics, lost_at) = (false, None, Arc::default());
        Self { keeping, opening, lost_at, ways, allow_http, timeout, metrics }
    }

    /// With `allow`, requests may use plain HTTP to other machines too.
    #[must_use]
    pub fn allowing_http(self, allow: bool) -> Self {
        Self { allow_http: allow, ..self }
    }

    /// Returns the proxy that requests to `url` go through, without its credentials; `None` if they go
    /// directly.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        self.ways.shown(&url.parse().ok()?)
    }

    /// Returns a client with the same connections and another timeout for each request.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Counts every request of this client in the metrics, as one to the identity provider.
    #[must_use]
    pub fn counting_in(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Sends `request` and reads the whole response. Returns redirects like any other response.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        let begun = Instant::now();
        let span = self.metrics.as_ref().and_then(|_| span_of(&request));
        let answer = self.exchange(request, begun + self.timeout).await;
        if let Some(metrics) = &self.metrics {
            metrics.upstream(outcome(&answer), begun.elapsed());
        }
        if let Some(span) = span {
            end(span, &answer);
        }
        answer
    }

    async fn exchange(
        &self,
        request: Request<Vec<u8>>,
        until: Instant,
    ) -> Result<Response<Vec<u8>>, HttpError> {
        if !self.allow_http {
            check_scheme(request.uri())?;
        }
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let exchange = async {
            let (parts, body) = self.head(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpError::TooLarge
                } else {
                    HttpError::Connection(error.to_string())
                }
            })?;
            Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
        };
        tokio::time::timeout_at(until, exchange)
            .await
            .map_err(|_| HttpError::Timeout(self.timeout))?
    }

    /// Sends a request and returns the head of the response.
    ///
    /// The server may close a pooled connection just when it is used again, and then nobody knows whether it
    /// read the request. A GET is sent once more, on a new connection. Other requests fail, because
    /// authorization codes and refresh tokens can be used only once; those that follow use new connections
    /// for [`WARY`].
    async fn head(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpError> {
        let again = (request.method() == Method::GET).then(|| request.clone());
        let sender = if again.is_none() && self.is_wary() { &self.opening } else { &self.keeping };
        match sender.request(request).await {
            Ok(answer) => {
                if let Some(used) = answer.extensions().get::<Used>() {
                    used.mark();
                }
                Ok(answer)
            }
            Err(error) if was_kept(&error) => {
                *self.lost_at.lock() = Some(Instant::now());
                let again = again.ok_or_else(|| failed(&error))?;
                tracing::debug!("a kept connection was closed meanwhile; asking on a new one");
                self.opening.request(again).await.map_err(|error| failed(&error))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Whether a pooled connection was closed recently while a request was sent on it.
    fn is_wary(&self) -> bool {
        let lost_at = *self.lost_at.lock();
        lost_at.is_some_and(|at| at.elapsed() < WARY)
    }
}

/// Whether a request failed on a connection that had carried a response before.
fn was_kept(error: &hyper_util::client::legacy::Error) -> bool {
    let mut known = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut known);
    }
    known.get::<Used>().is_some_and(Used::is_marked)
}

fn failed(error: &(dyn std::error::Error + 'static)) -> HttpError {
    let mut cause = error;
    loop {
        if let Some(proxy) = cause.downcast_ref::<ProxyFailed>() {
            return HttpError::Proxy(proxy.clone());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return HttpError::Connection(cause.to_string()),
        }
    }
}

fn outcome(answer: &Result<Response<Vec<u8>>, HttpError>) -> Answered {
    match answer {
        Ok(answer) if answer.status().is_server_error() => Answered::Failed,
        Ok(answer) if answer.status().is_client_error() => Answered::Refused,
        Ok(_) => Answered::Ok,
        Err(HttpError::Timeout(_)) => Answered::TimedOut,
        Err(
            HttpError::NotHttps
            | HttpError::Proxy(_)
            | HttpError::Connection(_)
            | HttpError::TooLarge,
        ) => Answered::Unreachable,
    }
}

/// Begins the span of a request to the identity provider. Its path and query are not shown: they may have
/// ids of people.
fn span_of(request: &Request<Vec<u8>>) -> Option<OpenSpan> {
    let is_get = request.method() == Method::GET;
    let (name, method) =
        if is_get { ("GET identity provider", "GET") } else { ("POST identity provider", "POST") };
    let mut span = trace::child(name)?;
    span.set("http.request.method", method);
    if let Some(host) = request.uri().host() {
        span.set("server.address", host.to_owned());
    }
    Some(span)
}

/// Ends the span of a request.
fn end(mut span: OpenSpan, answer: &Result<Response<Vec<u8>>, HttpError>) {
    match answer {
        Ok(answer) => {
            let status = answer.status();
            span.set("http.response.status_code", status.as_u16());
            if status.is_client_error() || status.is_server_error() {
                span.fail(status.as_str().to_owned());
            }
        }
        Err(_) => span.fail(<&'static str>::from(outcome(answer))),
    }
}

fn check_scheme(uri: &Uri) -> Result<(), HttpError> {
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if uri.host().is_some_and(is_loopback) => Ok(()),
        _ => Err(HttpError::NotHttps),
    }
}

/// Whether the host of a URL is this machine: `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the innermost cause of an error: "connection refused" says more than "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
