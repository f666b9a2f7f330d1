//! Event streams that wait for events, and what follows them on their connection.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::harness::backend::tokens;
use crate::harness::{Setup, TestApp, raw};

const BEGIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                     5\r\n: hi\n\r\n";

/// An MCP server whose stream goes on by one step for each permit: an event, another, and its end or a break.
async fn server(breaks_off: bool) -> (String, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let steps = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&steps);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 64 * 1024];
        let length = stream.read(&mut heard).await.unwrap();
        assert!(heard[..length].starts_with(b"GET"));
        stream.write_all(BEGIN.as_bytes()).await.unwrap();
        let end: &[u8] = if breaks_off { b"5\r\nda" } else { b"0\r\n\r\n" };
        for step in [&b"9\r\ndata: 1\n\n\r\n"[..], b"9\r\ndata: 2\n\n\r\n", end] {
            permits.acquire().await.unwrap().forget();
            stream.write_all(step).await.unwrap();
        }
        if !breaks_off {
            let _ = stream.read(&mut heard).await;
        }
    });
    (url, steps)
}

async fn app(target: &str) -> TestApp {
    let resource =
        format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{target}\"\nscopes = [\"read\"]");
    TestApp::with(Setup::toml(resource)).await
}

/// Reads until the bytes end like this, and returns them as text.
async fn read_to(connection: &mut TcpStream, end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        let read = connection.read_buf(&mut heard).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).unwrap()
}

/// Opens the stream, with more headers, and returns the connection after its first event.
async fn open(app: &TestApp, more: &str) -> TcpStream {
    let (_, tokens) = tokens(app, "alice").await;
    let head = format!(
        "GET {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n{more}\r\n",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token,
    );
    let mut connection = raw::connect(&app.url).await;
    connection.write_all(head.as_bytes()).await.unwrap();
    let begun = read_to(&mut connection, ": hi\n\r\n").await;
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    connection
}

#[tokio::test]
async fn events_pass_one_by_one_and_the_connection_serves_what_came_meanwhile_and_comes_later() {
    let (target, steps) = server(false).await;
    let app = app(&target).await;
    let mut connection = open(&app, "").await;
    let asked = format!(
        "GET {}/health HTTP/1.1\r\nHost: {}\r\n\r\n",
        raw::path(&app.url),
        raw::host(&app.url)
    );
    // Both are longer than what is read of them while the stream waits.
    let padded = asked.replace("\r\n\r\n", &format!("\r\nX-Padding: {}\r\n\r\n", "x".repeat(600)));
    connection.write_all([padded.clone(), padded].concat().as_bytes()).await.unwrap();

    for event in ["9\r\ndata: 1\n\n\r\n", "9\r\ndata: 2\n\n\r\n"] {
        steps.add_permits(1);
        assert_eq!(read_to(&mut connection, event).await, event);
    }
    steps.add_permits(1);
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 200").count() < 2 {
        let mut some = [0; 4096];
        let read = connection.read(&mut some).await.unwrap();
        assert_ne!(read, 0, "{answers}");
        answers.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    assert!(answers.starts_with("0\r\n\r\nHTTP/1.1 200"), "{answers}");
    let last = asked.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    connection.write_all(last.as_bytes()).await.unwrap();
    connection.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
}

#[tokio::test]
async fn a_client_that_wants_no_more_gets_the_end_and_a_close() {
    let (target, steps) = server(false).await;
    let app = app(&target).await;
    let mut connection = open(&app, "Connection: close\r\n").await;
    steps.add_permits(3);
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("data: 2\n\n\r\n0\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_looks_broken() {
    let (target, steps) = server(true).await;
    let app = app(&target).await;
    let mut connection = open(&app, "").await;
    steps.add_permits(3);
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("data: 2\n\n\r\n") && !rest.ends_with("0\r\n\r\n"), "{rest}");
}
