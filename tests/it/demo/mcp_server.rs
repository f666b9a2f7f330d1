//! What the demo's MCP server answers when it refuses: JSON-RPC, so that a client shows the reason.

use serde_json::Value;

use crate::harness::TestApp;
use crate::harness::http::Answer;

const PERSON: (&str, &str) = ("x-portcullis-subject", "oidc:demo-bob");
const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");

async fn send(app: &TestApp, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![PERSON, ("content-type", "application/json")];
    if !headers.iter().any(|(name, _)| *name == "accept") {
        all.push(BOTH);
    }
    all.extend_from_slice(headers);
    app.http.send(method, &app.todo.url(), &all, body.to_owned()).await
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, id: &Value, words: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let json = answer.json();
    assert_eq!(json["jsonrpc"], "2.0", "{what}: {json}");
    assert_eq!(&json["id"], id, "{what}: {json}");
    assert!(json["error"]["code"].as_i64().unwrap() < 0, "{what}: {json}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{what}: {message}");
}

#[tokio::test]
async fn every_refusal_is_a_json_rpc_error_that_says_what_is_missing() {
    let app = TestApp::start().await;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let named = r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;
    let unknown = ("mcp-session-id", "no-such-session");
    let null = Value::Null;
    let no_session = "Mcp-Session-Id";
    let gone = "initialize";
    for (what, method, headers, body, status, id, words) in [
        ("a call without a session", "POST", vec![], call, 400, Value::from(7), no_session),
        ("the id is a text", "POST", vec![], named, 400, Value::from("a"), no_session),
        ("a notification", "POST", vec![], note, 400, null.clone(), no_session),
        ("a batch", "POST", vec![], batch, 400, null.clone(), no_session),
        ("a stream without a session", "GET", vec![], "", 400, null.clone(), no_session),
        ("an end without a session", "DELETE", vec![], "", 400, null.clone(), no_session),
        ("an unknown session", "POST", vec![unknown], call, 404, Value::from(7), gone),
        ("a stream of an unknown session", "GET", vec![unknown], "", 404, null.clone(), gone),
        ("the end of an unknown session", "DELETE", vec![unknown], "", 404, null.clone(), gone),
        ("no JSON", "POST", vec![unknown], "{", 400, null.clone(), "Parse error"),
        (
            "a stream for a client that takes none",
            "GET",
            vec![("accept", "application/json")],
            "",
            406,
            null.clone(),
            "text/event-stream",
        ),
        ("another method", "PUT", vec![], call, 405, Value::from(7), "POST"),
    ] {
        let answer = send(&app, method, &headers, body).await;
        assert_error(&answer, status, &id, words, what);
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("GET, POST, DELETE"));
        }
    }

    let elsewhere = app.todo.url().replace("/mcp", "/other");
    let answer = app.http.send("POST", &elsewhere, &[PERSON], call.to_owned()).await;
    assert_error(&answer, 404, &Value::from(7), "/mcp", "another path");
    let answer = app.http.send("POST", &app.todo.url(), &[BOTH], call.to_owned()).await;
    assert_error(&answer, 403, &Value::from(7), "behind Portcullis", "nobody is named");
    let large = "x".repeat(2 * 1024 * 1024);
    let answer = send(&app, "POST", &[], &large).await;
    assert_error(&answer, 413, &Value::Null, "1 MiB", "too large");
}

/// A client is told the same through the gateway, under the id of its own call.
#[tokio::test]
async fn a_call_without_a_session_says_so_through_the_gateway() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" });
    let headers = [("authorization", authorization.as_str()), BOTH];
    let answer = app.http.post_json(&app.mcp_url(), &body, &headers).await;
    assert_error(&answer, 400, &Value::from(3), "Mcp-Session-Id", "through the gateway");
}
