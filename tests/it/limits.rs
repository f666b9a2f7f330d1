//! The quotas of the threat catalogue, each at its number and one past it. The address that asks is
//! what a trusted proxy says.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::{Answer, encode};
use crate::harness::{Setup, TestApp, raw};

const METADATA: &str = "/.well-known/oauth-authorization-server";

fn limits(text: &str) -> Setup {
    let top = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
    Setup { top, tables: format!("[limits]\n{text}"), ..Setup::default() }
}

const FORM: &str = "application/x-www-form-urlencoded";

async fn get(app: &TestApp, path: &str, from: &str) -> Answer {
    let headers = [("x-forwarded-for", from), ("accept", "text/html")];
    app.http.send("GET", &app.at(path), &headers, "").await
}

async fn token(app: &TestApp, form: &[(&str, &str)], from: &str) -> Answer {
    app.http.post_form(&app.at("/token"), form, &[("x-forwarded-for", from)]).await
}

async fn register(app: &TestApp, name: &str, from: &str) -> Answer {
    let metadata = json!({
        "client_name": name, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none",
    });
    app.http.post_json(&app.at("/register"), &metadata, &[("x-forwarded-for", from)]).await
}

#[track_caller]
fn is_told_to_wait(answer: &Answer, status: u16) {
    answer.assert_status(status);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds > 0);
}

#[tokio::test]
async fn ds_02_discovery_holds_at_its_number_per_address() {
    let app = TestApp::with(limits("discovery_per_minute = 3")).await;
    for _ in 0..3 {
        get(&app, METADATA, "203.0.113.7").await.assert_status(200);
    }
    is_told_to_wait(&get(&app, METADATA, "203.0.113.7").await, 429);
    get(&app, METADATA, "203.0.113.8").await.assert_status(200);
    app.advance(20);
    get(&app, METADATA, "203.0.113.7").await.assert_status(200);
    is_told_to_wait(&get(&app, METADATA, "203.0.113.7").await, 429);
}

#[tokio::test]
async fn ds_02_a_client_cannot_choose_its_address() {
    let app = TestApp::with(limits("discovery_per_minute = 1")).await;
    get(&app, METADATA, "198.51.100.1, 203.0.113.7").await.assert_status(200);
    is_told_to_wait(&get(&app, METADATA, "198.51.100.2, 203.0.113.7").await, 429);
}

#[tokio::test]
async fn without_a_known_proxy_nobody_pays_for_an_address_that_many_share() {
    let tables = "[limits]\ndiscovery_per_minute = 1".to_owned();
    let app = TestApp::with(Setup { tables, ..Setup::default() }).await;
    for _ in 0..3 {
        get(&app, METADATA, "203.0.113.7").await.assert_status(200);
    }
}

#[tokio::test]
async fn ds_02_people_get_a_page_when_they_ask_too_often() {
    let app = TestApp::with(limits("authorize_per_minute = 2\nconsent_per_minute = 1")).await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    let path = url.strip_prefix(&app.url).unwrap();
    for _ in 0..2 {
        get(&app, path, "203.0.113.7").await.assert_page(200);
    }
    let page = get(&app, path, "203.0.113.7").await;
    page.assert_page(429);
    is_told_to_wait(&page, 429);

    let consent = async || {
        let headers = [("x-forwarded-for", "203.0.113.7")];
        app.http.post_form(&app.at("/consent"), &[("decision", "approve")], &headers).await
    };
    consent().await.assert_page(403);
    is_told_to_wait(&consent().await, 429);
}

