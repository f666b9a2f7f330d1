//! The listener: hosts, sizes, slow and strange connections (threats HH-01, DS-04).

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Setup, TestApp, raw};

fn host(app: &TestApp) -> &str {
    app.origin.trim_start_matches("http://")
}

async fn raw_status(app: &TestApp, request: &str) -> u16 {
    let request = request.replace("{host}", host(app));
    raw::status(&raw::exchange(&app.url, &request).await)
}

#[tokio::test]
async fn hh_01_another_host_is_misdirected_and_never_believed() {
    let app = TestApp::start().await;
    let metadata = "/.well-known/oauth-authorization-server";
    for host in
        ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "localhost.evil.example"]
    {
        let request =
            format!("GET {metadata} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(raw_status(&app, &request).await, 421, "{host}");
    }
    let absolute = format!(
        "GET http://evil.example{metadata} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(raw_status(&app, &absolute).await, 421);
    let forwarded = format!(
        "GET {metadata} HTTP/1.1\r\nHost: {{host}}\r\nX-Forwarded-Host: evil.example\r\n\
         X-Forwarded-Proto: https\r\nForwarded: host=evil.example\r\nConnection: close\r\n\r\n"
    );
    let answer = raw::exchange(&app.url, &forwarded.replace("{host}", host(&app))).await;
    assert_eq!(raw::status(&answer), 200);
    assert!(!answer.contains("evil.example"));
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let app = TestApp::start().await;
    for headers in [
        "Host: {host}\r\nHost: evil.example",
        "Host: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
        "",
    ] {
        let request =
            format!("POST /token HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n0\r\n\r\n");
        let status = raw_status(&app, &request).await;
        assert!(status == 400 || status == 421, "{headers}: {status}");
    }
}

#[tokio::test]
async fn large_targets_and_headers_are_refused() {
    let app = TestApp::start().await;
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n",
        "x".repeat(9000)
    );
    assert_eq!(raw_status(&app, &long).await, 414);
    let large = format!(
        "GET /health HTTP/1.1\r\nHost: {{host}}\r\nX: {}\r\nConnection: close\r\n\r\n",
        "x".repeat(17_000)
    );
    assert_eq!(raw_status(&app, &large).await, 431);
    let many = "X: y\r\n".repeat(100);
    let many = format!("GET /health HTTP/1.1\r\nHost: {{host}}\r\n{many}Connection: close\r\n\r\n");
    assert_eq!(raw_status(&app, &many).await, 431);
}

/// A connection that says nothing, and one that stops in the middle of its headers.
#[tokio::test]
async fn ds_04_silent_and_half_spoken_connections_are_closed() {
    let app = TestApp::with(Setup::toml(
        "[limits]\nfirst_byte = \"1s\"\nheader_time = \"1s\"\nidle_time = \"2s\"",
    ))
    .await;
    let silent = async {
        let mut connection = raw::connect(&app.url).await;
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest).await;
    };
    let half = async {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(b"GET /health HTTP/1.1\r\nHost: x").await.unwrap();
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest).await;
    };
    let one_byte = async {
        let mut connection = raw::connect(&app.url).await;
        connection.write_all(b"P").await.unwrap(); // like the beginning of HTTP/2's preface
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest).await;
    };
    let idle = async {
        let mut connection = raw::connect(&app.url).await;
        let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host(&app));
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest).await;
        assert!(String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
    };
    tokio::join!(silent, half, one_byte, idle); // returns at all: all were closed
}

#[tokio::test]
async fn health_tells_alive_and_ready_tells_what_works() {
    let app = TestApp::start().await;
    let health = app.http.get(&app.at("/health")).await;
    health.assert_status(200);
    let ready = app.http.get(&app.at("/ready")).await.assert_status(200).json();
    assert_eq!(ready["database"], "ok");
    assert_eq!(ready["upstream"], "not reached yet", "asking is not a probe's business");
    app.tokens_of("bob").await;
    let ready = app.http.get(&app.at("/ready")).await.assert_status(200).json();
    assert_eq!(ready["upstream"], "known");
    // Probes come by address, whatever the name.
    let by_name = "GET /ready HTTP/1.1\r\nHost: pod.cluster.local\r\nConnection: close\r\n\r\n";
    assert_eq!(raw_status(&app, by_name).await, 200);
}

