//! Clients of 2026-07-28, and people who share a process.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::bridged::{Bridge, last_message, modern_call, text_of, tool_call, until};

const ALICE: (&str, &str) = ("x-portcullis-subject", "okta:alice");
const BOB: (&str, &str) = ("x-portcullis-subject", "okta:bob");
const FIRST: (&str, &str) = ("x-portcullis-client", "client-1");
const SECOND: (&str, &str) = ("x-portcullis-client", "client-2");

async fn pid(bridge: &Bridge, headers: &[(&str, &str)]) -> String {
    let answer = bridge.call(&modern_call(&json!(1), "pid", &json!({})), headers).await;
    assert_eq!(answer.header("mcp-session-id"), None);
    text_of(&last_message(answer.assert_status(200)))
}

#[tokio::test]
async fn without_sessions_each_person_has_a_process() {
    let bridge = Bridge::start(&[]);
    let alice = pid(&bridge, &[ALICE, FIRST]).await;
    assert_eq!(pid(&bridge, &[ALICE, SECOND]).await, alice);
    let bob = pid(&bridge, &[BOB, FIRST]).await;
    let nobody = pid(&bridge, &[]).await;
    let all: BTreeSet<&String> = [&alice, &bob, &nobody].into_iter().collect();
    assert_eq!(all.len(), 3);
    // A person of another name is another process: it has the name in its environment.
    assert_ne!(pid(&bridge, &[ALICE, ("x-portcullis-name", "Alice")]).await, alice);
    let environment = modern_call(&json!(1), "env", &json!({}));
    let environment = text_of(&last_message(&bridge.call(&environment, &[ALICE, FIRST]).await));
    assert!(
        environment.contains("okta:alice") && !environment.contains("client-1"),
        "{environment}"
    );
    // A session beside it has a process of its own.
    assert_ne!(bridge.session(&[ALICE, FIRST]).await.pid().await.to_string(), alice);
}

