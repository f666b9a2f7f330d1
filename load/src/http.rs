//! A pooled HTTP client, and answers read whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use url::Url;

pub type Failure = String;

#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    replicas: Option<Arc<Replicas>>,
}

/// Servers behind one public URL; each request goes to the next one.
struct Replicas {
    public: Url,
    /// Origin of each: `http://127.0.0.1:9010`.
    origins: Vec<String>,
    next: AtomicUsize,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, replicas: None }
    }

    /// Sends requests for the first URL to all of them in turns, as a load balancer would.
    pub fn balanced(bases: &[String]) -> Result<Self, Failure> {
        let origins: Result<Vec<Url>, _> = bases.iter().map(|base| Url::parse(base)).collect();
        let origins = origins.map_err(|error| error.to_string())?;
        let public = origins.first().cloned().ok_or("no base")?;
        let origins = origins.iter().map(|url| url.origin().ascii_serialization()).collect();
        let replicas = Replicas { public, origins, next: AtomicUsize::new(0) };
        let is_alone = bases.len() == 1;
        let replicas = (!is_alone).then(|| Arc::new(replicas));
        Ok(Self { replicas, ..Self::new() })
    }

    pub async fn open(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method);
        request = match self.replicas.as_ref().and_then(|replicas| replicas.next(url)) {
            Some((uri, host)) => request.uri(uri).header("host", host),
            None => request.uri(url),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|e| format!("{url}: {e}"))?;
        self.client.request(request).await.map_err(|error| format!("{method} {url}: {error:?}"))
    }

    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let (parts, body) = self.open(method, url, headers, body).await?.into_parts();
        let body = body.collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub async fn form(&self, url: &str, form: &[(&str, &str)]) -> Result<Answer, Failure> {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &kind, encode(form)).await
    }
}

impl Replicas {
    /// Returns where to send a request for a public URL, and its `Host`; nothing for another server's URL.
    fn next(&self, url: &str) -> Option<(String, &str)> {
        let public = &self.public[..url::Position::BeforePath];
        let path = url.strip_prefix(public).filter(|path| path.starts_with('/'))?;
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.origins.len();
        let host = &self.public[url::Position::BeforeHost..url::Position::BeforePath];
        Some((format!("{}{path}", self.origins[at]), host))
    }
}

pub fn encode(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

impl Answer {
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| self.unexpected())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn unexpected(&self) -> Failure {
        let text: String = self.text().chars().take(300).collect();
        format!("unexpected answer {}: {text}", self.status)
    }

    pub fn expect(self, status: &[u16]) -> Result<Self, Failure> {
        if status.contains(&self.status) { Ok(self) } else { Err(self.unexpected()) }
    }
}
