//! `private_key_jwt`: clients that prove themselves with a signature. RFC 7523, RFC 10070,
//! threat JW-06, requirements PKJ-04 to PKJ-10.

use futures_util::future::join_all;
use portcullis::storage::Retention;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::publisher::{Page, Publisher};
use crate::harness::signer::{ASSERTION_TYPE, Signer};
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

const ID: &str = "https://client.example/oauth/client.json";
const KEYS: &str = "https://keys.example/jwks?of=client";

/// A client that registered its key itself.
async fn registered(app: &TestApp, signer: &Signer) -> McpClient {
    let metadata = json!({
        "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "private_key_jwt", "jwks": signer.jwks(),
    });
    McpClient::register_as(app, metadata).await
}

/// A client that registered the address of its keys, which are published.
async fn with_published_keys(signer: &Signer) -> (TestApp, Publisher, McpClient) {
    let publisher = Publisher::start(&["client.example", "keys.example"]).await;
    publisher.publish(KEYS, &signer.jwks());
    let app = TestApp::with(publisher.setup("")).await;
    let metadata = json!({
        "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": KEYS,
    });
    let client = McpClient::register_as(&app, metadata).await;
    (app, publisher, client)
}

const REFRESH: [(&str, &str); 2] = [("grant_type", "refresh_token"), ("refresh_token", "rt_x")];

/// Authenticated, and told that the refresh token is unknown: what an accepted assertion looks like.
async fn assert_accepted(signer: &Signer, app: &TestApp, client: &McpClient) {
    signer.token(app, client, &REFRESH).await.assert_error(400, "invalid_grant");
}

async fn assert_refused(signer: &Signer, app: &TestApp, client: &McpClient) {
    signer.token(app, client, &REFRESH).await.assert_error(401, "invalid_client");
}

async fn send(client: &McpClient, assertion: &str) -> u16 {
    let mut form = REFRESH.to_vec();
    form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)]);
    client.token(&form).await.status.as_u16()
}

#[tokio::test]
async fn pkj_10_a_signature_proves_a_client_wherever_it_has_to_prove_itself() {
    let app = TestApp::start().await;
    let signer = Signer::new("one");
    let client = registered(&app, &signer).await;
    assert_eq!(client.secret, None);

    let code = client.code("bob").await;
    let tokens = Tokens::of(&signer.redeem(&app, &client, &code).await);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh_token)];
    let next = Tokens::of(&signer.token(&app, &client, &refresh).await);
    let revoke = async |proof: &[(&str, &str)]| {
        let mut form = vec![("token", next.refresh_token.as_str())];
        form.extend(proof);
        app.http.post_form(&app.at("/revoke"), &form, &[]).await
    };
    revoke(&[("client_id", &client.id)]).await.assert_error(401, "invalid_client");
    client.call_tool(&next.access_token, "get-todos", json!({})).await.assert_status(200);
    // Without client_id: the assertion names the client (RFC 7521 §4.2).
    let assertion = signer.assertion(&app, &client.id, &json!({}));
    let proof =
        [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())];
    revoke(&proof).await.assert_status(200);
    client.call_tool(&next.access_token, "get-todos", json!({})).await.assert_status(401);
}

