//! Bodies on the wire: a client's that breaks, an MCP server's that says two lengths, codings nobody decodes.

use axum::http::header;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::backend::{Backend, PURGE, post, request, send, tokens};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, logs, raw};

const PING: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";

fn head(app: &TestApp, tokens: &Tokens, headers: &str) -> String {
    format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{headers}\r\n",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token
    )
}

/// The beginning of the answer, as far as the end of its head.
async fn answer_to(app: &TestApp, request: &str) -> String {
    let mut connection = raw::connect(&app.url).await;
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        if connection.read_buf(&mut answer).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_the_client_broke_is_the_clients_fault() {
    let backend = Backend::start().await;
    for tools in ["", PURGE] {
        let app = backend.behind("", tools).await;
        let (_, tokens) = tokens(&app, "bob").await;
        let chunked = head(&app, &tokens, "Transfer-Encoding: chunked\r\n");
        let good = format!("{:x}\r\n{PING}\r\n", PING.len());
        let large = format!("{:x}\r\n{}\r\n", 100_000, " ".repeat(100_000));
        for broken in [
            "zz\r\nx\r\n0\r\n\r\n",
            "-1\r\n",
            "fffffffffffffffff1\r\n",
            "5 5\r\n",
            "\r\n",
            &format!("{good}zz\r\n"),
            &format!("{good};\r\n"),
            &format!("{:x}\r\n{PING}zz", PING.len()), // the end of a chunk is missing
            &format!("{large}zz\r\n"),
        ] {
            let answer = answer_to(&app, &format!("{chunked}{broken}")).await;
            assert_eq!(raw::status(&answer), 400, "{tools:?} {broken:?}: {answer}");
        }
        // It breaks off: nobody is there to be answered.
        for length in [1000, 1_000_000] {
            let declared = head(&app, &tokens, &format!("Content-Length: {length}\r\n"));
            let mut connection = raw::connect(&app.url).await;
            connection.write_all(format!("{declared}{PING}").as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = connection.read_to_end(&mut rest).await;
            let answer = String::from_utf8_lossy(&rest);
            assert!(matches!(raw::status(&answer), 0 | 400), "{answer}");
        }

        let calls = app.metrics().await;
        for outcome in ["broken", "failed", "timed_out"] {
            let series =
                format!("portcullis_gateway_calls_total{{path=\"/mcp\",outcome=\"{outcome}\"}}");
            assert!(calls.get(&series).copied().unwrap_or(0.0) < 0.5, "{outcome} {tools:?}");
        }
        let url = app.mcp_url();
        let log = logs::all();
        let warned = log.lines().find(|line| line.contains(&url) && line.contains(" WARN "));
        assert_eq!(warned, None, "{tools:?}");
        post(&app, &tokens, &[], &request("ping", &json!({}))).await.assert_status(200);
    }
}

/// Answers every connection with these bytes, and closes.
async fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer.as_bytes()).await;
            let _ = connection.shutdown().await;
            let _ = connection.read(&mut request).await;
        }
    });
    url
}

const WHOLE: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}";

#[tokio::test]
async fn a_length_beside_chunks_of_an_answer_is_dropped() {
    let json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    // What is said, whether it comes whole; `None`: it cannot be passed on.
    let cases = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Some(true)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", Some(true)),
        ("Content-Length: 36\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Some(true)),
        ("Content-Length: 99\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Some(true)),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Some(true)),
        ("Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n", "0\r\n\r\n", Some(true)),
        // Cut, it does not look whole.
        ("Content-Length: 36\r\nTransfer-Encoding: chunked\r\n", "", Some(false)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "", Some(false)),
        ("Transfer-Encoding: chunked\r\n", "", Some(false)),
        // Codings that nobody asked for.
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", None),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", None),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", None),
        ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "", None),
    ];
    for (lengths, end, whole) in cases {
        for rules in ["", "hide_forbidden_tools = true\n[resource.tools]\npurge = [\"write\"]"] {
            let text = format!("{json}{lengths}\r\n{:x}\r\n{WHOLE}\r\n{end}", WHOLE.len());
            let target = answering(text.leak()).await;
            let resources = format!(
                "[[resource]]\npath = \"/mcp\"\ntarget = \"{target}\"\nscopes = [\"read\", \"write\"]\n{rules}"
            );
            let app = TestApp::with(Setup::toml(resources)).await;
            let (_, tokens) = tokens(&app, "alice").await;
            let authorization = format!("Bearer {}", tokens.access_token);
            let headers = [("authorization", authorization.as_str())];
            let answer = app.http.open("POST", &app.mcp_url(), &headers, PING).await;
            if whole.is_none() {
                assert_eq!(answer.status(), 502, "{lengths:?} {rules:?}");
                continue;
            }
            assert_eq!(answer.status(), 200, "{lengths:?} {rules:?}");
            assert!(!answer.headers().contains_key(header::CONTENT_LENGTH), "{lengths:?}");
            let read = answer.into_body().collect().await;
            assert_eq!(read.is_ok(), whole == Some(true), "{lengths:?} {end:?} {rules:?}");
            if let Ok(read) = read {
                assert_eq!(read.to_bytes(), WHOLE, "{lengths:?}");
            }
        }
    }
}

