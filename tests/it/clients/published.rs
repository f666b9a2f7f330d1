//! Clients published at their own id: draft-ietf-oauth-client-id-metadata-document, threats CI-01 to CI-09.

use futures_util::future::join_all;
use portcullis::clock::Clock;
use portcullis::storage::{ClientDecision, Retention, ReviewDecision};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::client::{McpClient, Tokens};
use crate::harness::publisher::{Page, Publisher};
use crate::harness::{Setup, TestApp};

const ID: &str = "https://client.example/oauth/client.json";
const CALLBACK: &str = "https://client.example/callback";
const DAY: i64 = 24 * 60 * 60;

fn document() -> Value {
    json!({ "client_id": ID, "client_name": "A published client", "redirect_uris": [CALLBACK] })
}

/// A server, and the website of one client.
async fn published() -> (TestApp, Publisher, McpClient) {
    let publisher = Publisher::start(&["client.example", "other.example"]).await;
    publisher.publish(ID, &document());
    let app = TestApp::with(publisher.setup("")).await;
    let client = McpClient::known_as(&app, ID, CALLBACK);
    (app, publisher, client)
}

const ROWS: &str = "SELECT COUNT(*) FROM clients WHERE kind = 'document'";

async fn ask(client: &McpClient) -> u16 {
    client.browser.get(&client.authorize_url(&[])).await.status.as_u16()
}

#[tokio::test]
async fn cimd_01_a_published_client_gets_tokens_and_its_page_names_its_publisher() {
    let (app, publisher, client) = published().await;
    let metadata = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], true);

    let (page, _) = client.ask(&[]).await;
    for text in ["client.example", "published by the website", "A published client", "not verified"]
    {
        assert!(page.text().contains(text), "{text} is not on the page");
    }
    assert!(!page.text().contains("self-registered"));
    let tokens = client.sign_in("bob").await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.revoke(&tokens.refresh_token).await.assert_status(200);

    assert_eq!(publisher.requests_to(ID), 1, "one fetch for all of it");
    assert_eq!(
        app.database.number("SELECT COUNT(*) FROM clients WHERE kind = 'registered'").await,
        0
    );
}

#[tokio::test]
async fn ci_05_asking_writes_nothing_and_only_a_sign_in_keeps_a_copy() {
    let (app, _publisher, client) = published().await;
    let idp = client.approve(&[]).await;
    assert_eq!(app.database.number(ROWS).await, 0);
    let callback = client.log_in(&idp, "bob").await;
    client.browser.get(&callback).await.assert_leads_to(CALLBACK);
    assert_eq!(app.database.number(ROWS).await, 1);
}

#[tokio::test]
async fn cimd_01_turned_off_they_are_unknown_and_not_advertised() {
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(ID, &document());
    let app = TestApp::with(publisher.setup("enabled = false")).await;
    let metadata = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata.get("client_id_metadata_document_supported"), None);
    let client = McpClient::known_as(&app, ID, CALLBACK);
    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    client.refresh("rt_x").await.assert_error(401, "invalid_client");
    assert_eq!(publisher.requests(), 0);
}

#[tokio::test]
async fn cimd_26_only_the_hosts_of_the_administrator_may_publish_and_no_name_that_resembles_them() {
    let hosts = ["client.example", "evilclient.example", "client.example.evil.example"];
    let publisher = Publisher::start(&hosts).await;
    for host in hosts {
        let url = format!("https://{host}/c");
        let document = json!({ "client_id": url, "client_name": "x", "redirect_uris": [CALLBACK] });
        publisher.publish(&url, &document);
    }
    let app = TestApp::with(publisher.setup("allowed_hosts = [\"client.example\"]")).await;
    for (host, status) in hosts.iter().zip([200, 400, 400]) {
        let client = McpClient::known_as(&app, &format!("https://{host}/c"), CALLBACK);
        assert_eq!(ask(&client).await, status, "{host}");
    }
    assert_eq!(publisher.requests(), 1);
}

