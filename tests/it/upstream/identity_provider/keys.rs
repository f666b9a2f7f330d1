//! A2: the keys that ID tokens are verified with.

use portcullis::demo::{KeyUse, Misbehaviour};
use serde_json::{Value, json};

use super::{MINUTE, ask_again, assert_bridged, assert_fresh};
use crate::harness::TestApp;
use crate::harness::client::REDIRECT_URI;

#[tokio::test]
async fn a_rotated_key_is_fetched_once_when_it_is_first_seen() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let tokens = client.sign_in("bob").await;
    let asked = app.idp.requests_to("/jwks");

    // Announced and not in use yet: nothing to ask for.
    app.idp.misbehave(|how| how.keys = KeyUse::NextAnnounced);
    app.advance(2 * MINUTE);
    client.sign_in("bob").await;
    assert_eq!(app.idp.requests_to("/jwks"), asked);

    app.idp.misbehave(|how| how.keys = KeyUse::Next);
    for _ in 0..3 {
        client.sign_in("bob").await;
    }
    assert_eq!(app.idp.requests_to("/jwks"), asked + 1);
    assert_fresh(&ask_again(&app, &client, &tokens).await);
}

#[tokio::test]
async fn an_unknown_key_makes_us_ask_at_most_once_a_minute() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let tokens = client.sign_in("bob").await;
    app.idp.misbehave(|how| how.keys = KeyUse::NextUnpublished);
    app.advance(2 * MINUTE);
    for _ in 0..3 {
        let asked = app.idp.requests_to("/jwks");
        for _ in 0..10 {
            client.authorize("bob", &[]).await.assert_page(403);
        }
        assert_eq!(app.idp.requests_to("/jwks"), asked + 1);
        app.advance(MINUTE);
    }
    // A refresh cannot be judged either: nobody is thrown out for it.
    assert_bridged(&ask_again(&app, &client, &tokens).await);
    app.idp.misbehave(|how| how.keys = KeyUse::Next);
    app.advance(MINUTE);
    client.authorize("bob", &[]).await.assert_leads_to(REDIRECT_URI);
}

fn without_kid(keys: &mut Value) {
    for key in keys["keys"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("kid");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_told_apart_or_are_not_for_signing_verify_nothing() {
    let no_kid = json!({ "kid": null }).as_object().unwrap().clone();
    let cases = [
        ("one key, nobody names it", KeyUse::First, without_kid as fn(&mut Value), true),
        ("two keys, nobody names them", KeyUse::NextAnnounced, without_kid, false),
        (
            "a key for encryption",
            KeyUse::First,
            |keys| keys["keys"][0]["use"] = "enc".into(),
            false,
        ),
        ("no keys at all", KeyUse::First, |keys| keys["keys"] = json!([]), false),
    ];
    for (what, keys, change, works) in cases {
        let app = TestApp::start().await;
        app.idp.misbehave(|how| {
            *how = Misbehaviour { keys, change_keys: Some(change), ..Misbehaviour::default() };
            if what.contains("nobody") {
                how.id_token_header.clone_from(&no_kid);
            }
        });
        let answer = app.client().await.authorize("bob", &[]).await;
        assert_eq!(answer.status == 303, works, "{what}: {}", answer.status);
        let codes = app.database.number("SELECT COUNT(*) FROM authorization_codes").await;
        assert_eq!(codes, i64::from(works), "{what}");
    }
}

#[tokio::test]
async fn an_oversized_set_of_keys_is_not_read() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| {
        how.change_keys = Some(|keys| keys["padding"] = "x".repeat(1_100_000).into());
    });
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "approve").await.assert_page(503);
}

#[tokio::test]
async fn known_keys_serve_while_new_ones_cannot_be_had() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.jwks_down = true);
    app.advance(2 * 60 * MINUTE); // what is known is no longer fresh
    assert_fresh(&ask_again(&app, &client, &tokens).await);
    client.sign_in("bob").await;
}
