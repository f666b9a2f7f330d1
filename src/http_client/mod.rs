//! Guarded outgoing HTTP, for everything that is not the gateway: bounded in time and size, no
//! redirects, no proxy from the environment, no cookies. What a stranger names is fetched by
//! [`guarded`], from public addresses alone.

pub mod address;
mod freshness;
pub mod guarded;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
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
    /// As many requests as there may be did not end in time.
    #[error("too many requests are under way")]
    Busy,
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
    /// So many at once.
    places: Option<(usize, Arc<Semaphore>)>,
}

impl HttpClient {
    /// A client whose every request ends within `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector(timeout.min(Duration::from_secs(5))));
        Self { client, timeout, metrics: None, places: None }
    }

    /// The same connections, and another time within which every request ends.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// At most so many requests at once; others wait, within their time.
    #[must_use]
    pub fn at_most(self, number: usize) -> Self {
        if self.places.as_ref().is_some_and(|(now, _)| *now == number) {
            return self;
        }
        Self { places: Some((number, Arc::new(Semaphore::new(number)))), ..self }
    }

    /// Counts every request as one to the identity provider.
    #[must_use]
    pub fn counting_in(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Sends `request` and reads the whole answer. Redirects are answers like any other.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        let begun = Instant::now();
        let _place = match &self.places {
            None => None,
            Some((_, places)) => {
                let place = tokio::time::timeout(self.timeout, places.acquire()).await;
                let Ok(Ok(place)) = place else {
                    if let Some(metrics) = &self.metrics {
                        metrics.limited("upstream_requests");
                    }
                    return Err(HttpError::Busy);
                };
                Some(place)
            }
        };
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
        tokio::time::timeout_at(until, exchange)
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
        Err(
            HttpError::NotHttps | HttpError::Connection(_) | HttpError::TooLarge | HttpError::Busy,
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_gets_no_turn_in_time_has_asked_nobody() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let request = || Request::get(&url).body(Vec::new()).unwrap();
        let patient = HttpClient::new(Duration::from_mins(1)).at_most(1);
        let hasty = patient.with_timeout(Duration::from_millis(50)).at_most(1);

        let turned_away = tokio::select! {
            biased;
            _ = patient.send(request()) => panic!("nobody answers"),
            answer = hasty.send(request()) => answer,
        };
        assert!(matches!(turned_away, Err(HttpError::Busy)), "{turned_away:?}");
        let came = hasty.send(request()).await;
        assert!(matches!(came, Err(HttpError::Timeout(_))), "the place was given back: {came:?}");
    }
}