/// From outside, with the system's own resolver: pages, no redirects, and nobody ever knocks.
#[tokio::test]
async fn ci_01_a_client_id_that_leads_to_our_own_network_opens_nothing() {
    let (app, publisher, _) = published().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for id in [
        format!("https://127.0.0.1:{port}/c"),
        format!("https://localhost:{port}/c"),
        format!("https://[::1]:{port}/c"),
        format!("https://[::ffff:127.0.0.1]:{port}/c"),
        format!("https://2130706433:{port}/c"),
        format!("https://0x7f000001:{port}/c"),
        format!("https://0:{port}/c"),
        format!("https://user@127.0.0.1:{port}/c"),
        format!("https://client.example@127.0.0.1:{port}/c"),
        format!("https://client.example:{port}/c"),
        "https://127.0.0.1/c".to_owned(),
        "https://localhost/c".to_owned(),
        "https://app.localhost/c".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://metadata.google.internal/c".to_owned(),
        "https://[64:ff9b::7f00:1]/c".to_owned(),
        "https://client.example/c?x".to_owned(),
        "https://client.example/a/../c".to_owned(),
        "https://client.example/".to_owned(),
        "https://CLIENT.example/oauth/client.json".to_owned(),
        format!("http://127.0.0.1:{port}/c"),
    ] {
        let client = McpClient::known_as(&app, &id, CALLBACK);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
        client.refresh("rt_x").await.assert_error(401, "invalid_client");
    }
    assert_eq!(publisher.requests(), 0);
    let knocked = futures_util::FutureExt::now_or_never(listener.accept());
    assert!(knocked.is_none(), "somebody connected");
}

#[tokio::test]
async fn ci_04_what_is_not_exactly_the_clients_own_document_makes_no_client() {
    let (app, publisher, client) = published().await;
    let with = |name: &str, value: Value| {
        let mut document = document();
        document[name] = value;
        Page::json(&document)
    };
    let large = "x".repeat(5 * 1024);
    for (page, status) in [
        (with("client_id", json!(format!("{ID}/"))), 400),
        (with("client_id", json!("https://other.example/c")), 400),
        (with("client_name", json!("")), 400),
        (with("client_secret", json!("x")), 400),
        (with("token_endpoint_auth_method", json!("client_secret_post")), 400),
        (with("redirect_uris", json!(["javascript:alert(1)"])), 400),
        (with("padding", json!(large)), 400),
        (Page::json(&document()).with("content-type", "text/html"), 503),
        (Page::json(&document()).with("content-encoding", "gzip"), 503),
        (Page::status(301).with("location", "https://other.example/c"), 400),
        (Page::status(302).with("location", ID), 400),
        (Page::status(404), 400),
        (Page::status(410), 400),
        (Page { status: 404, ..Page::json(&document()) }, 400),
        (Page::status(500), 503),
        (Page { status: 201, ..Page::json(&document()) }, 503),
    ] {
        app.advance(10 * 60); // past every cool-down
        publisher.answer(ID, page.clone());
        let answer = client.browser.get(&client.authorize_url(&[])).await;
        answer.assert_page(status);
        assert!(!answer.text().contains("value=\"approve\""), "{page:?}");
    }
    assert_eq!(publisher.requests_to("https://other.example/c"), 0, "no redirect is followed");
    app.advance(10 * 60);
    publisher.publish(ID, &document());
    assert_eq!(ask(&client).await, 200);
    // The document says the rest: an address that is not in it leads nowhere.
    let elsewhere = [("redirect_uri", "https://other.example/callback")];
    client.browser.get(&client.authorize_url(&elsewhere)).await.assert_page(400);
}

#[tokio::test]
async fn cimd_14_an_error_is_never_kept_as_an_answer_and_a_failing_url_is_left_alone_longer_each_time()
 {
    let (app, publisher, client) = published().await;
    publisher.answer(ID, Page::status(500));
    for (wait, asked) in [(0, 1), (9, 1), (1, 2), (19, 2), (1, 3), (39, 3), (1, 4)] {
        app.advance(wait);
        assert_eq!(ask(&client).await, 503);
        assert_eq!(publisher.requests_to(ID), asked, "after {wait} s more");
    }
    publisher.publish(ID, &document());
    app.advance(5 * 60);
    assert_eq!(ask(&client).await, 200);
}

#[tokio::test]
async fn cimd_13_a_document_is_kept_as_its_headers_say_between_a_minute_and_a_day() {
    for (header, seconds) in [
        (None, 600),
        (Some("max-age=300"), 300),
        (Some("max-age=0"), 60),
        (Some("no-store"), 60),
        (Some("max-age=315360000"), DAY),
    ] {
        let (app, publisher, client) = published().await;
        let page = Page::json(&document());
        publisher.answer(
            ID,
            match header {
                Some(header) => page.with("cache-control", header),
                None => page,
            },
        );
        ask(&client).await;
        app.advance(seconds - 1);
        ask(&client).await;
        assert_eq!(publisher.requests_to(ID), 1, "{header:?}");
        app.advance(1);
        ask(&client).await;
        assert_eq!(publisher.requests_to(ID), 2, "{header:?}");
    }
}

