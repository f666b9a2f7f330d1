//! Guarded outgoing HTTP, for everything that is not the gateway: bounded in time and size, no
//! redirects, no proxy from the environment, no cookies. What a stranger names is fetched by
//! [`guarded`], from public addresses alone.

pub mod address;
mod freshness;
pub mod guarded;
mod tls;

use std::time::Duration;

use axum::http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use crate::telemetry::metrics::{Answered, Metrics};

/// Largest answer read.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a request brought no answer. Says nothing of the request: it may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Plain HTTP beyond this machine.
    #[error("http:// is allowed on loopback only")]
    NotHttps,
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
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    HttpsConnectorBuilder::new()
        .with_tls_config(tls::of_the_system())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http)
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    timeout: Duration,
    metrics: Option<Metrics>,
}

impl HttpClient {
    /// A client whose every request ends within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector(timeout.min(Duration::from_secs(5))));
        Self { client, timeout, metrics: None }
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
        let answer = self.exchange(request).await;
        if let Some(metrics) = &self.metrics {
            metrics.upstream(outcome(&answer), begun.elapsed());
        }
        answer
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        check_scheme(request.uri())?;
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| HttpError::Connection(innermost(&error)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpError::TooLarge
                } else {
                    HttpError::Connection(error.to_string())
                }
            })?;
            Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| HttpError::Timeout(self.timeout))?
    }
}

fn outcome(answer: &Result<Response<Vec<u8>>, HttpError>) -> Answered {
    match answer {
        Ok(answer) if answer.status().is_server_error() => Answered::Failed,
        Ok(answer) if answer.status().is_client_error() => Answered::Refused,
        Ok(_) => Answered::Ok,
        Err(HttpError::Timeout(_)) => Answered::TimedOut,
        Err(HttpError::NotHttps | HttpError::Connection(_) | HttpError::TooLarge) => {
            Answered::Unreachable
        }
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
