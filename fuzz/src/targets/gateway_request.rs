//! F10: requests through the gateway: method and resource in two letters and the query, then a header on
//! each line. What the MCP server receives is read off the wire.

use std::sync::{LazyLock, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::world::{CLIENT_ID, World};

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::start()));

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
/// Everything that may reach an MCP server, beside `mcp-*`.
const MAY_PASS: &[&str] = &[
    "accept",
    "accept-language",
    "content-type",
    "content-encoding",
    "user-agent",
    "traceparent",
    "tracestate",
    "host",
    "content-length",
    "transfer-encoding",
];
/// What is ours to say, and is said once.
const OURS: &[(&str, &str)] = &[
    ("x-portcullis-subject", "oidc:fuzz"),
    ("x-portcullis-client", CLIENT_ID),
    ("x-portcullis-scopes", "read"),
    ("x-portcullis-name", "%C3%84nne%0D%0Ax-evil: 1 100%25"),
    ("x-portcullis-email", "anne@example.com"),
    ("x-portcullis-email-verified", "true"),
];

/// Contradicted when a client reaches another path, or says what is not its own to say.
pub fn run(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let [method, resource, query @ ..] = first else { return };
    let method = match method {
        b'G' => Method::GET,
        b'P' => Method::POST,
        b'D' => Method::DELETE,
        _ => Method::PUT,
    };
    let path = match resource {
        b'm' => "/mcp",
        b's' => "/sse",
        _ => "/open",
    };
    let target = [path.as_bytes(), query].concat();
    let Ok(uri) = Uri::try_from(target) else { return };
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let token = world.token(path).to_owned();
    let mut request = Request::new(Body::from(BODY));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("127.0.0.1:8000"));
    headers.insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    for line in lines.take(20) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let sent_session = request.headers().contains_key("mcp-session-id");
    let is_put = request.method() == Method::PUT;
    let answered = world.send(request);
    assert!(answered.seen.len() <= 1, "one request became {}", answered.seen.len());
    for name in ["set-cookie", "server", "x-portcullis-subject"] {
        assert!(!answered.headers.contains_key(name), "{name} comes back");
    }
    let Some(seen) = answered.seen.first() else {
        assert!(!answered.status.is_success(), "{} without the MCP server", answered.status);
        assert_ne!(data, b"Po", "a plain request is refused");
        return;
    };
    assert!(!is_put && path != "/sse" || path == "/sse" && seen.starts_with(b"GET "), "it passed");
    assert!(!sent_session, "a session id that nobody was given passed");
    let head = seen.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let (head, body) = (&seen[..head], &seen[head + 4..]);
    // Tool rules read what is posted; another body would pass them by.
    assert_eq!(body, if seen.starts_with(b"POST ") { BODY.as_bytes() } else { b"" });
    let head: String = head.iter().map(|byte| char::from(*byte)).collect();
    assert!(!head.contains(&token), "the token passed");
    let mut lines = head.split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [_, target, "HTTP/1.1"] = line.as_slice() else { panic!("{line:?}") };
    let (reached, query) = target.split_once('?').unwrap_or((target, ""));
    assert_eq!(reached, format!("/base{path}"), "{target}");
    for pair in query.split('&') {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        assert!(name != "access_token" && name != "access%5ftoken", "{target}");
    }
    let headers: Vec<(&str, &str)> =
        lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"))).collect();
    for (name, _) in &headers {
        let ours = OURS.iter().any(|(known, _)| known == name);
        let parameter = name.starts_with("mcp-param-");
        let mcp = parameter
            || name.starts_with("mcp-") && !name.contains('_') && *name != "mcp-session-id";
        assert!(ours || mcp || MAY_PASS.contains(name), "{name} passed");
    }
    for (name, value) in OURS {
        let said: Vec<&str> =
            headers.iter().filter(|(known, _)| known == name).map(|(_, v)| *v).collect();
        assert_eq!(said, [*value], "{name}");
    }
    let hosts: Vec<&str> =
        headers.iter().filter(|(name, _)| *name == "host").map(|(_, v)| *v).collect();
    assert_eq!(hosts, [world.peer_url.trim_start_matches("http://")]);
    let lengths =
        headers.iter().filter(|(name, _)| matches!(*name, "content-length" | "transfer-encoding"));
    assert_eq!(lengths.count(), usize::from(!body.is_empty()), "{head}");
}
