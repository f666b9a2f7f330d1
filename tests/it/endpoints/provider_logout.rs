//! The identity provider speaks first: back-channel logout, global token revocation.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use portcullis::app::App;
use portcullis::clock::Clock;
use portcullis::storage::session_id;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The session id at the provider of whoever signed in last.
fn latest_sid(app: &TestApp) -> String {
    let issued = app.idp.issued();
    let id_token = issued.iter().rfind(|token| token.matches('.').count() == 2).unwrap();
    let claims = jwt_part(id_token, 1);
    claims["sid"].as_str().unwrap().to_owned()
}

fn logout_claims(app: &TestApp, jti: &str) -> Value {
    json!({
        "iss": app.idp.issuer(), "aud": "portcullis", "jti": jti,
        "iat": app.now().unix(), "exp": app.now().unix() + 120, "events": { EVENT: {} },
    })
}

async fn send(app: &TestApp, claims: &Value, alg: Option<&str>) -> Answer {
    let token = app.idp.sign("logout+jwt", claims, alg).unwrap();
    let form = [("logout_token", token.as_str())];
    app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await
}

async fn works(client: &McpClient, tokens: &Tokens) -> bool {
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.status == 200
}

#[tokio::test]
async fn a_sign_out_there_ends_that_session_here_at_once() {
    let app = TestApp::start().await;
    let (bob, one) = app.tokens_of("bob").await;
    let (elsewhere, two) = app.tokens_of("bob").await; // another browser, another session
    let mut claims = logout_claims(&app, "1");
    claims["sid"] = latest_sid(&app).into();
    send(&app, &claims, None).await.assert_status(200);
    assert!(works(&bob, &one).await);
    assert!(!works(&elsewhere, &two).await);
    elsewhere.refresh(&two.refresh_token).await.assert_error(400, "invalid_grant");
    bob.refresh(&one.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn without_a_session_id_everything_of_the_person_ends() {
    let app = TestApp::start().await;
    let (bob, one) = app.tokens_of("bob").await;
    let (_, two) = app.tokens_of("bob").await;
    let (alice, others) = app.tokens_of("alice").await;
    let code = bob.code("bob").await;
    let mut claims = logout_claims(&app, "1");
    claims["sub"] = "demo-bob".into();
    let answer = send(&app, &claims, None).await;
    answer.assert_status(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!works(&bob, &one).await && !works(&bob, &two).await);
    assert!(works(&alice, &others).await);
    // A code that was on its way is worth nothing either.
    bob.redeem(&code).await.assert_error(400, "invalid_grant");
    // Signing in again starts anew.
    let again = bob.sign_in("bob").await;
    assert!(works(&bob, &again).await);
}

#[tokio::test]
async fn a_message_counts_once() {
    let app = TestApp::start().await;
    let (bob, _) = app.tokens_of("bob").await;
    let mut claims = logout_claims(&app, "once");
    claims["sub"] = "demo-bob".into();
    send(&app, &claims, None).await.assert_status(200);
    let again = bob.sign_in("bob").await;
    let answers = futures_util::future::join_all((0..100).map(|_| send(&app, &claims, None))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(works(&bob, &again).await, "the old message ends no new session");
}

#[tokio::test]
async fn a_logout_token_counts_once_of_a_hundred() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let (bob, tokens) = app.tokens_of("bob").await;
        let mut claims = logout_claims(&app, "once");
        claims["sub"] = "demo-bob".into();

        let answers =
            futures_util::future::join_all((0..100).map(|_| send(&app, &claims, None))).await;

        assert!(answers.iter().all(|answer| answer.status == 200));
        assert!(!works(&bob, &tokens).await);
        let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'upstream_logout'";
        assert_eq!(app.database.number(told).await, 1);
    }
}

#[tokio::test]
async fn what_is_not_exactly_a_logout_token_of_our_provider_is_refused() {
    let app = TestApp::start().await;
    let (bob, tokens) = app.tokens_of("bob").await;
    let now = app.now().unix();
    let good = || {
        let mut claims = logout_claims(&app, "x");
        claims["sub"] = "demo-bob".into();
        claims
    };
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    for claims in [
        with("nonce", "n".into()),
        with("iss", "https://other.example".into()),
        with("aud", "another-client".into()),
        with("iat", (now - 3600).into()),
        with("iat", (now + 3600).into()),
        with("exp", (now - 3600).into()),
        with("sub", "".into()),
        with("sid", "".into()),
        with("events", json!({})),
        with("events", json!({ EVENT: "x" })),
        without("events"),
        without("sub"),
        without("iat"),
        without("jti"),
        without("iss"),
        without("aud"),
    ] {
        send(&app, &claims, None).await.assert_error(400, "invalid_request");
    }
    send(&app, &good(), Some("none")).await.assert_status(400);
    send(&app, &good(), Some("HS256")).await.assert_status(400);
    let url = app.at("/backchannel-logout");
    app.http.post_form(&url, &[("logout_token", "x.y.z")], &[]).await.assert_status(400);
    app.http.post_form(&url, &[], &[]).await.assert_status(400);
    app.http.get(&url).await.assert_status(405);
    assert!(works(&bob, &tokens).await);

    // Somebody we do not know is no error.
    send(&app, &with("sub", "nobody".into()), None).await.assert_status(200);
}

/// As for ID tokens: what nobody reads may be anything, and what is refused is named.
#[tokio::test]
async fn details_of_a_logout_token_are_tolerated_or_the_claim_is_named() {
    let app = TestApp::start().await;
    for (n, (odd, refused)) in [
        (json!({ "aud": ["portcullis", "project-id"] }), None),
        (json!({ "aud": ["portcullis", "project-id"], "azp": "portcullis" }), None),
        (json!({ "iat": 1_795_219_200.5 }), None),
        (json!({ "exp": null }), None),
        (json!({ "auth_time": "today", "acr": 7, "amr": "otp" }), None),
        (json!({ "nonce": null }), None),
        (json!({ "iat": "now" }), Some("iat is not a time")),
        (json!({ "exp": {} }), Some("exp is not a time")),
        (json!({ "sub": 7 }), Some("sub is not a text")),
        (json!({ "sid": [] }), Some("sid is not a text")),
        (json!({ "jti": 7 }), Some("jti is not a text")),
        (json!({ "jti": null }), Some("jti is missing")),
        (json!({ "iss": "https://other.example" }), Some("iss is another issuer")),
        (json!({ "aud": "project-id" }), Some("aud does not name us")),
        (json!({ "aud": 7 }), Some("aud is neither a text nor a list of texts")),
        (json!({ "events": "logout" }), Some("it is not a logout token")),
    ]
    .into_iter()
    .enumerate()
    {
        let (bob, tokens) = app.tokens_of("bob").await;
        let mut claims = logout_claims(&app, &n.to_string());
        claims["sub"] = "demo-bob".into();
        claims.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
        let answer = send(&app, &claims, None).await;
        assert_eq!(answer.status == 200, refused.is_none(), "{odd}: {}", answer.text());
        assert_eq!(works(&bob, &tokens).await, refused.is_some(), "{odd}");
        let said = refused.unwrap_or_default();
        assert!(answer.text().contains(said), "{odd}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_administrator_may_choose_that_agents_go_on() {
    let setup = Setup::toml("[upstream]\non_upstream_logout = \"ignore\"");
    let app = TestApp::with(setup).await;
    let (bob, tokens) = app.tokens_of("bob").await;
    let mut claims = logout_claims(&app, "1");
    claims["sub"] = "demo-bob".into();
    send(&app, &claims, None).await.assert_status(200);
    assert!(works(&bob, &tokens).await);
}

#[tokio::test]
async fn a_global_revocation_cuts_a_person_off_by_subject_or_address() {
    let app = TestApp::start().await;
    let endpoint = app.at("/global-token-revocation");
    let claims = |jti: &str| {
        json!({
            "iss": app.idp.issuer(), "aud": endpoint, "sub": "portcullis", "jti": jti,
            "iat": app.now().unix(), "exp": app.now().unix() + 300,
        })
    };
    let send = |typ: &'static str, claims: Value, body: Value| {
        let token = app.idp.sign(typ, &claims, None).unwrap();
        let (http, endpoint) = (app.http.clone(), endpoint.clone());
        async move {
            let authorization = format!("Bearer {token}");
            http.post_json(&endpoint, &body, &[("authorization", &authorization)]).await
        }
    };
    let typ = "global-token-revocation+jwt";
    let by_subject =
        json!({ "sub_id": { "format": "iss_sub", "iss": app.idp.issuer(), "sub": "demo-bob" } });
    let by_email = json!({ "sub_id": { "format": "email", "email": "Bob@example.com" } });
    for (n, body) in [by_subject.clone(), by_email].into_iter().enumerate() {
        let (bob, tokens) = app.tokens_of("bob").await;
        let (alice, others) = app.tokens_of("alice").await;
        send(typ, claims(&n.to_string()), body).await.assert_status(204);
        assert!(!works(&bob, &tokens).await);
        assert!(works(&alice, &others).await);
    }
    let (bob, tokens) = app.tokens_of("bob").await;
    let mut wrong = claims("w");
    wrong["sub"] = "another-client".into();
    send(typ, wrong, by_subject.clone()).await.assert_status(400);
    let mut wrong = claims("w");
    wrong["aud"] = "https://other.example/".into();
    send(typ, wrong, by_subject.clone()).await.assert_status(400);
    send("logout+jwt", claims("w"), by_subject.clone()).await.assert_status(400);
    send(typ, claims("w"), json!({ "sub_id": { "format": "opaque", "id": "1" } }))
        .await
        .assert_status(400);
    app.http.post_json(&endpoint, &by_subject, &[]).await.assert_status(400);
    assert!(works(&bob, &tokens).await);
}

#[tokio::test]
async fn a_browser_can_be_signed_out_at_the_provider_too() {
    let app = TestApp::start().await;
    let (bob, tokens) = app.tokens_of("bob").await;
    let session = session_id(app.idp.issuer(), "demo-bob", Some(&latest_sid(&app)));
    let clock = Clock::Manual(app.clock.clone());
    let inside = App::new(app.config(), clock, app.storage()).await.unwrap();

    let url = inside.upstream().end_session_url(&session, &app.at("/account")).await.unwrap();
    let url = url.unwrap();
    assert!(url.as_str().starts_with(&format!("{}/end_session?", app.idp.issuer())), "{url}");
    bob.browser.get(url.as_str()).await.assert_leads_to(&app.at("/account"));

    // Whoever connects next from this browser types a password again.
    let page = bob.browser.get(&bob.approve(&[]).await).await;
    page.assert_status(200);
    // Here nothing has ended: that is a decision of its own.
    assert!(works(&bob, &tokens).await);
    let unknown = inside.upstream().end_session_url("nobody", &app.at("/account")).await.unwrap();
    assert_eq!(unknown, None);
}

#[tokio::test]
async fn made_up_messages_do_not_make_us_ask_a_provider_in_trouble_again_and_again() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await; // its keys are known
    app.advance(2 * 60);
    app.idp.misbehave(|how| how.jwks_down = true);
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(&json!({ "alg": "RS256", "kid": "made-up" }));
    let token = format!("{header}.{}.{}", part(&logout_claims(&app, "1")), "A".repeat(342));
    let flood = async || {
        let form = [("logout_token", token.as_str())];
        let url = app.at("/backchannel-logout");
        let all = join_all((0..20).map(|_| app.http.post_form(&url, &form, &[]))).await;
        assert!(all.iter().all(|answer| answer.status == 503));
    };
    let asked = app.idp.requests_to("/jwks");
    flood().await;
    flood().await;
    assert_eq!(app.idp.requests_to("/jwks"), asked + 1);
    app.advance(5);
    flood().await;
    assert_eq!(app.idp.requests_to("/jwks"), asked + 2);
}

#[tokio::test]
async fn a_key_for_encryption_signs_no_message() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.change_keys = Some(|keys| keys["keys"][0]["use"] = "enc".into()));
    let mut claims = logout_claims(&app, "1");
    claims["sub"] = "demo-bob".into();
    send(&app, &claims, None).await.assert_error(400, "invalid_request");
    app.idp.misbehave(|how| how.change_keys = None);
    app.advance(61);
    claims["iat"] = app.now().unix().into();
    send(&app, &claims, None).await.assert_status(200);
}

