//! Connections to MCP servers that close without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::backend::{PURGE, post, request, send, tokens};
use crate::harness::{Setup, TestApp};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"result\":{}}";

/// What the server does with a request on a connection that has answered before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Reads it, and closes.
    CloseAfterReading,
    /// Closes while it is being read.
    CloseAtOnce,
    /// The same, as one that has lost the connection.
    Reset,
    /// Has closed right behind the answer before, without having said so.
    ClosedBehindTheAnswer,
    /// Breaks off within its answer.
    PartOfAnAnswer,
    /// Has closed before every answer, the first one too.
    NeverAnswers,
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    bodies: Arc<std::sync::Mutex<Vec<usize>>>,
}

async fn read_request(stream: &mut TcpStream) -> Option<usize> {
    let mut heard = Vec::new();
    loop {
        if let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .unwrap_or(0);
            while heard.len() < end + 4 + length {
                if stream.read_buf(&mut heard).await.ok()? == 0 {
                    return None;
                }
            }
            return Some(length);
        }
        if stream.read_buf(&mut heard).await.ok()? == 0 {
            return None;
        }
    }
}

impl Server {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let server = Self { url, requests: Arc::default(), bodies: Arc::default() };
        let (requests, bodies) = (Arc::clone(&server.requests), Arc::clone(&server.bodies));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, then, Arc::clone(&requests), Arc::clone(&bodies)));
            }
        });
        server
    }
}

async fn serve(
    mut stream: TcpStream,
    then: Then,
    requests: Arc<AtomicUsize>,
    bodies: Arc<std::sync::Mutex<Vec<usize>>>,
) {
    for number in 0.. {
        let first = number == 0;
        if !first && matches!(then, Then::CloseAtOnce | Then::Reset) {
            let mut some = [0; 1];
            if stream.read(&mut some).await.unwrap_or(0) == 0 {
                return;
            }
            if then == Then::Reset {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(std::time::Duration::ZERO))
                    .unwrap();
            }
            return;
        }
        let Some(length) = read_request(&mut stream).await else { return };
        requests.fetch_add(1, Ordering::SeqCst);
        bodies.lock().unwrap().push(length);
        match then {
            Then::NeverAnswers => return,
            Then::CloseAfterReading if !first => return,
            Then::PartOfAnAnswer if !first => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await;
                return;
            }
            _ => stream.write_all(ANSWER.as_bytes()).await.unwrap(),
        }
        if then == Then::ClosedBehindTheAnswer {
            return;
        }
    }
}

async fn app(server: &Server, rules: &str) -> TestApp {
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"{}\"\nscopes = [\"read\", \"write\"]\n{rules}",
        server.url
    );
    TestApp::with(Setup::toml(resources)).await
}

#[tokio::test]
async fn a_request_that_a_connection_lost_before_any_answer_is_sent_again_once() {
    for then in
        [Then::CloseAfterReading, Then::CloseAtOnce, Then::Reset, Then::ClosedBehindTheAnswer]
    {
        for (rules, size) in [("", 10), ("", 50_000), (PURGE, 10), (PURGE, 60_000)] {
            let server = Server::start(then).await;
            let app = app(&server, rules).await;
            let (_, tokens) = tokens(&app, "alice").await;
            let call = request("tools/call", &json!({ "name": "look", "a": "x".repeat(size) }));
            for n in 0..12 {
                let answer = match n % 4 {
                    2 => send(&app, &tokens, "GET", &[], "").await,
                    3 => send(&app, &tokens, "DELETE", &[], "").await,
                    _ => post(&app, &tokens, &[], &call).await,
                };
                assert_eq!(answer.status, 200, "{then:?} {size} {rules:?}: call {n}");
                assert_eq!(answer.text(), "{\"result\":{}}");
            }
            let bodies = server.bodies.lock().unwrap().clone();
            let whole = call.to_string().len();
            assert!(bodies.iter().all(|length| [0, whole].contains(length)), "{bodies:?}");
        }
    }
}

#[tokio::test]
async fn many_calls_at_once_to_a_server_that_closes_idle_connections_are_all_answered() {
    let server = Server::start(Then::ClosedBehindTheAnswer).await;
    let app = app(&server, "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let call = request("ping", &json!({}));
    // 800 calls: without the retry, some 78 of them were lost.
    for _ in 0..100 {
        let calls = (0..8).map(|_| post(&app, &tokens, &[], &call));
        for answer in futures_util::future::join_all(calls).await {
            answer.assert_status(200);
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_again_that_may_have_been_begun() {
    // The connection is a new one, or an answer has begun: the server may have acted.
    for (then, lost) in [(Then::NeverAnswers, 1), (Then::PartOfAnAnswer, 2)] {
        let server = Server::start(then).await;
        let app = app(&server, "").await;
        let (_, tokens) = tokens(&app, "alice").await;
        let call = request("ping", &json!({}));
        let mut asked = 0;
        for _ in 0..6 {
            let answer = post(&app, &tokens, &[], &call).await;
            asked += 1;
            assert!(matches!(answer.status.as_u16(), 200 | 502), "{then:?}");
            assert!(lost > 1 || answer.status == 502);
            assert_eq!(server.requests.load(Ordering::SeqCst), asked, "{then:?}");
        }
    }
    // A body that was streamed is not there any more.
    let server = Server::start(Then::CloseAfterReading).await;
    let app = app(&server, "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let call = request("ping", &json!({ "a": "x".repeat(300_000) }));
    for asked in 1..=6 {
        let answer = post(&app, &tokens, &[], &call).await;
        assert!(matches!(answer.status.as_u16(), 200 | 502));
        assert_eq!(server.requests.load(Ordering::SeqCst), asked);
    }
}

/// A server that says `interim` before its answer, so often; `None`: for ever, and never answers.
async fn talkative(interim: &'static str, times: Option<usize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while read_request(&mut stream).await.is_some() {
                    let mut said = 0;
                    while times.is_none_or(|times| said < times) {
                        if stream.write_all(interim.as_bytes()).await.is_err() {
                            return;
                        }
                        said += 1;
                    }
                    stream.write_all(ANSWER.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn interim_answers_without_end_are_an_error_of_the_server_and_some_are_nothing() {
    let large = Box::leak(
        format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(4000))
            .into_boxed_str(),
    );
    let kinds = [
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 199 Whatever\r\n\r\n",
        large,
    ];
    for interim in kinds {
        for (times, status) in [(Some(20), 200), (None, 502)] {
            let url = talkative(interim, times).await;
            let resources =
                format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{url}\"\nscopes = [\"a\"]\n");
            let setup = Setup::toml(resources);
            let app = TestApp::with(setup).await;
            let (_, tokens) = tokens(&app, "bob").await;
            let get = [("accept", "text/event-stream")];
            let asked = async {
                let called = post(&app, &tokens, &[], &request("tools/list", &json!({}))).await;
                (called, send(&app, &tokens, "GET", &get, "").await)
            };
            let guard = std::time::Duration::from_mins(1);
            let (called, opened) = tokio::time::timeout(guard, asked).await.expect(interim);
            called.assert_status(status);
            opened.assert_status(status);
        }
    }
}