#[tokio::test]
async fn a_hundred_callers_of_one_process_each_get_their_own_answer() {
    let bridge = Bridge::start(&[]);
    pid(&bridge, &[]).await;
    let calls = (0..100).map(async |n| {
        let said = format!("caller {n}");
        let tool = if n % 2 == 0 { "echo" } else { "progress" };
        // All of them use the same id and token.
        let call = modern_call(&json!(7), tool, &json!({ "text": said }));
        let answer = bridge.call(&call, &[]).await;
        let last = last_message(answer.assert_status(200));
        assert_eq!(last["id"], 7);
        if tool == "echo" {
            assert_eq!(text_of(&last), said);
        } else {
            assert_eq!(
                answer.text().matches("notifications/progress").count(),
                1,
                "{}",
                answer.text()
            );
            assert!(answer.text().contains(r#""progressToken":7"#), "{}", answer.text());
        }
    });
    join_all(calls).await;
    assert_eq!(bridge.health().await.json()["processes"], 1);
}

#[tokio::test]
async fn gw_23_headers_that_contradict_the_body_are_refused() {
    let bridge = Bridge::start(&[]);
    let call = modern_call(&json!(4), "pid", &json!({}));
    for headers in [
        &[][..],
        &[("mcp-protocol-version", "2026-07-28")],
        &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")],
        &[
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "env"),
        ],
        &[
            ("mcp-protocol-version", "2025-11-25"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "pid"),
        ],
    ] {
        let answer = bridge.post(&call, headers).await;
        answer.assert_status(400);
        assert_eq!(
            (&answer.json()["error"]["code"], &answer.json()["id"]),
            (&json!(-32020), &json!(4))
        );
    }
    assert_eq!(bridge.health().await.json()["processes"], 0, "nothing was started for them");
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    bridge.post(&response, &[("mcp-protocol-version", "2026-07-28")]).await.assert_status(400);
}

#[tokio::test]
async fn a_server_of_the_earlier_revisions_is_recognised_by_the_status() {
    let bridge = Bridge::start(&[]);
    let mut discover = modern_call(&json!(1), "x", &json!({}));
    discover["method"] = json!("server/discover");
    discover["params"].as_object_mut().unwrap().remove("name");
    let answer = bridge.call(&discover, &[]).await;
    answer.assert_status(404);
    assert_eq!(answer.json()["error"]["code"], -32601);
    // The client falls back to the handshake, and the process of the probe stays for others.
    bridge.session(&[]).await.pid().await;
    // An unknown version of the future belongs to no session either, and arrives.
    let raw = r#"{"jsonrpc":"2.0","id":3,"method":"x/raw","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}}}"#;
    let headers = [("mcp-protocol-version", "2031-01-01"), ("mcp-method", "x/raw")];
    let answer = bridge.post_text(raw, &headers).await;
    answer.assert_status(200);
    assert!(answer.json()["result"]["line"].as_str().unwrap().contains("2031-01-01"));
    assert_eq!(answer.json()["id"], 3);
}

#[tokio::test]
async fn a_subscription_is_told_of_changes_under_its_own_id() {
    let bridge = Bridge::start(&[]);
    let listen = json!({ "jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen" });
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen"), ALICE];
    let (mut one, mut other) =
        (bridge.open(&listen, &headers).await, bridge.open(&listen, &headers).await);
    for stream in [&mut one, &mut other] {
        for method in
            ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]
        {
            let told = stream.next().await.unwrap();
            assert_eq!(told["method"], method);
            assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "mine");
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_the_connection_cancels_its_request() {
    let bridge = Bridge::start(&[]);
    let listen = json!({ "jsonrpc": "2.0", "id": "gone", "method": "subscriptions/listen" });
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen"), ALICE];
    let mut stream = bridge.open(&listen, &headers).await;
    stream.next().await.unwrap();
    drop(stream);
    let seen = async || {
        let seen = modern_call(&json!(2), "seen", &json!({}));
        text_of(&last_message(&bridge.call(&seen, &[ALICE]).await))
    };
    until(async || seen().await.contains("notifications/cancelled")).await;
    let seen = seen().await;
    let line = |method: &str| {
        let line = seen.lines().find(|line| line.contains(&format!("\"{method}\""))).unwrap();
        serde_json::from_str::<Value>(line).unwrap()
    };
    let (begun, cancelled) = (line("subscriptions/listen"), line("notifications/cancelled"));
    assert_eq!(cancelled["params"]["requestId"], begun["id"]);
}

#[tokio::test]
async fn per_person_all_sessions_and_clients_of_a_person_share_a_process() {
    let bridge = Bridge::start(&["--per", "person"]);
    let one = bridge.session(&[ALICE, FIRST]).await;
    let other = bridge.session(&[ALICE, SECOND]).await;
    let bobs = bridge.session(&[BOB, FIRST]).await;
    let shared = one.pid().await;
    assert_eq!(other.pid().await, shared);
    assert_ne!(bobs.pid().await, shared);
    assert_eq!(pid(&bridge, &[ALICE]).await, shared.to_string());

    // Each question is answered by the session whose call asks it.
    let (mut first, mut second) = (
        one.open(&tool_call(&json!(1), "ask", &json!({}))).await,
        other.open(&tool_call(&json!(1), "ask", &json!({}))).await,
    );
    let (mine, theirs) = (first.next().await.unwrap(), second.next().await.unwrap());
    let answer = |question: &Value, n: u8| json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "n": n } });
    assert_ne!(mine["id"], theirs["id"]);
    // Somebody else's answer counts for nothing.
    other.post(&answer(&mine, 9)).await.assert_status(202);
    one.post(&answer(&mine, 1)).await.assert_status(202);
    other.post(&answer(&theirs, 2)).await.assert_status(202);
    assert!(text_of(&first.next().await.unwrap()).contains(r#""n":1"#));
    assert!(text_of(&second.next().await.unwrap()).contains(r#""n":2"#));

    // The end of one session leaves the process to the other.
    one.delete().await.assert_status(204);
    assert_eq!(other.pid().await, shared);
    let nobody = bridge.post(&super::bridged::initialize(), &[]).await;
    assert!(nobody.assert_status(403).text().contains("X-Portcullis-Subject"), "{}", nobody.text());
}
