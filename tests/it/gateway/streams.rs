//! Sessions and event streams of the older MCP revisions, through the gateway.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, Tokens};

struct Session<'a> {
    app: &'a TestApp,
    url: String,
    authorization: String,
    id: String,
}

impl<'a> Session<'a> {
    async fn start(app: &'a TestApp, tokens: &Tokens) -> Self {
        Self::start_at(app, app.mcp_url(), tokens).await
    }

    async fn start_at(app: &'a TestApp, url: String, tokens: &Tokens) -> Self {
        let authorization = format!("Bearer {}", tokens.access_token);
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
        });
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", "application/json, text/event-stream"),
        ];
        let answer = app.http.post_json(&url, &body, &headers).await;
        assert_eq!(answer.assert_status(200).json()["result"]["protocolVersion"], "2025-06-18");
        let id = answer.header("mcp-session-id").unwrap().to_owned();
        Self { app, url, authorization, id }
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        vec![
            ("authorization", &self.authorization),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", &self.id),
            ("mcp-protocol-version", "2025-06-18"),
        ]
    }

    async fn post(&self, body: &Value) -> crate::harness::http::Answer {
        self.app.http.post_json(&self.url, body, &self.headers()).await
    }

    /// Opens the event stream and reads its first chunk.
    async fn listen(&self) -> Incoming {
        let response = self.app.http.open("GET", &self.url, &self.headers(), "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        assert!(next(&mut body).await.unwrap().contains("connected"));
        body
    }
}

/// The next chunk; `None` when the stream has ended.
async fn next(body: &mut Incoming) -> Option<String> {
    loop {
        let frame = body.frame().await?.ok()?;
        if let Ok(data) = frame.into_data() {
            return Some(String::from_utf8(data.to_vec()).unwrap());
        }
    }
}

async fn ended(mut body: Incoming) {
    while next(&mut body).await.is_some() {}
}

#[tokio::test]
async fn a_session_works_from_initialize_to_delete() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let session = Session::start(&app, &tokens).await;
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    session.post(&initialized).await.assert_status(202);
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    assert_eq!(session.post(&list).await.json()["result"]["tools"].as_array().unwrap().len(), 5);
    let url = app.mcp_url();
    app.http.send("DELETE", &url, &session.headers(), "").await.assert_status(204);
    session.post(&list).await.assert_status(404);
}

#[tokio::test]
async fn gw_06_a_session_belongs_to_one_person_and_one_client() {
    let mut app = TestApp::start().await;
    let (client, bobs) = app.tokens_of("bob").await;
    let (alice, alices) = app.tokens_of("alice").await;
    let other = json!({
        "client_name": "Other", "redirect_uris": [client.redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let other = McpClient::register_as(&app, other).await.sign_in("bob").await;
    let id = Session::start(&app, &bobs).await.id;
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    let before = app.todo.recorded().len();
    for stranger in [&alices, &other] {
        let authorization = format!("Bearer {}", stranger.access_token);
        let stolen = Session { app: &app, url: app.mcp_url(), authorization, id: id.clone() };
        assert_eq!(stolen.post(&list).await.assert_status(404).json()["error"]["code"], -32001);
        let url = app.mcp_url();
        app.http.send("GET", &url, &stolen.headers(), "").await.assert_status(404);
        app.http.send("DELETE", &url, &stolen.headers(), "").await.assert_status(404);
    }
    assert_eq!(app.todo.recorded().len(), before, "the server does not hear of it");
    alice.call_tool(&alices.access_token, "get-todos", json!({})).await.assert_status(200);

    // Its holder keeps it over a refresh and over a restart.
    let fresh = Tokens::of(&client.refresh(&bobs.refresh_token).await);
    app.restart().await;
    let authorization = format!("Bearer {}", fresh.access_token);
    Session { app: &app, url: app.mcp_url(), authorization, id }
        .post(&list)
        .await
        .assert_status(200);
}

#[tokio::test]
async fn events_pass_as_they_happen() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let session = Session::start(&app, &tokens).await;
    let mut stream = session.listen().await;
    for n in 0..3 {
        app.todo.send_event(
            &json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "n": n } }),
        );
        assert!(next(&mut stream).await.unwrap().contains(&format!("\"n\":{n}")));
    }
    let progress = json!({
        "jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": { "name": "get-todos", "arguments": {}, "_meta": { "progressToken": 1 } },
    });
    let answer = session.post(&progress).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.text().starts_with("event: message\ndata: {"));
}

