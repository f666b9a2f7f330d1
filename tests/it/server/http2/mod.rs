//! HTTP/2 as a proxy in front speaks it (prior knowledge), and as an attacker does: frames by hand.
//! Threats DS-04, GW-01, GW-03, HH-01.

mod shared;

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Setup, TestApp, raw};

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const QUICK: &str =
    "[limits]\nfirst_byte = \"1s\"\nheader_time = \"1s\"\nbody_time = \"2s\"\nidle_time = \"3s\"";

async fn impatient() -> TestApp {
    TestApp::with(Setup::toml(QUICK)).await
}

fn host(app: &TestApp) -> &str {
    raw::host(&app.url)
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK without its tables: each name and value as it is.
pub(super) fn packed(headers: &[(&str, &str)]) -> Vec<u8> {
    fn text(text: &str, packed: &mut Vec<u8>) {
        let mut length = text.len();
        if length < 127 {
            packed.push(u8::try_from(length).unwrap());
        } else {
            packed.push(127);
            length -= 127;
            while length >= 128 {
                packed.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            packed.push(u8::try_from(length).unwrap());
        }
        packed.extend(text.as_bytes());
    }
    let mut packed = Vec::new();
    for (name, value) in headers {
        packed.push(0);
        text(name, &mut packed);
        text(value, &mut packed);
    }
    packed
}

/// A connection on which frames are written by hand.
pub(super) struct Frames<S = TcpStream>(S);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl Frames {
    async fn open(app: &TestApp, settings: &[(u16, u32)]) -> Self {
        Self::over(raw::connect(&app.url).await, settings).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Begins HTTP/2 on a connection, which may have TLS.
    pub(super) async fn over(stream: S, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self(stream);
        let mut payload = Vec::new();
        for (key, value) in settings {
            payload.extend(key.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.write(&frame(SETTINGS, 0, 0, &payload)).await;
        frames
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await; // the server may have closed: reading tells
    }

    async fn ask(&mut self, stream: u32, headers: &[(&str, &str)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.write(&frame(HEADERS, flags, stream, &packed(headers))).await;
    }

    /// The next frame; `None`: the server has closed.
    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = self.0.read_exact(&mut head);
        let read = tokio::time::timeout(Duration::from_secs(15), read).await;
        read.expect("the server says something, or closes").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// The end of a connection: the code of GOAWAY, when there was one.
    pub(super) async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.read().await {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// The status of the answer on `stream`, or the code it was reset with.
    async fn answer(&mut self, stream: u32) -> Result<u16, u32> {
        let wanted = |frame: &Frame| {
            frame.kind == GOAWAY
                || frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM)
        };
        let frame = self.until(wanted).await.expect("an answer");
        if frame.kind != HEADERS {
            return Err(frame.code());
        }
        Ok(status(&frame.payload))
    }
}

/// The status at the beginning of a header block.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // Literal, its name from the static table; the value perhaps in Huffman's code of digits.
        0x48 => match block[1] {
            0x03 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
            length => digits(&block[2..2 + usize::from(length & 0x7f)]),
        },
        other => panic!("a status that begins with {other:x}"),
    }
}

fn digits(code: &[u8]) -> u16 {
    let bits: Vec<String> = code.iter().map(|byte| format!("{byte:08b}")).collect();
    let bits = bits.concat();
    let mut rest = bits.as_str();
    let mut number = String::new();
    while number.len() < 3 {
        let short = ["00000", "00001", "00010"].iter().position(|code| rest.starts_with(code));
        let (digit, length) = match short {
            Some(digit) => (digit, 5),
            None => (usize::from_str_radix(&rest[..6], 2).unwrap() - 0b01_1001 + 3, 6),
        };
        number += &digit.to_string();
        rest = &rest[length..];
    }
    number.parse().unwrap()
}

fn get<'a>(app: &'a TestApp, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", host(app)), (":path", path)]
}

fn post<'a>(app: &'a TestApp, path: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut headers = get(app, path);
    headers[0] = (":method", "POST");
    headers
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

type Asked<'a> = (&'a str, &'a str, Vec<(&'a str, String)>, String);

#[tokio::test]
async fn one_request_has_one_answer_in_http_1_and_http_2() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let json = || vec![("content-type", "application/json".to_owned())];
    let form = || vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
    let bearer = |kind: &str| {
        let token = format!("Bearer {}", tokens.access_token);
        let mut headers = vec![("authorization", token), ("content-type", kind.to_owned())];
        headers.push(("mcp-protocol-version", "2026-07-28".to_owned()));
        headers.push(("mcp-method", "ping".to_owned()));
        headers
    };
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let long = format!("/{}", "x".repeat(9000));
    let none = String::new;
    let page = || vec![("accept", "text/html".to_owned())];
    let asked: Vec<Asked<'_>> = vec![
        ("GET", "/.well-known/oauth-authorization-server", vec![], none()),
        ("HEAD", "/.well-known/oauth-authorization-server", vec![], none()),
        ("GET", "/.well-known/oauth-protected-resource/mcp", vec![], none()),
        ("GET", "/.well-known/jwks.json", vec![], none()),
        ("GET", "/health", vec![], none()),
        ("DELETE", "/health", vec![], none()),
        ("GET", "/nothing", vec![], none()),
        ("GET", "/nothing", page(), none()),
        ("GET", "/account", page(), none()),
        ("GET", "/consent/x.css", vec![], none()),
        ("OPTIONS", "/token", vec![("origin", "https://a.example".to_owned())], none()),
        ("POST", "/token", form(), "grant_type=password".to_owned()),
        ("POST", "/token", form(), "grant_type=refresh_token&client_id=nobody".to_owned()),
        ("POST", "/token", json(), "{}".to_owned()),
        ("POST", "/token", form(), "x".repeat(20_000)),
        ("POST", "/register", json(), "{".to_owned()),
        ("POST", "/revoke", form(), none()),
        ("POST", "/mcp", json(), ping.clone()),
        ("GET", "/mcp", vec![], none()),
        ("POST", "/mcp", bearer("application/json"), ping.clone()),
        ("POST", "/mcp", bearer("application/json"), "{".to_owned()),
        ("PUT", "/mcp", bearer("application/json"), ping),
        ("GET", &long, vec![], none()),
        ("GET", "/health", vec![("x-long", "x".repeat(9000))], none()),
        ("GET", "/health", vec![("x_short", "x".to_owned())], none()),
        ("POST", "/health", form(), "x".repeat(100_000)),
    ];
    let (client, mut both) = (client(), 0);
    for (method, path, headers, body) in asked {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let one = app.http.send(method, &app.at(path), &headers, body.clone()).await;
        let mut request = Request::builder().method(method).uri(app.at(path));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let two = client.request(request).await.unwrap();

        let what = format!("{method} {}", &path[..path.len().min(50)]);
        assert_eq!(two.version(), hyper::Version::HTTP_2, "{what}");
        assert_eq!(two.status(), one.status, "{what}");
        let said = |headers: &hyper::HeaderMap| {
            let mut all: Vec<(String, String)> = headers
                .iter()
                .filter(|(name, _)| {
                    !["date", "connection", "content-length", "transfer-encoding"]
                        .contains(&name.as_str())
                })
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(said(two.headers()), said(&one.headers), "{what}");
        let body = two.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), one.text(), "{what}");
        both += 1;
    }
    assert!(both > 20);
}

