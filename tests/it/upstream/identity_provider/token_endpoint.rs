//! A4, A8, A9, A10: the provider's token endpoint.

use serde_json::{Value, json};

use super::{HOUR, MINUTE, ask_again, assert_bridged, assert_fresh, upstream};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

enum Class {
    /// The session is over.
    Dead,
    /// Nothing happens to anybody.
    Bridged,
}

#[tokio::test]
async fn every_answer_to_a_refresh_has_its_class() {
    use Class::{Bridged, Dead};
    let error = |code: &str| json!({ "error": code }).to_string();
    for (status, body, class) in [
        (400, error("invalid_grant"), Dead),
        (403, error("invalid_grant"), Dead),
        (401, error("invalid_grant"), Dead),
        (400, error("interaction_required"), Dead),
        (400, error("login_required"), Dead),
        (400, error("consent_required"), Dead),
        (400, error("mfa_required"), Dead),
        (200, error("invalid_grant"), Dead),
        (401, error("invalid_client"), Bridged),
        (400, error("unauthorized_client"), Bridged),
        (400, error("unauthorized"), Bridged), // Auth0's own, and this is not Auth0
        (401, String::new(), Bridged),
        (400, "{}".to_owned(), Bridged),
        (400, error("something_new"), Bridged),
        (429, error("too_many_requests"), Bridged),
        (429, String::new(), Bridged),
        (500, error("server_error"), Bridged),
        (502, "<html>Bad Gateway</html>".to_owned(), Bridged),
        (503, error("temporarily_unavailable"), Bridged),
        (200, "<html>Welcome</html>".to_owned(), Bridged),
        (200, "[]".to_owned(), Bridged),
        (302, "https://other.example/".to_owned(), Bridged),
    ] {
        let app = TestApp::start().await;
        let (client, tokens) = app.tokens_of("bob").await;
        app.idp.misbehave(|how| how.refresh_answer = Some((status, body.clone())));
        app.advance(16 * MINUTE);
        let answer = client.refresh(&tokens.refresh_token).await;
        match class {
            Dead => {
                assert_eq!(answer.status, 400, "{status} {body}");
                answer.assert_error(400, "invalid_grant");
            }
            Bridged => {
                assert_eq!(answer.status, 200, "{status} {body}");
                assert_bridged(&Tokens::of(&answer));
                app.idp.misbehave(|how| how.refresh_answer = None);
                assert_fresh(&ask_again(&app, &client, &Tokens::of(&answer)).await);
            }
        }
    }
}

#[tokio::test]
async fn an_answer_in_loose_json_is_read_all_the_same() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true); // an answer that is not read is a session lost
    let (client, mut tokens) = app.tokens_of("bob").await;
    let changes: [fn(&mut Value); 8] = [
        |answer| answer["expires_in"] = "3600".into(),
        |answer| answer["expires_in"] = 0.into(),
        |answer| answer["expires_in"] = (-1).into(),
        |answer| answer["expires_in"] = 3599.5.into(),
        |answer| answer["expires_in"] = Value::Null,
        |answer| answer["refresh_expires_in"] = 0.into(), // Keycloak: no limit
        |answer| answer["token_type"] = "bearer".into(),
        |answer| {
            let answer = answer.as_object_mut().unwrap();
            answer.remove("expires_in");
            answer.remove("scope");
            answer.insert("more".to_owned(), json!({ "of": ["something"] }));
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        app.idp.misbehave(|how| how.change_token_answer = Some(change));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 600, "change {n}");
        let again = client.sign_in("bob").await; // a sign-in reads it as well
        assert!(!again.scope.is_empty(), "change {n}");
        tokens = again;
    }
    // Without an ID token nobody is signed in.
    app.idp.misbehave(|how| {
        how.change_token_answer = Some(|answer| {
            answer.as_object_mut().unwrap().remove("id_token");
        });
    });
    client.authorize("bob", &[]).await.assert_page(502);
}

#[tokio::test]
async fn a_refresh_that_is_never_answered_is_bridged() {
    let app = TestApp::with(upstream("timeout = \"1s\"")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.silent_at = Some("/token"));
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_bridged(&tokens);
    app.idp.misbehave(|how| how.silent_at = None);
    assert_fresh(&ask_again(&app, &client, &tokens).await);
}

/// A8.
#[tokio::test]
async fn an_expired_secret_costs_nobody_their_session_and_a_new_one_mends_it() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.set_client_secret("another one now");
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_bridged(&tokens);
    client.authorize("bob", &[]).await.assert_page(502);
    assert!(crate::harness::logs::all().contains("the identity provider rejects our client"));
    // Past the grace nothing is issued and nothing is lost.
    app.advance(HOUR);
    let waits = client.refresh(&tokens.refresh_token).await;
    waits.assert_error(503, "temporarily_unavailable");

    app.idp.set_client_secret("upstream-secret-canary");
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    client.sign_in("bob").await;
}

/// A9.
#[tokio::test]
async fn an_outage_is_bridged_for_an_hour_to_the_second() {
    for (elapsed, status) in [(59 * MINUTE, 200), (HOUR - 1, 200), (HOUR, 503), (61 * MINUTE, 503)]
    {
        let app = TestApp::start().await;
        let (client, tokens) = app.tokens_of("bob").await;
        app.idp.misbehave(|how| how.token_answer = Some((503, String::new())));
        app.advance(elapsed);
        let answer = client.refresh(&tokens.refresh_token).await;
        assert_eq!(answer.status.as_u16(), status, "after {elapsed} s");
    }
}

/// A10.
#[tokio::test]
async fn each_method_of_client_authentication_reaches_a_provider_that_takes_no_other() {
    // Another text in every encoding but the right one.
    let secret = "a%b+c:d/\u{e9} &=";
    for (configured, only, works) in [
        ("", "client_secret_basic", true),
        ("", "client_secret_post", true), // told by its metadata
        ("client_auth = \"client_secret_basic\"", "client_secret_basic", true),
        ("client_auth = \"client_secret_post\"", "client_secret_post", true),
        ("client_auth = \"client_secret_post\"", "client_secret_basic", false),
        ("client_auth = \"client_secret_basic\"", "client_secret_post", false),
    ] {
        let setup = Setup { client_secret: Some(secret), ..upstream(configured) };
        let app = TestApp::with(setup).await;
        app.idp.misbehave(|how| how.only_client_auth = Some(only));
        let client = app.client().await;
        if works {
            let tokens = client.sign_in("bob").await;
            assert_fresh(&ask_again(&app, &client, &tokens).await);
        } else {
            client.authorize("bob", &[]).await.assert_page(502);
        }
    }
}