#[tokio::test]
async fn ci_06_a_thousand_at_once_are_one_fetch() {
    let (app, publisher, client) = published().await;
    let all = join_all((0..1000).map(|_| ask(&client))).await;
    // PostgreSQL has few connections for so many reads: on a slow machine the last callers wait for more than the
    // two seconds of a read and are told to try again. Then they get the page, and still nothing is fetched.
    let busy = all.iter().filter(|status| **status == 503).count();
    assert!(busy == 0 || app.database.is_postgres(), "{all:?}");
    assert!(all.contains(&200) && all.iter().all(|status| matches!(status, 200 | 503)), "{all:?}");
    for _ in 0..busy {
        // Another browser: this one has the cookies of a thousand pages, which are too many for a header.
        assert_eq!(ask(&client.elsewhere()).await, 200);
    }
    assert_eq!(publisher.requests_to(ID), 1);
}

#[tokio::test]
async fn ci_06_a_host_is_asked_ten_times_a_minute_whatever_is_asked_of_us() {
    let (app, publisher, client) = published().await;
    let asked = async |round: usize| {
        for n in 0..50 {
            let id = format!("https://other.example/{round}/{n}");
            ask(&McpClient::known_as(&app, &id, CALLBACK)).await;
        }
        publisher.requests()
    };
    // Two of the ten are kept for what was good before.
    assert_eq!(asked(1).await, 8);
    app.advance(59);
    assert_eq!(asked(2).await, 8);
    // Other hosts are not affected.
    assert_eq!(ask(&client).await, 200);
    app.advance(1);
    assert_eq!(asked(3).await, 17);
}

#[tokio::test]
async fn ci_06_made_up_urls_do_not_push_out_the_client_of_the_same_website() {
    let (mut app, publisher, client) = published().await;
    client.sign_in("bob").await;
    app.restart().await; // what is in memory is gone
    for n in 0..50 {
        let id = format!("https://client.example/made-up/{n}");
        ask(&McpClient::known_as(&app, &id, CALLBACK)).await;
    }
    let before = publisher.requests_to(ID);
    assert_eq!(ask(&client).await, 200);
    assert_eq!(publisher.requests_to(ID), before + 1, "it was asked, and not only remembered");
}

#[tokio::test]
async fn ci_06_who_makes_up_urls_pays_for_it_alone() {
    let hosts: Vec<String> = (0..15).map(|n| format!("h{n}.example")).collect();
    let mut names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    names.push("client.example");
    let publisher = Publisher::start(&names).await;
    publisher.publish(ID, &document());
    let setup = publisher.setup("");
    let setup = setup.and("trusted_proxies = [\"127.0.0.1\"]");
    let app = TestApp::with(setup).await;
    let ask = async |id: &str, from: &str| {
        let url = McpClient::known_as(&app, id, CALLBACK).authorize_url(&[]);
        app.http.send("GET", &url, &[("x-forwarded-for", from)], "").await.status.as_u16()
    };
    let authenticate = async |id: &str, from: &str| {
        let form = [("client_id", id), ("grant_type", "refresh_token"), ("refresh_token", "rt_x")];
        let headers = [("x-forwarded-for", from)];
        app.http.post_form(&app.at("/token"), &form, &headers).await.status.as_u16()
    };
    assert_eq!(ask(ID, "198.51.100.1").await, 200);
    for host in &hosts {
        // One network, half of it at each door.
        ask(&format!("https://{host}/a"), "2001:db8::1").await;
        authenticate(&format!("https://{host}/b"), "2001:db8::2").await;
    }
    assert_eq!(publisher.requests(), 1 + 10);

    let (made_up, known) = ("https://h14.example/c", ID);
    assert_eq!(ask(made_up, "2001:db8::3").await, 503);
    assert_eq!(authenticate(made_up, "2001:db8::3").await, 503);
    assert_eq!(ask(known, "2001:db8::3").await, 200);
    app.advance(10 * 60);
    for host in &hosts {
        ask(&format!("https://{host}/d"), "2001:db8::1").await;
    }
    assert_eq!(ask(known, "2001:db8::1").await, 200, "its last copy is good enough");
    assert_eq!(ask(made_up, "198.51.100.1").await, 400, "somebody else is served");
    app.advance(60);
    assert_eq!(ask("https://h14.example/e", "2001:db8::1").await, 400);
}

#[tokio::test]
async fn ci_05_what_was_approved_is_never_sent_to_an_address_that_the_document_lost_meanwhile() {
    let (app, publisher, client) = published().await;
    let mut changed = document();
    changed["redirect_uris"] = json!(["https://other.example/callback"]);

    let (_, form) = client.ask(&[]).await;
    publisher.publish(ID, &changed);
    app.advance(601 - 5);
    let idp = client.decide(&form, "approve").await;
    idp.assert_leads_to(app.idp.issuer()); // the copy is still fresh
    let callback = client.log_in(idp.location(), "bob").await;
    app.advance(10);
    let before = app.idp.requests_to("/token");
    client.browser.get(&callback).await.assert_page(400);
    assert_eq!(app.idp.requests_to("/token"), before);

    publisher.publish(ID, &document());
    app.advance(601);
    let (_, form) = client.ask(&[]).await;
    publisher.publish(ID, &changed);
    app.advance(599);
    client.decide(&form, "approve").await.assert_status(303);
    app.advance(1);
    let (_, form) = McpClient::known_as(&app, ID, "https://other.example/callback").ask(&[]).await;
    assert!(!form.fields.is_empty());
}

