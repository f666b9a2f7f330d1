//! Replicas whose clocks differ by less than a minute. What one of them has ended, the other one must not take
//! for alive.

use std::time::Duration;

use portcullis::clock::{ManualClock, REPLICAS_APART};
use portcullis::storage::{ClientDecision, ReviewDecision, Selection};
use serde_json::json;

use crate::harness::TestApp;
use crate::harness::client::McpClient;
use crate::harness::console::{Console, forms};
use crate::harness::http::encode;

/// How far the clock of the other replica differs.
const APART: i64 = 50;

/// What ends the codes of bob, or of his client, on the replica whose clock is another one.
const ENDINGS: [&str; 9] = [
    "the person disconnects the application",
    "the person signs out everywhere",
    "a sign-out at the identity provider",
    "an administrator blocks the person",
    "an administrator blocks the client",
    "an administrator revokes all of the person",
    "an administrator revokes all of the client",
    "an administrator revokes all of before",
    "the provider refuses the session at a re-check",
];

async fn press(app: &TestApp, bob: &Console, replica: &str, path: &str, client: &McpClient) {
    let csrf = bob.csrf().await;
    let server = app.mcp_url();
    // Signing out everywhere is confirmed on a page that counts first.
    let counted = if path.ends_with("everywhere") {
        let page = bob.page("/account/confirm").await;
        let mut forms = forms(&page, &bob.at("/account/confirm")).into_iter();
        let (form, _) = forms.find(|(_, html)| html.contains("value=\"everywhere\"")).unwrap();
        form.fields.iter().find(|(name, _)| name == "counted").unwrap().1.clone()
    } else {
        String::new()
    };
    let form = [
        ("csrf", csrf.as_str()),
        ("client", client.id.as_str()),
        ("server", &server),
        ("counted", &counted),
    ];
    let headers = [
        ("accept", "text/html"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", app.origin.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let url = format!("{replica}{path}");
    bob.browser.send("POST", &url, &headers, &encode(&form)).await.assert_status(303);
}

async fn end(app: &TestApp, how: &str, replica: &str, clock: &ManualClock, client: &McpClient) {
    let storage = app.storage();
    let now = clock.now();
    let event = || app.audit_event("grants_revoked");
    let (subject, id) = ("oidc:demo-bob", client.id.as_str());
    match how {
        "the person disconnects the application" | "the person signs out everywhere" => {
            let bob = Console::account(app).signed_in(app, "bob").await;
            let everywhere = how.ends_with("everywhere");
            let path = if everywhere { "sign-out-everywhere" } else { "disconnect" };
            press(app, &bob, replica, &format!("/account/{path}"), client).await;
        }
        "a sign-out at the identity provider" => {
            let claims = json!({
                "iss": app.idp.issuer(), "aud": "portcullis", "jti": how, "sub": "demo-bob",
                "iat": app.now().unix(), "exp": app.now().unix() + 120,
                "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
            });
            let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
            let form = [("logout_token", token.as_str())];
            let url = format!("{replica}/backchannel-logout");
            app.http.post_form(&url, &form, &[]).await.assert_status(200);
        }
        "an administrator blocks the person" => {
            assert!(storage.block_person(subject, "test", now, event()).await.unwrap());
            assert!(storage.unblock_person(subject, event()).await.unwrap());
        }
        "an administrator blocks the client" => {
            for verdict in [ReviewDecision::Block, ReviewDecision::Unblock] {
                storage
                    .decide_client(ClientDecision::new(id, verdict, "test"), now, event())
                    .await
                    .unwrap();
            }
        }
        "an administrator revokes all of the person" => {
            let which = Selection::Person(subject.to_owned());
            storage.revoke_grants(&which, how, now, event()).await.unwrap();
        }
        "an administrator revokes all of the client" => {
            let which = Selection::Client(id.to_owned());
            storage.revoke_grants(&which, how, now, event()).await.unwrap();
        }
        "an administrator revokes all of before" => {
            let which = Selection::Before(app.now().plus(Duration::from_secs(5)));
            storage.revoke_grants(&which, how, now, event()).await.unwrap();
        }
        "the provider refuses the session at a re-check" => {
            let ids = app.database.text("SELECT id FROM upstream_sessions").await;
            let session = storage.upstream_session(&ids).await.unwrap().unwrap();
            assert!(storage.end_session(&session, how, now, event()).await.unwrap());
            assert!(!storage.end_session(&session, how, now, event()).await.unwrap(), "once");
        }
        other => panic!("{other}"),
    }
    // Whatever ended with the session would otherwise be refused for that alone.
    let mut again = McpClient::known_as(app, &client.id, &client.redirect_uri);
    again.browser = client.browser.clone();
    let idp_url = again.approve(&[]).await;
    let callback = again.log_in(&idp_url, "bob").await;
    let callback = callback.replace(&app.url, replica);
    again.browser.get(&callback).await.assert_status(303);
}

#[tokio::test]
async fn a_code_that_was_ended_is_ended_for_a_replica_with_another_clock() {
    assert!(APART < i64::try_from(REPLICAS_APART.as_secs()).unwrap());
    for how in ENDINGS {
        for apart in [APART, -APART] {
            let app = TestApp::start().await;
            let clock = ManualClock::at(app.now());
            let (replica, stop) = app.replica_with_clock(&clock).await;
            let client = app.client().await;
            let code = client.code("bob").await;
            app.advance(15);
            clock.advance(15 + apart);

            end(&app, how, &replica, &clock, &client).await;

            let answer = client.redeem(&code).await;
            assert_eq!(answer.status, 400, "{how}, {apart} s apart: {}", answer.text());
            let _ = stop.send(());
        }
    }
}

/// The codes of before are over for whichever clock comes after.
#[tokio::test]
async fn a_code_of_before_a_restore_is_over_for_a_clock_that_is_behind() {
    let mut app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    app.stop().await;
    let mark = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0')";
    app.database.execute(mark).await;

    app.restart().await;
    app.advance(-APART);

    client.redeem(&code).await.assert_error(400, "invalid_grant");
}
