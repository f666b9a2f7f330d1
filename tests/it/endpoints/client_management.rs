//! `/register/{client_id}`: RFC 7592.

use futures_util::future::join_all;
use portcullis::clock::Clock;
use portcullis::storage::{ClientDecision, ReviewDecision, ReviewState};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::Answer;
use crate::harness::signer::Signer;
use crate::laws::races::rounds;

const LIVE: &str = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
const CALLBACK: &str = "https://app.example/callback";

/// A confidential client, what it was answered, and its way to manage itself.
struct Managed<'a> {
    app: &'a TestApp,
    registered: Value,
    uri: String,
    token: String,
}

impl<'a> Managed<'a> {
    async fn register(app: &'a TestApp) -> Self {
        let metadata = json!({
            "client_name": "Before", "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["authorization_code", "refresh_token"],
        });
        let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        let registered = answer.assert_status(201).json();
        let text = |name: &str| registered[name].as_str().unwrap().to_owned();
        let (uri, token) = (text("registration_client_uri"), text("registration_access_token"));
        Self { app, registered, uri, token }
    }

    fn id(&self) -> &str {
        self.registered["client_id"].as_str().unwrap()
    }

    fn client(&self) -> McpClient {
        let mut client = McpClient::known_as(self.app, self.id(), CALLBACK);
        client.secret = self.registered["client_secret"].as_str().map(str::to_owned);
        client
    }

    async fn send(&self, method: &str, token: &str, body: &str) -> Answer {
        send(self.app, method, &self.uri, token, body).await
    }

    async fn put(&self, metadata: &Value) -> Answer {
        self.send("PUT", &self.token, &metadata.to_string()).await
    }
}

async fn send(app: &TestApp, method: &str, uri: &str, token: &str, body: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    app.http.send(method, uri, &headers, body.to_owned()).await
}

#[tokio::test]
async fn reg_33_a_client_reads_what_it_registered() {
    let app = TestApp::start().await;
    let managed = Managed::register(&app).await;
    assert_eq!(managed.uri, app.at(&format!("/register/{}", managed.id())));
    let read = managed.send("GET", &managed.token, "").await;
    assert_eq!(read.assert_status(200).header("cache-control"), Some("no-store"));
    let mut expected = managed.registered.clone();
    // The secret is a hash here; nobody is told it twice.
    expected.as_object_mut().unwrap().remove("client_secret");
    expected.as_object_mut().unwrap().remove("client_secret_expires_at");
    assert_eq!(read.json(), expected);
}

