//! A log that cannot be written costs lines and no answer: a full disk, a reader that went away, a reader
//! that stands still; and the output of commands that nobody takes.

use std::io::{BufRead, PipeWriter, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{McpClient, Server, Tokens};
use crate::harness::process::{Served, free_address, portcullis};
use crate::harness::{Setup, TestApp, raw};

/// What a test waits for must come within this time; nothing depends on how soon.
const PATIENCE: Duration = Duration::from_mins(1);

type MakeOutput = fn() -> Stdio;

/// A file on a disk that is always full.
fn full_disk() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader has gone.
fn broken_pipe() -> PipeWriter {
    std::io::pipe().unwrap().1
}

/// A socket whose other side has gone, as some service managers connect the log.
fn broken_socket() -> Stdio {
    Stdio::from(std::os::fd::OwnedFd::from(UnixStream::pair().unwrap().0))
}

/// A server without request rates and with admin pages, which are at the address that is returned.
async fn prepared(limits: &str) -> (Served, String) {
    let admin = free_address();
    let mut server = Served::prepared().await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    let tables = format!(
        "[limits]\nrequest_rates = false\n{limits}\n[admin]\nlisten = \"{admin}\"\nroles = [\"Admin\"]\n"
    );
    std::fs::write(&server.config, format!("{text}\n{tables}")).unwrap();
    server.env.push(("RUST_BACKTRACE", "0".to_owned()));
    (server, format!("http://{admin}"))
}

async fn metric(server: &Served, admin: &str, series: &str) -> f64 {
    let text = server.http.get(&format!("{admin}/metrics")).await;
    let series = format!("{series} ");
    let line = text.text().lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series}: {}", text.text())).parse().unwrap()
}