/// A login that is on its way back from the provider: the browser, and where it goes next.
async fn nearly_back(app: &TestApp) -> (McpClient, String) {
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    (client, callback)
}

/// By session id, by subject, and by both; where the session is that of a client, of somebody who has to
/// wait for an administrator, or of `/account`.
#[tokio::test]
async fn a_sign_out_that_overtakes_the_callback_ends_the_login() {
    for named in [&["sid"][..], &["sub"], &["sid", "sub"]] {
        for waits in [false, true] {
            let top = if waits { "client_approval = \"first_use\"" } else { "" };
            let app = TestApp::with(Setup::toml(top)).await;
            app.idp.misbehave(|how| {
                how.extra_claims.insert("sid".to_owned(), "the-session".into());
            });
            let (client, callback) = nearly_back(&app).await;
            let console = Console::account(&app);
            let passed_on = console.nearly_signed_in(&app, "bob").await;
            let mut claims = logout_claims(&app, "overtakes");
            for name in named {
                claims[*name] = json!(if *name == "sid" { "the-session" } else { "demo-bob" });
            }

            send(&app, &claims, None).await.assert_status(200);

            let page = client.browser.get(&callback).await;
            page.assert_page(403);
            assert!(page.text().contains("signed out"), "{named:?}: {}", page.text());
            console.browser.get(&passed_on).await.assert_page(403);
            // The provider repeats what it has no answer to: that changes nothing.
            send(&app, &claims, None).await.assert_status(200);
            for table in [
                "SELECT COUNT(*) FROM authorization_codes",
                "SELECT COUNT(*) FROM logins_awaiting_approval",
                "SELECT COUNT(*) FROM web_sessions",
                "SELECT COUNT(*) FROM upstream_sessions WHERE state = 'active'",
            ] {
                assert_eq!(app.database.number(table).await, 0, "{named:?}: {table}");
            }
            // Who begins after the sign-out is in, in the same second.
            let answer = client.authorize("bob", &[]).await;
            answer.assert_leads_to(if waits { &app.url } else { &client.redirect_uri });
            console.signed_in(&app, "bob").await;
        }
    }
}