#[tokio::test]
async fn reg_33_a_replacement_replaces_everything_but_id_and_secret() {
    let app = TestApp::start().await;
    let managed = Managed::register(&app).await;
    let client = managed.client();
    let tokens = client.sign_in("bob").await;
    let answer = managed
        .put(&json!({
            "client_id": managed.id(), "redirect_uris": ["https://app.example/other"],
            "client_secret": client.secret, "token_endpoint_auth_method": "client_secret_basic",
        }))
        .await;
    let answer = answer.assert_status(200).json();
    assert_eq!(answer["redirect_uris"], json!(["https://app.example/other"]));
    assert_eq!(answer.get("client_name"), None, "what is left out is gone");
    assert_eq!(answer["client_id"], managed.id());
    assert_eq!(managed.send("GET", &managed.token, "").await.json(), answer);

    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    let mut moved = managed.client();
    moved.redirect_uri = "https://app.example/other".to_owned();
    moved.sign_in("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn a_client_that_signs_replaces_its_keys() {
    let app = TestApp::start().await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let mut metadata = json!({
        "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt",
        "jwks": old.jwks(),
    });
    let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
    let registered = answer.assert_status(201).json();
    let text = |name: &str| registered[name].as_str().unwrap().to_owned();
    let client = McpClient::known_as(&app, &text("client_id"), CALLBACK);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", "rt_x")];
    old.token(&app, &client, &refresh).await.assert_error(400, "invalid_grant");

    (metadata["client_id"], metadata["jwks"]) = (registered["client_id"].clone(), new.jwks());
    let (uri, token) = (text("registration_client_uri"), text("registration_access_token"));
    send(&app, "PUT", &uri, &token, &metadata.to_string()).await.assert_status(200);

    old.token(&app, &client, &refresh).await.assert_error(401, "invalid_client");
    new.token(&app, &client, &refresh).await.assert_error(400, "invalid_grant");
    metadata["token_endpoint_auth_method"] = json!("client_secret_post");
    let answer = send(&app, "PUT", &uri, &token, &metadata.to_string()).await;
    answer.assert_error(400, "invalid_client_metadata");
}

#[tokio::test]
async fn a_replacement_is_held_to_the_rules_of_a_registration_and_to_its_own_client() {
    let app = TestApp::start().await;
    let managed = Managed::register(&app).await;
    let with = |change: Value| {
        let mut metadata = json!({
            "client_id": managed.id(), "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "client_secret_post",
        });
        for (name, value) in change.as_object().unwrap() {
            metadata[name] = value.clone();
        }
        metadata
    };
    for (change, code) in [
        (json!({ "client_id": "client_x" }), "invalid_client_metadata"),
        (json!({ "client_id": null }), "invalid_client_metadata"),
        (json!({ "client_secret": "mine" }), "invalid_client_metadata"),
        (json!({ "token_endpoint_auth_method": "none" }), "invalid_client_metadata"),
        (json!({ "redirect_uris": ["http://evil.example/cb"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
    ] {
        managed.put(&with(change)).await.assert_error(400, code);
    }
    managed.send("PUT", &managed.token, "{").await.assert_error(400, "invalid_client_metadata");
    assert_eq!(managed.send("GET", &managed.token, "").await.json()["client_name"], "Before");
}

#[tokio::test]
async fn reg_33_deleting_a_client_ends_its_grants_at_once_and_nobody_elses() {
    let app = TestApp::start().await;
    let managed = Managed::register(&app).await;
    let client = managed.client();
    let tokens = client.sign_in("bob").await;
    let code = client.elsewhere().code("bob").await;
    let (other, others) = app.tokens_of("bob").await;

    let deleted = managed.send("DELETE", &managed.token, "").await;

    assert!(deleted.assert_status(204).body.is_empty());
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    client.refresh(&tokens.refresh_token).await.assert_error(401, "invalid_client");
    client.redeem(&code).await.assert_error(401, "invalid_client");
    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    managed.send("GET", &managed.token, "").await.assert_error(401, "invalid_token");
    managed.send("DELETE", &managed.token, "").await.assert_error(401, "invalid_token");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 1);
    other.call_tool(&others.access_token, "get-todos", json!({})).await.assert_status(200);
    Tokens::of(&other.refresh(&others.refresh_token).await);
}

/// C8: whatever the order, a client that is gone holds nothing that lives.
#[tokio::test]
async fn c8_a_deletion_wins_every_race_with_a_redemption() {
    for _ in rounds() {
        let app = TestApp::start().await;
        for _ in 0..10 {
            let managed = Managed::register(&app).await;
            let client = managed.client();
            let mut codes = Vec::new();
            for _ in 0..3 {
                codes.push(client.code("bob").await);
            }
            let redeeming = join_all(codes.iter().map(|code| client.redeem(code)));
            let (answers, deleted) =
                tokio::join!(redeeming, managed.send("DELETE", &managed.token, ""));
            deleted.assert_status(204);
            for answer in answers.iter().filter(|answer| answer.status == 200) {
                let tokens = Tokens::of(answer);
                client
                    .call_tool(&tokens.access_token, "get-todos", json!({}))
                    .await
                    .assert_status(401);
            }
        }
        assert_eq!(app.database.number(LIVE).await, 0);
    }
}

#[tokio::test]
async fn reg_34_a_token_opens_its_own_client_and_is_stored_as_a_hash() {
    let app = TestApp::start().await;
    let (one, two) = (Managed::register(&app).await, Managed::register(&app).await);
    let secret = one.registered["client_secret"].as_str().unwrap();
    let random = one.token.rsplit_once('.').unwrap().1;
    let public = app.client().await;
    for (method, uri, token) in [
        ("GET", &one.uri, two.token.as_str()),
        ("DELETE", &one.uri, &two.token),
        ("DELETE", &one.uri, secret),
        ("DELETE", &one.uri, ""),
        ("DELETE", &one.uri, random),
        ("DELETE", &app.at("/register/client_x"), &one.token),
        ("DELETE", &app.at(&format!("/register/{}", public.id)), &one.token),
        ("DELETE", &app.at("/register/https:%2F%2Fclient.example%2Fc"), &one.token),
        ("PUT", &one.uri, &format!("{}x", one.token)),
    ] {
        send(&app, method, uri, token, "{}").await.assert_error(401, "invalid_token");
    }
    app.http.send("DELETE", &one.uri, &[], "").await.assert_error(401, "invalid_token");
    let query = format!("{}?access_token={}", one.uri, one.token);
    app.http.send("DELETE", &query, &[], "").await.assert_error(401, "invalid_token");
    let dump = app.database.dump().await;
    assert!(!dump.windows(random.len()).any(|part| part == random.as_bytes()));
    one.send("GET", &one.token, "").await.assert_status(200);
}

/// Identical public clients are one row: one of them must not rule over the others.
#[tokio::test]
async fn rg_01_a_public_client_is_shared_and_can_be_managed_by_nobody() {
    let app = TestApp::start().await;
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" });
    let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
    let answer = answer.assert_status(201).json();
    assert_eq!(answer.get("registration_access_token"), None);
    assert_eq!(answer.get("registration_client_uri"), None);
}

#[tokio::test]
async fn reg_30_a_software_statement_is_ignored_whatever_it_says() {
    let app = TestApp::start().await;
    for statement in [
        json!("a.b.c"),
        json!("eyJhbGciOiJub25lIn0.eyJyZWRpcmVjdF91cmlzIjpbImh0dHBzOi8vZXZpbC5leGFtcGxlLyJdfQ."),
        json!(7),
        json!({ "x": 1 }),
    ] {
        let metadata = json!({
            "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none",
            "software_statement": statement,
        });
        let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        let answer = answer.assert_status(201).json();
        assert_eq!(answer.get("software_statement"), None);
        assert_eq!(answer["redirect_uris"], json!([REDIRECT_URI]));
    }
}

/// What an administrator approved and trusted was another client.
#[tokio::test]
async fn a_client_that_changes_itself_is_no_longer_trusted() {
    let app = TestApp::start().await;
    let managed = Managed::register(&app).await;
    let event = |name| AuditEvent::new(name, Actor::Shell, &Clock::Manual(app.clock.clone()));
    for verdict in [ReviewDecision::Approve, ReviewDecision::Trust] {
        let decided = event(verdict.event());
        app.storage()
            .decide_client(ClientDecision::new(managed.id(), verdict, "shell"), app.now(), decided)
            .await
            .unwrap();
    }
    let (page, _) = managed.client().ask(&[]).await;
    assert!(page.text().contains("Verified by your administrator"));

    let moved = json!({
        "client_id": managed.id(), "redirect_uris": [CALLBACK, "https://evil.example/callback"],
        "token_endpoint_auth_method": "client_secret_post",
    });
    managed.put(&moved).await.assert_status(200);

    let standing = app.storage().client_review(managed.id()).await.unwrap();
    assert!(!standing.trusted && standing.state == ReviewState::NotReviewed);
    let (page, _) = managed.client().ask(&[]).await;
    assert!(page.text().contains("self-registered"));
    let block = event("client_blocked");
    app.storage()
        .decide_client(
            ClientDecision::new(managed.id(), ReviewDecision::Block, "shell"),
            app.now(),
            block,
        )
        .await
        .unwrap();
    managed.put(&moved).await.assert_status(200);
    assert!(app.storage().client_review(managed.id()).await.unwrap().blocked, "a block stays");
}
