//! Requests that say twice how long they are, cut and placed so that the second time could be overlooked.
//! Threat GW-03.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, raw};

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
    let host = raw::host(&app.url);
    let before = app.todo.recorded().len();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let first = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let line = format!("POST {}/mcp HTTP/1.1\r\n", raw::path(&app.url));
    let length = format!("Content-Length: {}\r\n", ping.len());
    let rest = format!(
        "Host: {host}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\n",
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
        vec![format!("{first}{line}{length}X: "), format!("{line}{rest}{chunked}{body}")],
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

/// GW-01: what a client writes behind the body would be headers to some servers.
#[tokio::test]
async fn gw_01_what_follows_the_body_of_a_request_is_left_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let setup = Setup::toml(format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://{target}/mcp\"\nscopes = [\"create:todos\"]"
    ));
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    let code = client.authorize("bob", &[("scope", "create:todos")]).await;
    let tokens = Tokens::of(&client.redeem(&code.location_param("code").unwrap()).await);
    let heard = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(connection.read_buf(&mut heard).await.unwrap(), 0);
        }
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        connection.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(heard).unwrap().to_ascii_lowercase()
    });
    let request = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         TE: trailers\r\nTrailer: X-Portcullis-Subject, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{{}}\r\n0\r\nX-Portcullis-Subject: alice\r\nContent-Length: 5\r\nX-Late: 1\r\n\r\n",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token
    );

    let answer = send(&app, &[&request]).await;

    assert_eq!(raw::status(&answer), 200, "{answer}");
    let heard = heard.await.unwrap();
    for left_out in ["alice", "content-length", "x-late", "trailer"] {
        assert!(!heard.contains(left_out), "{heard}");
    }
    assert_eq!(heard.matches("x-portcullis-subject: oidc:demo-bob").count(), 1, "{heard}");
}
