//! Requests of the doctor. Identical requests of several clients are sent only once.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, Request, header};
use serde_json::Value;
use url::Url;

use crate::config::Proxies;
use crate::http_client::HttpClient;

/// Longest wait for a response, 10 s: clients give up on slower servers.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of redirects for a document, on the same origin.
const REDIRECTS: usize = 3;

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    /// Returns a header if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body as a JSON object.
    pub(super) fn object(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(Value::is_object)
    }

    /// Returns all values of a header, separated by commas, in lower case.
    pub(super) fn list(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",").to_ascii_lowercase()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: &'a str) -> Self {
        Self { method: "GET", url, ..Self::default() }
    }

    pub(super) fn post(url: &'a str, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { method: "POST", url, headers, body }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The HTTP client, with a cache of responses.
pub(super) struct Wire {
    http: HttpClient,
    known: HashMap<String, Result<Reply, String>>,
}

impl Wire {
    pub(super) fn new() -> Self {
        // Uses no proxy, because clients elsewhere do not use the proxy of this machine.
        let http = HttpClient::new(TIMEOUT, &Proxies::default());
        Self { http, known: HashMap::new() }
    }

    /// Sends a request, or returns the cached response. An error means that no response arrived.
    pub(super) async fn ask(&mut self, ask: &Ask<'_>) -> Result<Reply, String> {
        let key = format!("{ask:?}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let reply = self.send(ask).await;
        self.known.insert(key, reply.clone());
        reply
    }

    /// Fetches a document and follows redirects on the same origin, as all clients do.
    pub(super) async fn document(&mut self, url: &str, version: &str) -> Result<Reply, String> {
        let mut at = url.to_owned();
        for _ in 0..REDIRECTS {
            let ask = Ask::get(&at).with("mcp-protocol-version", version);
            let reply = self.ask(&ask).await?;
            let next = reply.header("location").and_then(|to| Url::parse(&at).ok()?.join(to).ok());
            let same = |to: &Url| Url::parse(url).is_ok_and(|url| url.origin() == to.origin());
            match next.filter(same) {
                Some(to) if (300..400).contains(&reply.status) => at = to.to_string(),
                _ => return Ok(reply),
            }
        }
        Err(format!("{url} redirects without end"))
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Reply, String> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.url)
            .header(header::USER_AGENT, concat!("portcullis-doctor/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let request = request.body(ask.body.clone().into_bytes());
        let request = request.map_err(|cause| format!("{}: {cause}", ask.url))?;
        let reply =
            self.http.send(request).await.map_err(|cause| format!("{}: {cause}", ask.url))?;
        let (parts, body) = reply.into_parts();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}
