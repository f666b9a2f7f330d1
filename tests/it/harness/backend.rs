//! An MCP server that answers as a test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::client::{McpClient, Tokens};
use super::http::Answer;
use super::{Setup, TestApp};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Script = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Backend {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    serving: Option<AbortHandle>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn start_on(listener: TcpListener) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script: Script = Arc::new(|seen: &Seen| {
            let answer = json!({ "jsonrpc": "2.0", "id": seen.json()["id"], "result": {} });
            answer_json(&answer)
        });
        let script = Arc::new(Mutex::new(script));
        let mut backend = Self { url, seen: Arc::default(), script, serving: None };
        let router = Router::new().fallback(handle).with_state(backend.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        backend.serving = Some(serving.abort_handle());
        backend
    }

    /// From now on nothing listens here. Connections that are open stay.
    pub(crate) async fn stop(&self) {
        let serving = self.serving.as_ref().unwrap();
        serving.abort();
        while !serving.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Answers every request so from now on.
    pub(crate) fn answers(&self, script: impl Fn(&Seen) -> Response + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// What arrived since the last time, and forgets it.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// A Portcullis in front of it: alice may do everything, bob may read, and `purge` needs `write`.
    pub(crate) async fn behind(&self, extra: &str, tools: &str) -> TestApp {
        let resources = format!(
            r#"
[[resource]]
path   = "/mcp"
target = "{}/mcp"
scopes = ["read", "write"]
{extra}
rule = [
  {{ roles = ["Admin"], allow = ["read", "write"] }},
  {{ roles = ["User"], allow = ["read"] }},
]
{tools}
"#,
            self.url
        );
        TestApp::with(Setup::toml(resources)).await
    }
}

/// The rule of tools that goes with [`Backend::behind`].
pub(crate) const PURGE: &str = "[resource.tools]\npurge = [\"write\"]";

async fn handle(State(backend): State<Backend>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 64 * 1024 * 1024).await else {
        return status(400);
    };
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    backend.seen.lock().unwrap().push(seen.clone());
    let script = Arc::clone(&backend.script.lock().unwrap());
    script(&seen)
}

pub(crate) fn status(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    response
}

pub(crate) fn answer_json(body: &Value) -> Response {
    answer(200, &[("content-type", "application/json")], body.to_string())
}

/// An event stream that ends, sent in pieces of `size` bytes.
pub(crate) fn answer_events(text: &str, size: usize) -> Response {
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        text.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    answer(200, &[("content-type", "text/event-stream")], body)
}

/// Tokens with every scope that the person may have.
pub(crate) async fn tokens(app: &TestApp, person: &str) -> (McpClient, Tokens) {
    tokens_for(app, person, "").await
}

pub(crate) async fn tokens_for(app: &TestApp, person: &str, scope: &str) -> (McpClient, Tokens) {
    let client = app.client().await;
    let back = client.authorize(person, &[("scope", scope)]).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    (client, tokens)
}

/// A request to the gateway with these headers beside the token.
pub(crate) async fn send(
    app: &TestApp,
    tokens: &Tokens,
    method: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let authorization = format!("Bearer {}", tokens.access_token);
    let mut all = vec![("authorization", authorization.as_str())];
    if method == "POST" {
        all.push(("content-type", "application/json"));
    }
    all.extend_from_slice(headers);
    app.http.send(method, &app.mcp_url(), &all, body).await
}

pub(crate) async fn post(
    app: &TestApp,
    tokens: &Tokens,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    send(app, tokens, "POST", headers, body.to_string()).await
}

pub(crate) fn request(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}