#[tokio::test]
async fn a_sign_out_that_overtakes_a_callback_ends_nobody_elses_login() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "alice").await;
    for (n, (name, value)) in [
        ("sub", "demo-bob"),
        ("sub", "-"),
        ("sid", "another"),
        ("sid", "-"),
        ("sub", "demo-alice "),
        ("sid", "demo-alice"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut claims = logout_claims(&app, &n.to_string());
        claims[name] = value.into();
        send(&app, &claims, None).await.assert_status(200);
    }
    client.browser.get(&callback).await.assert_leads_to(&client.redirect_uri);
}

/// A request for global revocation by address or subject is remembered in the same way.
#[tokio::test]
async fn a_global_revocation_that_overtakes_the_callback_ends_the_login() {
    let app = TestApp::start().await;
    let endpoint = app.at("/global-token-revocation");
    let bodies = [
        json!({ "sub_id": { "format": "iss_sub", "iss": app.idp.issuer(), "sub": "demo-bob" } }),
        json!({ "sub_id": { "format": "email", "email": "Bob@Example.com" } }),
    ];
    for (n, body) in bodies.iter().enumerate() {
        let (client, callback) = nearly_back(&app).await;
        let claims = json!({
            "iss": app.idp.issuer(), "aud": endpoint, "sub": "portcullis", "jti": n.to_string(),
            "iat": app.now().unix(), "exp": app.now().unix() + 300,
        });
        let token = app.idp.sign("global-token-revocation+jwt", &claims, None).unwrap();
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        app.http.post_json(&endpoint, body, &headers).await.assert_status(204);
        client.browser.get(&callback).await.assert_page(403);
        client.sign_in("bob").await;
    }
}

