//! `POST /register`: RFC 7591.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

async fn register(app: &TestApp, metadata: &Value) -> Answer {
    app.http.post_json(&app.at("/register"), metadata, &[]).await
}

fn limits(text: &str) -> Setup {
    Setup::toml(format!("[limits]\n{text}"))
}

#[tokio::test]
async fn reg_01_a_public_client_gets_everything_it_registered_and_no_secret() {
    let app = TestApp::start().await;
    let answer = register(
        &app,
        &json!({
            "client_name": "Claude",
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": "read:todos",
            "contacts": [],
            "logo_uri": null,
            "software_id": "",
        }),
    )
    .await;
    answer.assert_status(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let json = answer.json();
    assert_eq!(json["client_name"], "Claude");
    assert_eq!(json["redirect_uris"], json!(["https://claude.ai/api/mcp/auth_callback"]));
    assert_eq!(json["token_endpoint_auth_method"], "none");
    assert!(json["client_id"].is_string() && json["client_id_issued_at"].is_i64());
    let members = json.as_object().unwrap();
    assert!(!members.contains_key("client_secret"));
    assert!(!members.contains_key("client_secret_expires_at"));
    for (name, value) in members {
        let empty = value.is_null() || value == "" || value == &json!([]);
        assert!(!empty, "{name} is empty in the answer");
    }
}

#[tokio::test]
async fn reg_03_a_confidential_client_gets_a_secret_of_its_own_each_time() {
    let app = TestApp::start().await;
    let metadata = json!({
        "redirect_uris": ["https://app.example/callback"],
        "token_endpoint_auth_method": "client_secret_post",
    });
    let (one, two) = (register(&app, &metadata).await, register(&app, &metadata).await);
    let (one, two) = (one.assert_status(201).json(), two.assert_status(201).json());
    assert_eq!(one["client_secret_expires_at"], 0);
    assert_ne!(one["client_id"], two["client_id"]);
    assert_ne!(one["client_secret"], two["client_secret"]);
}

#[tokio::test]
async fn rg_01_identical_registrations_are_the_same_public_client_and_cost_one_row() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let metadata = json!({ "client_name": "Same", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" });
        let answers = join_all((0..100).map(|_| register(&app, &metadata))).await;
        let ids: BTreeSet<String> = answers
            .iter()
            .map(|answer| {
                answer.assert_status(201).json()["client_id"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 1);
    }
}

/// A program that listens on another port each time it runs is one client, for approval, quotas and lists (RFC 8252
/// §7.3): `mcporter` registers at each login.
#[tokio::test]
async fn registrations_that_differ_in_loopback_ports_alone_are_one_client() {
    let tables = "[limits]\nregistrations_at_once = 2\nregistrations_per_hour = 2".to_owned();
    let app = TestApp::with(Setup::toml("trusted_proxies = [\"127.0.0.1\"]").and(tables)).await;
    let register = async |uris: &[&str]| {
        let metadata = json!({ "client_name": "mcporter", "redirect_uris": uris, "token_endpoint_auth_method": "none" });
        let from = [("x-forwarded-for", "203.0.113.7")];
        let answer = app.http.post_json(&app.at("/register"), &metadata, &from).await;
        answer.assert_status(201);
        assert_eq!(answer.json()["redirect_uris"], json!(uris), "as it was sent");
        answer.json()["client_id"].as_str().unwrap().to_owned()
    };
    let first = register(&["http://127.0.0.1:51001/callback"]).await;
    for port in 51002..51012 {
        assert_eq!(register(&[&format!("http://127.0.0.1:{port}/callback")]).await, first);
    }
    assert_eq!(register(&["http://127.0.0.1/callback"]).await, first);
    // Whoever comes later has the port that it listens on.
    let client = McpClient::known_as(&app, &first, "http://127.0.0.1:51009/callback");
    let back = client.authorize("bob", &[]).await;
    assert!(back.location().starts_with("http://127.0.0.1:51009/callback?"), "{}", back.location());

    // Everything else makes another client: path, host, scheme, number and order.
    let other = register(&["http://localhost:51001/callback"]).await;
    assert_ne!(other, first);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 2);
}

/// Nobody's code goes to the port of another installation.
#[tokio::test]
async fn a_loopback_redirect_uri_cannot_be_left_out() {
    let app = TestApp::start().await;
    let metadata = json!({ "redirect_uris": ["http://127.0.0.1:51001/callback"], "token_endpoint_auth_method": "none" });
    let client = McpClient::register_as(&app, metadata).await;
    let url = client.authorize_url(&[]);
    let mut without = url::Url::parse(&url).unwrap();
    let others: Vec<(String, String)> =
        without.query_pairs().into_owned().filter(|(name, _)| name != "redirect_uri").collect();
    without.query_pairs_mut().clear().extend_pairs(others);
    client.browser.get(without.as_str()).await.assert_page(400);
}

/// What the answer says is what the client gets.
#[tokio::test]
async fn a_registration_is_answered_with_what_the_client_gets() {
    let app = TestApp::start().await;
    for grant_types in
        [json!(null), json!(["authorization_code"]), json!(["authorization_code", "refresh_token"])]
    {
        let metadata = json!({
            "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none",
            "grant_types": grant_types, "scope": "read:todos",
        });
        let answer = register(&app, &metadata).await.json();
        assert_eq!(answer["grant_types"], json!(["authorization_code", "refresh_token"]));
        assert_eq!(answer["scope"], "create:todos delete:todos read:todos", "it may ask for all");
        let client = McpClient::known_as(&app, answer["client_id"].as_str().unwrap(), REDIRECT_URI);
        let code = client.authorize("bob", &[]).await.location_param("code").unwrap();
        let tokens = client.redeem(&code).await.json();
        assert!(tokens["refresh_token"].is_string() && tokens["scope"] != "read:todos", "{tokens}");
    }
}

#[tokio::test]
async fn reg_08_bad_metadata_is_refused_with_the_code_of_the_rfc() {
    let app = TestApp::start().await;
    let of = |uri: &str| json!({ "redirect_uris": [uri] });
    for (metadata, code) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": "https://a.example/" }), "invalid_client_metadata"),
        (of("http://evil.example/cb"), "invalid_redirect_uri"),
        (of("javascript:alert(1)"), "invalid_redirect_uri"),
        (of("https://good.example@evil.example/cb"), "invalid_redirect_uri"),
        (of("https://good.example/cb#x"), "invalid_redirect_uri"),
        (of("https://good.example/../cb"), "invalid_redirect_uri"),
        (of("https:good.example/cb"), "invalid_redirect_uri"),
        (of("data:text/html,x"), "invalid_redirect_uri"),
        (of("https://10.0.0.1/cb"), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [REDIRECT_URI], "client_name": 7 }), "invalid_client_metadata"),
        (
            json!({ "redirect_uris": [REDIRECT_URI], "grant_types": ["client_credentials"] }),
            "invalid_client_metadata",
        ),
    ] {
        let answer = register(&app, &metadata).await;
        answer.assert_error(400, code);
        assert!(answer.json()["error_description"].is_string(), "{metadata}");
    }
    assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 0);
}