#[tokio::test]
async fn pkj_09_nothing_but_a_signature_of_its_own_key_for_us_will_do() {
    let app = TestApp::start().await;
    let signer = Signer::new("one");
    let client = registered(&app, &signer).await;
    assert_accepted(&signer, &app, &client).await;

    assert_refused(&Signer::new("one"), &app, &client).await;
    for change in [
        json!({ "aud": app.at("/token") }),
        json!({ "aud": format!("{}/", app.url) }),
        json!({ "aud": [app.url, "https://evil.example"] }),
        json!({ "aud": "https://evil.example" }),
        json!({ "exp": app.now().unix() - 31 }),
        json!({ "exp": app.now().unix() + 24 * 3600 }),
        json!({ "nbf": app.now().unix() + 60 }),
        json!({ "jti": null }),
        json!({ "iss": "client_x" }),
        json!({ "sub": "client_x" }),
    ] {
        let assertion = signer.assertion(&app, &client.id, &change);
        assert_eq!(send(&client, &assertion).await, 401, "{change}");
    }
    // Once the signature has verified the client reads what is wrong, and before it nothing.
    for (change, told) in [
        (json!({ "aud": app.at("/token") }), "aud must be our issuer"),
        (json!({ "exp": app.now().unix() - 31 }), "exp is out of bounds"),
        (json!({ "exp": app.now().unix() + 24 * 3600 }), "exp is out of bounds"),
        (json!({ "nbf": app.now().unix() + 60 }), "nbf is out of bounds"),
        (json!({ "iat": app.now().unix() - 2 * 3600 }), "iat is out of bounds"),
    ] {
        let assertion = signer.assertion(&app, &client.id, &change);
        let mut form = REFRESH.to_vec();
        form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)]);
        let answer = client.token(&form).await;
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(description.starts_with(told), "{change}: {description}");
        let forged = Signer::new("one").assertion(&app, &client.id, &change);
        form.pop();
        form.push(("client_assertion", &forged));
        let answer = client.token(&form).await;
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(description.starts_with("the client is unknown or"), "{change}: {description}");
    }
    // Authlib writes an hour, and lets nobody choose.
    let hour = json!({ "exp": app.now().unix() + 3600 });
    assert_eq!(send(&client, &signer.assertion(&app, &client.id, &hour)).await, 400);
    let good = signer.assertion(&app, &client.id, &json!({}));
    let both = |more: &[(&'static str, &'static str)]| {
        let mut form = REFRESH.to_vec();
        form.extend(more);
        form
    };
    for form in [
        both(&[]),
        both(&[("client_secret", "x")]),
        both(&[("client_assertion", "x.y.z"), ("client_assertion_type", ASSERTION_TYPE)]),
    ] {
        client.token(&form).await.assert_error(401, "invalid_client");
    }
    let mut untyped = REFRESH.to_vec();
    untyped.push(("client_assertion", &good));
    client.token(&untyped).await.assert_error(401, "invalid_client");
    untyped.push((
        "client_assertion_type",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
    ));
    client.token(&untyped).await.assert_error(401, "invalid_client");
    let mut two_ways = REFRESH.to_vec();
    two_ways.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &good)]);
    let mut with_secret = two_ways.clone();
    with_secret.push(("client_secret", "x"));
    client.token(&with_secret).await.assert_error(400, "invalid_request");
    let basic = [("authorization", "Basic eDp5")];
    let url = app.at("/token");
    app.http.post_form(&url, &two_ways, &basic).await.assert_error(400, "invalid_request");

    // Another client's assertion, or one presented as another's; and a client without keys.
    let other = registered(&app, &Signer::new("two")).await;
    assert_ne!(other.id, client.id);
    assert_eq!(send(&other, &good).await, 401);
    let public = app.client().await;
    let of_public = signer.assertion(&app, &public.id, &json!({}));
    assert_eq!(send(&public, &of_public).await, 401);
    // None of that used the good one up.
    assert_eq!(send(&client, &good).await, 400);
    assert_eq!(send(&client, &good).await, 401);
}

#[tokio::test]
async fn jw_06_of_a_hundred_uses_of_one_assertion_one_counts_and_a_restart_forgets_none() {
    for _ in rounds() {
        let mut app = TestApp::start().await;
        let signer = Signer::new("one");
        let client = registered(&app, &signer).await;
        let assertion = signer.assertion(&app, &client.id, &json!({ "jti": "only-once" }));

        let answers = join_all((0..100).map(|_| send(&client, &assertion))).await;

        assert_eq!(answers.iter().filter(|status| **status == 400).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 401).count(), 99);
        app.restart().await;
        assert_eq!(send(&client, &assertion).await, 401);
        // A second assertion with the same jti is the same to us; another client's is not.
        let same = signer.assertion(
            &app,
            &client.id,
            &json!({ "jti": "only-once", "exp": app.now().unix() + 90 }),
        );
        assert_eq!(send(&client, &same).await, 401);
        let other_signer = Signer::new("two");
        let other = registered(&app, &other_signer).await;
        let theirs = other_signer.assertion(&app, &other.id, &json!({ "jti": "only-once" }));
        assert_eq!(send(&other, &theirs).await, 400);
    }
}

