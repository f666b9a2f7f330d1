//! Clients of the revisions with sessions.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::bridged::{Bridge, initialize, last_message, runs, text_of, tool_call, until_gone};

const ALICE: [(&str, &str); 2] =
    [("x-portcullis-subject", "okta:alice"), ("x-portcullis-client", "client-1")];

#[tokio::test]
async fn a_session_has_a_process_of_its_own_and_ends_with_delete() {
    let bridge = Bridge::start(&[]);
    let (first, second) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let (one, other) = (first.pid().await, second.pid().await);
    assert_ne!(one, other);
    assert_eq!(first.pid().await, one);
    assert_eq!(bridge.health().await.json()["sessions"], 2);

    first.delete().await.assert_status(204);
    until_gone(&[one]).await;
    let late = first.post(&tool_call(&json!(9), "pid", &json!({}))).await;
    late.assert_status(404);
    assert_eq!((&late.json()["id"], &late.json()["error"]["code"]), (&json!(9), &json!(-32600)));
    first.delete().await.assert_status(404);
    assert!(runs(other) && second.pid().await == other);
    bridge.until_processes(1).await;
}

#[tokio::test]
async fn what_the_bridge_does_not_know_passes_unchanged() {
    let bridge = Bridge::start(&[]);
    let session = bridge.session(&[]).await;
    let sent =
        r#"{ "extra" : [1.50, 9007199254740993] ,"id":"a\u0062","method":"x/raw","jsonrpc":"2.0"}"#;
    let answer = bridge.post_text(sent, &session.all_headers()).await;
    answer.assert_status(200);
    assert!(
        answer.text().starts_with(r#"{ "more":1.50 ,"jsonrpc":"2.0","id":"ab""#),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("10000000000000000000001"), "{}", answer.text());
    assert_eq!(answer.json()["result"]["line"], sent);

    // Line breaks between tokens would end the message on stdio. Those in texts are escaped.
    let sent = "{\"jsonrpc\":\"2.0\",\r\n\"id\":2,\n\"method\":\"x/raw\",\"x\":\"a\\nb\"}";
    let answer = bridge.post_text(sent, &session.all_headers()).await;
    assert_eq!(answer.json()["result"]["line"], sent.replace(['\r', '\n'], " "));

    // An unknown method gets the server's own answer, and an unknown notification arrives.
    let unknown = session.post(&json!({ "jsonrpc": "2.0", "id": 3, "method": "x/y" })).await;
    assert_eq!(unknown.assert_status(200).json()["error"]["code"], -32601);
    session.notify("notifications/x/y").await;
    assert!(session.call("seen", &json!({})).await.contains("notifications/x/y"));
}

#[tokio::test]
async fn fifty_sessions_at_once_have_fifty_processes() {
    let bridge = Bridge::start(&["--max-children", "50"]);
    let sessions = join_all((0..50).map(|_| bridge.session(&[]))).await;
    let calls = sessions.iter().enumerate().map(async |(n, session)| {
        for round in 0..3 {
            let said = format!("{n} {round}");
            assert_eq!(session.call("echo", &json!({ "text": said })).await, said);
        }
        session.pid().await
    });
    let pids: BTreeSet<u32> = join_all(calls).await.into_iter().collect();
    assert_eq!(pids.len(), 50);
    join_all(sessions.iter().map(async |session| session.delete().await)).await;
    until_gone(&pids.into_iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_process_learns_who_calls_and_no_secret_of_the_bridge() {
    let bridge = Bridge::start(&[]);
    let named = bridge
        .session(&[
            ("x-portcullis-subject", "okta:00u1"),
            ("x-portcullis-client", "client-1"),
            ("x-portcullis-scopes", "read write"),
            ("x-portcullis-name", "J%C3%BCrgen"),
            ("x-portcullis-email", "j@example.com"),
            ("x-portcullis-email-verified", "true"),
            ("x-portcullis-evil", "no"),
        ])
        .await;
    let environment: Value = serde_json::from_str(&named.call("env", &json!({})).await).unwrap();
    let ours: Vec<(&str, &str)> = environment
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("PORTCULLIS_"))
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let expected = [
        ("PORTCULLIS_CLIENT", "client-1"),
        ("PORTCULLIS_EMAIL", "j@example.com"),
        ("PORTCULLIS_EMAIL_VERIFIED", "true"),
        ("PORTCULLIS_NAME", "Jürgen"),
        ("PORTCULLIS_SUBJECT", "okta:00u1"),
    ];
    assert_eq!(ours, expected);
    assert_eq!(environment["OF_THE_BRIDGE"], "kept");

    let nobody = bridge.session(&[]).await;
    let environment = nobody.call("env", &json!({})).await;
    assert!(!environment.contains("PORTCULLIS_"), "{environment}");
    let bad = [("x-portcullis-subject", "a%0Ab")];
    bridge.post(&initialize(), &bad).await.assert_status(400);
}

#[tokio::test]
async fn gw_06_a_session_belongs_to_one_person_and_client() {
    let bridge = Bridge::start(&[]);
    let session = bridge.session(&ALICE).await;
    let call = tool_call(&json!(1), "pid", &json!({}));
    let id = [("mcp-session-id", session.id.as_str())];
    for other in [
        &[("x-portcullis-subject", "okta:bob"), ("x-portcullis-client", "client-1")][..],
        &[("x-portcullis-subject", "okta:alice"), ("x-portcullis-client", "client-2")],
        &[("x-portcullis-subject", "okta:alice")],
        &[],
    ] {
        bridge.post(&call, &[&id[..], other].concat()).await.assert_status(404);
        let url = bridge.mcp();
        let headers = [&id[..], other].concat();
        bridge.http.send("DELETE", &url, &headers, "").await.assert_status(404);
    }
    session.pid().await;
}

#[tokio::test]
async fn messages_of_the_process_reach_the_streams_of_their_session() {
    let bridge = Bridge::start(&[]);
    let (session, other) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let mut elsewhere = other.listen().await;

    // Progress comes on the stream of its call.
    let mut call = tool_call(&json!("p"), "progress", &json!({}));
    call["params"]["_meta"] = json!({ "progressToken": "t" });
    let mut events = session.open(&call).await;
    let progress = events.next().await.unwrap();
    assert_eq!(progress["params"], json!({ "progressToken": "t", "progress": 1 }));
    assert_eq!(text_of(&events.next().await.unwrap()), "done");
    assert_eq!(events.next().await, None);

    // A question comes on the stream of the call, and its answer is sent on its own.
    let mut events = session.open(&tool_call(&json!(5), "ask", &json!({}))).await;
    let question = events.next().await.unwrap();
    assert_eq!(question["method"], "sampling/createMessage");
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "x": 1 } });
    session.post(&answer).await.assert_status(202);
    let told: Value = serde_json::from_str(&text_of(&events.next().await.unwrap())).unwrap();
    assert_eq!(told, answer);

    // What belongs to no call comes on the stream of one, if there is one.
    let mut events = session.open(&tool_call(&json!(6), "announce", &json!({ "n": 0 }))).await;
    assert_eq!(events.next().await.unwrap()["method"], "notifications/x/new");
    assert_eq!(text_of(&events.next().await.unwrap()), "done");
    // Otherwise it waits for the stream of the session, and comes there from then on.
    let announce = |n: u8| json!({ "jsonrpc": "2.0", "method": "notifications/announce", "params": { "n": n } });
    session.post(&announce(1)).await.assert_status(202);
    let mut listening = session.listen().await;
    assert_eq!(listening.next().await.unwrap()["params"]["n"], 1);
    session.post(&announce(2)).await.assert_status(202);
    assert_eq!(listening.next().await.unwrap()["params"]["n"], 2);
    session.call("announce", &json!({ "n": 3 })).await;
    assert_eq!(listening.next().await.unwrap()["params"]["n"], 3);

    // Nothing of that was for the other session.
    other.call("announce", &json!({ "n": "own" })).await;
    assert_eq!(elsewhere.next().await.unwrap()["params"]["n"], "own");
    session.delete().await.assert_status(204);
    assert_eq!(listening.next().await, None);
}