#[tokio::test]
async fn ds_02_the_token_endpoint_holds_at_its_number_and_counts_failures_apart() {
    let app = TestApp::with(limits("token_per_minute = 6\ntoken_failures_per_minute = 2")).await;
    let wrong = [("client_id", "nobody"), ("grant_type", "refresh_token")];
    for _ in 0..2 {
        token(&app, &wrong, "203.0.113.7").await.assert_error(401, "invalid_client");
    }
    is_told_to_wait(&token(&app, &wrong, "203.0.113.7").await, 429);

    // Who shares the address and makes no mistake is served, up to the number of all requests.
    let client = app.client().await;
    for _ in 0..3 {
        let code = client.code("bob").await;
        let form = redemption(&client, &code);
        let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        token(&app, &form, "203.0.113.7").await.assert_status(200);
    }
    is_told_to_wait(&token(&app, &wrong, "203.0.113.7").await, 429);
    token(&app, &wrong, "203.0.113.8").await.assert_error(401, "invalid_client");
}

fn redemption(client: &McpClient, code: &str) -> Vec<(&'static str, String)> {
    vec![
        ("client_id", client.id.clone()),
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.to_owned()),
        ("redirect_uri", client.redirect_uri.clone()),
        ("code_verifier", crate::harness::client::VERIFIER.to_owned()),
    ]
}

#[tokio::test]
async fn rg_02_new_clients_are_limited_per_address_and_known_ones_are_free() {
    let app = TestApp::with(limits("registrations_per_hour = 4\nregistrations_at_once = 2")).await;
    for name in ["one", "two"] {
        register(&app, name, "203.0.113.7").await.assert_status(201);
    }
    is_told_to_wait(&register(&app, "three", "203.0.113.7").await, 429);
    for _ in 0..5 {
        register(&app, "one", "203.0.113.7").await.assert_status(201);
    }
    register(&app, "three", "203.0.113.8").await.assert_status(201);
    app.advance(15 * 60);
    register(&app, "four", "203.0.113.7").await.assert_status(201);
    is_told_to_wait(&register(&app, "five", "203.0.113.7").await, 429);
}

#[tokio::test]
async fn a_grant_is_refreshed_so_often_a_minute_and_others_do_not_pay() {
    let app = TestApp::with(limits("refreshes_per_minute = 3")).await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    let (other, others) = app.tokens_of("bob").await;
    for _ in 0..3 {
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    }
    is_told_to_wait(&client.refresh(&tokens.refresh_token).await, 429);
    other.refresh(&others.refresh_token).await.assert_status(200);
    app.advance(20);
    client.refresh(&tokens.refresh_token).await.assert_status(200); // nothing was used up
}

#[tokio::test]
async fn the_switch_turns_request_rates_off_on_loopback() {
    let app = TestApp::with(limits("request_rates = false\ndiscovery_per_minute = 1")).await;
    for _ in 0..3 {
        get(&app, METADATA, "203.0.113.7").await.assert_status(200);
    }
}

#[tokio::test]
async fn the_least_recently_used_grant_makes_room_for_one_too_many() {
    let app = TestApp::with(limits("grants_per_client = 2\ngrants_per_person = 3")).await;
    let client = app.client().await;
    let mut grants = Vec::new();
    for _ in 0..2 {
        grants.push(client.sign_in("bob").await);
        app.advance(1);
    }
    grants[0] = Tokens::of(&client.refresh(&grants[0].refresh_token).await); // used last
    app.advance(1);
    let works = async |tokens: &Tokens| {
        let answer = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
        answer.status == 200
    };
    assert!(works(&grants[0]).await && works(&grants[1]).await, "at the limit both live");

    grants.push(client.sign_in("bob").await);

    assert!(works(&grants[0]).await && !works(&grants[1]).await && works(&grants[2]).await);
    client.refresh(&grants[1].refresh_token).await.assert_error(400, "invalid_grant");

    // The limit of the person counts all clients; another person's grants are not touched.
    let (_, alices) = app.tokens_of("alice").await;
    for name in ["second", "third"] {
        app.advance(1);
        let metadata = json!({
            "client_name": name, "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        });
        McpClient::register_as(&app, metadata).await.sign_in("bob").await;
    }
    assert!(!works(&grants[0]).await && works(&grants[2]).await && works(&alices).await);
}

#[tokio::test]
async fn event_streams_of_a_person_hold_at_their_number() {
    let app = TestApp::with(limits("streams_per_person = 2")).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let (_, others) = app.tokens_of("alice").await;
    let open = async |tokens: &Tokens| {
        let authorization = format!("Bearer {}", tokens.access_token);
        let accept = "application/json, text/event-stream";
        let mut headers = vec![("authorization", authorization.as_str()), ("accept", accept)];
        let initialize: Value = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
        });
        let session = app.http.post_json(&app.mcp_url(), &initialize, &headers).await;
        let session = session.header("mcp-session-id").unwrap().to_owned();
        headers.push(("mcp-session-id", &session));
        app.http.open("GET", &app.mcp_url(), &headers, "").await
    };
    let first = open(&tokens).await;
    let second = open(&tokens).await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let third = open(&tokens).await;
    assert_eq!(third.status(), 429);
    assert!(third.headers().contains_key("retry-after"));
    assert_eq!(open(&others).await.status(), 200);
    drop(first);
    while open(&tokens).await.status() != 200 {
        app.todo.send_event(&json!({})); // the server notices at its next write
    }
}