#[tokio::test]
async fn event_streams_and_large_answers_pass_in_http_2() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let client = client();
    let ask = async |method: &str, body: String, session: Option<&str>| {
        let mut request = Request::builder()
            .method(method)
            .uri(app.mcp_url())
            .header("authorization", format!("Bearer {}", tokens.access_token))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    };
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let answer = ask("POST", initialize.to_string(), None).await;
    let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let mut stream = ask("GET", String::new(), Some(&session)).await;
    assert_eq!(stream.status(), 200);
    let create = |number: usize| {
        let arguments = json!({ "content": format!("{number} {}", "x".repeat(900)) });
        json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "create-todo", "arguments": arguments },
        })
    };
    for number in 0..150 {
        assert_eq!(ask("POST", create(number).to_string(), Some(&session)).await.status(), 200);
    }
    let list = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "get-todos", "arguments": {} },
    });
    let all = ask("POST", list.to_string(), Some(&session)).await;
    let all = all.into_body().collect().await.unwrap().to_bytes();
    assert!(all.len() > 130_000, "{}", all.len());
    serde_json::from_slice::<serde_json::Value>(&all).expect("whole, and in order");

    app.todo.send_event(&json!({ "jsonrpc": "2.0", "method": "notifications/hello" }));
    loop {
        let event = stream.body_mut().frame().await.unwrap().unwrap();
        if String::from_utf8_lossy(event.data_ref().unwrap()).contains("notifications/hello") {
            break;
        }
    }
}

