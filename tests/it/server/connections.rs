//! Connections whose other side is slow, breaks off, or goes on talking when its request is refused: with
//! raw sockets, as threats DS-04 and GW-03 describe.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, raw};

const QUICK: &str =
    "[limits]\nfirst_byte = \"1s\"\nheader_time = \"1s\"\nbody_time = \"2s\"\nidle_time = \"3s\"";

async fn impatient() -> TestApp {
    TestApp::with(Setup::toml(QUICK)).await
}

fn host(app: &TestApp) -> &str {
    raw::host(&app.url)
}

/// Sends `bytes` and reads to the end: what came, and after how long the server closed.
async fn until_closed(mut connection: TcpStream, bytes: &[u8]) -> (String, Duration) {
    let start = Instant::now();
    connection.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let closed = connection.read_to_end(&mut answer);
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    closed.expect("the server closes").expect("and resets nothing");
    (String::from_utf8_lossy(&answer).into_owned(), start.elapsed())
}

#[track_caller]
fn took(time: Duration, least: f64, most: f64) {
    let seconds = time.as_secs_f64();
    assert!(seconds > least && seconds < most, "took {seconds} s");
}

/// Each limit by itself, and none of them hits what keeps going.
#[tokio::test]
async fn ds_04_each_part_of_a_request_has_its_time() {
    let app = impatient().await;
    let connect = async || raw::connect(&app.url).await;

    let silent = async {
        let (answer, time) = until_closed(connect().await, b"").await;
        assert_eq!(answer, "");
        took(time, 0.9, 2.0);
    };
    let half_a_head = async {
        let head = format!("POST /token HTTP/1.1\r\nHost: {}\r\nX", host(&app));
        let (_, time) = until_closed(connect().await, head.as_bytes()).await;
        took(time, 0.9, 2.0);
    };
    let a_byte_at_a_time = async {
        let mut connection = connect().await;
        let start = Instant::now();
        let head =
            b"GET /health HTTP/1.1\r\nX-Slow: yes yes yes yes yes yes yes yes yes yes yes yes";
        for byte in head {
            // The clock of sockets is the system's: no hand moves it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            if connection.write_all(&[*byte]).await.is_err() || closed(&connection) {
                break;
            }
        }
        took(start.elapsed(), 0.9, 2.5);
    };
    let half_a_body = async {
        let request = post(&app, "/token", "Content-Length: 100", "client_id=");
        let (answer, time) = until_closed(connect().await, request.as_bytes()).await;
        assert_eq!(raw::status(&answer), 408, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        took(time, 1.9, 5.0);
    };
    let idle = async {
        let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
        let (answer, time) = until_closed(connect().await, request.as_bytes()).await;
        assert_eq!(raw::status(&answer), 200);
        took(time, 2.9, 5.0);
    };
    let idle_less_than_that = async {
        let mut connection = connect().await;
        let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
        for _ in 0..3 {
            connection.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut connection).await.0, 200);
            tokio::time::sleep(Duration::from_millis(1500)).await; // longer than headers may take
        }
    };
    tokio::join!(silent, half_a_head, a_byte_at_a_time, half_a_body, idle, idle_less_than_that);
}

fn closed(connection: &TcpStream) -> bool {
    matches!(connection.try_read(&mut [0; 64]), Ok(0))
}

fn post(app: &TestApp, path: &str, header: &str, body: &str) -> String {
    format!(
        "POST {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         {header}\r\n\r\n{body}",
        raw::path(&app.url),
        host(app)
    )
}

/// One answer, of a declared length.
async fn read_answer(connection: &mut TcpStream) -> (u16, String) {
    let mut read = Vec::new();
    let head = loop {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).await.unwrap(), 1, "closed: {read:?}");
        read.push(byte[0]);
        if read.ends_with(b"\r\n\r\n") {
            break String::from_utf8(read).unwrap().to_ascii_lowercase();
        }
    };
    let length = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    connection.read_exact(&mut vec![0; length]).await.unwrap();
    (raw::status(&head), head)
}

/// A client that asks for much and reads nothing.
#[tokio::test]
async fn ds_04_an_answer_that_nobody_reads_ends_the_connection() {
    let app = impatient().await;
    let mut connection = raw::connect(&app.url).await;
    let page = format!(
        "GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: {}\r\n\r\n",
        host(&app)
    );
    let many = page.repeat(1000);

    let reset = async { while connection.write_all(many.as_bytes()).await.is_ok() {} };

    tokio::time::timeout(Duration::from_secs(20), reset).await.expect("the server gives up");
    app.http.get(&app.at("/health")).await.assert_status(200);
}

