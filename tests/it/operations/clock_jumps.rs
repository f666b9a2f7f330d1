//! Clocks that leap: an hour ahead, an hour or a day back. Nothing that counts once counts twice, nothing
//! that is over comes back, and nothing that lives is deleted (threat ST-05, K11).

use std::time::Duration;

use portcullis::storage::Retention;
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, jwt_part};
use crate::harness::console::{Console, with_query};
use crate::harness::signer::{ASSERTION_TYPE, Signer};
use crate::harness::{Setup, TestApp};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Rates are off: outside of tests they go by a clock that never leaps.
async fn start() -> TestApp {
    TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await
}

/// What the server does every minute.
async fn sweep(app: &TestApp) {
    let day = Duration::from_hours(24);
    let keep = Retention {
        unused_client: day,
        idle_client: 90 * day,
        audit: 400 * day,
        refused_person: 400 * day,
        refresh_idle: Duration::from_hours(1),
        rows: 500,
    };
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
}

#[tokio::test]
async fn ac_05_a_clock_that_goes_back_gives_no_code_a_second_life() {
    let app = start().await;
    for back in [HOUR, DAY] {
        let client = app.client().await;
        let (expired, used) = (client.code("bob").await, client.code("bob").await);
        let tokens = Tokens::of(&client.redeem(&used).await);
        app.advance(61);
        client.redeem(&expired).await.assert_error(400, "invalid_grant");

        app.advance(-back);

        client.redeem(&expired).await.assert_error(400, "invalid_grant");
        client.redeem(&used).await.assert_error(400, "invalid_grant");
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    }
}

#[tokio::test]
async fn ac_05_a_leap_ahead_and_back_makes_no_used_code_new() {
    let app = start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    client.redeem(&code).await.assert_status(200);
    for leap in [HOUR, 3 * DAY, 80 * DAY] {
        app.advance(leap);
        sweep(&app).await;
        app.advance(-leap);

        client.redeem(&code).await.assert_error(400, "invalid_grant");
    }
}

#[tokio::test]
async fn jw_06_an_assertion_counts_once_however_the_clock_leaps() {
    let app = start().await;
    let signer = Signer::new("one");
    let metadata = json!({
        "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "private_key_jwt", "jwks": signer.jwks(),
    });
    let client = McpClient::register_as(&app, metadata).await;
    let send = async |assertion: &str| {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", "rt_x"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ];
        client.token(&form).await.status.as_u16()
    };
    let assertion = signer.assertion(&app, &client.id, &json!({ "jti": "only-once" }));
    assert_eq!(send(&assertion).await, 400, "it proves the client");

    app.advance(HOUR);
    sweep(&app).await;
    app.advance(-HOUR);

    assert_eq!(send(&assertion).await, 401);
    // Soon another one proves again: what was forgotten ends at the last that was.
    app.advance(10 * 60);
    let other = signer.assertion(&app, &client.id, &json!({ "jti": "another" }));
    assert_eq!(send(&other).await, 400);
    assert_eq!(send(&other).await, 401);
}

#[tokio::test]
async fn a_consent_page_decides_once_however_the_clock_leaps() {
    let app = start().await;
    let client = app.client().await;
    client.sign_in("bob").await; // a client that is used is not cleaned up
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());

    app.advance(2 * DAY);
    sweep(&app).await;
    app.advance(-2 * DAY);

    client.decide(&form, "approve").await.assert_page(403);
}

