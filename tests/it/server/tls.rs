//! TLS of the listeners: the handshake and its limits, HTTP/2 by ALPN, other certificates without a restart, the
//! listener that redirects, and ACME as far as it goes without an ACME server (`scripts/test-acme` has one). Threats
//! TL-01 to TL-04.

use std::time::Duration;

use portcullis::app::Reloaded;
use portcullis::storage::{AuditFilter, ChallengeAnswer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::http2::{END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, frame, packed};
use crate::harness::tls::{
    CertificateAuthority, Folder, HOST, Kept, connect, connect_as, shown, try_connect, with_files,
};
use crate::harness::{Setup, TestApp, raw};

const METADATA: &str = "/.well-known/oauth-authorization-server";

/// A server with TLS, its folder with the files, and who issued the certificate.
async fn secured(more: &str) -> (TestApp, Folder, CertificateAuthority) {
    let (folder, authority) = (Folder::new(), CertificateAuthority::new());
    authority.issue().write(folder.path());
    let app = TestApp::with(with_files(folder.path()).and(more)).await;
    (app, folder, authority)
}

#[tokio::test]
async fn https_is_served_with_each_protocol_and_version() {
    let (app, _folder, authority) = secured("").await;
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);

    for versions in [&[tls13, tls12][..], &[tls13], &[tls12]] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&["http/1.1", "h2"], Some("h2")),
            (&[], None),
        ] {
            let stream = connect(&app, &authority.client_of(offered, versions)).await;
            let agreed = stream.get_ref().1.alpn_protocol();
            assert_eq!(agreed, chosen.map(str::as_bytes), "{offered:?}");
            let mut kept = Kept::over(stream).await;
            for _ in 0..2 {
                let (status, headers, body) = kept.get(METADATA).await;
                assert_eq!(status, 200, "{body}");
                assert!(headers.contains_key("strict-transport-security"));
                let metadata: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(metadata["issuer"], format!("https://{HOST}"));
            }
        }
    }
    let nothing_in_common = try_connect(&app.origin, &authority.client(&["spdy/3"])).await;
    assert!(nothing_in_common.is_err());
}

#[tokio::test]
async fn http2_can_be_turned_off() {
    let (app, _folder, authority) = secured("http2 = false").await;

    let stream = connect(&app, &authority.client(&["h2", "http/1.1"])).await;

    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(Kept::over(stream).await.get("/health").await.0, 200);
}

#[tokio::test]
async fn another_certificate_is_used_and_no_connection_is_dropped() {
    let (app, folder, authority) = secured("").await;
    let (http1, http2) = (authority.client(&["http/1.1"]), authority.client(&["h2"]));
    let before = connect(&app, &http1).await;
    let first = shown(&before);
    let mut held = [Kept::over(before).await, Kept::over(connect(&app, &http2).await).await];
    for kept in &mut held {
        assert_eq!(kept.get("/health").await.0, 200);
    }

    let second = authority.issue();
    second.write(folder.path());
    let reloaded = app.reload().await;

    let Reloaded::Applied { changed, waiting } = reloaded else { panic!("{reloaded:?}") };
    assert_eq!(changed, ["tls.cert", "tls.key"]);
    assert!(waiting.is_empty(), "{waiting:?}");
    for kept in &mut held {
        assert_eq!(kept.get("/health").await.0, 200, "the connection goes on");
    }
    for client in [&http1, &http2] {
        let after = shown(&connect(&app, client).await);
        assert_eq!(after, second.der);
        assert_ne!(after, first);
    }
}

#[tokio::test]
async fn tl_03_a_broken_pair_keeps_the_certificate_and_is_told() {
    let (app, folder, authority) = secured("").await;
    let client = authority.client(&["http/1.1"]);
    let before = shown(&connect(&app, &client).await);
    let (good, other) = (authority.issue(), authority.issue());

    for (chain, key, told) in [
        (good.chain.as_str(), other.key.as_str(), "tls.key"),
        (&good.chain[..200], &good.key, "tls.cert"),
        ("", &good.key, "tls.cert"),
        (&good.chain, &good.chain, "tls.key"),
    ] {
        std::fs::write(folder.path().join("cert.pem"), chain).unwrap();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        assert_eq!(app.reload().await, Reloaded::Invalid, "{told}");
        assert_eq!(lines(&app, "configuration_refused").await[0]["mistakes"], json!([told]));

        let stream = connect(&app, &client).await;
        assert_eq!(shown(&stream), before);
        let ready = Kept::over(stream).await.get("/ready").await.2;
        assert!(ready.contains("has mistakes; the one before is in use"), "{ready}");
    }
    std::fs::remove_file(folder.path().join("key.pem")).unwrap();
    assert_eq!(app.reload().await, Reloaded::Invalid);
    let secret = other.key.lines().nth(1).unwrap();
    assert!(!crate::harness::logs::all().contains(secret), "the log has no key");

    good.write(folder.path());
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    assert_eq!(shown(&connect(&app, &client).await), good.der);
}

