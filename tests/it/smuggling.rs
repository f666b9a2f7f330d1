//! Requests that say twice how long they are, cut and placed so that the second time could be overlooked.
//! Threats GW-03.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{TestApp, raw};

/// What is sent in pieces, each when the one before has been answered or read.
async fn send(app: &TestApp, pieces: &[&str]) -> String {
    let mut connection = raw::connect(&app.url).await;
    connection.set_nodelay(true).unwrap();
    let mut answers = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        connection.write_all(piece.as_bytes()).await.unwrap();
        // Between pieces: until the server has said something, and a moment for it to read.
        if number + 1 < pieces.len() {
            let mut some = [0; 4096];
            let wait = std::time::Duration::from_millis(300);
            if let Ok(Ok(read)) = tokio::time::timeout(wait, connection.read(&mut some)).await {
                answers.extend(&some[..read]);
            }
        }
    }
    // A refusal closes; what is served does not.
    let rest = connection.read_to_end(&mut answers);
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), rest).await;
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn gw_03_a_length_said_twice_is_seen_wherever_the_request_begins() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let host = app.url.trim_start_matches("http://");
    let before = app.todo.recorded().len();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let first = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let line = "POST /mcp HTTP/1.1\r\n";
    let length = format!("Content-Length: {}\r\n", ping.len());
    let rest = format!(
        "Host: {host}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\n",
        tokens.access_token
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    let body = format!("\r\n{:x}\r\n{ping}\r\n0\r\n\r\n", ping.len());
    let whole = format!("{line}{length}{rest}{chunked}{body}");
    let cases: Vec<Vec<String>> = vec![
        // Empty lines before a request are no lines of it.
        vec![format!("\r\n{whole}")],
        vec![format!("\r\n\r\n{whole}")],
        vec![format!("\n\n{whole}")],
        vec![format!("{first}\r\n\r\n{whole}")],
        // Its beginning came with the request before, of which it is no part.
        vec![format!("{first}{line}{length}"), format!("{rest}{chunked}{body}")],
        vec![
            format!("{first}{line}Content-Le"),
            format!("ngth: {}\r\n{rest}{chunked}{body}", ping.len()),
        ],
        vec![
            format!("{first}{line}{length}X: "),
            format!("POST /mcp HTTP/1.1\r\n{rest}{chunked}{body}"),
        ],
        vec![
            format!("{first}{line}{length}Content-Length: "),
            format!("{} \r\n{rest}{chunked}{body}", ping.len()),
        ],
        // The same in the body of the one before.
        vec![
            format!("POST /health HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\n"),
            format!("\r\n\r\n{whole}"),
        ],
        // And after a request in whose body there seems to be the end of a head.
        vec![
            format!("POST /nothing HTTP/1.1\r\nHost: {host}\r\nContent-Length: 8\r\n\r\nab\r\n"),
            format!("\r\ncd{line}"),
            format!("{length}{rest}{chunked}{body}"),
        ],
    ];
    for case in &cases {
        let pieces: Vec<&str> = case.iter().map(String::as_str).collect();
        let answer = send(&app, &pieces).await;
        let last = answer.rsplit("HTTP/1.1 ").next().unwrap_or_default();
        assert!(last.starts_with("400"), "{case:?}\n{answer}");
    }
    assert_eq!(app.todo.recorded().len(), before, "nothing reached it");

    // Said once, it is served; also behind an empty line.
    for once in [format!("{line}{rest}{chunked}{body}"), format!("\r\n{line}{rest}{chunked}{body}")]
    {
        let answer = send(&app, &[&once]).await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        let answer = send(&app, &[&first, &once]).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    }
}
