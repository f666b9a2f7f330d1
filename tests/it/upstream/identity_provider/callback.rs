//! A7: every way to come back.

use crate::harness::TestApp;
use crate::harness::client::REDIRECT_URI;

#[tokio::test]
async fn every_error_of_the_callback_has_its_answer() {
    let app = TestApp::start().await;
    let client = app.client().await;
    // What the person sees, and what the client learns.
    for (error, page, told) in [
        ("access_denied", None, "access_denied"),
        ("unauthorized", None, "access_denied"),
        ("login_required", None, "access_denied"),
        ("interaction_required", None, "access_denied"),
        ("consent_required", None, "access_denied"),
        ("account_selection_required", None, "access_denied"),
        ("temporarily_unavailable", Some(503), "temporarily_unavailable"),
        ("server_error", Some(503), "temporarily_unavailable"),
        ("invalid_scope", Some(502), "server_error"),
        ("unauthorized_client", Some(502), "server_error"),
        ("invalid_request", Some(502), "server_error"),
        ("unsupported_response_type", Some(502), "server_error"),
        ("redirect_uri_mismatch", Some(502), "server_error"),
        ("application_suspended", Some(502), "server_error"),
        ("invalid_target", Some(502), "server_error"),
        ("invalid_resource", Some(502), "server_error"),
        ("Something <new>", None, "access_denied"),
    ] {
        app.idp.misbehave(|how| how.authorize_error = Some(error.to_owned()));
        let idp_url = client.approve(&[]).await;
        let callback = client.browser.get(&idp_url).await.location().to_owned();
        let mut answer = client.browser.get(&callback).await;
        if answer.status == 303 && answer.location().starts_with(app.idp.issuer()) {
            // Begun again, once; the provider says the same.
            let back = client.browser.get(answer.location()).await.location().to_owned();
            answer = client.browser.get(&back).await;
        }
        match page {
            None => {
                answer.assert_leads_to(&format!("{REDIRECT_URI}?error={told}"));
                assert_eq!(answer.location_param("state").as_deref(), Some("client-state"));
            }
            Some(status) => {
                answer.assert_page(status);
                assert!(answer.text().contains(&format!("error={told}")), "{error}");
            }
        }
        // The login is used up, whatever the error was.
        let again = client.browser.get(&callback).await;
        assert!(again.status == 403 || again.status == 303, "{error}: {}", again.status);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 0);
    }
}

#[tokio::test]
async fn what_the_provider_says_of_an_error_is_neither_shown_nor_passed_on() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let hostile = format!("<script>alert('canary-of-the-provider')</script>{}", "x".repeat(6000));
    for error in ["access_denied", "server_error", "invalid_scope"] {
        app.idp.misbehave(|how| {
            how.authorize_error = Some(error.to_owned());
            how.authorize_error_description = Some(hostile.clone());
        });
        let idp_url = client.approve(&[]).await;
        let callback = client.browser.get(&idp_url).await.location().to_owned();
        let answer = client.browser.get(&callback).await;
        assert!(!answer.text().contains("canary-of-the-provider"), "{error}");
        let location = answer.header("location").unwrap_or_default();
        assert!(!location.contains("canary-of-the-provider"), "{error}: {location}");
    }
    // One that is longer than any URL of ours is turned away before it is read.
    let idp_url = client.approve(&[]).await;
    let callback = client.browser.get(&idp_url).await.location().to_owned();
    let long = client.browser.get(&format!("{callback}{}", "x".repeat(10_000))).await;
    assert_eq!(long.status, 414);
    assert!(!crate::harness::logs::all().contains("canary-of-the-provider"));
}

#[tokio::test]
async fn iss_may_be_missing_only_where_it_was_not_promised() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| how.no_callback_iss = true);
    client.authorize("bob", &[]).await.assert_page(403);

    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| {
        how.no_callback_iss = true;
        how.change_discovery = Some(|document| {
            document
                .as_object_mut()
                .unwrap()
                .remove("authorization_response_iss_parameter_supported");
        });
    });
    client.sign_in("bob").await;
    // A wrong one is refused even there.
    app.idp.misbehave(|how| {
        how.no_callback_iss = false;
        how.callback_iss = Some("https://other.example".to_owned());
    });
    client.authorize("bob", &[]).await.assert_page(403);
}