#[tokio::test]
async fn gw_21_a_stream_is_cut_when_its_grant_is_revoked() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (_, others) = app.tokens_of("alice").await;
    let stream = Session::start(&app, &tokens).await.listen().await;
    let mut other = Session::start(&app, &others).await.listen().await;
    client.revoke(&tokens.refresh_token).await.assert_status(200);
    ended(stream).await;
    // The stream of another grant goes on.
    app.todo.send_event(&json!({ "still": "here" }));
    assert!(next(&mut other).await.unwrap().contains("still"));
}

#[tokio::test]
async fn a_stream_is_cut_when_the_identity_provider_says_no() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let stream = Session::start(&app, &tokens).await.listen().await;
    app.idp.disable("bob");
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    ended(stream).await;
}

#[tokio::test]
async fn when_the_client_goes_the_servers_stream_is_let_go() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let session = Session::start(&app, &tokens).await;
    let stream = session.listen().await;
    assert_eq!(app.todo.open_streams(), 1);
    drop(stream);
    // The server notices at its next write.
    while app.todo.open_streams() > 0 {
        app.todo.send_event(&json!({}));
        tokio::task::yield_now().await;
    }
}

/// On PostgreSQL: another process hears of a revocation at once, though it remembers live grants.
#[tokio::test]
async fn gw_21_a_revocation_reaches_other_replicas_within_a_second() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return; // SQLite serves one process
    }
    let (replica, _stop) = app.replica().await;
    for _ in 0..5 {
        let (client, tokens) = app.tokens_of("bob").await;
        let session = Session::start_at(&app, format!("{replica}/mcp"), &tokens).await;
        let stream = session.listen().await;
        let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
        session.post(&list).await.assert_status(200);

        client.revoke(&tokens.refresh_token).await.assert_status(200);

        let everywhere = async {
            while session.post(&list).await.status != 401 {}
            ended(stream).await;
        };
        tokio::time::timeout(Duration::from_secs(1), everywhere).await.unwrap();
    }
}

/// Streams look up when any grant ends, and otherwise every few seconds.
async fn let_streams_look(app: &TestApp) {
    let (client, tokens) = app.tokens_of("bob").await;
    client.revoke(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn a_stream_is_cut_when_the_rules_allow_less_than_it_began_with() {
    let app = TestApp::start().await;
    let (_, bobs) = app.tokens_of("bob").await;
    let (_, alices) = app.tokens_of("alice").await;
    let mut bobs = Session::start(&app, &bobs).await.listen().await;
    let mut alices = Session::start(&app, &alices).await.listen().await;
    app.advance(16 * 60);
    let_streams_look(&app).await;
    app.todo.send_event(&json!({ "still": "here" }));
    for stream in [&mut alices, &mut bobs] {
        assert!(next(stream).await.unwrap().contains("still"));
    }

    app.idp.set_roles("alice", &["User"]);
    app.advance(16 * 60);
    let_streams_look(&app).await;
    ended(alices).await;
    app.todo.send_event(&json!({ "still": "there" }));
    assert!(next(&mut bobs).await.unwrap().contains("there"));
}

#[tokio::test]
async fn gw_21_an_answer_that_is_still_under_way_breaks_off_when_its_grant_is_revoked() {
    let app = TestApp::start().await;
    app.todo.misbehave(|how| how.stream_type = Some("application/octet-stream"));
    let (client, tokens) = app.tokens_of("alice").await;
    let session = Session::start(&app, &tokens).await;
    let response = app.http.open("GET", &session.url, &session.headers(), "").await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let mut body = response.into_body();
    assert!(next(&mut body).await.unwrap().contains("connected"));
    let_streams_look(&app).await;
    app.todo.send_event(&json!({ "still": "here" }));
    assert!(next(&mut body).await.unwrap().contains("still"));

    client.revoke(&tokens.refresh_token).await.assert_status(200);

    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return; // and not as if it were complete
        }
    }
    panic!("it looks complete");
}
