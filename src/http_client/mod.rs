//! Guarded outgoing HTTP, for everything that is not the gateway: bounded in time and size, no
//! redirects, no cookies, and through a proxy where the environment names one ([`proxy`]). What a stranger
//! names is fetched by [`guarded`], from public addresses alone.

pub mod address;
mod backends;
mod freshness;
pub mod guarded;
mod interim;
pub mod proxy;
mod route;
mod tls;

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
use tokio::time::Instant;

use crate::config::Proxies;
use crate::telemetry::metrics::{Answered, Metrics};
use proxy::{ProxyFailed, Ways};
use route::{Route, Used};

pub use backends::{Backends, was_lost_unanswered};
pub use interim::InterimAnswers;

/// Largest answer read.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a request brought no answer. Says nothing of the request: it may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Plain HTTP beyond this machine.
    #[error("http:// is allowed on loopback only, or with allow_http in [upstream]")]
    NotHttps,
    /// The proxy on the way let nothing through.
    #[error(transparent)]
    Proxy(#[from] ProxyFailed),
    /// No connection, no TLS, or it broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than `MAX_ANSWER`.
    #[error("the answer is too large")]
    TooLarge,
}

/// The connector that speaks TLS with the system's roots, and plain HTTP to loopback.
pub type Connector = HttpsConnector<HttpConnector>;

/// Makes a connector. A system without root certificates can still speak to loopback.
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
    HttpsConnectorBuilder::new()
        .with_tls_config(tls::of_the_system())
        .https_or_http()
        .enable_http1()
        .wrap_connector(inner)
}

/// A connection to wait for, by itself or within the time of a whole request.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

/// A kept connection is used again within this time, and closed after it: servers wait longer before they close an
/// idle connection (gunicorn 2 s; Apache, Node and uvicorn 5 s).
const IDLE: Duration = Duration::from_secs(1);
/// After a kept connection was closed all the same, requests that must not be sent twice go on new connections for
/// this time.
const WARY: Duration = Duration::from_mins(10);

type Sender = Client<HttpsConnector<Route>, Full<Bytes>>;

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    /// Keeps its connections for [`IDLE`].
    keeping: Sender,
    /// Opens one for each request.
    opening: Sender,
    /// When a kept connection was last closed with a request on it.
    lost_at: Arc<Mutex<Option<Instant>>>,
    ways: Ways,
    allow_http: bool,
    timeout: Duration,
    metrics: Option<Metrics>,
}

impl HttpClient {
    /// A client whose every request ends within `timeout`, and takes the way that `proxies` leave.
    pub fn new(timeout: Duration, proxies: &Proxies) -> Self {
        let (connect, ways) = (timeout.min(LONGEST_CONNECT), Ways::of(proxies));
        let route = with_tls(Route {
            ways: ways.clone(),
            direct: tcp(connect),
            to_proxy: connector(connect),
            within: connect,
        });
        let mut builder = Client::builder(TokioExecutor::new());
        let keeping =
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(route.clone());
        let opening = builder.pool_max_idle_per_host(0).build(route);
        let (allow_http, metrics, lost_at) = (false, None, Arc::default());
        Self { keeping, opening, lost_at, ways, allow_http, timeout, metrics }
    }

    /// With `allow`, requests may go over plain HTTP beyond this machine.
    #[must_use]
    pub fn allowing_http(self, allow: bool) -> Self {
        Self { allow_http: allow, ..self }
    }

    /// What may be said of the proxy that requests to `url` go through; `None`: they go directly.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        self.ways.shown(&url.parse().ok()?)
    }

    /// The same connections, and another time within which every request ends.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Counts every request as one to the identity provider.
    #[must_use]
    pub fn counting_in(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Sends `request` and reads the whole answer. Redirects are answers like any other.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        let begun = Instant::now();
        let answer = self.exchange(request, begun + self.timeout).await;
        if let Some(metrics) = &self.metrics {
            metrics.upstream(outcome(&answer), begun.elapsed());
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

    /// The answer, up to its body.
    ///
    /// The other side may close a kept connection in the moment it is used again, and then nobody knows
    /// whether the request was read. A GET is sent once more, on a new connection. Nothing else is (codes and
    /// refresh tokens count once): it fails, and those that follow go on new connections for a while.
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

    /// Whether a kept connection was closed lately with a request on it.
    fn is_wary(&self) -> bool {
        let lost_at = *self.lost_at.lock();
        lost_at.is_some_and(|at| at.elapsed() < WARY)
    }
}

/// Whether a request failed on a connection that had carried an answer before.
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

fn check_scheme(uri: &Uri) -> Result<(), HttpError> {
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if uri.host().is_some_and(is_loopback) => Ok(()),
        _ => Err(HttpError::NotHttps),
    }
}

/// Whether a URL host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The cause at the bottom: "connection refused" says more than "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
