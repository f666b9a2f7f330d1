//! Each kind of message, caused as it happens.

use portcullis::app::Reloaded;
use portcullis::demo::Misbehaviour;
use serde_json::Value;

use super::webhook_at;
use crate::harness::client::McpClient;
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

async fn app(hook: &Recorder) -> TestApp {
    TestApp::with(Setup::toml(webhook_at(&hook.url("/hook")))).await
}

/// The kind and the data of the next message.
async fn told(hook: &Recorder) -> (String, Value) {
    let json = hook.next().await.json();
    (json["type"].as_str().unwrap().to_owned(), json["data"].clone())
}

#[tokio::test]
async fn a_refusal_by_the_rules_is_reported_with_its_reference() {
    let hook = Recorder::start().await;
    let app = app(&hook).await;
    let client = app.client_named("Test client").await;

    let page = client.authorize("mallory", &[]).await;

    page.assert_page(403);
    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "person_refused");
    let about = &data["about"][0];
    assert_eq!(about["client"]["name"], "Test client");
    assert_eq!(about["person"]["id"], "oidc:demo-mallory");
    assert!(about["person"]["name"].as_str().unwrap().starts_with("Mallory"), "{about}");
    assert!(about["reason"].as_str().unwrap().starts_with("asked for "), "{about}");
    let reference = about["reference"].as_str().unwrap();
    assert!(page.text().contains(reference));
    let link = data["link"].as_str().unwrap();
    assert_eq!(link, format!("{}/audit?ref={reference}", app.admin_url));
}

#[tokio::test]
async fn a_code_or_refresh_token_that_comes_again_is_reported() {
    let hook = Recorder::start().await;
    let app = app(&hook).await;
    let client = app.client_named("Test client").await;
    let code = client.code("bob").await;
    client.redeem(&code).await.assert_status(200);
    client.redeem(&code).await.assert_error(400, "invalid_grant");

    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "token_reused");
    assert_eq!(data["about"][0]["reason"], "an authorization code");
    assert_eq!(data["about"][0]["client"]["id"], client.id.as_str());

    app.advance(301);
    let tokens = client.sign_in("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(121); // longer than refresh_grace
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "token_reused");
    assert_eq!(data["about"][0]["reason"], "a refresh token");
    let whole = data.to_string();
    assert!(!whole.contains(&tokens.refresh_token) && !whole.contains(&code), "{whole}");
}

#[tokio::test]
async fn a_configuration_with_mistakes_is_reported_with_its_keys_and_without_its_values() {
    let hook = Recorder::start().await;
    let mut app = app(&hook).await;
    app.change_config("[[resource]]", "[limits]\nclients = \"no-such-number\"\n\n[[resource]]");

    assert!(matches!(app.reload().await, Reloaded::Invalid));

    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "configuration_refused");
    assert_eq!(data["about"][0]["reason"], "mistakes in limits.clients");
    assert!(!data.to_string().contains("no-such-number"));
}

/// Somebody approves, and the provider cannot be asked.
async fn approve_in_vain(client: &McpClient) {
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "approve").await.assert_page(503);
}

#[tokio::test]
async fn an_outage_of_the_provider_is_reported_once_and_so_is_its_end() {
    let hook = Recorder::start().await;
    let app = app(&hook).await;
    let client = app.client().await;
    app.idp.misbehave(|how| how.discovery_down = true);

    // One failure may be a lost packet.
    approve_in_vain(&client).await;
    app.notify_round().await;
    assert!(hook.received().is_empty());
    for _ in 0..4 {
        app.advance(5);
        app.notify_round().await;
    }
    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "provider_down");
    assert_eq!(data["about"][0]["reason"], "discovery answered 503 Service Unavailable");

    app.advance(600);
    approve_in_vain(&client).await;
    for _ in 0..4 {
        app.advance(5);
        app.notify_round().await;
    }
    assert_eq!(hook.received().len(), 1, "it is still the same outage");

    app.idp.misbehave(|how| *how = Misbehaviour::default());
    app.advance(61);
    app.notify_round().await;
    let (kind, data) = told(&hook).await;
    assert_eq!(kind, "provider_back");
    assert_eq!(data["about"][0]["reason"], "after 12 minutes");
    app.advance(600);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 2);
}

#[tokio::test]
async fn a_key_and_a_client_secret_near_their_end_are_reported_once_at_each_stage() {
    let hook = Recorder::start().await;
    let setup = Setup::toml(webhook_at(&hook.url("/hook")))
        .and("[upstream]\nclient_secret_expires = \"2027-01-20\"");
    let app = TestApp::with(setup).await; // 60 days before
    app.notify_round().await;
    assert!(hook.received().is_empty());
    let mut reasons = Vec::new();
    let mut days = 0;
    // 30 days, 7 days, the end; and the same of the signing key, a year after it was made.
    for day in [29, 31, 45, 54, 55, 59, 61, 70, 336, 350, 359, 366, 400] {
        app.advance((day - days) * 24 * 3600);
        days = day;
        app.notify_round().await; // queues it
        app.notify_round().await; // and the queue is empty again
        while hook.received().len() > reasons.len() {
            let (kind, data) = told(&hook).await;
            assert_eq!(kind, "ends_soon");
            let reason = data["about"][0]["reason"].as_str().unwrap().to_owned();
            reasons.push(format!("{day}: {reason}"));
        }
    }
    let secret = "the client secret at the demo identity provider";
    let expected = [
        format!("31: {secret} ends in 29 days: make a new one there"),
        format!("54: {secret} ends in 6 days: make a new one there"),
        format!("61: {secret} has ended: make a new one there"),
        "336: the ES256 signing key is 336 days old: rotate it after a year".to_owned(),
        "359: the ES256 signing key is 359 days old: rotate it after a year".to_owned(),
        "366: the ES256 signing key is 366 days old: rotate it after a year".to_owned(),
    ];
    assert_eq!(reasons, expected);
}