/// A client that vanished (asleep, out of reach) closes nothing: the system asks whether it is still there.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn ds_04_a_client_that_vanished_is_asked_for() {
    const KEEP_ALIVE_TIMER: &str = "02:";
    let app = TestApp::start().await;
    app.http.get(&app.at("/health")).await.assert_status(200);
    let mut connection = raw::connect(&app.url).await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
    connection.write_all(health.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut connection).await.0, 200);

    let (server, client) =
        (connection.peer_addr().unwrap().port(), connection.local_addr().unwrap().port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let theirs = sockets.lines().map(str::split_whitespace).find_map(|socket| {
        let columns: Vec<&str> = socket.collect();
        let ends = columns.get(1)?.ends_with(&format!(":{server:04X}"))
            && columns.get(2)?.ends_with(&format!(":{client:04X}"));
        ends.then(|| columns[5].to_owned())
    });
    let timer = theirs.expect("the server's end of the connection");
    let when = timer.strip_prefix(KEEP_ALIVE_TIMER).unwrap_or_else(|| panic!("{timer}"));
    // Hundredths of a second until it is asked for.
    assert!(u64::from_str_radix(when, 16).unwrap() <= 1000, "{timer}");
}

/// Refusals that do not look at the body: the client, still writing, reads the answer all the same, and
/// what it wrote is never taken for a request.
#[tokio::test]
async fn gw_03_a_refusal_is_read_whatever_of_the_body_is_still_on_its_way() {
    let app = impatient().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let inner = format!("GET /inner HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
    let refusals = [
        ("/mcp", "Origin: https://evil.example", 403),
        ("/mcp", "X-Nothing: x", 401),
        ("/health", "X-Nothing: x", 405),
        ("/nothing", "X-Nothing: x", 404),
        ("/token", "X_Y: z", 400),
        ("/token?x=y", "X-Nothing: x", 400),
    ];
    for (path, header, status) in refusals {
        // A small body is read away, and the connection goes on.
        let body = inner.repeat(20);
        let header = format!("{header}\r\nContent-Length: {}", body.len());
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(post(&app, path, &header, "").as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        connection.write_all(body.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut connection).await.0, status, "{path}");
        let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
        connection.write_all(health.as_bytes()).await.unwrap();
        let (next, head) = read_answer(&mut connection).await;
        assert_eq!(next, 200, "{path}: what follows is the answer to what follows: {head}");
    }
    let host_of_others = inner.replace(host(&app), "evil.example");
    let body = "x".repeat(1000);
    let refusals = [
        (post(&app, "/mcp", "Origin: https://evil.example", ""), 403),
        (post(&app, "/mcp", "X-Nothing: x", ""), 401),
        (post(&app, "/mcp", &format!("Authorization: Bearer {}", tokens.access_token), ""), 413),
        (post(&app, "/token", "X-Nothing: x", ""), 413),
        (post(&app, "/consent", "X-Nothing: x", ""), 413),
        (post(&app, "/register", "X-Nothing: x", ""), 413),
        (post(&app, "/health", "X-Nothing: x", ""), 405),
        (post(&app, "/nothing", "X-Nothing: x", ""), 404),
        (host_of_others.replace("GET", "POST"), 421),
    ];
    for (head, status) in refusals {
        // A large one is not; the answer says that the connection ends, and arrives.
        let length = 5_000_000;
        let head = head.replacen("\r\n\r\n", &format!("\r\nContent-Length: {length}\r\n\r\n"), 1);
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut sent = 0;
        while sent < length && connection.write_all(body.as_bytes()).await.is_ok() {
            sent += body.len();
        }
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await.expect("it closes");
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert_eq!(raw::status(&answer), status, "{head}\n{answer}\n{read:?}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(answer.matches("http/1.1 ").count(), 1, "one answer: {answer}");
        read.expect("no reset");
    }
    assert!(app.todo.recorded().iter().all(|request| request.header("x-nothing").is_none()));
}

/// Who asks whether to send a body hears the refusal in its place, and nothing else.
#[tokio::test]
async fn a_body_that_was_asked_about_is_not_asked_for_when_the_answer_is_no() {
    let app = impatient().await;
    let request = post(&app, "/nothing", "Content-Length: 100\r\nExpect: 100-continue", "");
    let (answer, _) = until_closed(raw::connect(&app.url).await, request.as_bytes()).await;
    assert_eq!(raw::status(&answer), 404, "{answer}");
    assert!(!answer.contains("100 Continue"));
}

/// A body that says how long it is need not be sent to be too long.
#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_not_asked_for() {
    let app = impatient().await;
    for path in ["/register", "/token"] {
        let headers =
            "Content-Type: application/json\r\nContent-Length: 99999999\r\nExpect: 100-continue";
        let request = post(&app, path, headers, "");
        let (answer, _) = until_closed(raw::connect(&app.url).await, request.as_bytes()).await;
        assert_eq!(raw::status(&answer), 413, "{path}: {answer}");
        assert!(!answer.contains("100 Continue"), "{path}");
    }
}

/// GW-03: what two servers could read differently is refused before anything is sent on; as many requests
/// arrive at the MCP server as were answered.
#[tokio::test]
async fn gw_03_nothing_that_two_servers_read_differently_reaches_the_mcp_server() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let before = app.todo.recorded().len();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let smuggled = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhello",
        raw::path(&app.url),
        host(&app)
    );
    let head = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\n",
        raw::path(&app.url),
        host(&app),
        tokens.access_token
    );
    let length = format!("Content-Length: {}\r\n", ping.len());
    let chunked = |chunk: &str| format!("{chunk}\r\n0\r\n\r\n");
    let hexed = format!("{:x}\r\n{ping}", ping.len());
    let cases = [
        // Two ways to say where the body ends.
        format!("{head}{length}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&hexed)),
        format!("{head}Transfer-Encoding: chunked\r\n{length}\r\n{}", chunked(&hexed)),
        format!("{head}{length}Content-Length: 5\r\n\r\n{ping}"),
        format!("{head}Content-Length: {0}, {0}\r\n\r\n{ping}", ping.len()),
        format!("{head}Content-Length: +{}\r\n\r\n{ping}", ping.len()),
        format!("{head}Content-Length: 0x{:x}\r\n\r\n{ping}", ping.len()),
        format!("{head}Content-Length : {}\r\n\r\n{ping}", ping.len()),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n{}", chunked(&hexed)),
        format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n{}", chunked(&hexed)),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n{}", chunked(&hexed)),
        format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n{}", chunked(&hexed)),
        format!("{head}Transfer_Encoding: chunked\r\n{length}\r\n{ping}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked("zz\r\nx")),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked("-1\r\nx")),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunked("fffffffffffffffff1\r\nx")),
        // Two hosts, or another one.
        format!("{head}Host: evil.example\r\n{length}\r\n{ping}"),
        head.replacen("/mcp ", "http://evil.example/mcp ", 1) + &length + "\r\n" + &ping,
        // Lines that are not lines, and names that are not names.
        format!("{head}X: a\r\n b\r\n{length}\r\n{ping}"),
        format!("{head}X\0: a\r\n{length}\r\n{ping}"),
        format!("{head}X: a\x01b\r\n{length}\r\n{ping}"),
        format!("{head}X: a\0b\r\n{length}\r\n{ping}"),
        format!("{head}X: a\rb\r\n{length}\r\n{ping}"),
        format!("{head}X Y: a\r\n{length}\r\n{ping}"),
        format!("{head}: a\r\n{length}\r\n{ping}"),
        format!("{head}X_Portcullis_Subject: a\r\n{length}\r\n{ping}"),
        // Another protocol behind this one (GW-04).
        format!("{head}Connection: upgrade\r\nUpgrade: websocket\r\n{length}\r\n{ping}"),
        format!("{head}Connection: upgrade\r\nUpgrade: h2c, WebSocket/13\r\n{length}\r\n{ping}"),
        head.replacen(
            &format!("POST {}/mcp HTTP/1.1", raw::path(&app.url)),
            &format!("CONNECT {} HTTP/1.1", host(&app)),
            1,
        ) + &length
            + "\r\n"
            + &ping,
        head.replacen("HTTP/1.1", "HTTP/3.0", 1) + &length + "\r\n" + &ping,
    ];
    for case in &cases {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(case.as_bytes()).await.unwrap();
        connection.write_all(smuggled.as_bytes()).await.unwrap();
        let _ = connection.shutdown().await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = raw::status(&answer);
        let refused = matches!(status, 400 | 404 | 405 | 413 | 421 | 426 | 431 | 501 | 0);
        assert!(refused, "{case}\n{answer}");
        assert!(!answer.contains("101 Switching") && !answer.contains(" 200 "), "{case}\n{answer}");
    }
    assert_eq!(app.todo.recorded().len(), before, "nothing reached it");

    // Bare line feeds, and HTTP/1.0, have one reading: they are served, or refused, once.
    let bare = format!("{head}{length}\r\n{ping}").replace("\r\n", "\n");
    let old = format!("{head}{length}\r\n{ping}").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut served = 0;
    for request in [bare, old] {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let _ = connection.shutdown().await;
        let mut answer = String::new();
        let _ = connection.read_to_string(&mut answer).await;
        served += answer.matches(" 200 OK").count();
    }
    assert_eq!(app.todo.recorded().len() - before, served);
}

