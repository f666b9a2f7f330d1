//! A13: userinfo that lies, refuses, or speaks in another form.

use serde_json::{Value, json};

use super::{ask_again, assert_fresh};
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