/// The end of a body that is still on its way when its request has been answered looks like the head of the
/// next request, which says its length twice.
#[tokio::test]
async fn gw_03_bytes_of_a_body_never_count_as_a_head() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/mcp", listener.local_addr().unwrap());
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = std::sync::Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let all = std::sync::Arc::clone(&all);
            tokio::spawn(async move {
                let mut some = vec![0; 64 * 1024];
                let mut first = true;
                while let Ok(read @ 1..) = connection.read(&mut some).await {
                    all.lock().unwrap().extend_from_slice(&some[..read]);
                    let is_ping = some[..read].windows(4).any(|four| four == b"ping");
                    if std::mem::take(&mut first) || is_ping {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
                        let _ = connection.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    let resources =
        format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{target}\"\nscopes = [\"read\"]");
    let app = TestApp::with(Setup::toml(resources)).await;
    let (_, tokens) = tokens(&app, "alice").await;
    // As many lines as are left of the real one.
    let forged = "POST /mcp HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n";
    let twice = head(&app, &tokens, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let twice = format!("{twice}{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    let before = 100_000;
    let first = head(&app, &tokens, &format!("Content-Length: {}\r\n", before + forged.len()));
    let mut connection = raw::connect(&app.url).await;
    connection.set_nodelay(true).unwrap();
    connection.write_all(first.as_bytes()).await.unwrap();
    connection.write_all(" ".repeat(before).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"{}") {
        assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    connection.write_all(forged.as_bytes()).await.unwrap();
    // The gateway has passed on all of the body.
    while !heard.lock().unwrap().ends_with(forged.as_bytes()) {
        tokio::task::yield_now().await;
    }
    connection.write_all(twice.as_bytes()).await.unwrap();
    let mut second = Vec::new();
    while !second.windows(4).any(|four| four == b"\r\n\r\n") {
        if connection.read_buf(&mut second).await.unwrap_or(0) == 0 {
            break;
        }
    }
    let second = String::from_utf8_lossy(&second);
    assert!(matches!(raw::status(&second), 0 | 400), "{second}");
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(!heard.contains("ping"), "it was passed on: {second}");
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_not_implemented() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let before = app.todo.recorded().len();
    let body = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    for (codings, status) in [
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: identity, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: x, y, Chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        // Where chunks are not the last coding, nobody knows where the body ends: RFC 9112 §6.3.
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
    ] {
        let answer = answer_to(&app, &format!("{}{body}", head(&app, &tokens, codings))).await;
        assert_eq!(raw::status(&answer), status, "{codings}{answer}");
        // Everywhere alike, and before any token is asked for.
        let form = format!(
            "POST {}/token HTTP/1.1\r\nHost: {}\r\n{codings}\r\n{body}",
            raw::path(&app.url),
            raw::host(&app.url)
        );
        let answer = answer_to(&app, &form).await;
        assert_eq!(raw::status(&answer), status, "{codings}{answer}");
    }
    assert_eq!(app.todo.recorded().len(), before);
    for chunked in ["chunked", "Chunked", "CHUNKED", " chunked "] {
        let head = head(
            &app,
            &tokens,
            &format!(
                "Transfer-Encoding: {chunked}\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\n"
            ),
        );
        let answer = answer_to(&app, &format!("{head}{body}")).await;
        assert_eq!(raw::status(&answer), 200, "{chunked}: {answer}");
    }
}

#[tokio::test]
async fn gw_09_an_access_token_in_the_query_is_stripped_however_it_is_set_apart() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    for (query, kept) in [
        ("a=1;access_token=secret&b=2", "/mcp?a=1;b=2"),
        ("a=1;access_token=secret", "/mcp?a=1"),
        ("access_token=secret;a=1", "/mcp?a=1"),
        (";access_token=secret", "/mcp"),
        ("a=1&access.token=secret", "/mcp?a=1"),
        ("a=1&access%20token=secret", "/mcp?a=1"),
        ("a=1&access+token=secret", "/mcp?a=1"),
        ("a=1&access_token[]=secret", "/mcp?a=1"),
        ("a=1&access_token%5B%5D=secret", "/mcp?a=1"),
        ("a=1;ACCESS%5FTOKEN=secret", "/mcp?a=1"),
        ("a=1;b=2", "/mcp?a=1;b=2"),
        ("access_token_hint=x", "/mcp?access_token_hint=x"),
    ] {
        let url = format!("{}?{query}", app.mcp_url());
        let headers = [("authorization", authorization.as_str())];
        app.http.send("POST", &url, &headers, PING).await.assert_status(200);
        let seen = backend.take().pop().unwrap();
        assert_eq!(seen.path, kept, "{query}");
    }
}

#[tokio::test]
async fn gw_06_names_that_a_server_may_read_as_a_header_of_mcp_do_not_pass() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    for name in [
        "mcp-session.id",
        "mcp.session-id",
        "mcp.session.id",
        "mcp-session~id",
        "mcp-session!id",
        "mcp-session'id",
        "mcp-method.",
        "mcp-na.me",
        "last-event.id",
        "mcp-protocol.version",
        "x-portcullis.subject",
    ] {
        send(&app, &tokens, "POST", &[(name, "stolen")], PING).await.assert_status(200);
        let seen = backend.take().pop().unwrap();
        assert_eq!(seen.header(name), None, "{name}");
    }
    // Nor back.
    backend.answers(|_| {
        let headers = [("mcp-session.id", "raw"), ("content-type", "application/json")];
        crate::harness::backend::answer(200, &headers, "{}")
    });
    let answer = send(&app, &tokens, "POST", &[("mcp-param-a.b", "v")], PING).await;
    assert_eq!(answer.header("mcp-session.id"), None);
    assert_eq!(backend.take().pop().unwrap().header("mcp-param-a.b"), Some("v"));
}