#[tokio::test]
async fn cimd_32_an_outage_of_the_publisher_ends_no_grant_and_starts_nothing_old() {
    let (mut app, mut publisher, client) = published().await;
    let mut tokens = client.sign_in("bob").await;
    publisher.stop().await;

    // Within a day the last copy is good enough to begin with, even after a restart.
    app.advance(DAY / 2);
    assert_eq!(ask(&client).await, 200);
    app.restart().await;
    assert_eq!(ask(&client).await, 200);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

    // After it, grants go on and nothing new begins.
    app.advance(DAY / 2);
    assert_eq!(ask(&client).await, 503);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    client.revoke(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn a_document_that_is_withdrawn_starts_nothing_at_once_and_ends_no_grant() {
    let (app, publisher, client) = published().await;
    let tokens = client.sign_in("bob").await;
    publisher.answer(ID, Page::status(404));
    app.advance(601);
    assert_eq!(ask(&client).await, 400);
    assert_eq!(ask(&client).await, 400);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn ci_07_nothing_of_a_document_becomes_a_link_or_a_picture() {
    let (app, publisher, client) = published().await;
    let mut document = document();
    for name in ["logo_uri", "client_uri", "policy_uri", "tos_uri"] {
        document[name] = json!(format!("https://other.example/{name}"));
    }
    publisher.publish(ID, &document);
    let (page, _) = client.ask(&[]).await;
    assert!(!page.text().contains("other.example") && !page.text().contains("src="));
    client.sign_in("bob").await;
    assert_eq!(publisher.requests(), 1);
    drop(app);
}

#[tokio::test]
async fn ci_08_a_registered_id_never_looks_like_a_url_and_nobody_registers_as_one() {
    let app = TestApp::with(Setup::default()).await;
    let metadata = json!({ "client_id": ID, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none" });
    let client = McpClient::register_as(&app, metadata).await;
    assert!(client.id.starts_with("client_"));
}

#[tokio::test]
async fn copies_that_nobody_uses_go_and_those_of_living_grants_stay() {
    let (app, _publisher, client) = published().await;
    let tokens = client.sign_in("bob").await;
    let day = std::time::Duration::from_hours(24);
    let keep = Retention {
        unused_client: day,
        idle_client: day,
        audit: day,
        refused_person: day,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    let sweep = async || app.storage().sweep(app.now(), keep).await.unwrap();
    app.advance(2 * DAY);
    sweep().await;
    assert_eq!(app.database.number(ROWS).await, 1);
    client.revoke(&tokens.refresh_token).await.assert_status(200);
    sweep().await;
    assert_eq!(app.database.number(ROWS).await, 0);
}

#[tokio::test]
async fn administrators_see_a_published_client_and_a_block_ends_it_at_once() {
    let (app, _publisher, client) = published().await;
    let tokens = client.sign_in("bob").await;
    let row = app.storage().client_details(ID).await.unwrap().unwrap();
    assert_eq!((row.kind.as_str(), row.is_confidential()), ("document", false));

    let event = AuditEvent::new("client_blocked", Actor::Shell, &Clock::Manual(app.clock.clone()));
    app.storage()
        .decide_client(ClientDecision::new(ID, ReviewDecision::Block, "shell"), app.now(), event)
        .await
        .unwrap();

    client.browser.get(&client.authorize_url(&[])).await.assert_page(403);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
}

#[tokio::test]
async fn a_published_client_waits_for_approval_where_clients_must_and_is_then_in_the_list() {
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(ID, &document());
    let setup = publisher.setup("");
    let setup = setup.and("client_approval = \"first_use\"");
    let app = TestApp::with(setup).await;
    let client = McpClient::known_as(&app, ID, CALLBACK);
    let idp = client.approve(&[]).await;
    let callback = client.log_in(&idp, "bob").await;
    let waiting = client.browser.get(&callback).await;
    waiting.assert_leads_to(&app.at("/waiting"));
    assert!(app.storage().client_details(ID).await.unwrap().is_some());

    let event = AuditEvent::new("client_approved", Actor::Shell, &Clock::Manual(app.clock.clone()));
    app.storage()
        .decide_client(ClientDecision::new(ID, ReviewDecision::Approve, "shell"), app.now(), event)
        .await
        .unwrap();

    let back = client.browser.get(waiting.location()).await;
    back.assert_leads_to(CALLBACK);
    client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);
}
