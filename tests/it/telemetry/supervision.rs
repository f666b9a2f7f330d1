//! Tasks that live as long as the process: one that panics is started again, counted, and told.

#[cfg(target_os = "linux")]
use std::io::{BufRead, BufReader};
#[cfg(target_os = "linux")]
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::McpClient;
#[cfg(target_os = "linux")]
use crate::harness::process::portcullis;
use crate::harness::process::{Served, free_address};
use crate::harness::raw;

/// What a test waits for must come within this time; nothing depends on how soon.
const PATIENCE: Duration = Duration::from_mins(1);

/// Every task that lives as long as a server does.
const TASKS: [&str; 13] = [
    "connections",
    "admin connections",
    "reload",
    "clean-up",
    "signing keys",
    "audit trail",
    "usage",
    "targets",
    "telemetry",
    "notifications",
    "revocations",
    "certificates",
    "changes from the command line",
];

/// Whether anything is answered; the admin listener says that there is no such page.
async fn answers(url: &str) -> bool {
    let host = raw::host(url);
    let health = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    matches!(raw::try_exchange(url, &health).await, Ok(answer) if raw::status(&answer) > 0)
}

async fn within(what: &str, come: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, come).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_task_that_panicked_is_told_by_ready() {
    let admin = free_address();
    let mut server = Served::prepared().await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    let text = format!("{text}\n[admin]\nlisten = \"{admin}\"\nroles = [\"Admin\"]\n");
    std::fs::write(&server.config, &text).unwrap();
    let mut tasks = TASKS.to_vec();
    if server.database.is_postgres() {
        tasks.push("notices of replicas");
    }
    server.env.push(("TEST_PANIC_AT", tasks.join(",")));
    server.launch();
    let admin = format!("http://{admin}");
    let get = async |url: &str| server.http.get(url).await;

    // Each listener panics on its first connection, which is lost, and accepts the next one.
    for url in [&server.url, &admin] {
        within("the listener accepts again", async { while !answers(url).await {} }).await;
    }
    let mut told = Value::Null;
    let all = async {
        while told["tasks"].as_object().is_none_or(|told| told.len() < tasks.len()) {
            told = get(&format!("{}/ready", server.url)).await.assert_status(200).json();
        }
    };
    within("every task is told", all).await;
    assert_eq!(told["status"], "degraded");
    let metrics = get(&format!("{admin}/metrics")).await.text().to_owned();
    for task in &tasks {
        // What panics before the server serves is not in the log that is kept here.
        let is_kept = TASKS.contains(task);
        assert_eq!(told["tasks"][task], "panicked, and was started again", "{told}");
        let series = format!("\nportcullis_task_panics_total{{task=\"{task}\"}} 1\n");
        assert!(metrics.contains(&series), "{task}: {metrics}");
        let line = format!("task=\"{task}\"");
        within("the log has it", async {
            while is_kept && server.logged(&line) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(server.logged("a task panicked"), TASKS.len());

    // And each of them works.
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let call = async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await;
    assert_eq!(call().await.status, 200);
    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    std::fs::write(&server.config, text.replace("[resource.tools]", tight)).unwrap();
    server.signal("HUP");
    within("reload works", async { while call().await.status != 403 {} }).await;
    let chained =
        "SELECT COUNT(*) FROM audit_events WHERE seq IS NOT NULL AND event = 'code_redeemed'";
    within("the audit trail is chained", async {
        while server.database.number(chained).await == 0 {}
    })
    .await;
    assert!(server.terminate().await.unwrap().success());
}

/// A task that panics whenever it is started is started ever more rarely, and the rest goes on.
#[tokio::test]
async fn a_task_that_panics_again_and_again_is_still_told_and_costs_the_others_nothing() {
    let mut server = Served::prepared().await;
    server.env.push(("TEST_PANIC_AT", "clean-up*1000000,reload*3".to_owned()));
    server.launch();
    let ready = async || server.http.get(&format!("{}/ready", server.url)).await.json();

    let text = std::fs::read_to_string(&server.config).unwrap();
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let call = async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await;
    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    std::fs::write(&server.config, text.replace("[resource.tools]", tight)).unwrap();
    // Changed while nobody looked: the next start of the task finds it without a signal.
    within("reload works", async { while call().await.status != 403 {} }).await;

    assert_eq!(ready().await["tasks"]["reload"], "panicked, and was started again");
    let waits = async {
        while ready().await["tasks"]["clean-up"] != "panicked, and waits to be started" {}
    };
    within("it is told that it does not run", waits).await;
    assert!(server.terminate().await.unwrap().success());
}

/// Until somebody listens for it, SIGHUP ends a process: a service manager that tells all servers to read their
/// configuration must not end one in the middle of a long migration.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn sighup_does_not_end_a_server_that_is_still_starting() {
    let server = Served::prepared().await;
    let mut child = portcullis(&server.database.folder)
        .arg("serve")
        .env("TEST_STOP_AT", "start: before the database")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let stopped = |line: std::io::Result<String>| line.unwrap().contains("stopped at start");
    assert!(lines.any(stopped), "it starts");

    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();

    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(caught, 16).unwrap() & 1, 1, "SIGHUP is caught: {caught}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A server without open files accepts nobody until some are closed, which is worth a line and no flood of lines.
#[cfg(unix)]
#[tokio::test]
async fn connections_that_cannot_be_accepted_are_a_line_a_minute_and_are_accepted_later() {
    const OPEN_FILES: u32 = 100;
    let mut server = Served::prepared().await;
    server.launch_with_at_most_open_files(OPEN_FILES);
    let mut held = Vec::new();
    for _ in 0..OPEN_FILES {
        held.push(raw::connect(&server.url).await);
    }
    let failed = "accepting a connection failed";
    within("it has no open files left", async {
        while server.logged(failed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The clock of sockets is the system's: no hand moves it.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.logged(failed), 1);
    drop(held);
    within("it accepts again", async { while !answers(&server.url).await {} }).await;
    assert!(server.terminate().await.unwrap().success());
}