/// What was used after the backup was made is not in it.
#[tokio::test]
async fn st_04_an_assertion_of_before_a_restore_counts_as_used_after_it() {
    let mut app = TestApp::start().await;
    let signer = Signer::new("one");
    let client = registered(&app, &signer).await;
    let now = app.now().unix();
    let mut used = Vec::new();
    for change in [
        json!({}),
        json!({ "exp": now + 60 * 60 }),
        json!({ "iat": null }),
        json!({ "iat": null, "exp": now + 60 * 60 }),
        json!({ "iat": now + 20 }), // its clock is ahead of ours
    ] {
        let assertion = signer.assertion(&app, &client.id, &change);
        assert_eq!(send(&client, &assertion).await, 400, "{change}: it proves the client");
        used.push((change, assertion));
    }
    app.stop().await;
    app.database.execute("DELETE FROM replay_guard").await;
    let mark = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0')";
    app.database.execute(mark).await;

    app.restart().await;

    for (change, assertion) in &used {
        assert_eq!(send(&client, assertion).await, 401, "{change}");
    }
    // Nobody has to wait: what is made later proves as ever.
    app.advance(31);
    let later = signer.assertion(&app, &client.id, &json!({}));
    assert_eq!(send(&client, &later).await, 400);
    assert_eq!(send(&client, &later).await, 401);
}

/// The same of a consent page that was decided after the backup was made.
#[tokio::test]
async fn st_04_a_consent_page_of_before_a_restore_cannot_be_decided_after_it() {
    let mut app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "deny").await.assert_status(303);
    app.stop().await;
    app.database.execute("DELETE FROM consents").await;
    let mark = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0')";
    app.database.execute(mark).await;
    app.advance(1);

    app.restart().await;

    client.decide(&form, "approve").await.assert_page(403);
    app.advance(1);
    client.sign_in("bob").await;
}

#[tokio::test]
async fn pkj_04_the_token_endpoint_as_audience_is_admitted_by_name_only() {
    let app =
        TestApp::with(Setup::toml("[client_assertions]\naccept_token_endpoint_audience = true"))
            .await;
    let signer = Signer::new("one");
    let client = registered(&app, &signer).await;
    for (audience, status) in [
        (app.url.clone(), 400),
        (app.at("/token"), 400),
        (format!("{}/", app.url), 400),
        (app.at("/token/"), 401),
        (app.at("//token"), 401),
        (app.at("/revoke"), 401),
    ] {
        let assertion = signer.assertion(&app, &client.id, &json!({ "aud": audience }));
        assert_eq!(send(&client, &assertion).await, status, "{audience}");
    }
}

#[tokio::test]
async fn pkj_07_published_keys_are_fetched_once_and_again_for_a_new_key_at_most_once_a_minute() {
    let signer = Signer::new("one");
    let (app, publisher, client) = with_published_keys(&signer).await;
    assert_eq!(publisher.requests_to(KEYS), 0, "nothing is fetched at registration");
    for _ in 0..3 {
        assert_accepted(&signer, &app, &client).await;
    }
    assert_eq!(publisher.requests_to(KEYS), 1);

    // An unknown key id makes us look again, once a minute.
    let next = Signer::new("two");
    for _ in 0..5 {
        assert_refused(&next, &app, &client).await;
    }
    assert_eq!(publisher.requests_to(KEYS), 1, "they were fetched less than a minute ago");
    app.advance(61);
    for _ in 0..5 {
        assert_refused(&next, &app, &client).await;
    }
    assert_eq!(publisher.requests_to(KEYS), 2);
    publisher.publish(KEYS, &next.jwks());
    app.advance(61);
    assert_accepted(&next, &app, &client).await;
    assert_refused(&signer, &app, &client).await;
    assert_eq!(publisher.requests_to(KEYS), 3);
}

