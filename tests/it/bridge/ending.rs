//! Processes that end, and a bridge that ends: nothing stays behind.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::{Value, json};

use super::bridged::{
    Bridge, last_message, modern_call, runs, signal, text_of, tool_call, until, until_gone,
};

/// The tiny server behind a shell that starts another process beside it, and that ignores SIGTERM.
fn with_company(options: &[&str]) -> Bridge {
    let server = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' TERM; sleep 100000 </dev/null >/dev/null & {} bridge::stdio_server::as_a_process --exact --ignored --nocapture",
        server.to_str().unwrap()
    );
    Bridge::in_front_of(options, &["sh", "-c", &script], "stubborn")
}

/// The processes whose parent (1) or group (2) this is.
fn processes(field: usize, value: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry.unwrap().file_name().to_str().and_then(|name| name.parse::<u32>().ok())
    });
    all.filter(|pid| field_of(*pid, field) == Some(value)).collect()
}

fn field_of(pid: u32, field: usize) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(field)?.parse().ok()
}

/// The processes of the group of a process.
fn group_of(pid: u32) -> Vec<u32> {
    processes(2, field_of(pid, 2).unwrap())
}

#[tokio::test]
async fn kill_9_of_a_process_answers_its_call_at_once_and_ends_its_session() {
    let bridge = Bridge::start(&[]);
    let (session, other) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let pid = session.pid().await;
    let (mut listening, call) =
        (session.listen().await, tool_call(&json!("cut"), "never", &json!({})));
    let killing = async {
        until(async || session.call("seen", &json!({})).await.contains("\"cut\"")).await;
        signal(pid, "KILL");
    };
    let (answer, ()) = tokio::join!(session.post(&call), killing);
    let answer = last_message(answer.assert_status(200));
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("cut"), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains("signal 9"), "{answer}");
    assert_eq!(listening.next().await, None);
    session.post(&call).await.assert_status(404);
    other.pid().await;
    // A client that initialises again has a new process at once.
    assert_ne!(bridge.session(&[]).await.pid().await, pid);
    let told = |line: &Value| {
        line["pid"] == pid && line["message"].as_str().is_some_and(|said| said.contains("signal 9"))
    };
    until(async || bridge.logged().iter().any(told)).await;
}

#[tokio::test]
async fn a_shared_process_that_ends_is_replaced() {
    let bridge = Bridge::start(&[]);
    let call = |tool: &str| modern_call(&json!(1), tool, &json!({}));
    let first = text_of(&last_message(&bridge.call(&call("pid"), &[]).await));
    let answer = bridge.call(&call("exit"), &[]).await;
    let answer = last_message(answer.assert_status(200));
    assert!(answer["error"]["message"].as_str().unwrap().contains("exit code 7"), "{answer}");
    let second = text_of(&last_message(&bridge.call(&call("pid"), &[]).await));
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_bridge_that_is_told_to_end_ends_all_processes_and_what_they_started() {
    let mut bridge = with_company(&[]);
    let session = bridge.session(&[]).await;
    let group = group_of(session.pid().await);
    assert!(group.len() >= 3, "a shell, a server and its company: {group:?}");
    bridge.signal("TERM");
    let ended = bridge.wait().await;
    assert!(ended.success(), "{ended}");
    assert!(!group.iter().any(|pid| runs(*pid)), "{group:?}");
}

#[tokio::test]
async fn kill_9_of_the_bridge_leaves_no_process() {
    let mut bridge = with_company(&[]);
    let (one, other) = (bridge.session(&[]).await, bridge.session(&[]).await);
    let all = [group_of(one.pid().await), group_of(other.pid().await)].concat();
    assert!(all.len() >= 6, "{all:?}");
    bridge.signal("KILL");
    assert_eq!(bridge.wait().await.signal(), Some(9));
    until_gone(&all).await;

    // A server that ends with its input needs nobody for that.
    let mut bridge = Bridge::start(&[]);
    let pid = bridge.session(&[]).await.pid().await;
    bridge.signal("KILL");
    bridge.wait().await;
    until_gone(&[pid]).await;
}

#[tokio::test]
async fn the_watchdog_is_started_again_when_somebody_ends_it() {
    let mut bridge = with_company(&[]);
    let session = bridge.session(&[]).await;
    let group = group_of(session.pid().await);
    let children = processes(1, bridge.id());
    let watchdog = *children.iter().find(|pid| !group.contains(pid)).unwrap();
    signal(watchdog, "KILL");
    until_gone(&[watchdog]).await;
    // It is missed when a process starts or ends.
    let late = group_of(bridge.session(&[]).await.pid().await);
    bridge.signal("KILL");
    bridge.wait().await;
    until_gone(&[group, late].concat()).await;
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_started_more_and_more_seldom() {
    let bridge = Bridge::in_front_of(&[], &["false"], "");
    bridge.health().await.assert_status(200);
    let mut failing = false;
    until(async || {
        let answer = bridge.post(&super::bridged::initialize(), &[]).await;
        let error = answer.json()["error"].clone();
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{error}");
        } else {
            assert!(error["message"].as_str().unwrap().contains("exit code 1"), "{error}");
        }
        failing |= answer.status == 503;
        bridge.health().await.status == 503
    })
    .await;
    assert!(failing);
    assert_eq!(bridge.health().await.json()["status"], "failing");
    bridge.until_processes(0).await;
    assert_eq!(bridge.health().await.json()["sessions"], 0);
}
