//! A13: userinfo that lies, refuses, or speaks in another form.

use serde_json::{Value, json};

use super::{HOUR, MINUTE, ask_again, assert_fresh};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

fn from_userinfo() -> Setup {
    Setup { claims: "sources = [\"userinfo\"]".to_owned(), ..Setup::default() }
}

#[tokio::test]
async fn userinfo_that_cannot_be_trusted_or_had_tells_nothing() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    let before = tokens.scope.clone();
    let about_alice = json!({ "sub": "demo-alice", "roles": ["Admin"] }).to_string();
    let signed =
        app.idp.sign("JWT", &json!({ "sub": "demo-alice", "roles": ["Admin"] }), None).unwrap();
    for answer in [
        (401, json!({ "error": "invalid_token" }).to_string()),
        (429, about_alice.clone()),
        (500, about_alice),
        (200, signed), // a JWT where JSON was asked for
        (200, "<html>".to_owned()),
        (200, json!({ "sub": "demo-bob", "roles": ["Admin"] }).to_string()),
        (200, json!({ "roles": ["Admin"] }).to_string()),
        (302, "https://other.example/".to_owned()),
    ] {
        app.idp.misbehave(|how| how.userinfo_answer = Some(answer.clone()));
        // At a sign-in, what is not known allows nothing.
        client.elsewhere().authorize("alice", &[]).await.assert_page(403);
        // Later, what was known stays.
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.scope, before, "{answer:?}");
    }
    app.idp.misbehave(|how| how.userinfo_answer = None);
    client.sign_in("alice").await;
}

#[tokio::test]
async fn userinfo_that_stops_telling_roles_takes_them_away() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.misbehave(|how| {
        how.change_userinfo = Some(|claims: &mut Value| claims["roles"] = json!(["User"]));
    });
    let tokens: Tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, "create:todos");
}

/// A provider that tells roles in ID tokens and sends none at a refresh.
async fn tells_nothing_again(resources: Option<&str>, upstream: &str) -> TestApp {
    let app = TestApp::with(Setup {
        resources: resources.map(str::to_owned),
        upstream: upstream.to_owned(),
        ..Setup::default()
    })
    .await;
    app.idp.misbehave(|how| {
        how.no_id_token_on_refresh = true;
        how.change_userinfo = Some(|claims: &mut Value| {
            claims.as_object_mut().unwrap().retain(|name, _| name == "sub");
        });
    });
    app
}

#[tokio::test]
async fn without_an_id_token_at_a_refresh_userinfo_is_asked_and_takes_roles_away() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.no_id_token_on_refresh = true);
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.set_roles("alice", &["User"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, "create:todos");

    // An outage of userinfo changes nothing, however long it lasts: not even what was taken away.
    let mut tokens = tokens;
    for answer in [500, 429, 503] {
        app.idp.misbehave(|how| how.userinfo_answer = Some((answer, String::new())));
        app.advance(9 * HOUR);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_fresh(&tokens);
        assert_eq!(tokens.scope, "create:todos", "{answer}");
    }
}

#[tokio::test]
async fn what_the_provider_never_tells_again_is_good_for_as_long_as_it_may_be() {
    let app = tells_nothing_again(None, "").await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    let all = tokens.scope.clone();
    for _ in 0..29 {
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.scope, all);
    }
    app.advance(16 * MINUTE - 1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.scope, all, "a second before eight hours");
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.sign_in("alice").await;
}

#[tokio::test]
async fn userinfo_that_answers_and_tells_nothing_of_the_person_is_no_outage() {
    let app = TestApp::start().await;
    let claims = json!({ "sub": "demo-alice", "roles": ["Admin"] });
    let signed = app.idp.sign("JWT", &claims, None).unwrap();
    let other = json!({ "sub": "demo-bob", "roles": ["Admin"] }).to_string();
    for (answer, is_outage) in [
        ((403, String::new()), false),
        ((200, signed), false),
        ((200, other), false),
        ((200, "<html>".to_owned()), true),
        ((302, "https://other.example/".to_owned()), true),
    ] {
        app.idp.misbehave(|how| {
            how.no_id_token_on_refresh = true;
            how.userinfo_answer = Some(answer.clone());
        });
        let (client, tokens) = app.tokens_of("alice").await;
        let again = ask_again(&app, &client, &tokens).await;
        assert_eq!(again.scope, tokens.scope);
        app.advance(8 * HOUR);
        let later = client.refresh(&again.refresh_token).await;
        if is_outage {
            assert_eq!(Tokens::of(&later).scope, tokens.scope, "{answer:?}");
        } else {
            later.assert_error(400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn nobody_is_sent_to_sign_in_again_for_what_no_rule_reads() {
    let resource = "[[resource]]\npath = \"/mcp\"\ntarget = \"{todo}\"\nscopes = [\"read:todos\"]";
    let app = tells_nothing_again(Some(resource), "").await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.advance(9 * HOUR);
    assert_fresh(&Tokens::of(&client.refresh(&tokens.refresh_token).await));
}