#[tokio::test]
async fn adding_or_removing_tls_waits_for_a_restart() {
    let (mut app, _folder, authority) = secured("").await;
    let text = app.config_text();
    let tls = text.split("[tls]\n").nth(1).unwrap().split("\n\n").next().unwrap();

    app.change_config(&format!("[tls]\n{tls}"), "");

    let reloaded = app.reload().await;
    let Reloaded::Applied { waiting, .. } = reloaded else { panic!("{reloaded:?}") };
    assert_eq!(waiting, ["tls"]);
    let client = authority.client(&["h2"]);
    assert_eq!(Kept::over(connect(&app, &client).await).await.get("/health").await.0, 200);
}

const QUICK: &str =
    "[limits]\nfirst_byte = \"1s\"\nheader_time = \"1s\"\nbody_time = \"2s\"\nidle_time = \"3s\"";

#[tokio::test]
async fn tl_01_handshakes_that_never_end_are_cut_and_others_are_served_meanwhile() {
    let (app, _folder, authority) = secured(QUICK).await;
    let start = Instant::now();
    // Nothing; the head of a record; a record that announces more than comes.
    let begun: [&[u8]; 3] = [b"", &[22, 3, 1], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]];
    let mut silent = Vec::new();
    for turn in 0..60 {
        let mut stream = raw::connect(&app.origin).await;
        stream.write_all(begun[turn % 3]).await.unwrap();
        silent.push(stream);
    }

    let client = authority.client(&["h2"]);
    assert_eq!(Kept::over(connect(&app, &client).await).await.get("/health").await.0, 200);

    for mut stream in silent {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        let _ = end.await.expect("the server closes");
        assert!(rest.is_empty() || rest[0] == 21, "an alert at most: {rest:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn tl_01_connections_without_a_handshake_count_against_the_limit() {
    let (app, _folder, authority) = secured("[limits]\nconnections = 4").await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(raw::connect(&app.origin).await);
    }
    // A fifth one is closed at once, before any handshake.
    let client = authority.client(&["h2"]);
    assert!(try_connect(&app.origin, &client).await.is_err());

    drop(open);
    while try_connect(&app.origin, &client).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn http_without_tls_is_told_so_and_nothing_else() {
    let (app, _folder, _authority) = secured("").await;

    let request = format!("GET {METADATA} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = raw::exchange(&app.origin, &request).await;

    assert_eq!(raw::status(&answer), 400, "{answer}");
    assert!(answer.contains("\"https_required\"") && !answer.contains("issuer"), "{answer}");
}

#[tokio::test]
async fn ds_04_a_flood_of_resets_ends_the_connection_over_tls_too() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let (app, _folder, authority) = secured("").await;
    let client = authority.client(&["h2"]);
    let request =
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", METADATA)];
    let mut flood = Vec::new();
    for stream in (1..).step_by(2).take(200) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &packed(&request)));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }

    let mut frames = Frames::over(connect(&app, &client).await, &[]).await;
    frames.write(&flood).await;

    assert_eq!(frames.end().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(Kept::over(connect(&app, &client).await).await.get("/health").await.0, 200);
}