/// GW-03: a body that breaks off takes its connection to the MCP server along; nobody else's request
/// follows on it.
#[tokio::test]
async fn gw_03_a_body_that_breaks_off_is_nobody_elses_beginning() {
    let tables = format!("{QUICK}\nrequests_per_person = 100\nrequests_per_client = 100");
    let app = TestApp::with(Setup::toml(tables)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let alices: Tokens = app.client().await.sign_in("alice").await;
    let head = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\nContent-Length: 1000\r\n\r\n{{\"jsonrpc\":",
        raw::path(&app.url),
        host(&app),
        tokens.access_token
    );
    for _ in 0..10 {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(head.as_bytes()).await.unwrap();
        drop(connection);
        let answer = client.call_tool(&alices.access_token, "get-todos", json!({})).await;
        answer.assert_status(200);
    }
    let (answer, _) = until_closed(raw::connect(&app.url).await, head.as_bytes()).await;
    assert_eq!(raw::status(&answer), 408, "{answer}");
    let seen = app.todo.recorded();
    assert!(
        seen.iter().all(|request| request.header("x-portcullis-subject") != Some("oidc:demo-bob"))
    );
}

/// GW-08: what an MCP server answers passes by a list too, and nothing that would make the browser or the
/// client do something on our behalf.
#[tokio::test]
async fn gw_08_what_the_mcp_server_answers_is_rebuilt_from_a_list() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/mcp", listener.local_addr().unwrap());
    let setup = Setup::toml(format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"{target}\"\nscopes = [\"create:todos\"]"
    ));
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    let code = client.authorize("bob", &[("scope", "create:todos")]).await;
    let tokens = Tokens::of(&client.redeem(&code.location_param("code").unwrap()).await);
    let hostile = "Set-Cookie: a=b\r\nWWW-Authenticate: Basic\r\nAccess-Control-Allow-Origin: *\r\n\
        Access-Control-Allow-Credentials: true\r\nLocation: http://10.0.0.1/\r\nServer: secret/1.0\r\n\
        Refresh: 0; url=http://evil.example\r\nClear-Site-Data: \"*\"\r\nAlt-Svc: h2=\"evil.example:443\"\r\n\
        Strict-Transport-Security: max-age=0\r\nX-Portcullis-Subject: alice\r\nMcp-Session_Id: x\r\n\
        Connection: x-internal\r\nX-Internal: 1\r\nTrailer: X-Late\r\nUpgrade: h2c\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Kept: yes\r\n";
    let body = "Content-Length: 2\r\n\r\n{}";
    let answers = [
        (format!("{ok}{hostile}{body}"), 200),
        (
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n{ok}{body}"
            ),
            502,
        ),
        (format!("HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n{body}"), 502),
        (format!("{ok}Content-Length: 1\r\n{body}"), 502),
        (format!("{ok}X: a\0b\r\n{body}"), 502),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), 502),
        ("nonsense\r\n\r\n".to_owned(), 502),
        (format!("{ok}X: {}\r\n{body}", "x".repeat(1_000_000)), 502),
        (format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{ok}{body}"), 200),
    ];
    for (answer, status) in answers {
        let backend = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await.unwrap();
            let _ = connection.write_all(answer.as_bytes()).await;
            let _ = connection.shutdown().await;
        };
        let call = client.rpc(&tokens.access_token, "ping", json!({}));
        let (seen, ()) = tokio::join!(call, backend);
        let shown = &answer[..answer.len().min(200)];
        assert_eq!(seen.status, status, "{shown}");
        let mut names: Vec<&str> =
            seen.headers.keys().map(hyper::header::HeaderName::as_str).collect();
        names.sort_unstable();
        names.retain(|name| *name != "date");
        let expected: &[&str] = match status {
            200 => &[
                "cache-control",
                "content-length",
                "content-type",
                "mcp-kept",
                "x-content-type-options",
            ],
            _ => &["cache-control", "content-length", "content-type", "pragma"],
        };
        assert_eq!(names, expected, "{shown}");
    }
}