/// What HTTP/1.1 refuses, HTTP/2 refuses.
#[tokio::test]
async fn hh_01_gw_03_ambiguous_requests_are_refused_in_http_2() {
    const PROTOCOL_ERROR: u32 = 1;
    let app = TestApp::start().await;
    let metadata = "/.well-known/oauth-authorization-server";
    let with = |changes: &[(&'static str, &'static str)]| {
        let mut headers = get(&app, metadata);
        for (name, value) in changes {
            headers.retain(|(known, _)| known != name || !name.starts_with(':'));
            if name.starts_with(':') {
                headers.insert(0, (*name, *value));
            } else {
                headers.push((*name, *value));
            }
        }
        headers
    };
    let cases = [
        (with(&[]), Ok(200)),
        (with(&[("host", "evil.example")]), Ok(421)),
        (with(&[(":authority", "evil.example")]), Ok(421)),
        (with(&[("host", "a"), ("host", "b")]), Ok(400)),
        (with(&[("x_forwarded_for", "10.0.0.1")]), Ok(400)),
        (
            with(&[("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")]),
            Ok(200),
        ),
        (with(&[("transfer-encoding", "chunked")]), Err(PROTOCOL_ERROR)),
        (with(&[("connection", "x-portcullis-subject")]), Err(PROTOCOL_ERROR)),
        (with(&[("upgrade", "websocket")]), Err(PROTOCOL_ERROR)),
        (with(&[("X-Upper", "case")]), Err(PROTOCOL_ERROR)),
        (with(&[("x-control", "a\rb")]), Err(PROTOCOL_ERROR)),
        (with(&[("x-control", "a\nb: c")]), Err(PROTOCOL_ERROR)),
        (with(&[("x-control", "a\0b")]), Err(PROTOCOL_ERROR)),
        (with(&[("x name", "space")]), Err(PROTOCOL_ERROR)),
        (with(&[(":unknown", "x")]), Err(PROTOCOL_ERROR)),
        (with(&[("te", "gzip")]), Err(PROTOCOL_ERROR)),
    ];
    for (headers, expected) in cases {
        let mut frames = Frames::open(&app, &[]).await;
        frames.ask(1, &headers, true).await;
        assert_eq!(frames.answer(1).await, expected, "{headers:?}");
    }
    let mut nobody = get(&app, metadata);
    nobody.retain(|(name, _)| *name != ":authority");
    let mut frames = Frames::open(&app, &[]).await;
    frames.ask(1, &nobody, true).await;
    assert_eq!(frames.answer(1).await, Ok(421));

    // A body that is not as long as was said, and one that goes on in another stream's name.
    let mut said = post(&app, "/token");
    said.push(("content-length", "3"));
    let mut frames = Frames::open(&app, &[]).await;
    frames.ask(1, &said, false).await;
    frames.write(&frame(DATA, END_STREAM, 1, b"a=b&c=d")).await;
    assert_eq!(frames.answer(1).await, Err(PROTOCOL_ERROR));
    let mut frames = Frames::open(&app, &[]).await;
    frames.write(&frame(DATA, END_STREAM, 7, b"a=b")).await;
    assert!(frames.end().await.is_some_and(|code| code != 0));
}