#[tokio::test]
async fn pkj_07_an_outage_of_the_keys_refuses_nobody_for_good() {
    let signer = Signer::new("one");
    let (app, publisher, client) = with_published_keys(&signer).await;
    assert_accepted(&signer, &app, &client).await;
    publisher.answer(KEYS, Page::status(500));
    app.advance(30 * 60);
    assert_accepted(&signer, &app, &client).await; // the last keys, not older than an hour
    app.advance(31 * 60);
    signer.token(&app, &client, &REFRESH).await.assert_error(503, "temporarily_unavailable");
    publisher.publish(KEYS, &signer.jwks());
    app.advance(5 * 60);
    assert_accepted(&signer, &app, &client).await;

    // Taken back, and a private key among them: no.
    let mut private = signer.jwks();
    private["keys"][0]["d"] = json!("AA");
    for page in [Page::status(404), Page::json(&private), Page::json(&json!([]))] {
        publisher.answer(KEYS, page);
        app.advance(15 * 60);
        assert_refused(&signer, &app, &client).await;
    }
}

fn published(change: &Value) -> Value {
    let mut document = json!({
        "client_id": ID, "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "private_key_jwt",
    });
    for (name, value) in change.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

#[tokio::test]
async fn cimd_10_a_published_client_with_keys_signs_and_being_named_is_not_enough() {
    let signer = Signer::new("one");
    for keys in [json!({ "jwks": signer.jwks() }), json!({ "jwks_uri": KEYS })] {
        let publisher = Publisher::start(&["client.example", "keys.example"]).await;
        publisher.publish(ID, &published(&keys));
        publisher.publish(KEYS, &signer.jwks());
        let app = TestApp::with(publisher.setup("")).await;
        let client = McpClient::known_as(&app, ID, REDIRECT_URI);
        let code = client.code("bob").await;
        client.redeem(&code).await.assert_error(401, "invalid_client");
        let tokens = Tokens::of(&signer.redeem(&app, &client, &code).await);
        client.refresh(&tokens.refresh_token).await.assert_error(401, "invalid_client");
        let refresh = [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh_token)];
        signer.token(&app, &client, &refresh).await.assert_status(200);
    }
}

#[tokio::test]
async fn cimd_10_the_keys_of_a_document_that_was_not_seen_for_a_day_prove_nothing_for_now() {
    let signer = Signer::new("one");
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(ID, &published(&json!({ "jwks": signer.jwks() })));
    let app = TestApp::with(publisher.setup("")).await;
    let client = McpClient::known_as(&app, ID, REDIRECT_URI);
    let code = client.code("bob").await;
    signer.redeem(&app, &client, &code).await.assert_status(200);
    publisher.answer(ID, Page::status(503));
    app.advance(23 * 60 * 60);
    assert_accepted(&signer, &app, &client).await;
    app.advance(60 * 60);
    signer.token(&app, &client, &REFRESH).await.assert_error(503, "temporarily_unavailable");
    // A key that was taken out of the document is out as soon as we can see it.
    publisher.publish(ID, &published(&json!({ "jwks": Signer::new("two").jwks() })));
    app.advance(10 * 60);
    assert_refused(&signer, &app, &client).await;
}

#[tokio::test]
async fn ci_01_keys_are_fetched_from_public_addresses_alone() {
    let app = TestApp::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for uri in [
        format!("https://127.0.0.1:{port}/jwks"),
        format!("https://localhost:{port}/jwks"),
        format!("http://127.0.0.1:{port}/jwks"),
        "https://169.254.169.254/jwks".to_owned(),
        "https://user@keys.example/jwks".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let metadata = json!({
            "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": uri,
        });
        let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        answer.assert_error(400, "invalid_client_metadata");
    }
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
}

#[tokio::test]
async fn used_assertions_are_forgotten_soon_after_they_have_expired_and_still_refused() {
    let app = TestApp::start().await;
    let signer = Signer::new("one");
    let client = registered(&app, &signer).await;
    let assertion = signer.assertion(&app, &client.id, &json!({}));
    assert_eq!(send(&client, &assertion).await, 400);
    let day = std::time::Duration::from_hours(24);
    let keep = Retention {
        unused_client: day,
        idle_client: day,
        audit: day,
        refused_person: day,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    for (wait, rows, status) in [(90, 1, 401), (300, 1, 401), (1, 0, 401)] {
        app.advance(wait);
        app.storage().sweep(app.now(), keep).await.unwrap();
        assert_eq!(app.database.number("SELECT COUNT(*) FROM replay_guard").await, rows);
        assert_eq!(send(&client, &assertion).await, status);
    }
}