#[tokio::test]
async fn registration_reads_only_json_of_bearable_size() {
    let app = TestApp::start().await;
    let url = app.at("/register");
    let body = json!({ "redirect_uris": [REDIRECT_URI] }).to_string();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    app.http
        .send("POST", &url, &form, body.clone())
        .await
        .assert_error(400, "invalid_client_metadata");
    let json_type = [("content-type", "application/json; charset=utf-8")];
    app.http.send("POST", &url, &json_type, body).await.assert_status(201);
    app.http.send("POST", &url, &json_type, "{").await.assert_error(400, "invalid_client_metadata");
    app.http
        .send("POST", &url, &json_type, "[]")
        .await
        .assert_error(400, "invalid_client_metadata");
    let twice =
        r#"{"redirect_uris":["https://a.example/"],"redirect_uris":["https://b.example/"]}"#;
    app.http
        .send("POST", &url, &json_type, twice)
        .await
        .assert_error(400, "invalid_client_metadata");
    let huge = format!("{{\"client_name\":\"{}\"}}", "x".repeat(40_000));
    app.http.send("POST", &url, &json_type, huge).await.assert_status(413);
    app.http.get(&url).await.assert_status(405);
}

#[tokio::test]
async fn the_quota_of_clients_holds_at_the_limit_and_frees_up_with_time() {
    let app = TestApp::with(limits("clients = 2")).await;
    let metadata =
        |n: u32| json!({ "client_name": n.to_string(), "redirect_uris": [REDIRECT_URI] });
    register(&app, &metadata(1)).await.assert_status(201);
    app.advance(60);
    register(&app, &metadata(2)).await.assert_status(201);
    let refused = register(&app, &metadata(3)).await;
    refused.assert_error(429, "temporarily_unavailable");
    assert!(refused.header("retry-after").is_some());

    // A flood keeps nobody out for long: who was not approved in ten minutes makes room, oldest first.
    app.advance(9 * 60 - 1);
    register(&app, &metadata(3)).await.assert_status(429);
    app.advance(1);
    register(&app, &metadata(3)).await.assert_status(201);
    let left = "SELECT COUNT(*) FROM clients";
    assert_eq!(app.database.number(left).await, 2);
}

#[tokio::test]
async fn a_client_in_use_is_never_the_one_that_makes_room() {
    let app = TestApp::with(limits("clients = 1")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(2 * 24 * 60 * 60);
    let other = json!({ "client_name": "Other", "redirect_uris": [REDIRECT_URI] });
    register(&app, &other).await.assert_status(429);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn the_operators_list_narrows_which_clients_may_register() {
    let setup =
        Setup::toml("allowed_redirect_uris = [\"https://claude.ai/api/mcp/auth_callback\"]");
    let app = TestApp::with(setup).await;
    let of = |uri: &str| json!({ "redirect_uris": [uri] });
    register(&app, &of("https://claude.ai/api/mcp/auth_callback")).await.assert_status(201);
    register(&app, &of("https://other.example/cb")).await.assert_error(400, "invalid_redirect_uri");
}

#[tokio::test]
async fn what_was_registered_does_not_bind_the_scopes_that_can_be_asked_for() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(
        &app,
        json!({ "redirect_uris": [REDIRECT_URI], "scope": "read:todos", "token_endpoint_auth_method": "none" }),
    )
    .await;
    let tokens = client.sign_in("alice").await;
    assert_eq!(tokens.scope, "create:todos delete:todos read:todos");
}
