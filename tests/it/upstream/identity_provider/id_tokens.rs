//! A3: ID tokens that are nearly right, at sign-in and at a refresh.

use serde_json::{Map, Value, json};

use super::{ask_again, assert_bridged, assert_fresh};
use crate::harness::TestApp;
use crate::harness::client::REDIRECT_URI;

fn claims(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn an_id_token_is_judged_by_the_clock_with_a_minute_of_tolerance() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let now = app.now().unix();
    for (what, extra, works) in [
        ("expired 59 s ago", json!({ "exp": now - 59 }), true),
        ("expired 61 s ago", json!({ "exp": now - 61 }), false),
        ("valid in 59 s", json!({ "nbf": now + 59 }), true),
        ("valid in 61 s", json!({ "nbf": now + 61 }), false),
        ("valid from no time", json!({ "nbf": "soon" }), false),
        ("issued 59 s from now", json!({ "iat": now + 59 }), true),
        ("issued 61 s from now", json!({ "iat": now + 61 }), false),
        // OpenID Connect Core §3.1.3.7: others may be named beside us, when `azp` says that it is for us.
        ("for two, to us", json!({ "aud": ["portcullis", "x"], "azp": "portcullis" }), true),
        ("for two, to the other", json!({ "aud": ["portcullis", "x"], "azp": "x" }), false),
        ("for two, to nobody", json!({ "aud": ["portcullis", "x"] }), false),
        ("for us, to us", json!({ "azp": "portcullis" }), true),
        ("without expiry", json!({ "exp": null }), false),
    ] {
        app.idp.misbehave(|how| how.extra_claims = claims(&extra));
        let answer = client.authorize("bob", &[]).await;
        if works {
            assert_eq!(answer.status, 303, "{what}");
            answer.assert_leads_to(REDIRECT_URI);
        } else {
            assert_ne!(answer.status, 303, "{what}");
        }
    }
}

#[tokio::test]
async fn an_encrypted_id_token_is_named_as_such() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| {
        how.change_token_answer = Some(|answer| answer["id_token"] = "eyJh.a.b.c.d".into());
    });
    client.authorize("bob", &[]).await.assert_page(502);
    let logged = crate::harness::logs::all();
    assert!(logged.contains("it is encrypted (JWE)"), "the administrator reads why");
}

#[tokio::test]
async fn a_doubtful_id_token_at_a_refresh_is_neither_yes_nor_no_and_loses_no_token() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, mut tokens) = app.tokens_of("bob").await;
    let encrypted: fn(&mut Value) = |answer| answer["id_token"] = "eyJh.a.b.c.d".into();
    let nonsense: fn(&mut Value) = |answer| answer["id_token"] = 7.into();
    for change in [encrypted, nonsense] {
        app.idp.misbehave(|how| how.change_token_answer = Some(change));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_bridged(&tokens);
        app.idp.misbehave(|how| how.change_token_answer = None);
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
    for alg in ["none", "HS256"] {
        app.idp.misbehave(|how| how.algorithm = Some(alg.to_owned()));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_bridged(&tokens);
        app.idp.misbehave(|how| how.algorithm = None);
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
    // A nonce at a refresh, if there is one, is that of the sign-in.
    app.idp.misbehave(|how| how.extra_claims = claims(&json!({ "nonce": "of another login" })));
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}