/// Whichever comes first: nothing is alive when both have been answered.
#[tokio::test]
async fn a_sign_out_and_a_callback_at_once_leave_nothing_alive() {
    for round in rounds() {
        for n in 0..20 {
            let app = TestApp::start().await;
            let (client, callback) = nearly_back(&app).await;
            let mut claims = logout_claims(&app, &format!("{round}-{n}"));
            claims["sub"] = "demo-bob".into();

            let (answer, told) =
                tokio::join!(client.browser.get(&callback), send(&app, &claims, None));

            told.assert_status(200);
            if answer.status == 303 {
                let code = answer.location_param("code").unwrap();
                client.redeem(&code).await.assert_error(400, "invalid_grant");
            }
            let alive = "SELECT COUNT(*) FROM upstream_sessions WHERE state = 'active'";
            assert_eq!(app.database.number(alive).await, 0);
        }
    }
}

/// What is remembered of sign-outs goes when no login of before can come back any more.
#[tokio::test]
async fn what_is_remembered_of_sign_outs_is_forgotten_in_time() {
    let app = TestApp::start().await;
    let mut claims = logout_claims(&app, "1");
    claims["sub"] = "demo-bob".into();
    send(&app, &claims, None).await.assert_status(200);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM upstream_sign_outs").await, 1);
    app.advance(2 * 24 * 60 * 60);
    let day = std::time::Duration::from_hours(24);
    let keep = portcullis::storage::Retention {
        unused_client: day,
        idle_client: 90 * day,
        audit: 400 * day,
        refused_person: 400 * day,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(app.database.number("SELECT COUNT(*) FROM upstream_sign_outs").await, 0);
}