#[tokio::test]
async fn ready_says_no_while_the_database_cannot_be_read() {
    let app = TestApp::start().await;
    app.http.get(&app.at("/ready")).await.assert_status(200);
    app.database.execute("ALTER TABLE counters RENAME TO counters_gone").await;
    app.advance(5);

    let ready = app.http.get(&app.at("/ready")).await;

    assert_eq!(ready.assert_status(503).json()["database"], "unavailable");
    app.http.get(&app.at("/health")).await.assert_status(200);
    assert!(app.metrics().await["portcullis_ready"] < 0.5);
    app.database.execute("ALTER TABLE counters_gone RENAME TO counters").await;
    app.advance(5);
    app.http.get(&app.at("/ready")).await.assert_status(200);
}

#[tokio::test]
async fn ready_says_no_while_the_database_takes_no_writes() {
    let app = TestApp::start().await;
    if app.database.is_postgres() {
        return; // a lock there is a lock of rows: tests/it/postgres/ready.rs
    }
    let lock = app.database.lock().await;

    let ready = app.http.get(&app.at("/ready")).await;

    assert_eq!(ready.assert_status(503).json()["database"], "takes no writes");
    let metadata = app.at("/.well-known/oauth-authorization-server");
    app.http.get(&metadata).await.assert_status(200);
    lock.release().await;
    app.advance(5);
    app.http.get(&app.at("/ready")).await.assert_status(200);
}

#[tokio::test]
async fn ready_says_no_when_the_database_file_was_moved_away() {
    let app = TestApp::start().await;
    if app.database.is_postgres() {
        return; // no file of ours
    }
    let file = app.database.folder.join("portcullis.db");
    let elsewhere = app.database.folder.join("elsewhere.db");
    std::fs::rename(&file, &elsewhere).unwrap();

    let ready = app.http.get(&app.at("/ready")).await;

    assert_eq!(ready.assert_status(503).json()["database"], "the file is gone");
    std::fs::rename(&elsewhere, &file).unwrap();
    app.advance(5);
    app.http.get(&app.at("/ready")).await.assert_status(200);
}

#[tokio::test]
async fn asking_ready_often_writes_seldom() {
    const COMMITS: &str = "portcullis_commit_duration_seconds_count";
    let app = TestApp::start().await;
    let before = app.metrics().await[COMMITS];

    for _ in 0..100 {
        app.http.get(&app.at("/ready")).await.assert_status(200);
    }

    let commits = app.metrics().await[COMMITS] - before;
    assert!(commits < 10.0, "{commits}");
}

#[tokio::test]
async fn ready_does_not_need_the_identity_provider() {
    let app = TestApp::start().await;
    app.idp.shutdown();
    let ready = app.http.get(&app.at("/ready")).await.assert_status(200).json();
    assert_eq!(ready["status"], "ready");
}

#[tokio::test]
async fn people_get_a_page_and_programs_get_json_where_there_is_nothing() {
    let app = TestApp::start().await;
    let page = app.http.send("GET", &app.at("/nothing"), &[("accept", "text/html,*/*")], "").await;
    page.assert_page(404);
    let json: Value = app.http.get(&app.at("/nothing")).await.assert_status(404).json();
    assert_eq!(json["error"], "not_found");
}

#[tokio::test]
async fn a_database_that_cannot_serve_is_try_again_and_nothing_is_lost() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let (_, form) = client.ask(&[]).await;
    let lock = app.database.lock_for_all("clients").await;
    for answer in [client.redeem(&code).await, client.refresh(&tokens.refresh_token).await] {
        answer.assert_error(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    client.decide(&form, "approve").await.assert_page(503);
    lock.release().await;
    client.redeem(&code).await.assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
}