#[tokio::test]
async fn a_sign_out_at_the_provider_counts_once_however_the_clock_leaps() {
    let app = start().await;
    app.tokens_of("bob").await;
    let issued = app.idp.issued();
    let id_token = issued.iter().rfind(|token| token.matches('.').count() == 2).unwrap();
    let claims = json!({
        "iss": app.idp.issuer(), "aud": "portcullis", "jti": "once",
        "iat": app.now().unix(), "exp": app.now().unix() + 120,
        "sub": jwt_part(id_token, 1)["sub"],
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
    let send = async || {
        let form = [("logout_token", token.as_str())];
        app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await
    };
    send().await.assert_status(200);

    app.advance(2 * DAY);
    sweep(&app).await;
    app.advance(1 - 2 * DAY);

    let (client, tokens) = app.tokens_of("bob").await;
    send().await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn no_access_token_outlives_its_end_in_memory_or_comes_back() {
    let app = start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let status = async || client.rpc(&tokens.access_token, "tools/list", json!({})).await.status;
    assert_eq!(status().await, 200); // remembered as verified

    app.advance(HOUR);
    assert_eq!(status().await, 401);
    app.advance(-2 * HOUR);
    assert_eq!(status().await, 401, "it is of the future");
    app.advance(-DAY);
    assert_eq!(status().await, 401);

    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn a_clock_that_goes_back_puts_off_no_re_check() {
    let app = start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.disable("bob");

    app.advance(-DAY);

    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_clock_that_goes_back_keeps_no_provider_shut_out_and_no_lease_for_ever() {
    let app = start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(16 * 60);
    app.idp.misbehave(|how| how.token_answer = Some((500, "down".to_owned())));
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert!(app.metrics().await["portcullis_upstream_paused"] > 0.5);
    app.idp.misbehave(|how| how.token_answer = None);
    let taken = app.now().unix() + 15;
    app.database.execute(&format!("UPDATE upstream_sessions SET lease_until = {taken}")).await;

    app.advance(-DAY);

    assert!(app.metrics().await["portcullis_upstream_paused"] < 0.5);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    let confirmed = app.metrics().await["portcullis_rechecks_total{outcome=\"confirmed\"}"];
    assert!(confirmed > 0.5, "{confirmed}");
}

#[tokio::test]
async fn a_leap_ahead_deletes_nothing_that_lives() {
    let app = start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let waiting = app.client_named("Somebody else").await;

    app.advance(HOUR);
    sweep(&app).await;
    app.advance(-HOUR);

    client.refresh(&tokens.refresh_token).await.assert_status(200);
    waiting.sign_in("alice").await;
}

#[tokio::test]
async fn keys_sign_and_verify_through_every_leap_of_a_rotation() {
    let app = start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    alice.press("/keys", "action", "rotate").await.assert_leads_to(&alice.at("/keys"));
    let (client, mut tokens) = app.tokens_of("bob").await;
    for leap in [HOUR, -HOUR, -DAY, DAY, 2 * HOUR, -HOUR] {
        app.advance(leap);

        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

        client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
        let keys = app.http.get(&app.at("/.well-known/jwks.json")).await.json();
        let published = keys["keys"].as_array().unwrap().len();
        assert!((1..=2).contains(&published), "{published} keys after a leap of {leap}");
    }
}

#[tokio::test]
async fn ad_01_a_clock_that_goes_back_lengthens_no_administrators_session() {
    let app = start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    alice.get("/").await.assert_page(200);

    app.advance(-HOUR);

    alice.get("/").await.assert_page(401);
    let path = with_query("/client", &[("id", &client.id)]);
    alice.get(&path).await.assert_page(401);
}

/// Replicas whose clocks are not quite equal, played by one whose clock is moved.
#[tokio::test]
async fn what_a_replica_ahead_by_less_than_a_minute_made_is_good_everywhere() {
    let app = start().await;
    let client = app.client().await;
    for (behind, good) in [(59, true), (61, false)] {
        let (tokens, rotated) = (client.sign_in("bob").await, client.sign_in("bob").await);
        let successor = Tokens::of(&client.refresh(&rotated.refresh_token).await);
        let code = client.code("bob").await;

        app.advance(-behind);

        let called = client.rpc(&tokens.access_token, "tools/list", json!({})).await;
        assert_eq!(called.status == 200, good, "an access token");
        let again = client.refresh(&rotated.refresh_token).await;
        assert_eq!(again.status == 200, good, "the grace of a refresh");
        if good {
            assert_eq!(Tokens::of(&again).refresh_token, successor.refresh_token);
        }
        assert_eq!(client.redeem(&code).await.status == 200, good, "a code");
        app.advance(behind);
    }
}