#[tokio::test]
async fn a_batch_is_answered_as_one() {
    let bridge = Bridge::start(&[]);
    let session = bridge.session(&[]).await;
    let batch = json!([
        tool_call(&json!(1), "echo", &json!({ "text": "one" })),
        { "jsonrpc": "2.0", "method": "notifications/x" },
        tool_call(&json!("two"), "echo", &json!({ "text": "two" })),
    ]);
    let answers = session.post(&batch).await.assert_status(200).json();
    assert_eq!(answers.as_array().unwrap().len(), 2);
    assert_eq!((text_of(&answers[0]), text_of(&answers[1])), ("one".to_owned(), "two".to_owned()));
    let only = json!([{ "jsonrpc": "2.0", "method": "notifications/x" }]);
    session.post(&only).await.assert_status(202);
    session.post(&json!([])).await.assert_status(400);
    session.post(&json!([initialize()])).await.assert_status(400);
}

#[tokio::test]
async fn a_request_without_its_session_is_told_to_initialize() {
    let bridge = Bridge::start(&[]);
    let call = tool_call(&json!(1), "pid", &json!({}));
    let answer = bridge.post(&call, &[]).await;
    assert!(answer.assert_status(400).text().contains("initialize first"), "{}", answer.text());
    bridge.post(&call, &[("mcp-session-id", "made-up")]).await.assert_status(404);
    // The same id twice at once would make answers ambiguous.
    let session = bridge.session(&[]).await;
    let mut first = session.open(&tool_call(&json!(1), "ask", &json!({}))).await;
    let question = first.next().await.unwrap();
    session.post(&call).await.assert_status(400);
    session.post(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": {} })).await;
    assert!(first.next().await.is_some());
    // A client that takes only one kind of answer gets that.
    let json_only = [&session.all_headers()[..], &[("x-other", "1")]].concat();
    let url = bridge.mcp();
    let headers =
        [&[("content-type", "application/json"), ("accept", "application/json")][..], &json_only]
            .concat();
    let answer = bridge.http.send("POST", &url, &headers, call.to_string()).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let headers =
        [&[("content-type", "application/json"), ("accept", "text/event-stream")][..], &json_only]
            .concat();
    let answer = bridge.http.send("POST", &url, &headers, call.to_string()).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(text_of(&last_message(&answer)), session.pid().await.to_string());
}
