//! A7: the provider ends a sign-in without saying no. The person is sent there again, once; or reads what
//! happened.

use futures_util::future::join_all;
use portcullis::demo::Misbehaviour;

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{TestApp, logs};
use crate::laws::races::rounds;

const EXPIRED: &str = "authentication_expired";

/// Its error, its description, and the `prompt` of the second try; `None` where it is not tried again.
type Ending = (&'static str, Option<&'static str>, Option<Option<&'static str>>);

const ENDINGS: &[Ending] = &[
    ("temporarily_unavailable", Some(EXPIRED), Some(None)), // Keycloak: its page was left open
    ("login_required", None, Some(Some("login"))),
    ("interaction_required", Some("AADSTS50076"), Some(Some("login"))),
    ("account_selection_required", None, Some(Some("select_account"))),
    ("consent_required", Some("AADSTS65001"), Some(Some("consent"))),
    // An outage there is not answered with more questions.
    ("temporarily_unavailable", None, None),
    ("temporarily_unavailable", Some("Authentication_Expired"), None),
    ("temporarily_unavailable", Some("authentication_expired <b>"), None),
    ("server_error", Some(EXPIRED), None),
    ("server_error", None, None),
    // The person said no, or the provider did.
    ("access_denied", Some(EXPIRED), None),
    ("access_denied", Some("User is not assigned to the client application."), None),
    ("invalid_request", Some(EXPIRED), None),
    ("something_new", Some(EXPIRED), None),
];

fn says(how: &mut Misbehaviour, error: &str, description: Option<&str>) {
    how.authorize_error = Some(error.to_owned());
    how.authorize_error_description = description.map(str::to_owned);
}

fn recovers(how: &mut Misbehaviour) {
    (how.authorize_error, how.authorize_error_description) = (None, None);
}

fn param(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
}

/// Approves, and comes back with the error: what was asked, and the answer.
async fn ended(client: &McpClient) -> (String, String, Answer) {
    let idp_url = client.approve(&[]).await;
    let callback = client.browser.get(&idp_url).await.location().to_owned();
    let answer = client.browser.get(&callback).await;
    (idp_url, callback, answer)
}

#[tokio::test]
async fn a_sign_in_that_the_provider_ended_is_begun_again_once() {
    let app = TestApp::start().await;
    for (error, description, again) in ENDINGS {
        let what = format!("{error} {description:?}");
        let client = app.client().await;
        app.idp.misbehave(|how| says(how, error, *description));
        let (first, callback, answer) = ended(&client).await;
        let Some(prompt) = again else {
            assert!(
                answer.status != 303 || answer.location().starts_with(REDIRECT_URI),
                "{what}: {answer:?}"
            );
            continue;
        };
        answer.assert_leads_to(app.idp.issuer());
        let second = answer.location().to_owned();
        assert_eq!(param(&second, "prompt").as_deref(), *prompt, "{what}");
        for name in ["state", "nonce", "code_challenge"] {
            assert_ne!(param(&first, name), param(&second, name), "{what}: {name} is fresh");
        }
        for name in ["client_id", "redirect_uri", "scope", "code_challenge_method"] {
            assert_eq!(param(&first, name), param(&second, name), "{what}");
        }
        // The first one is over, and begins nothing more.
        client.browser.get(&callback).await.assert_page(403);

        // The person goes on there, without approving anything again.
        app.idp.misbehave(recovers);
        let back = client.log_in(&second, "bob").await;
        let back = client.browser.get(&back).await;
        back.assert_leads_to(REDIRECT_URI);
        assert_eq!(back.location_param("state").as_deref(), Some("client-state"));
        client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);
    }
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'login_begun_again'";
    assert_eq!(app.database.number(told).await, 5);
}

#[tokio::test]
async fn a_sign_in_that_is_ended_twice_is_told_as_it_is() {
    let app = TestApp::start().await;
    for (error, description, again) in ENDINGS {
        if again.is_none() {
            continue;
        }
        let client = app.client().await;
        app.idp.misbehave(|how| says(how, error, *description));
        let (_, _, answer) = ended(&client).await;
        let callback = client.browser.get(answer.location()).await.location().to_owned();
        let answer = client.browser.get(&callback).await;
        if *error == "temporarily_unavailable" {
            answer.assert_page(403);
            let text = answer.text();
            assert!(text.contains("open for too long"), "{text}");
            assert!(!text.contains("does not answer"), "{text}");
            assert!(text.contains(&format!("{REDIRECT_URI}?error=temporarily_unavailable")));
        } else {
            answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
        }
        app.idp.misbehave(recovers);
        client.browser.get(&callback).await.assert_page(403);
        client.sign_in("bob").await;
    }
}

