//! MCP servers on the HTTP+SSE transport of 2024-11-05 behind the gateway.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portcullis::app::Reloaded;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::harness::client::Tokens;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

/// A server of that transport: `GET /sse` names `/messages/?session_id=…`, answers come on the stream.
#[derive(Clone, Default)]
struct Backend(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    streams: BTreeMap<String, mpsc::UnboundedSender<String>>,
    /// What the event names in place of the right address.
    endpoint: Option<String>,
    /// Session and headers of every message.
    messages: Vec<(String, HeaderMap)>,
}

impl Backend {
    async fn start() -> (Self, String) {
        let backend = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/sse", get(open))
            .route("/messages/", post(message))
            .fallback(|| async { (StatusCode::OK, "a place that nobody may reach") })
            .with_state(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, url)
    }
}

async fn open(State(backend): State<Backend>) -> Response {
    let (send, receive) = mpsc::unbounded_channel();
    let mut told = backend.0.lock().unwrap();
    let session = format!("s{}", told.streams.len());
    let endpoint = format!("/messages/?session_id={session}");
    let endpoint = told.endpoint.clone().unwrap_or(endpoint);
    send.send(format!("event: endpoint\r\ndata: {endpoint}\r\n\r\n: ping\r\n\r\n")).unwrap();
    told.streams.insert(session, send);
    let stream = futures_util::stream::unfold(receive, |mut receive| async {
        let text = receive.recv().await?;
        Some((Ok::<Bytes, io::Error>(text.into()), receive))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}

async fn message(
    State(backend): State<Backend>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let session = query.unwrap().strip_prefix("session_id=").unwrap().to_owned();
    let mut told = backend.0.lock().unwrap();
    told.messages.push((session.clone(), headers));
    let result = match message["method"].as_str().unwrap() {
        "tools/list" => json!({ "tools": [{ "name": "get-todos" }, { "name": "purge-todos" }] }),
        _ => json!({}),
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let stream = &told.streams[&session];
    stream.send(format!("event: message\r\ndata: {answer}\r\n\r\n")).unwrap();
    (StatusCode::ACCEPTED, "Accepted").into_response()
}

async fn started() -> (TestApp, Backend) {
    started_below(None).await
}

async fn started_below(path: Option<&'static str>) -> (TestApp, Backend) {
    let (backend, url) = Backend::start().await;
    let resources = format!(
        r#"
[[resource]]
path      = "/mcp"
target    = "{url}/sse"
transport = "http+sse"
scopes    = ["create:todos", "delete:todos"]
hide_forbidden_tools = true
rule = [{{ roles = ["User", "Admin"], allow = ["create:todos"] }}]
[resource.tools]
"purge-todos" = ["delete:todos"]
"#
    );
    let setup = Setup { path, ..Setup::toml(resources) };
    (TestApp::with(setup).await, backend)
}

/// The next event with data: its kind and its data.
async fn event(stream: &mut Incoming) -> Option<(String, String)> {
    loop {
        let data = stream.frame().await?.ok()?.into_data().ok()?;
        let text = String::from_utf8(data.to_vec()).unwrap();
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned())
        };
        if let Some(data) = of("data:") {
            return Some((of("event:").unwrap_or_default(), data));
        }
    }
}

async fn listen(app: &TestApp, tokens: &Tokens) -> (Incoming, String) {
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", authorization.as_str()), ("accept", "text/event-stream")];
    let response = app.http.open("GET", &app.mcp_url(), &headers, "").await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    let (kind, endpoint) = event(&mut stream).await.unwrap();
    assert_eq!(kind, "endpoint");
    (stream, format!("{}{endpoint}", app.origin))
}

async fn send(app: &TestApp, tokens: &Tokens, endpoint: &str, method: &str, tool: &str) -> Answer {
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", authorization.as_str())];
    let params = json!({ "name": tool });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    app.http.post_json(endpoint, &body, &headers).await
}

#[tokio::test]
async fn gw_40_an_old_server_works_through_one_path_with_every_check() {
    let (app, backend) = started().await;
    let (_, tokens) = app.tokens_of("bob").await;
    app.http.get(&app.mcp_url()).await.assert_status(401);
    let (mut stream, endpoint) = listen(&app, &tokens).await;
    assert!(endpoint.starts_with(&format!("{}?", app.mcp_url())), "{endpoint}");
    assert!(!endpoint.contains("messages/"), "{endpoint}");

    send(&app, &tokens, &endpoint, "tools/list", "").await.assert_status(202);
    let (kind, data) = event(&mut stream).await.unwrap();
    let answer: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((kind.as_str(), &answer["id"]), ("message", &json!(1)));
    assert_eq!(answer["result"]["tools"], json!([{ "name": "get-todos" }]), "purging is hidden");
    send(&app, &tokens, &endpoint, "tools/call", "get-todos").await.assert_status(202);
    let told = backend.0.lock().unwrap().messages.pop().unwrap();
    assert_eq!(told.0, "s0");
    assert_eq!(told.1["x-portcullis-subject"], "oidc:demo-bob");
    assert!(!told.1.contains_key("authorization"));

    // The same checks as everywhere: token, tool, method.
    let stranger = Tokens { access_token: "x".to_owned(), ..tokens.clone() };
    send(&app, &stranger, &endpoint, "ping", "").await.assert_status(401);
    let refused = send(&app, &tokens, &endpoint, "tools/call", "purge-todos").await;
    let challenge = refused.assert_status(403).header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", authorization.as_str())];
    app.http.send("DELETE", &endpoint, &headers, "").await.assert_status(405);
    assert_eq!(backend.0.lock().unwrap().messages.len(), 1);
}

#[tokio::test]
async fn the_address_of_messages_lies_below_the_path_of_the_public_url() {
    let (app, backend) = started_below(Some("/one/two")).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let (_stream, endpoint) = listen(&app, &tokens).await;
    assert!(endpoint.starts_with(&format!("{}?", app.mcp_url())), "{endpoint}");
    send(&app, &tokens, &endpoint, "tools/list", "").await.assert_status(202);
    assert_eq!(backend.0.lock().unwrap().messages.len(), 1);
}

#[tokio::test]
async fn gw_19_an_address_of_messages_is_of_use_to_its_holder_only() {
    let (app, backend) = started().await;
    let (_, bobs) = app.tokens_of("bob").await;
    let (_, alices) = app.tokens_of("alice").await;
    let (_stream, endpoint) = listen(&app, &bobs).await;

    send(&app, &alices, &endpoint, "ping", "").await.assert_status(404);
    let forged = [
        (format!("{}?message=/admin", app.mcp_url()), 404),
        (format!("{endpoint}x"), 404),
        (format!("{endpoint}&message=x"), 404),
        // A newer client tries its own transport first, and falls back by this status.
        (app.mcp_url(), 405),
        (format!("{}?session_id=s0", app.mcp_url()), 405),
    ];
    for (address, status) in forged {
        send(&app, &bobs, &address, "ping", "").await.assert_status(status);
    }
    app.http.send("POST", &app.at("/messages/?session_id=s0"), &[], "{}").await.assert_status(404);
    assert!(backend.0.lock().unwrap().messages.is_empty());
}

#[tokio::test]
async fn gw_32_a_message_address_of_another_origin_ends_the_stream() {
    let (app, backend) = started().await;
    let (_, tokens) = app.tokens_of("bob").await;
    for elsewhere in ["http://169.254.169.254/latest", "//evil.example/", "https://127.0.0.1/x"] {
        backend.0.lock().unwrap().endpoint = Some(elsewhere.to_owned());
        let authorization = format!("Bearer {}", tokens.access_token);
        let headers = [("authorization", authorization.as_str())];
        let response = app.http.open("GET", &app.mcp_url(), &headers, "").await;
        assert_eq!(event(&mut response.into_body()).await, None, "{elsewhere}");
    }
}

#[tokio::test]
async fn the_stream_of_an_old_server_is_cut_with_its_grant() {
    let (app, _backend) = started().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (mut stream, endpoint) = listen(&app, &tokens).await;
    client.revoke(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(event(&mut stream).await, None);
    send(&app, &tokens, &endpoint, "ping", "").await.assert_status(401);
}

#[tokio::test]
async fn gw_43_messages_reach_the_target_that_has_the_stream_wherever_it_is_in_the_list() {
    let (servers, urls) = {
        let (one, two) = (Backend::start().await, Backend::start().await);
        ([one.0, two.0], [one.1, two.1])
    };
    let list = |first: &str, second: &str| format!("targets = [\"{first}/sse\", \"{second}/sse\"]");
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\n{}\ntransport = \"http+sse\"\nscopes = [\"read\"]\n",
        list(&urls[0], &urls[1])
    );
    let mut app = TestApp::with(Setup::toml(resources)).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let mut streams = [listen(&app, &tokens).await, listen(&app, &tokens).await];
    let open = |server: &Backend| server.0.lock().unwrap().streams.len();
    assert_eq!(servers.each_ref().map(open), [1, 1], "streams take turns");

    for round in 0..2 {
        for (stream, endpoint) in &mut streams {
            send(&app, &tokens, endpoint, "ping", "").await.assert_status(202);
            let (kind, data) = event(stream).await.unwrap();
            assert_eq!(kind, "message", "{data}");
        }
        let messages = |server: &Backend| server.0.lock().unwrap().messages.len();
        assert_eq!(servers.each_ref().map(messages), [round + 1, round + 1]);
        let (first, second) = (&urls[round], &urls[1 - round]);
        app.change_config(&list(first, second), &list(second, first));
        assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    }
    app.change_config(&list(&urls[0], &urls[1]), &format!("target = \"{}/sse\"", urls[0]));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    let mut statuses = Vec::new();
    for (_, endpoint) in &streams {
        statuses.push(send(&app, &tokens, endpoint, "ping", "").await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 404], "a target that is gone has no streams");
}
