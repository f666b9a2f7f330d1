//! MCP servers that write what they should not.

use serde_json::{Value, json};

use super::bridged::{Bridge, last_message, tool_call, until};

#[tokio::test]
async fn lines_that_are_no_messages_hurt_nobody() {
    let bridge = Bridge::start(&[]);
    let session = bridge.session(&[]).await;
    assert_eq!(session.call("noise", &json!({})).await, "after the noise");
    session.pid().await;
    // Lines of the log arrive a little later than answers.
    let told =
        |line: &Value| line["message"].as_str().is_some_and(|said| said.contains("no MCP message"));
    until(async || bridge.logged().iter().any(told)).await;
}

#[tokio::test]
async fn a_line_without_an_end_ends_the_process_and_not_the_bridge() {
    let bridge = Bridge::start(&["--max-message", "100000"]);
    let (session, other) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let answer = session.post(&tool_call(&json!(1), "endless", &json!({}))).await;
    let error = &last_message(answer.assert_status(200))["error"];
    assert!(error["message"].as_str().unwrap().contains("more than 100000 bytes"), "{error}");
    other.pid().await;
    bridge.until_processes(1).await;
}

#[tokio::test]
async fn ds_08_lines_on_standard_error_are_logged_one_by_one_cut_and_escaped() {
    let bridge = Bridge::start(&[]);
    let session = bridge.session(&[]).await;
    let pid = session.pid().await;
    session.call("stderr", &json!({})).await;
    let said = || {
        let log = bridge.logged();
        let of_process =
            log.into_iter().filter(|line| line["pid"] == pid && line["level"] == "INFO");
        let said = of_process.map(|line| line["message"].as_str().unwrap().to_owned());
        said.collect::<Vec<_>>()
    };
    until(async || said().iter().any(|line| line.starts_with("yyy"))).await;
    let said = said();
    assert!(said.contains(&"\\u{1b}[2Jwiped\\u{202e}".to_owned()), "{said:?}");
    assert!(said.contains(&"second".to_owned()), "{said:?}");
    let long = said.iter().find(|line| line.starts_with("yyy")).unwrap();
    assert!(long.len() < 2100 && long.ends_with('…'), "{}", long.len());
}