#[tokio::test]
async fn a_provider_that_says_it_cannot_is_not_called_silent() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for error in ["temporarily_unavailable", "server_error"] {
        app.idp.misbehave(|how| says(how, error, None));
        let (_, _, page) = ended(&client).await;
        page.assert_page(503);
        assert!(page.text().contains("answered that it cannot"), "{}", page.text());
        assert!(page.text().contains("error=temporarily_unavailable"), "the client learns it too");
        let console = Console::account(&app);
        let page = console.come_back_with_an_error(&app).await;
        page.assert_page(503);
        assert!(page.text().contains("answered that it cannot"), "{}", page.text());
    }
}

/// A second try has no more time than the first.
#[tokio::test]
async fn a_sign_in_that_is_begun_again_ends_when_it_would_have_ended() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| says(how, "temporarily_unavailable", Some(EXPIRED)));
    let idp_url = client.approve(&[]).await;
    let callback = client.browser.get(&idp_url).await.location().to_owned();
    app.advance(10 * 60);
    let answer = client.browser.get(&callback).await;
    answer.assert_leads_to(app.idp.issuer());
    app.idp.misbehave(recovers);
    app.advance(5 * 60);
    let back = client.log_in(answer.location(), "bob").await;
    let page = client.browser.get(&back).await;
    page.assert_page(403);
    assert!(page.text().contains("took too long"), "{}", page.text());
}

#[tokio::test]
async fn one_of_a_hundred_callbacks_with_an_error_begins_again() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        app.idp.misbehave(|how| says(how, "temporarily_unavailable", Some(EXPIRED)));
        let idp_url = client.approve(&[]).await;
        let callback = client.browser.get(&idp_url).await.location().to_owned();
        let answers = join_all((0..100).map(|_| client.browser.get(&callback))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 303).count(), 1);
        assert!(answers.iter().all(|answer| answer.status == 303 || answer.status == 403));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM logins").await, 2);
    }
}

/// Anybody can make an error up; from another browser it begins and ends nothing.
#[tokio::test]
async fn an_error_from_another_browser_begins_nothing_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let query = format!("error=temporarily_unavailable&error_description={EXPIRED}&x=");
    let planted = callback.replace("code=", &query);
    client.elsewhere().browser.go(&planted).await.assert_page(403);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM logins").await, 1);
    client.browser.go(&callback).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn a_sign_in_to_the_pages_that_the_provider_ended_is_begun_again_once() {
    let app = TestApp::start().await;
    for (error, description, again) in ENDINGS {
        let Some(prompt) = again else { continue };
        for pages in [Console::account(&app), Console::admin(&app)] {
            app.idp.misbehave(|how| says(how, error, *description));
            let answer = pages.come_back_with_an_error(&app).await;
            answer.assert_leads_to(app.idp.issuer());
            assert_eq!(param(answer.location(), "prompt").as_deref(), *prompt, "{error}");

            // Twice is told.
            let back = pages.browser.get(answer.location()).await;
            let passed_on = pages.browser.get(back.location()).await;
            pages.browser.get(passed_on.location()).await.assert_page(403);

            // Once is not noticed.
            let answer = pages.come_back_with_an_error(&app).await;
            app.idp.misbehave(recovers);
            let answer = pages.log_in_at(&app, answer.location(), "alice").await;
            answer.assert_leads_to(&pages.origin);
        }
    }
}

/// Of what the provider says about an error, constants that we know are logged, and nothing else.
#[tokio::test]
async fn only_known_descriptions_of_an_error_are_logged() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for description in ["canary-of-a-description", "authentication_expired canary-of-a-description"]
    {
        app.idp.misbehave(|how| says(how, "temporarily_unavailable", Some(description)));
        let (_, _, page) = ended(&client).await;
        assert!(!page.text().contains("canary-of-a-description"));
    }
    app.idp.misbehave(|how| says(how, "temporarily_unavailable", Some(EXPIRED)));
    ended(&client).await;
    assert!(!logs::all().contains("canary-of-a-description"));
    assert!(logs::all().contains(EXPIRED));
}
