//! A1 and A12: what the provider says of itself.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::{HOUR, MINUTE, ask_again, assert_fresh, upstream};
use crate::harness::TestApp;

#[tokio::test]
async fn a_discovery_document_that_cannot_be_used_leaves_the_consent_page_good() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let html = "<html><title>Welcome</title></html>".to_owned();
    let elsewhere = "https://other.example/.well-known/openid-configuration".to_owned();
    for (answer, status) in [
        ((404, String::new()), 503),
        ((500, "oops".to_owned()), 503),
        ((200, html), 502),
        ((200, "{}".to_owned()), 502),
        ((302, elsewhere), 503),
    ] {
        app.idp.misbehave(|how| how.discovery_answer = Some(answer));
        app.advance(10); // a provider that has just failed is left alone for five seconds
        client.decide(&form, "approve").await.assert_page(status);
    }
    app.idp.misbehave(|how| how.discovery_answer = None);
    let changes: [fn(&mut Value); 4] = [
        |document| document["issuer"] = "https://other.example".into(),
        |document| {
            let with_slash = format!("{}/", document["issuer"].as_str().unwrap());
            document["issuer"] = with_slash.into();
        },
        |document| document["token_endpoint"] = "http://other.example/token".into(),
        |document| document["token_endpoint"] = Value::Null,
    ];
    for change in changes {
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        app.advance(10);
        client.decide(&form, "approve").await.assert_page(502);
    }

    assert_eq!(app.database.number("SELECT COUNT(*) FROM logins").await, 0);
    app.idp.misbehave(|how| how.change_discovery = None);
    app.advance(10);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_provider_that_never_answers_is_waited_for_only_so_long() {
    let app = TestApp::with(upstream("timeout = \"1s\"")).await;
    let client = app.client().await;
    app.idp.misbehave(|how| how.silent_at = Some("/.well-known/openid-configuration"));
    let (_, form) = client.ask(&[]).await;
    let decided = timeout(Duration::from_secs(8), client.decide(&form, "approve")).await;
    decided.unwrap().assert_page(503);
    // Whoever comes next does not wait for the same silence.
    let asked = app.idp.requests_to("/.well-known/openid-configuration");
    client.decide(&form, "approve").await.assert_page(503);
    assert_eq!(app.idp.requests_to("/.well-known/openid-configuration"), asked);
}

#[tokio::test]
async fn endpoints_that_move_are_followed_within_the_hour() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| {
        how.change_discovery = Some(|document| {
            let issuer = document["issuer"].as_str().unwrap().to_owned();
            for endpoint in ["authorization", "token", "userinfo"] {
                let place = match endpoint {
                    "authorization" => "authorize",
                    other => other,
                };
                document[format!("{endpoint}_endpoint")] = format!("{issuer}/moved/{place}").into();
            }
        });
    });
    app.advance(HOUR);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(app.idp.requests_to("/moved/token"), 1);
    let idp_url = client.approve(&[]).await;
    assert!(idp_url.starts_with(&format!("{}/moved/authorize", app.idp.issuer())), "{idp_url}");

    // A provider that is away keeps its last known places for a day.
    app.idp.misbehave(|how| how.discovery_down = true);
    app.advance(2 * HOUR + MINUTE);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
}