/// rustls takes what is written into a buffer: only below it does anybody see that the client reads nothing.
#[tokio::test]
async fn ds_04_an_answer_that_nobody_reads_ends_the_connection_over_tls_too() {
    let (app, _folder, authority) = secured(QUICK).await;
    let mut stream = connect(&app, &authority.client(&["http/1.1"])).await;
    let many = format!("GET {METADATA} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(1000);

    let asking = async {
        while stream.write_all(many.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {}
    };

    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the server ends it");
}

#[tokio::test]
async fn requests_over_tls_have_their_times() {
    let (app, _folder, authority) = secured(QUICK).await;
    for (said, least) in [("GET /health HTTP/1.1\r\nX", 0.9), ("", 2.9)] {
        let mut stream = connect(&app, &authority.client(&["http/1.1"])).await;
        let start = Instant::now();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        let _ = end.await.expect("the server closes");
        let took = start.elapsed().as_secs_f64();
        assert!(took > least && took < least + 3.0, "{said:?}: {took}");
    }
}

#[tokio::test]
async fn tl_02_the_plain_listener_redirects_reads_and_refuses_what_may_carry_a_token() {
    let (app, _folder, _authority) = secured("listen_http = \"127.0.0.1:0\"").await;
    let plain = app.plain_url();
    let at = |path: &str| format!("{plain}{path}");

    for (method, path) in [("GET", "/account?x=1"), ("HEAD", "/"), ("GET", "//other.example/x")] {
        for host in [HOST, "other.example", "127.0.0.1"] {
            let answer = app.http.send(method, &at(path), &[("host", host)], "").await;
            answer.assert_status(308);
            assert_eq!(answer.location(), format!("https://{HOST}{path}"), "{host}");
            assert!(answer.header("strict-transport-security").is_none());
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = app.http.send(method, &at("/token"), &[], "grant_type=x").await;
        answer.assert_status(400);
        assert_eq!(answer.json()["error"], "https_required", "{method}");
        assert!(answer.header("location").is_none());
    }
    let bearer = [("authorization", "Bearer canary-of-plain-text")];
    let answer = app.http.send("GET", &at("/mcp"), &bearer, "").await;
    answer.assert_status(400);
    assert!(!answer.text().contains("canary"), "{}", answer.text());

    for probe in ["/health", "/ready"] {
        app.http.get(&at(probe)).await.assert_status(200);
    }
    app.http.get(&at(METADATA)).await.assert_status(308);
}

#[tokio::test]
async fn the_admin_listener_uses_the_certificate_where_it_is_told_to() {
    let admin = "[admin]\ntls = true\nurl = \"https://mcp.example:8001\"";
    let (app, _folder, authority) = secured(admin).await;

    let stream = try_connect(&app.admin_url, &authority.client(&["h2", "http/1.1"])).await.unwrap();

    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // The request has the host of `public_url`, which is not that of these pages.
    assert_eq!(Kept::over(stream).await.get("/").await.0, 421);
}

#[tokio::test]
async fn metrics_tell_when_the_certificate_expires() {
    let (app, _folder, _authority) = secured("").await;

    let metrics = app.http.get(&format!("{}/metrics", app.admin_url)).await.text().to_owned();

    let at_the_end = 2_208_988_800; // 2040
    let left = at_the_end - app.now().unix();
    let line = format!("portcullis_certificate_expires_in_seconds{{source=\"files\"}} {left}");
    assert!(metrics.contains(&line), "{line}: {metrics}");
}

/// With an ACME server that nobody can reach.
fn with_acme(more: &str) -> Setup {
    let acme = "[tls.acme]\ndomains = [\"mcp.example\", \"www.mcp.example\"]\nterms = true\n\
                directory = \"http://127.0.0.1:9/dir\"";
    Setup::toml(format!("public_url = \"https://{HOST}\"\n{more}")).and(acme)
}

async fn lines(app: &TestApp, event: &str) -> Vec<Value> {
    let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
}

#[tokio::test]
async fn without_an_acme_server_probes_are_answered_and_attempts_are_spaced() {
    let app = TestApp::with(with_acme("listen_http = \"127.0.0.1:0\"")).await;
    let orders =
        async || app.http.get(&format!("{}/metrics", app.admin_url)).await.text().to_owned();
    while lines(&app, "certificate_failed").await.is_empty() {
        tokio::task::yield_now().await;
    }

    // The first attempt failed; another one is made after a minute, and the next after four.
    for (advance, failures) in [(0, 1), (55, 1), (6, 2), (230, 2), (11, 3)] {
        app.advance(advance);
        app.look_after_certificate().await;
        // The server's own round may be the one that orders.
        while lines(&app, "certificate_failed").await.len() < failures {
            tokio::task::yield_now().await;
        }
        let failed = lines(&app, "certificate_failed").await;
        assert_eq!(failed.len(), failures, "after {advance} more seconds: {failed:?}");
        assert_eq!(failed[0]["domains"], json!(["mcp.example", "www.mcp.example"]));
        assert!(failed[0]["reason"].as_str().unwrap().contains("connection"), "{failed:?}");
    }
    let metrics = orders().await;
    assert!(metrics.contains("portcullis_certificate_orders_total{outcome=\"failed\"} 3"));
    assert!(!metrics.contains("portcullis_certificate_expires_in_seconds{"), "there is none");
    app.http.get(&format!("{}/ready", app.plain_url())).await.assert_status(200);
    // A probe that verifies nothing is answered over TLS too; whoever verifies is not.
    let authority = CertificateAuthority::new();
    let error = try_connect(&app.origin, &authority.client(&["h2"])).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn tl_04_every_replica_answers_the_validation_of_ordered_names_and_of_no_other() {
    let app = TestApp::with(with_acme("")).await;
    let authority = CertificateAuthority::new();
    let validating = authority.client(&["acme-tls/1"]);
    let nobody_asked = try_connect(&app.origin, &validating).await;
    assert!(nobody_asked.is_err(), "there is no answer yet");

    let (proof, other) = (authority.issue(), authority.issue_for(&["evil.example"], (2020, 2040)));
    let answers = [(HOST, &proof), ("evil.example", &other)].map(|(domain, pair)| {
        let (chain, key) = (pair.chain.clone(), pair.key.clone());
        (domain.to_owned(), ChallengeAnswer { domain: domain.to_owned(), chain, key })
    });
    let now = app.now();
    let until = now.plus(Duration::from_mins(10));
    app.storage().store_challenges(&answers, now, until).await.unwrap();

    // What was read a moment ago may be in use for a second: then it is the new answer.
    let answer = async |url: &str| loop {
        match try_connect(url, &validating).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (replica, stop) = app.replica_with_clock(&app.clock).await;
    for url in [&app.origin, &replica] {
        let mut stream = answer(url).await;
        assert_eq!(shown(&stream), proof.der);
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: mcp.example\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "no request is served there: {rest:?}");
    }
    // A name that the configuration does not order is not answered, whatever is stored.
    let evil = connect_as("evil.example", raw::host(&app.origin), &validating).await;
    assert!(evil.is_err());

    // An answer that has expired is none.
    app.advance(601);
    while try_connect(&app.origin, &validating).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let _ = stop.send(());
}
