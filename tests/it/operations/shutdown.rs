//! The end that a process can prepare for: SIGTERM, with the real binary.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::backend::{Backend, answer};
use crate::harness::client::McpClient;
use crate::harness::process::Served;
use crate::harness::{Setup, raw};

/// What is left of a request whose head has been read: its body.
async fn half_a_request(url: &str, length: usize) -> TcpStream {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let host = url.trim_start_matches("http://");
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
    );
    let mut connection = raw::connect(url).await;
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut told = vec![0; CONTINUE.len()];
    connection.read_exact(&mut told).await.unwrap();
    assert_eq!(told, CONTINUE, "the server waits for the body");
    connection
}

/// Between questions: each takes a port, and other tests need some too.
const PAUSE: Duration = Duration::from_millis(20);

/// What a new connection is answered: as those who balance the load ask.
async fn asked_anew(url: &str, path: &str) -> u16 {
    let host = url.trim_start_matches("http://");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw::status(&raw::exchange(url, &request).await)
}

/// Returns when `/ready` says that the server is about to end.
async fn not_ready(url: &str) {
    let leaving = async {
        while asked_anew(url, "/ready").await != 503 {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), leaving).await.expect("/ready says no");
}

#[tokio::test]
async fn after_sigterm_everything_is_served_for_the_delay_while_ready_says_no() {
    let mut server = Served::start().await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    let delayed = format!("{text}\n[limits]\nshutdown_delay = \"60s\"\n");
    std::fs::write(&server.config, delayed).unwrap();
    server.kill();
    server.launch();
    assert_eq!(asked_anew(&server.url, "/ready").await, 200);

    server.signal("TERM");

    not_ready(&server.url).await;
    assert_eq!(asked_anew(&server.url, "/health").await, 200);
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    server.kill();
}

#[tokio::test]
async fn sigterm_lets_a_request_under_way_finish_and_takes_no_new_one() {
    let mut server = Served::start().await;
    let form = "grant_type=refresh_token&refresh_token=x&client_id=x";
    let mut under_way = half_a_request(&server.url, form.len()).await;

    let ended = server.terminate();

    not_ready(&server.url).await;
    let metadata = "/.well-known/oauth-authorization-server";
    let refused = async {
        while asked_anew(&server.url, metadata).await != 503 {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), refused).await.expect("no new work");
    assert_eq!(asked_anew(&server.url, "/health").await, 200, "it lives while it finishes");
    assert_eq!(asked_anew(&server.url, "/ready").await, 503);
    under_way.write_all(form.as_bytes()).await.unwrap();
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).await.unwrap();
    assert!(matches!(raw::status(&answer), 400 | 401), "{answer}");
    assert!(answer.contains("invalid_"), "{answer}");
    assert!(ended.await.unwrap().success());
}

/// The event stream of a session, after its first event.
async fn open_stream(server: &Served, access_token: &str) -> Incoming {
    let authorization = format!("Bearer {access_token}");
    let url = format!("{}/mcp", server.url);
    let accept = ("accept", "application/json, text/event-stream");
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let headers = [("authorization", authorization.as_str()), accept];
    let answer = server.http.post_json(&url, &initialize, &headers).await;
    let session = answer.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    let headers = [
        ("authorization", authorization.as_str()),
        accept,
        ("mcp-session-id", session.as_str()),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    let stream = server.http.open("GET", &url, &headers, "").await;
    assert_eq!(stream.status(), 200);
    let mut stream = stream.into_body();
    stream.frame().await.unwrap().unwrap();
    stream
}

#[tokio::test]
async fn streams_with_nothing_under_way_do_not_hold_up_sigterm() {
    let mut server = Served::start().await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open_stream(&server, &tokens.access_token).await);
    }

    let ended = server.terminate();

    for mut stream in streams {
        while let Some(frame) = stream.frame().await {
            frame.expect("the stream ends, it does not break off");
        }
    }
    assert!(ended.await.unwrap().success());
    assert_eq!(server.logged("open streams are cut"), 0, "nobody waited for them");
    server.launch();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn sigterm_waits_ten_seconds_for_calls_under_way_and_loses_nothing() {
    let backend = Backend::start().await;
    backend.answers(|_| {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(": one\n\n"))]);
        let never = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
        let events = [("content-type", "text/event-stream")];
        answer(200, &events, axum::body::Body::from_stream(never))
    });
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"{}/mcp\"\nscopes = [\"a\"]\n",
        backend.url
    );
    let mut server = Served::with(&Setup::toml(resources)).await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let bearer = format!("Bearer {}", tokens.access_token);
    let url = format!("{}/mcp", server.url);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let call =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "x" } });
    let mut called = server.http.open("POST", &url, &headers, call.to_string()).await.into_body();
    called.frame().await.unwrap().unwrap();
    // One that takes up the answer to a call where it broke off.
    let mut resumed = headers.to_vec();
    resumed.push(("last-event-id", "7"));
    let mut resumed = server.http.open("GET", &url, &resumed[..], "").await.into_body();
    resumed.frame().await.unwrap().unwrap();

    let ended = server.terminate();

    let bounded = tokio::time::timeout(Duration::from_mins(1), ended).await;
    assert!(bounded.expect("an open stream holds nobody up for long").unwrap().success());
    assert_eq!(server.logged("open streams are cut"), 1, "they had their time");
    server.launch();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    for (first, second, code) in [("TERM", "TERM", 143), ("INT", "INT", 130), ("TERM", "INT", 130)]
    {
        let mut server = Served::start().await;
        let text = std::fs::read_to_string(&server.config).unwrap();
        let delayed = format!("{text}\n[limits]\nshutdown_delay = \"60s\"\n");
        std::fs::write(&server.config, delayed).unwrap();
        server.kill();
        server.launch();
        let client = McpClient::register(&server).await;
        let tokens = client.sign_in("bob").await;
        let _under_way = half_a_request(&server.url, 100).await;
        server.signal(first);
        not_ready(&server.url).await;

        server.signal(second);

        let ended = tokio::task::spawn_blocking(move || (server.wait(), server));
        let ended = tokio::time::timeout(Duration::from_secs(40), ended).await;
        let (status, mut server) = ended.expect("it waits for nothing").unwrap();
        assert_eq!(status.code(), Some(code), "{first}, {second}");
        server.launch();
        client.refresh(&tokens.refresh_token).await.assert_status(200);
    }
}