#[tokio::test]
async fn open_connections_hold_at_their_number() {
    let app = TestApp::with(limits("connections = 2")).await;
    let host = app.url.trim_start_matches("http://");
    let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let held = [raw::connect(&app.url).await, raw::connect(&app.url).await];
    let mut third = raw::connect(&app.url).await;
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0, "closed at once");
    drop(held);
    while !matches!(raw::try_exchange(&app.url, &request).await, Ok(answer) if raw::status(&answer) == 200)
    {
    }
}

#[tokio::test]
async fn request_lines_and_headers_hold_at_their_numbers() {
    let setup = limits("request_target = 1024\nheaders = 4096\nheader = 2048\nheader_count = 16");
    let app = TestApp::with(setup).await;
    let host = app.url.trim_start_matches("http://").to_owned();
    let status = async |target: usize, headers: &str| {
        let path = format!("/health?{}", "x".repeat(target - "/health?".len()));
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        raw::status(&raw::exchange(&app.url, &request).await)
    };
    let header =
        |name: &str, length: usize| format!("{name}: {}\r\n", "x".repeat(length - name.len() - 4));
    assert_eq!(status(1024, "").await, 200);
    assert_eq!(status(1025, "").await, 414);
    assert_eq!(status(100, &header("a", 2048)).await, 200);
    assert_eq!(status(100, &header("a", 2049)).await, 431);
    let fixed = "host".len() + host.len() + 4 + "connection".len() + "close".len() + 4;
    let rest = 4096 - fixed - 2048;
    let both = |last: usize| header("a", 2048) + &header("b", last);
    assert_eq!(status(100, &both(rest)).await, 200);
    assert_eq!(status(100, &both(rest + 1)).await, 431);
    assert_eq!(status(100, &"a: b\r\n".repeat(14)).await, 200);
    assert_eq!(status(100, &"a: b\r\n".repeat(15)).await, 431);
}

#[tokio::test]
async fn bodies_hold_at_their_numbers() {
    let app = TestApp::with(limits("token_body = 1024\nregister_body = 1024")).await;
    let form = |length: usize| {
        let form = encode(&[("client_id", "nobody"), ("x", "")]);
        form.clone() + &"y".repeat(length - form.len())
    };
    let post = async |path: &str, kind: &str, body: String| {
        app.http.send("POST", &app.at(path), &[("content-type", kind)], body).await.status.as_u16()
    };
    for path in ["/token", "/revoke"] {
        assert_eq!(post(path, FORM, form(1024)).await, 401);
        assert_eq!(post(path, FORM, form(1025)).await, 413);
    }
    let registration = |length: usize| {
        let json = json!({ "redirect_uris": [REDIRECT_URI] }).to_string();
        json.clone() + &" ".repeat(length - json.len())
    };
    assert_eq!(post("/register", "application/json", registration(1024)).await, 201);
    assert_eq!(post("/register", "application/json", registration(1025)).await, 413);
}