/// Everything that a client does, refused calls and repetitions too.
async fn everything_is_answered(server: &mut Served, how: &str) {
    let client = McpClient::register(server).await;
    let tokens = client.sign_in("bob").await;
    let call = client.call_tool(&tokens.access_token, "create-todo", json!({ "content": "a" }));
    call.await.assert_status(200);
    client.call_tool("no.access.token", "get-todos", json!({})).await.assert_status(401);
    client.redeem("ac_0.0").await.assert_error(400, "invalid_grant");
    let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    // A refresh that was committed and not answered is repeated, and must not end the grant.
    Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.call_tool(&next.access_token, "get-todos", json!({})).await.assert_status(200);
    for _ in 0..20 {
        server.http.get(&server.place().at("/authorize?client_id=x")).await.assert_page(400);
        server.http.get(&server.place().at("/auth/callback?state=x")).await.assert_page(403);
    }
    assert_eq!(server.ended(), None, "{how}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_no_answer() {
    let kinds: [(&str, MakeOutput); 3] = [
        ("a full disk", full_disk),
        ("a pipe whose reader has gone", || broken_pipe().into()),
        ("a socket whose other side has gone", broken_socket),
    ];
    for (how, stderr) in kinds {
        for format in ["text", "json"] {
            let (mut server, admin) = prepared("").await;
            server.env.push(("PORTCULLIS_LOG_FORMAT", format.to_owned()));
            server.launch_into(stderr()).await;

            everything_is_answered(&mut server, how).await;

            let lost = metric(&server, &admin, "portcullis_log_lines_lost_total{why=\"failed\"}");
            assert!(lost.await > 10.0, "{how}");
            let ready = server.http.get(&format!("{}/ready", server.url)).await;
            let ready = ready.assert_status(200).json();
            assert_eq!(
                (&ready["status"], &ready["log"]),
                (&json!("degraded"), &json!("lines are lost"))
            );
            assert!(server.terminate().await.unwrap().success(), "{how}");
        }
    }
}

/// The place where the log is told of a panic is inside a panic: one more would end the process.
#[cfg(debug_assertions)] // as the place at which it panics
#[tokio::test]
async fn a_request_that_panics_is_answered_whatever_the_log_does() {
    let kinds: [MakeOutput; 2] = [full_disk, || broken_pipe().into()];
    for stderr in kinds {
        let (mut server, _) = prepared("").await;
        server.env.push(("TEST_PANIC_AT", "registration".to_owned()));
        server.launch_into(stderr()).await;
        let metadata = json!({ "redirect_uris": ["http://127.0.0.1:53124/callback"] });

        let panicked = server.http.post_json(&server.place().at("/register"), &metadata, &[]).await;

        panicked.assert_error(500, "server_error");
        everything_is_answered(&mut server, "after a panic").await;
        assert!(server.terminate().await.unwrap().success());
    }
}

/// Opens connections until the limit is passed by some, and closes them again.
async fn exceed(url: &str, connections: usize) {
    let mut held = Vec::new();
    for _ in 0..connections {
        // The ones beyond the limit are closed by the server.
        held.push(tokio::net::TcpStream::connect(raw::host(url)).await.unwrap());
    }
}

/// The admin listener answers this, too: that there is no such page.
async fn answers_again(server: &mut Served, url: &str) {
    let host = raw::host(url);
    let health = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answered = async {
        while !matches!(raw::try_exchange(url, &health).await, Ok(answer) if raw::status(&answer) > 0)
        {
            assert_eq!(server.ended(), None, "the process ended");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("it accepts connections");
}

#[tokio::test]
async fn a_full_log_disk_ends_neither_the_accept_loop_nor_reload() {
    let (mut server, admin) = prepared("connections = 8").await;
    server.launch_into(full_disk()).await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;

    exceed(&server.url.clone(), 30).await;
    let url = server.url.clone();
    answers_again(&mut server, &url).await;
    exceed(&admin, 130).await; // of which there may be 100
    answers_again(&mut server, &admin).await;

    let text = std::fs::read_to_string(&server.config).unwrap();
    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    let becomes = async |text: &str, status: u16| {
        std::fs::write(&server.config, text).unwrap();
        server.signal("HUP");
        let call =
            async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await.status;
        let taken = async {
            while call().await != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("the configuration is read again");
    };
    becomes(&text.replace("[resource.tools]", tight), 403).await;
    std::fs::write(&server.config, "public_url = 7").unwrap(); // mistakes are logged as errors
    server.signal("HUP");
    becomes(&text, 200).await;
    assert!(server.terminate().await.unwrap().success());
}

/// A request whose line in the log is long: the names of headers that do not pass on.
async fn a_long_line(client: &McpClient, tokens: &Tokens) {
    let names: Vec<String> = (0..50).map(|n| format!("x-{n}-{}", "long".repeat(18))).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let url = client.server.mcp_url();
    let list = client.rpc_at(&url, &tokens.access_token, "tools/list", json!({}), &headers);
    let answer = tokio::time::timeout(PATIENCE, list).await.expect("it is answered");
    answer.assert_status(200);
}

#[tokio::test]
async fn a_reader_of_the_log_that_stands_still_stops_neither_answers_nor_sigterm() {
    let (mut server, admin) = prepared("").await;
    server.env.push(("PORTCULLIS_LOG", "debug".to_owned()));
    let mut log = server.launch_unread();
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;

    // More than the pipe and the queue take.
    let lost = "portcullis_log_lines_lost_total{why=\"full\"}";
    while metric(&server, &admin, lost).await < 1.0 {
        a_long_line(&client, &tokens).await;
    }
    let ready = server.http.get(&format!("{}/ready", server.url)).await;
    assert_eq!(ready.assert_status(200).json()["log"], "lines are lost");

    // The reader goes on: it reads what was kept, and how much was not.
    let mut line = String::new();
    while !line.contains("lines of the log were lost") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
    }
    assert!(line.contains("lost=") && line.contains("ERROR"), "{line}");

    // And stands still again, for good.
    let before = metric(&server, &admin, lost).await;
    while metric(&server, &admin, lost).await <= before {
        a_long_line(&client, &tokens).await;
    }
    let ended = tokio::time::timeout(PATIENCE, server.terminate()).await;
    assert!(ended.expect("SIGTERM ends it").unwrap().success());
    drop(log);
}

/// A log that another program has made non-blocking is full now and then, and not broken.
#[tokio::test]
async fn a_log_that_is_full_for_a_moment_loses_nothing() {
    let (mut server, admin) = prepared("").await;
    server.env.push(("PORTCULLIS_LOG", "debug".to_owned()));
    let (mut reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    server.launch_into(Stdio::from(std::os::fd::OwnedFd::from(writer))).await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    for _ in 0..100 {
        a_long_line(&client, &tokens).await; // more than a socket takes
    }
    let failed = "portcullis_log_lines_lost_total{why=\"failed\"}";
    assert!(metric(&server, &admin, failed).await < 0.5);

    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert!(server.terminate().await.unwrap().success());

    let text = reading.await.unwrap().unwrap();
    let long = |line: &&str| line.contains("headers that do not pass");
    assert_eq!(text.lines().filter(long).count(), 100);
    assert!(text.contains("shutting down"), "what is queued is written before the end");
}

fn command(folder: &Path, arguments: &[&str], out: Stdio, err: Stdio) -> Output {
    let mut command = portcullis(folder);
    command.args(arguments).stdout(out).stderr(err).output().unwrap()
}

/// What commands print may be taken by a reader that has seen enough, or go to a disk that is full.
#[tokio::test]
async fn no_command_panics_when_its_output_is_not_taken() {
    let app = TestApp::with(Setup::default()).await;
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), app.config_text()).unwrap();
    std::fs::write(folder.join("wrong.toml"), "public_url = 7").unwrap();
    std::fs::write(folder.join("claims.json"), "{\"sub\":\"x\"}").unwrap();
    let (mcp_url, url) = (app.mcp_url(), "http://127.0.0.1:9/mcp");
    let right: &[&[&str]] = &[
        &["config", "show"],
        &["check"],
        &["check", "--json"],
        &["explain", "--claims", "claims.json"],
        &["doctor", &mcp_url],
        &["doctor", "--json", &mcp_url],
        &["clients", "list"],
        &["--help"],
        &["--version"],
    ];
    let wrong: &[&[&str]] = &[
        &["serve", "--config", "wrong.toml"],
        &["check", "--config", "wrong.toml"],
        &["explain", "--config", "wrong.toml", "--claims", "claims.json"],
        &["config", "show", "--config", "wrong.toml"],
        &["doctor", url],
        &["demo", "--listen", "192.0.2.1:80"],
        &["grants", "revoke", "nobody"],
        &["no-such-command"],
    ];
    let arguments: Vec<Vec<String>> = right
        .iter()
        .chain(wrong)
        .map(|words| words.iter().map(|&word| word.to_owned()).collect())
        .collect();
    tokio::task::spawn_blocking(move || {
        for words in arguments {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = |out: Stdio, err: Stdio| command(&folder, &words, out, err).status.code();
            let usual = ran(Stdio::null(), Stdio::null());
            for (how, out) in [("broken pipe", broken_pipe().into()), ("full disk", full_disk())] {
                let ran = command(&folder, &words, out, Stdio::piped());
                let said = String::from_utf8_lossy(&ran.stderr).into_owned();
                let code = ran.status.code();
                assert!(!said.contains("panicked"), "{words:?}, {how}: {said}");
                assert!(code.is_some_and(|code| code < 4), "{words:?}, {how}: {code:?} {said}");
                if how == "broken pipe" {
                    assert_eq!(
                        code, usual,
                        "{words:?}: a reader that has seen enough is no failure"
                    );
                }
            }
            for (how, err) in [("broken pipe", broken_pipe().into()), ("full disk", full_disk())] {
                assert_eq!(ran(Stdio::null(), err), usual, "{words:?}, stderr on a {how}");
            }
        }
    })
    .await
    .unwrap();
}

/// What a program would take for a whole answer must not look like success.
#[tokio::test]
async fn output_that_a_full_disk_did_not_take_is_a_failure() {
    let app = TestApp::with(Setup::default()).await;
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), app.config_text()).unwrap();
    std::fs::write(folder.join("claims.json"), "{\"sub\":\"x\"}").unwrap();
    let mcp_url = app.mcp_url();
    tokio::task::spawn_blocking(move || {
        let commands: [&[&str]; 5] = [
            &["config", "show"],
            &["check", "--json"],
            &["explain", "--claims", "claims.json"],
            &["doctor", "--json", &mcp_url],
            &["clients", "list"],
        ];
        for words in commands {
            let ran = command(&folder, words, full_disk(), Stdio::piped());
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(!ran.status.success(), "{words:?}");
            assert!(said.contains("could not be written"), "{words:?}: {said}");
        }
    })
    .await
    .unwrap();
}

/// The demo speaks to somebody who may not listen.
#[tokio::test]
async fn the_demo_runs_whoever_reads_what_it_says() {
    let place = crate::harness::database::Database::new().await;
    for (out, err) in
        [(Stdio::from(broken_pipe()), full_disk()), (full_disk(), broken_pipe().into())]
    {
        let address = free_address();
        let mut demo = portcullis(&place.folder)
            .args(["demo", "--listen", &address.to_string()])
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        let host = address.to_string();
        let ready = format!("GET /ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let url = format!("http://{address}");
        while !matches!(raw::try_exchange(&url, &ready).await, Ok(answer) if raw::status(&answer) == 200)
        {
            assert_eq!(demo.try_wait().unwrap(), None, "the demo ended");
            tokio::task::yield_now().await;
        }
        demo.kill().unwrap();
        demo.wait().unwrap();
    }
}