#[tokio::test]
async fn streams_and_header_lists_hold_at_their_numbers() {
    const REFUSED_STREAM: u32 = 7;
    let app =
        TestApp::with(Setup::toml("[limits]\nhttp2_streams = 3\nheaders = 4096\nheader = 4096"))
            .await;
    let mut frames = Frames::open(&app, &[]).await;
    let settings = frames.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await;
    let told: Vec<(u16, u32)> = settings
        .unwrap()
        .payload
        .chunks(6)
        .map(|six| {
            let (key, value) = six.split_at(2);
            (
                u16::from_be_bytes(key.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect();
    assert!(told.contains(&(3, 3)), "MAX_CONCURRENT_STREAMS: {told:?}");
    assert!(told.contains(&(6, 4096)), "MAX_HEADER_LIST_SIZE: {told:?}");
    frames.write(&frame(SETTINGS, ACK, 0, &[])).await;
    for stream in [1, 3, 5] {
        frames.ask(stream, &post(&app, "/token"), false).await;
    }
    frames.ask(7, &get(&app, "/health"), true).await;
    assert_eq!(frames.answer(7).await, Err(REFUSED_STREAM));
    frames.write(&frame(DATA, END_STREAM, 1, b"a=b")).await;
    assert_eq!(frames.answer(1).await, Ok(400));
    frames.ask(9, &get(&app, "/health"), true).await;
    assert_eq!(frames.answer(9).await, Ok(200));

    // 32 bytes more for each header are counted (RFC 9113 §6.5.2); the number itself is too much.
    let base: usize =
        get(&app, "/health").iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let fits = "x".repeat(4095 - base - 33);
    let too_much = format!("{fits}x");
    for (value, expected) in [(&fits, 200), (&too_much, 431)] {
        let mut headers = get(&app, "/health");
        headers.push(("a", value));
        let mut frames = Frames::open(&app, &[]).await;
        frames.ask(1, &headers, true).await;
        assert_eq!(frames.answer(1).await, Ok(expected));
    }
    for (number, expected) in [(60, 200), (65, 431)] {
        let app = TestApp::start().await;
        let mut headers = get(&app, "/health");
        headers.extend(vec![("a", "b"); number]);
        let mut frames = Frames::open(&app, &[]).await;
        frames.ask(1, &headers, true).await;
        assert_eq!(frames.answer(1).await, Ok(expected), "{number}");
    }
}

/// CVE-2023-44487, CVE-2024-27316 and their kind: each ends the connection, and nobody else notices.
#[tokio::test]
async fn ds_04_floods_of_frames_end_the_connection() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let app = impatient().await;

    let mut resets = Vec::new();
    for stream in (1..).step_by(2).take(200) {
        let headers = packed(&get(&app, "/.well-known/jwks.json"));
        resets.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers));
        resets.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut frames = Frames::open(&app, &[]).await;
    frames.write(&resets).await;
    assert_eq!(frames.end().await, Some(ENHANCE_YOUR_CALM), "rapid reset");

    let mut frames = Frames::open(&app, &[]).await;
    let headers = packed(&get(&app, "/health"));
    let mut flood = frame(HEADERS, END_STREAM, 1, &headers);
    let more = packed(&[("x-more", &"x".repeat(1000))]);
    for _ in 0..1000 {
        flood.extend(frame(CONTINUATION, 0, 1, &more));
    }
    frames.write(&flood).await;
    assert!(frames.end().await.is_none_or(|code| code != 0), "continuation without end");

    let mut frames = Frames::open(&app, &[]).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &headers);
    for _ in 0..100_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    frames.write(&flood).await;
    assert!(frames.end().await.is_none_or(|code| code != 0), "empty continuations");

    let mut frames = Frames::open(&app, &[]).await;
    frames.ask(1, &post(&app, "/token"), false).await;
    let flood = frame(DATA, 0, 1, &[]).repeat(100_000);
    frames.write(&flood).await;
    assert_eq!(frames.end().await, Some(ENHANCE_YOUR_CALM), "empty data");

    // What must be answered, by a client that does not read the answers.
    for (what, one) in
        [("pings", frame(PING, 0, 0, &[7; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))]
    {
        let mut frames = Frames::open(&app, &[]).await;
        let (flood, start) = (one.repeat(10_000), Instant::now());
        while frames.0.write_all(&flood).await.is_ok() {
            assert!(start.elapsed() < Duration::from_secs(20), "{what} without end");
        }
    }
    app.http.get(&app.at("/health")).await.assert_status(200);
}

#[tokio::test]
async fn ds_04_slow_clients_of_http_2_lose_their_streams_and_their_connections() {
    const CANCEL: u32 = 8;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let app = impatient().await;
    let seconds = |start: Instant| start.elapsed().as_secs_f64();

    let no_request = async {
        let start = Instant::now();
        let mut frames = Frames::open(&app, &[]).await;
        frames.end().await;
        assert!(seconds(start) < 2.0, "{}", seconds(start));
    };
    let half_a_preface = async {
        let (mut connection, start) = (raw::connect(&app.url).await, Instant::now());
        connection.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let _ = connection.read_to_end(&mut Vec::new()).await;
        assert!(seconds(start) < 2.0, "{}", seconds(start));
    };
    let half_a_head = async {
        let (mut frames, start) = (Frames::open(&app, &[]).await, Instant::now());
        frames.write(&frame(HEADERS, END_STREAM, 1, &packed(&get(&app, "/health")))).await;
        frames.end().await;
        assert!(seconds(start) < 2.0, "{}", seconds(start));
    };
    let half_a_body = async {
        let (mut frames, start) = (Frames::open(&app, &[]).await, Instant::now());
        frames.ask(1, &post(&app, "/token"), false).await;
        frames.write(&frame(DATA, 0, 1, b"a=b")).await;
        assert_eq!(frames.answer(1).await, Ok(408));
        assert!(seconds(start) > 1.9 && seconds(start) < 4.0, "{}", seconds(start));
    };
    let no_window = async {
        let (mut frames, start) =
            (Frames::open(&app, &[(INITIAL_WINDOW_SIZE, 0)]).await, Instant::now());
        frames.ask(1, &get(&app, "/.well-known/jwks.json"), true).await;
        assert_eq!(frames.answer(1).await, Ok(200));
        assert_eq!(frames.answer(1).await, Err(CANCEL));
        assert!(seconds(start) > 1.9 && seconds(start) < 4.0, "{}", seconds(start));
    };
    let pings_are_idle = async {
        let (mut frames, start) = (Frames::open(&app, &[]).await, Instant::now());
        frames.ask(1, &get(&app, "/health"), true).await;
        assert_eq!(frames.answer(1).await, Ok(200));
        loop {
            // The clock of sockets is the system's: no hand moves it.
            tokio::time::sleep(Duration::from_millis(200)).await;
            frames.write(&frame(PING, 0, 0, &[7; 8])).await;
            let ended = tokio::time::timeout(Duration::from_millis(1), frames.0.readable()).await;
            if ended.is_ok() && frames.read().await.is_none() {
                break;
            }
        }
        assert!(seconds(start) > 2.9 && seconds(start) < 6.0, "{}", seconds(start));
    };
    tokio::join!(no_request, half_a_preface, half_a_head, half_a_body, no_window, pings_are_idle);
}

#[tokio::test]
async fn both_protocols_may_begin_byte_by_byte_and_neither_may_stop_there() {
    let app = impatient().await;
    let mut frames = Frames(raw::connect(&app.url).await);
    frames.0.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        frames.write(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    frames.write(&frame(SETTINGS, 0, 0, &[])).await;
    frames.ask(1, &get(&app, "/health"), true).await;
    assert_eq!(frames.answer(1).await, Ok(200));

    // A method may begin as HTTP/2 does.
    for method in ["PROPFIND", "PRINT", "PRI"] {
        let mut spoken = raw::connect(&app.url).await;
        spoken.set_nodelay(true).unwrap();
        let request = format!(
            "{method} /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            host(&app)
        );
        for byte in request.as_bytes() {
            let _ = spoken.write_all(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let _ = spoken.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        // The last of them is HTTP/2, and badly begun.
        assert_eq!(raw::status(&answer), if method == "PRI" { 0 } else { 405 }, "{answer}");
    }

    for half in ["P", "PRI", "PRI * HTTP/2.0\r\n"] {
        let mut silent = raw::connect(&app.url).await;
        silent.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(15), silent.read_to_end(&mut rest));
        let _ = closed.await.expect("it is closed in time");
    }
}

#[tokio::test]
async fn http_2_can_be_turned_off() {
    let app = TestApp::with(Setup::toml("http2 = false")).await;
    let mut frames = Frames::open(&app, &[]).await;
    frames.ask(1, &get(&app, "/health"), true).await;
    let mut answer = Vec::new();
    let _ = frames.0.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200"));
    app.http.get(&app.at("/health")).await.assert_status(200);
}
