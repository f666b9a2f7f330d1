//! Clients that vanish in the middle of a stream or of a call, whatever they have sent behind their request.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

use crate::harness::backend::tokens;
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, raw};

/// Within this time a client that vanished is noticed.
const PROMISED: Duration = Duration::from_secs(20);
/// As many as the person may have open.
const STREAMS: usize = 10;

/// An MCP server whose streams and calls never end by themselves.
struct Endless {
    url: String,
    /// A permit for each connection that the gateway has let go.
    let_go: Arc<Semaphore>,
    /// Streams say something now.
    event: Arc<Notify>,
}

impl Endless {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let server = Self { url, let_go: Arc::new(Semaphore::new(0)), event: Arc::default() };
        let (let_go, event) = (Arc::clone(&server.let_go), Arc::clone(&server.event));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (let_go, event) = (Arc::clone(&let_go), Arc::clone(&event));
                tokio::spawn(async move {
                    serve(stream, &event).await;
                    let_go.add_permits(1);
                });
            }
        });
        server
    }

    async fn app(&self) -> TestApp {
        let resources = format!(
            "[[resource]]\npath = \"/mcp\"\ntarget = \"{}\"\nscopes = [\"read\"]",
            self.url
        );
        let tables = format!(
            "[limits]\nbody_time = \"2s\"\nstreams_per_person = {STREAMS}\nstreams_per_client = {STREAMS}\n\
             requests_per_person = {STREAMS}\nrequests_per_client = {STREAMS}"
        );
        TestApp::with(Setup::toml(resources).and(tables)).await
    }
}

/// Opens an event stream, or leaves a call unanswered; until the gateway closes.
async fn serve(mut stream: TcpStream, event: &Notify) {
    let mut heard = vec![0; 64 * 1024];
    let length = stream.read(&mut heard).await.unwrap();
    if heard[..length].starts_with(b"GET") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n: hi\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    let mut some = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut some) => if !matches!(read, Ok(1..)) { return },
            () = event.notified() => {
                let _ = stream.write_all(b"c\r\ndata: later\n\r\n").await;
            }
        }
    }
}

/// Sends a request with `behind` right behind it; a stream has begun when this returns.
async fn ask(app: &TestApp, tokens: &Tokens, method: &str, behind: &[u8]) -> TcpStream {
    let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    let body = if method == "POST" { body } else { "" };
    let head = format!(
        "{method} {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token,
        body.len()
    );
    let mut connection = raw::connect(&app.url).await;
    // One segment: what is behind is in the buffer together with the request.
    let (first, rest) = behind.split_at(behind.len().min(1000));
    connection.write_all(&[head.as_bytes(), first].concat()).await.unwrap();
    if method == "GET" {
        let mut answer = Vec::new();
        while !answer.ends_with(b": hi\n\r\n") {
            let read = connection.read_buf(&mut answer).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    connection.write_all(rest).await.unwrap();
    connection
}

#[tokio::test]
async fn a_client_that_vanished_is_noticed_whatever_is_still_in_the_buffer() {
    let server = Endless::start().await;
    let app = server.app().await;
    let (_, tokens) = tokens(&app, "alice").await;
    let another = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", raw::host(&app.url));
    let lots = another.repeat(4000);
    let behind: [&[u8]; 7] = [
        b"",
        b"\r\n",
        b"\n",
        b"x",
        another.as_bytes(),
        &another.as_bytes()[..30],
        lots.as_bytes(), // more than one read takes
    ];
    for method in ["GET", "POST"] {
        let mut alive = ask(&app, &tokens, method, b"\r\n").await;
        let mut gone = Vec::new();
        for behind in behind {
            gone.push(ask(&app, &tokens, method, behind).await);
        }
        let reset = ask(&app, &tokens, method, b"\r\n").await;
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        gone.push(reset);
        let number = u32::try_from(gone.len()).unwrap();

        drop(gone);

        let noticed = tokio::time::timeout(PROMISED, server.let_go.acquire_many(number)).await;
        noticed.expect("all are noticed in time").unwrap().forget();
        // Who is still there keeps the stream.
        assert_eq!(server.let_go.available_permits(), 0, "{method}");
        if method == "GET" {
            server.event.notify_waiters();
            let mut answer = Vec::new();
            while !answer.ends_with(b"data: later\n\r\n") {
                assert_ne!(alive.read_buf(&mut answer).await.unwrap(), 0);
            }
        }
        drop(alive);
        // The places are free again.
        let one = tokio::time::timeout(PROMISED, server.let_go.acquire()).await;
        one.expect("it is noticed in time").unwrap().forget();
        let mut again = Vec::new();
        for _ in 0..STREAMS {
            again.push(ask(&app, &tokens, "GET", b"").await);
        }
        drop(again);
        let number = u32::try_from(STREAMS).unwrap();
        server.let_go.acquire_many(number).await.unwrap().forget();
    }
}

/// Several requests at once, and the end of what is sent right behind them: all are answered.
#[tokio::test]
async fn who_sends_several_requests_and_closes_the_own_side_gets_the_answers() {
    let app = TestApp::start().await;
    let mut connection = raw::connect(&app.url).await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", raw::host(&app.url));
    connection.write_all(health.repeat(20).as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).await.unwrap();
    assert!(answers.matches("HTTP/1.1 200 OK").count() >= 19, "{answers}");
}
