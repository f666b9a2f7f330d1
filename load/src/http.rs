//! A pooled HTTP client, and answers read whole.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub type Failure = String;

#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub async fn open(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|e| format!("{url}: {e}"))?;
        self.0.request(request).await.map_err(|error| format!("{method} {url}: {error:?}"))
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
