//! Limits (`docs/operations/limits.md` lists them), each at its number and one past it. A trusted proxy says
//! which address asks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::{Answer, encode};
use crate::harness::{Setup, TestApp, logs, raw};

const METADATA: &str = "/.well-known/oauth-authorization-server";

fn limits(text: &str) -> Setup {
    let top = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
    Setup::toml(top).and(format!("[limits]\n{text}"))
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

/// What anybody can do any number of times must not fill the disk that the log is on.
#[tokio::test]
async fn ds_08_the_refusals_of_a_flood_are_a_line_a_second() {
    let app = TestApp::with(limits("discovery_per_minute = 1")).await;
    let start = tokio::time::Instant::now();
    for _ in 0..300 {
        get(&app, METADATA, "203.0.113.66").await;
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();

    let told = logs::all();
    let told = told.lines().filter(|line| line.contains("203.0.113.66"));
    let told = told.filter(|line| line.contains("asks too often")).count();
    assert!(told <= seconds + 2, "{told} lines in {seconds} seconds");
}

#[tokio::test]
async fn ds_02_a_client_cannot_choose_its_address() {
    let app = TestApp::with(limits("discovery_per_minute = 1")).await;
    get(&app, METADATA, "198.51.100.1, 203.0.113.7").await.assert_status(200);
    is_told_to_wait(&get(&app, METADATA, "198.51.100.2, 203.0.113.7").await, 429);
}

#[tokio::test]
async fn without_a_known_proxy_nobody_pays_for_an_address_that_many_share() {
    let app = TestApp::with(Setup::toml("[limits]\ndiscovery_per_minute = 1")).await;
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
async fn rg_01_new_clients_are_limited_per_address_and_known_ones_are_free() {
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
    let host = raw::host(&app.url);
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
    let host = raw::host(&app.url).to_owned();
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

/// A form that breaks off is not too large, wherever a person sends one.
#[tokio::test]
async fn a_form_that_breaks_off_is_told_so_on_every_page() {
    let app = TestApp::start().await;
    for path in ["/consent", "/account/sign-in", "/account/language"] {
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nOrigin: {}\r\nSec-Fetch-Site: same-origin\r\n\
             Accept: text/html\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            raw::path(&app.url),
            raw::host(&app.url),
            app.origin
        );
        for (body, status) in [
            ("3\r\nx=y\r\nzz\r\n".to_owned(), 400),
            ("zz\r\n".to_owned(), 400),
            (format!("40000\r\n{}\r\n0\r\n\r\n", "y".repeat(0x40000)), 413),
        ] {
            let answer = raw::exchange(&app.url, &format!("{head}{body}")).await;
            assert_eq!(raw::status(&answer), status, "{path}: {answer}");
            assert!(
                answer.contains("<!doctype html>") || answer.contains("<!DOCTYPE html>"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn decisions_and_mcp_requests_hold_at_their_sizes() {
    let app = TestApp::with(limits(
        "consent_body = 8192\ngateway_body = 1024\ngateway_batch = 3\nrequests_per_person = 100",
    ))
    .await;
    let consent = async |length: usize| {
        let headers = [("content-type", FORM), ("accept", "text/html")];
        let form = format!("x={}", "y".repeat(length - 2));
        app.http.send("POST", &app.at("/consent"), &headers, form).await.status.as_u16()
    };
    assert_eq!(consent(8192).await, 403);
    assert_eq!(consent(8193).await, 413);

    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let call = async |body: String| {
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2026-07-28"),
        ];
        if !body.starts_with('[') {
            headers.push(("mcp-method", "ping"));
        }
        app.http.send("POST", &app.mcp_url(), &headers, body).await.status.as_u16()
    };
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let padded = |length: usize| ping.clone() + &" ".repeat(length - ping.len());
    let batch = |messages: usize| format!("[{}]", vec![ping.as_str(); messages].join(","));
    assert_eq!(call(padded(1024)).await, 200);
    assert_eq!(call(padded(1025)).await, 413);
    assert_ne!(call(batch(3)).await, 413);
    assert_eq!(call(batch(4)).await, 413);
}

#[tokio::test]
async fn ph_02_a_browser_is_shown_so_many_pages_of_one_client_that_it_did_not_approve() {
    let app = TestApp::with(limits("consent_pages = 2")).await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    let other = McpClient { browser: client.browser.clone(), ..app.client_named("other").await };

    let (_, denied) = client.ask(&[]).await;
    client.decide(&denied, "deny").await.assert_leads_to(&client.redirect_uri);
    let (_, last) = client.ask(&[]).await;
    let page = client.browser.get(&url).await;
    page.assert_page(429);
    is_told_to_wait(&page, 429);

    other.ask(&[]).await;
    client.elsewhere().ask(&[]).await; // another browser
    app.advance(9 * 60);
    client.browser.get(&url).await.assert_page(429);
    client.decide(&last, "approve").await.assert_leads_to(app.idp.issuer());
    client.ask(&[]).await;
    client.ask(&[]).await;
    client.browser.get(&url).await.assert_page(429);
    app.advance(10 * 60);
    client.ask(&[]).await;
}

#[tokio::test]
async fn logins_on_their_way_from_one_address_hold_at_their_number() {
    let app = TestApp::with(limits("pending_logins_per_address = 2\nconsent_pages = 10")).await;
    let client = app.client().await;
    let approve = async |from: &str| {
        let (_, form) = client.ask(&[]).await;
        let body = encode(&form.with(&[("decision", "approve")]));
        let headers = [
            ("accept", "text/html"),
            ("content-type", FORM),
            ("origin", app.origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("x-forwarded-for", from),
        ];
        client.browser.send("POST", &form.action, &headers, &body).await
    };
    let first = approve("203.0.113.7").await;
    first.assert_leads_to(app.idp.issuer());
    approve("203.0.113.7").await.assert_leads_to(app.idp.issuer());
    let page = approve("203.0.113.7").await;
    page.assert_page(429);
    is_told_to_wait(&page, 429);
    approve("203.0.113.8").await.assert_leads_to(app.idp.issuer());

    let callback = client.log_in(first.location(), "bob").await;
    client.browser.get(&callback).await.assert_leads_to(&client.redirect_uri);

    approve("203.0.113.7").await.assert_leads_to(app.idp.issuer());
    approve("203.0.113.7").await.assert_page(429);
    app.advance(15 * 60);
    approve("203.0.113.7").await.assert_leads_to(app.idp.issuer());
}

/// Whoever fills all places keeps nobody out but those who come from where the flood comes from.
#[tokio::test]
async fn ds_01_a_flood_of_logins_makes_room_for_people_from_elsewhere() {
    let app = TestApp::with(limits("pending_logins = 4\nconsent_pages = 50")).await;
    let client = app.client().await;
    let approve = async |from: &str| {
        let client = client.elsewhere();
        let (_, form) = client.ask(&[]).await;
        let body = encode(&form.with(&[("decision", "approve")]));
        let headers = [
            ("accept", "text/html"),
            ("content-type", FORM),
            ("origin", app.origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("x-forwarded-for", from),
        ];
        let answer = client.browser.send("POST", &form.action, &headers, &body).await;
        (client, answer)
    };
    let first = approve("2001:db8:1:1::1").await;
    for last in 2..=4 {
        approve(&format!("2001:db8:1:{last}::1")).await.1.assert_leads_to(app.idp.issuer());
    }
    is_told_to_wait(&approve("2001:db8:1:5::1").await.1, 429);
    is_told_to_wait(&approve("10.0.0.1, unknown").await.1, 429);

    let mut people = vec![first];
    people.push(approve("203.0.113.7").await);
    people.push(approve("198.51.100.7").await);
    is_told_to_wait(&approve("203.0.113.8").await.1, 429);
    for (client, answer) in people {
        answer.assert_leads_to(app.idp.issuer());
        let callback = client.log_in(answer.location(), "bob").await;
        client.browser.get(&callback).await.assert_leads_to(&client.redirect_uri);
    }
}

#[tokio::test]
async fn requests_of_a_person_at_the_gateway_hold_at_their_number() {
    let app = TestApp::with(limits("requests_per_person = 2")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, others) = app.tokens_of("alice").await;
    // What is still being sent is under way.
    let head = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token
    );
    let begin = async || {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut told = [0; 25];
        connection.read_exact(&mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 100"));
        connection
    };
    let one = begin().await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    let two = begin().await;
    let refused = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    is_told_to_wait(&refused, 429);
    other.call_tool(&others.access_token, "get-todos", json!({})).await.assert_status(200);
    drop((one, two));
    let again = async || client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    while again().await.status == 429 {}
}

/// Requests that are still being sent, and event streams: each client of a person has a part of the places
/// of that person, so that one of them cannot lock the others out.
#[tokio::test]
async fn one_client_of_a_person_cannot_take_the_places_of_her_other_clients() {
    let app = TestApp::with(limits("requests_per_person = 4\nstreams_per_person = 4")).await;
    let (greedy, tokens) = app.tokens_of("bob").await;
    // A second connection of the same client is no second client.
    let second = greedy.elsewhere().sign_in("bob").await;
    let other = app.client_named("Another").await;
    let others = other.sign_in("bob").await;
    let begin = async |access_token: &str| {
        let head = format!(
            "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {access_token}\r\n\
             Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
            raw::path(&app.url),
            raw::host(&app.url),
        );
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut told = [0; 12];
        connection.read_exact(&mut told).await.unwrap();
        (connection, String::from_utf8_lossy(&told).into_owned())
    };
    let mut held = Vec::new();
    for access_token in [&tokens, &second, &tokens].map(|tokens| tokens.access_token.clone()) {
        let (connection, told) = begin(&access_token).await;
        assert_eq!(told, "HTTP/1.1 100");
        held.push(connection);
    }
    for tokens in [&tokens, &second] {
        assert_eq!(begin(&tokens.access_token).await.1, "HTTP/1.1 429");
    }
    other.call_tool(&others.access_token, "get-todos", json!({})).await.assert_status(200);
    held.push(begin(&others.access_token).await.0);
    // All four places of the person are taken now.
    assert_eq!(begin(&others.access_token).await.1, "HTTP/1.1 429");
    drop(held);
    let again = async || greedy.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    while again().await.status == 429 {}

    let open = async |client: &McpClient, tokens: &Tokens| {
        let params = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" },
        });
        let session = client.rpc(&tokens.access_token, "initialize", params).await;
        let session = session.assert_status(200).header("mcp-session-id").unwrap().to_owned();
        let authorization = format!("Bearer {}", tokens.access_token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", "text/event-stream"),
            ("mcp-session-id", session.as_str()),
            ("mcp-protocol-version", "2025-06-18"),
        ];
        app.http.open("GET", &app.mcp_url(), &headers, "").await
    };
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream = open(&greedy, &tokens).await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    let refused = open(&greedy, &second).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(open(&other, &others).await.status(), 200);
    drop(streams);
}

#[tokio::test]
async fn an_event_stream_on_which_nothing_comes_is_closed() {
    let app = TestApp::with(limits("stream_idle = \"1s\"")).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let accept = "application/json, text/event-stream";
    let mut headers = vec![("authorization", authorization.as_str()), ("accept", accept)];
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let session = app.http.post_json(&app.mcp_url(), &initialize, &headers).await;
    let session = session.header("mcp-session-id").unwrap().to_owned();
    headers.push(("mcp-session-id", &session));

    let stream = app.http.open("GET", &app.mcp_url(), &headers, "").await;

    assert_eq!(stream.status(), 200);
    Answer::read(stream).await; // returns: it ended
}

#[tokio::test]
async fn a_full_database_is_503_and_clean_up_makes_room_again() {
    let app = TestApp::with(limits("database_size = 1572864")).await;
    if app.database.is_postgres() {
        return; // PostgreSQL has an administrator for that
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let long = format!("https://many.example/{}", "x".repeat(900));
    let mut registered = 0;
    let full = loop {
        let metadata = json!({ "client_name": format!("{registered}"), "redirect_uris": [long] });
        let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        if answer.status != 201 {
            break answer;
        }
        registered += 1;
    };
    full.assert_error(503, "temporarily_unavailable");
    is_told_to_wait(&full, 503);
    assert!(registered > 50, "only {registered}");
    let file = app.database.folder.join("portcullis.db");
    assert!(std::fs::metadata(&file).unwrap().len() <= 1_572_864);

    // Who writes nothing is served, refusals among them; nothing is used up.
    get(&app, METADATA, "203.0.113.7").await.assert_status(200);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    token(&app, &[("client_id", "nobody")], "203.0.113.7").await.assert_status(401);
    let (_, form) = client.ask(&[]).await;

    app.advance(25 * 3600);
    let keep = portcullis::storage::Retention {
        unused_client: Duration::from_hours(24),
        idle_client: Duration::from_hours(24 * 90),
        audit: Duration::from_hours(1),
        refused_person: Duration::from_hours(1),
        refresh_idle: Duration::from_hours(1),
        rows: 500,
    };
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}

    client.refresh(&tokens.refresh_token).await.assert_status(200);
    register(&app, "newcomer", "203.0.113.9").await.assert_status(201);
    client.browser.get(&client.authorize_url(&[])).await.assert_page(200);
    drop(form);
}

/// Bounds of single values stand in the code: they are what the values mean.
#[tokio::test]
async fn single_values_hold_at_their_sizes() {
    let app = TestApp::with(limits("consent_pages = 50\nrequest_target = 16384")).await;
    let client = app.client().await;
    // /authorize: state and scope are told to the client, a resource as well.
    let asked = async |name: &str, value: &str| {
        let answer = client.browser.get(&client.authorize_url(&[(name, value)])).await;
        match answer.status.as_u16() {
            200 => "asked".to_owned(),
            _ => answer.location_param("error").unwrap(),
        }
    };
    let scopes = |number: usize| {
        (0..number).map(|number| format!("s{number}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked("state", &"s".repeat(4096)).await, "asked");
    assert_eq!(asked("state", &"s".repeat(4097)).await, "invalid_request");
    assert_eq!(asked("scope", &format!("read:todos {}", "s".repeat(989))).await, "asked");
    assert_eq!(asked("scope", &format!("read:todos {}", "s".repeat(990))).await, "invalid_scope");
    assert_eq!(asked("scope", &scopes(50)).await, "asked");
    assert_eq!(asked("scope", &scopes(51)).await, "invalid_scope");
    assert_eq!(asked("code_challenge", &"c".repeat(44)).await, "invalid_request");
    let slashes = |length: usize| {
        let resource = app.mcp_url();
        resource.clone() + &"/".repeat(length - resource.len())
    };
    assert_eq!(asked("resource", &slashes(2049)).await, "invalid_target");

    let registered = async |metadata: Value| {
        app.http.post_json(&app.at("/register"), &metadata, &[]).await.status.as_u16()
    };
    let named = |length: usize| json!({ "client_name": "é".repeat(length), "redirect_uris": [REDIRECT_URI] });
    assert_eq!(registered(named(128)).await, 201);
    assert_eq!(registered(named(129)).await, 400);
    let uri = |length: usize| {
        let uri = "https://a.example/";
        uri.to_owned() + &"x".repeat(length - uri.len())
    };
    assert_eq!(registered(json!({ "redirect_uris": [uri(1024)] })).await, 201);
    assert_eq!(registered(json!({ "redirect_uris": [uri(1025)] })).await, 400);
    let uris = |number: usize| {
        let uris: Vec<String> = (0..number).map(|n| format!("https://a.example/{n}")).collect();
        json!({ "redirect_uris": uris })
    };
    assert_eq!(registered(uris(16)).await, 201);
    assert_eq!(registered(uris(17)).await, 400);
    let nested = |depth: usize| {
        let mut value = json!(1);
        for _ in 0..depth {
            value = json!([value]);
        }
        json!({ "redirect_uris": [REDIRECT_URI], "x": value })
    };
    assert_eq!(registered(nested(6)).await, 201);
    assert_eq!(registered(nested(8)).await, 400);
    let many = |number: usize| {
        let mut metadata = json!({ "redirect_uris": [REDIRECT_URI] });
        for name in 1..number {
            metadata[format!("x{name}")] = json!(1);
        }
        metadata
    };
    assert_eq!(registered(many(64)).await, 201);
    assert_eq!(registered(many(65)).await, 400);

    let params = |number: usize| {
        let mut form = vec![("client_id".to_owned(), "nobody".to_owned())];
        form.extend((1..number).map(|number| (format!("x{number}"), "y".to_owned())));
        form
    };
    let status = async |form: &[(String, String)]| {
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        token(&app, &form, "203.0.113.7").await.status.as_u16()
    };
    assert_eq!(status(&params(50)).await, 401);
    assert_eq!(status(&params(51)).await, 400);

    let bearer = async |length: usize| {
        let authorization = format!("Bearer {}", "x".repeat(length));
        let headers = [("authorization", authorization.as_str())];
        app.http.send("GET", &app.mcp_url(), &headers, "").await.status.as_u16()
    };
    assert_eq!(bearer(8 * 1024).await, 401);
    assert_eq!(bearer(8 * 1024 + 1).await, 401);
}

/// Issue "one million registrations", in small; `portcullis-load flood` is the large form.
#[tokio::test]
async fn rg_01_a_flood_from_many_addresses_pushes_out_itself_and_nobody_else() {
    let app = TestApp::with(limits("clients = 60\nregistrations_at_once = 1000")).await;
    let (known, tokens) = app.tokens_of("bob").await;
    let early = register(&app, "early", "198.51.100.1").await;
    let early = early.assert_status(201).json()["client_id"].as_str().unwrap().to_owned();
    let mut answers = std::collections::BTreeMap::new();
    let mut newcomers = 0;
    for number in 0..2000 {
        let from = format!("2001:db8:{:x}:{:x}::1", number % 8, number);
        let answer = register(&app, &format!("flood {number}"), &from).await;
        *answers.entry(answer.status.as_u16()).or_insert(0) += 1;
        if number % 200 == 199 {
            let name = format!("newcomer {number}");
            let answer = register(&app, &name, &format!("192.0.{}.7", number / 200)).await;
            answer.assert_status(201);
            newcomers += 1;
        }
        if number % 500 == 0 {
            known.sign_in("bob").await; // a whole flow
        }
    }
    assert!(
        answers[&429] > 1500 && answers.keys().all(|code| matches!(code, 201 | 429)),
        "{answers:?}"
    );
    assert_eq!(newcomers, 10);
    let count = async |sql| app.database.number(sql).await;
    assert!(count("SELECT COUNT(*) FROM clients").await <= 60);
    assert_eq!(
        count(
            "SELECT CAST(SUM(value) AS BIGINT) FROM counters
             WHERE name = 'clients' OR name LIKE 'clients/%'"
        )
        .await,
        count("SELECT COUNT(*) FROM clients").await
    );
    assert_eq!(count("SELECT COUNT(*) FROM clients WHERE metadata LIKE '%newcomer%'").await, 10);
    let told = count("SELECT COUNT(*) FROM audit_events WHERE event = 'client_registered'").await;
    assert!(told <= 60, "{told} lines of a flood");

    // Newcomers in the middle of a flood that takes every place at once.
    let flood = async {
        let at_once = (0..300).map(|number| {
            let app = &app;
            async move {
                let from = format!("2001:db8:{:x}:{:x}::2", number % 8, number);
                register(app, &format!("second flood {number}"), &from).await
            }
        });
        futures_util::future::join_all(at_once).await
    };
    let newcomers = (0..10).map(|number| {
        let app = &app;
        async move {
            let from = format!("192.1.{number}.7");
            register(app, &format!("newcomer at once {number}"), &from).await.assert_status(201);
        }
    });
    tokio::join!(flood, futures_util::future::join_all(newcomers));
    assert_eq!(count("SELECT COUNT(*) FROM clients WHERE metadata LIKE '%newcomer%'").await, 20);
    assert!(count("SELECT COUNT(*) FROM clients").await <= 60);

    // Whoever was there before goes on, and who came in between.
    known.refresh(&tokens.refresh_token).await.assert_status(200);
    let early = McpClient::known_as(&app, &early, REDIRECT_URI);
    early.sign_in("alice").await;
}
