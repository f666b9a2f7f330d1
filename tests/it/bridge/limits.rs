//! What a bridge refuses, so that callers cannot exhaust it.

use serde_json::json;

use super::bridged::{
    Bridge, initialize, last_message, modern_call, runs, text_of, tool_call, until, until_gone,
};

const ALICE: (&str, &str) = ("x-portcullis-subject", "okta:alice");
const BOB: (&str, &str) = ("x-portcullis-subject", "okta:bob");

#[tokio::test]
async fn there_are_at_most_so_many_processes() {
    let bridge = Bridge::start(&["--max-children", "3", "--max-children-per-person", "2"]);
    let one = bridge.session(&[ALICE]).await;
    bridge.session(&[ALICE]).await;
    let third = bridge.post(&initialize(), &[ALICE]).await;
    third.assert_status(429);
    assert!(
        third.header("retry-after").is_some() && third.text().contains("--max-children-per-person")
    );
    bridge.session(&[BOB]).await;
    let fourth = bridge.post(&initialize(), &[BOB]).await;
    fourth.assert_status(503);
    assert!(fourth.header("retry-after").is_some() && fourth.header("mcp-session-id").is_none());
    // The place of a session that ends is free again.
    one.delete().await.assert_status(204);
    bridge.until_processes(2).await;
    bridge.session(&[ALICE]).await;
}

#[tokio::test]
async fn a_shared_process_that_nobody_uses_makes_room() {
    let bridge = Bridge::start(&["--max-children", "1"]);
    let call = modern_call(&json!(1), "pid", &json!({}));
    let pid = async |who: (&str, &str)| {
        text_of(&last_message(bridge.call(&call, &[who]).await.assert_status(200)))
    };
    let first = pid(ALICE).await;
    let second = pid(BOB).await;
    assert_ne!(first, second);
    until_gone(&[first.parse().unwrap()]).await;
    // A session that somebody has begun does not.
    let session = bridge.session(&[ALICE]).await;
    bridge.call(&call, &[BOB]).await.assert_status(503);
    session.pid().await;
}

#[tokio::test]
async fn what_nobody_uses_ends() {
    let bridge = Bridge::start(&["--idle-timeout", "1s"]);
    let (idle, used) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let (idle_pid, used_pid) = (idle.pid().await, used.pid().await);
    // An open stream is a client that is still there.
    let _stream = used.listen().await;
    let shared = modern_call(&json!(1), "pid", &json!({}));
    let shared = text_of(&last_message(&bridge.call(&shared, &[]).await)).parse().unwrap();
    until_gone(&[idle_pid, shared]).await;
    idle.post(&tool_call(&json!(1), "pid", &json!({}))).await.assert_status(404);
    assert!(runs(used_pid));
    used.pid().await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_given_up() {
    let bridge = Bridge::start(&["--request-timeout", "1s"]);
    let session = bridge.session(&[]).await;
    let answer = session.post(&tool_call(&json!("slow"), "never", &json!({}))).await;
    let answer = last_message(answer.assert_status(200));
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("slow"), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains("in time"), "{answer}");
    until(async || {
        let seen = session.call("seen", &json!({})).await;
        let mut lines = seen.lines().filter(|line| line.contains("notifications/cancelled"));
        lines.any(|line| line.contains(r#""requestId":"slow""#))
    })
    .await;
}

#[tokio::test]
async fn messages_have_a_largest_size_in_both_directions() {
    let bridge = Bridge::start(&["--max-message", "10000"]);
    let session = bridge.session(&[]).await;
    let call = |size: usize| tool_call(&json!(1), "echo", &json!({ "text": "x".repeat(size) }));
    session.post(&call(9000)).await.assert_status(200);
    let large = session.post(&call(11_000)).await;
    large.assert_status(413);
    assert!(large.text().contains("--max-message"), "{}", large.text());
    session.pid().await;

    let answer = session.post(&tool_call(&json!(2), "huge", &json!({ "size": 11_000 }))).await;
    let error = &last_message(answer.assert_status(200))["error"];
    assert!(error["message"].as_str().unwrap().contains("--max-message"), "{error}");
    session.post(&call(1)).await.assert_status(404);
}

#[tokio::test]
async fn a_process_that_reads_nothing_is_sent_no_more_than_the_queue_takes() {
    let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}"#;
    let script = format!("read line; echo '{answer}'; exec sleep 100000");
    let bridge = Bridge::in_front_of(&["--max-message", "100000"], &["sh", "-c", &script], "");
    let begun = bridge.post(&initialize(), &[]).await;
    let id = begun.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    let large =
        json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": "x".repeat(90_000) });
    let (mut taken, mut refused) = (0, false);
    while !refused {
        let answer = bridge.post(&large, &[("mcp-session-id", &id)]).await;
        refused = answer.status == 503;
        taken += usize::from(answer.status == 202);
        assert!(taken < 10, "the queue has no limit");
    }
}

#[tokio::test]
async fn a_session_whose_client_goes_before_it_has_begun_ends() {
    let bridge = Bridge::in_front_of(&[], &["sleep", "100000"], "");
    let sessions = async || bridge.health().await.json()["sessions"].clone();
    let body = initialize();
    let (begun, came) = (bridge.post(&body, &[]), until(async || sessions().await == 1));
    tokio::select! {
        answer = begun => panic!("nobody can have answered: {answer:?}"),
        () = came => {} // and the client goes
    }
    until(async || sessions().await == 0).await;
    bridge.until_processes(0).await;
}
