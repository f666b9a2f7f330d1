//! Pages that say why something did not work lead on: the same again, or with another account. What they offer
//! approves nothing, and nobody else can fill it.

use regex_lite::Regex;

use crate::harness::browser::{Form, unescape};
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, jwt_part};
use crate::harness::console::{Console, forms};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const OTHER: &str = "Continue with another account";
const AGAIN: &str = "Try again";

/// The form of a page whose action ends like this.
#[track_caller]
fn form_to(page: &Answer, url: &str, action: &str) -> Form {
    let all = forms(page.text(), url);
    let found = all.into_iter().find(|(form, _)| form.action.ends_with(action));
    found.unwrap_or_else(|| panic!("no form to {action}: {}", page.text())).0
}

/// Presses the button that a page offers for an authorization.
async fn press(app: &TestApp, client: &McpClient, page: &Answer, account: &str) -> Answer {
    let form = form_to(page, &app.at("/auth/callback"), "/authorize/again");
    let fields = form.with(&[("account", account)]);
    client.browser.post(&form.action, &fields, &app.url).await
}

/// Opens the consent page to which an answer leads, and continues; returns where the browser goes.
async fn continue_at(client: &McpClient, answer: &Answer) -> Answer {
    answer.assert_leads_to(&client.server.at("/authorize?"));
    let page = client.browser.get(answer.location()).await;
    page.assert_page(200);
    let form = Form::of(&page, answer.location());
    client.decide(&form, "approve").await
}

fn link_back(page: &Answer) -> String {
    let link = Regex::new(r#"<a class="button return"[^>]*href="([^"]*)""#).unwrap();
    unescape(&link.captures(page.text()).unwrap_or_else(|| panic!("{}", page.text()))[1])
}

#[tokio::test]
async fn somebody_without_access_continues_with_another_account() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let refused = client.authorize("mallory", &[]).await;
    refused.assert_page(403);
    let text = unescape(refused.text());
    assert!(text.contains(OTHER) && !text.contains(AGAIN), "{text}");
    for scope in ["Add to-dos", "Read everybody's to-dos", "Delete everybody's to-dos"] {
        assert!(text.contains(&format!("<li>{scope}</li>")), "{scope}: {text}");
    }
    assert!(!text.contains("create:todos"), "scopes are shown by their texts: {text}");
    assert!(text.contains("Return to <bdi>Test client</bdi> (127.0.0.1:53124)"), "{text}");

    let led_on = press(&app, &client, &refused, "other").await;
    let prompt = led_on.location_param("prompt").unwrap();
    assert_eq!(prompt, "consent select_account");
    let to_provider = continue_at(&client, &led_on).await;
    to_provider.assert_leads_to(app.idp.issuer());
    assert!(to_provider.location_param("prompt").is_some(), "the provider asks who it is");
    let callback = client.log_in(to_provider.location(), "alice").await;
    let back = client.browser.get(&callback).await;
    back.assert_leads_to(REDIRECT_URI);
    assert_eq!(back.location_param("state").as_deref(), Some("client-state"));
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(jwt_part(&tokens.access_token, 1)["sub"], "oidc:demo-alice");
}

#[tokio::test]
async fn a_page_with_a_reference_stays_and_has_a_link_back_with_the_error() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let refused = client.authorize("mallory", &[]).await;
    assert!(!refused.text().contains("http-equiv"), "{}", refused.text());
    assert!(refused.text().contains("Reference for your administrator:"));
    let back = url::Url::parse(&link_back(&refused)).unwrap();
    assert!(back.as_str().starts_with(&format!("{REDIRECT_URI}?error=access_denied")), "{back}");
    let state = back.query_pairs().find(|(name, _)| name == "state").unwrap().1;
    assert_eq!(state, "client-state");
}

#[tokio::test]
async fn a_provider_that_is_back_is_tried_again_with_the_same_request() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| how.authorize_error = Some("server_error".to_owned()));
    let to_provider = client.approve(&[]).await;
    let callback = client.browser.get(&to_provider).await.location().to_owned();
    let away = client.browser.get(&callback).await;
    away.assert_page(503);
    assert!(away.text().contains(AGAIN) && !away.text().contains(OTHER), "{}", away.text());
    app.idp.misbehave(|how| how.authorize_error = None);

    let led_on = press(&app, &client, &away, "same").await;
    assert_eq!(led_on.location_param("prompt").as_deref(), Some("consent"));
    let to_provider = continue_at(&client, &led_on).await;
    let callback = client.log_in(to_provider.location(), "bob").await;
    let back = client.browser.get(&callback).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(tokens.scope, "create:todos");
}

#[tokio::test]
async fn a_consent_page_that_was_open_for_too_long_can_be_shown_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[("scope", "create:todos")]).await;
    app.advance(601);
    let late = client.decide(&form, "approve").await;
    late.assert_page(403);
    assert!(late.text().contains(AGAIN), "{}", late.text());
    let led_on = press(&app, &client, &late, "same").await;
    assert_eq!(led_on.location_param("scope").as_deref(), Some("create:todos"));
    continue_at(&client, &led_on).await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_person_who_left_out_everything_can_choose_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let fields: Vec<(&str, &str)> = form
        .with(&[("decision", "approve")])
        .into_iter()
        .filter(|(name, _)| *name != "scope")
        .collect();
    let nothing = client.browser.post(&form.action, &fields, &app.url).await;
    nothing.assert_page(400);
    let led_on = press(&app, &client, &nothing, "same").await;
    continue_at(&client, &led_on).await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn the_request_on_a_page_is_sealed_and_only_a_page_of_ours_sends_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let refused = client.authorize("mallory", &[]).await;
    let form = form_to(&refused, &app.at("/auth/callback"), "/authorize/again");
    let sealed = form.fields.iter().find(|(name, _)| name == "request").unwrap().1.clone();
    let send = async |request: &str, from: &str| {
        let fields = [("request", request), ("account", "same")];
        client.browser.post(&form.action, &fields, from).await
    };
    send(&sealed, "https://evil.example").await.assert_page(403);
    send("", &app.url).await.assert_page(403);
    send(&sealed[..sealed.len() - 2], &app.url).await.assert_page(403);
    // The request of a consent page is sealed for a decision, and for nothing else.
    let (_, consent) = client.ask(&[]).await;
    let of_consent = consent.fields.iter().find(|(name, _)| name == "request").unwrap().1.clone();
    send(&of_consent, &app.url).await.assert_page(403);
    let fields = consent.with(&[("decision", "approve"), ("request", sealed.as_str())]);
    client.browser.post(&consent.action, &fields, &app.url).await.assert_page(403);
    // It is repeated as often as somebody likes: nothing is approved by that.
    for _ in 0..3 {
        send(&sealed, &app.url).await.assert_leads_to(&app.at("/authorize?"));
    }
    app.advance(3600);
    let late = send(&sealed, &app.url).await;
    late.assert_page(403);
    assert!(!late.text().contains(AGAIN), "the request is no longer known: {}", late.text());
    client.browser.get(&form.action).await.assert_page(405);
    let approved = "SELECT COUNT(*) FROM audit_events WHERE event = 'consent_approved'";
    assert_eq!(app.database.number(approved).await, 1);
}

#[tokio::test]
async fn a_page_whose_address_is_enough_is_loaded_again() {
    let app = TestApp::with(Setup::toml("[limits]\nconsent_pages = 1")).await;
    let client = app.client().await;
    client.ask(&[]).await;
    let page = client.browser.get(&client.authorize_url(&[])).await;
    page.assert_page(429);
    assert!(
        page.text().contains("<a class=\"button go\" href=\"\">Try again</a>"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("client-state"), "the request is not on the page");
    assert!(page.text().contains("try again in 10 minutes"), "{}", page.text());
}

#[tokio::test]
async fn somebody_who_is_no_administrator_signs_in_as_another() {
    let app = TestApp::start().await;
    let console = Console::admin(&app);
    let refused = console.sign_in(&app, "bob").await;
    refused.assert_page(403);
    assert!(refused.text().contains(OTHER), "{}", refused.text());
    assert!(!refused.text().contains("/account"), "the pages of people are elsewhere");
    let form = form_to(&refused, &console.at("/signed-in"), "/sign-in");
    let fields = form.with(&[("account", "other")]);
    let led_on = console.browser.post(&form.action, &fields, &console.origin).await;
    led_on.assert_leads_to(app.idp.issuer());
    assert_eq!(led_on.location_param("prompt").as_deref(), Some("select_account"));
    console.log_in_at(&app, led_on.location(), "alice").await.assert_leads_to(&console.at("/"));
    console.page("/").await;
}

#[tokio::test]
async fn somebody_who_cancelled_the_sign_in_to_a_page_of_ours_can_begin_it_again() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.authorize_error = Some("access_denied".to_owned()));
    for (console, action) in
        [(Console::account(&app), "/account/sign-in"), (Console::admin(&app), "/sign-in")]
    {
        let page = console.come_back_with_an_error(&app).await;
        page.assert_page(403);
        assert!(page.text().contains(AGAIN), "{}", page.text());
        let form = form_to(&page, &console.at("/"), action);
        let fields = form.with(&[("account", "same")]);
        let led_on = console.browser.post(&form.action, &fields, &console.origin).await;
        led_on.assert_leads_to(app.idp.issuer());
    }
}

#[tokio::test]
async fn without_a_choice_of_accounts_at_the_provider_none_is_offered() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| {
        how.change_discovery = Some(|document| {
            document["prompt_values_supported"] = serde_json::json!(["none", "consent"]);
        });
    });
    let refused = app.client().await.authorize("mallory", &[]).await;
    refused.assert_page(403);
    assert!(!refused.text().contains(OTHER), "{}", refused.text());
    let refused = Console::admin(&app).sign_in(&app, "bob").await;
    assert!(!refused.text().contains(OTHER), "{}", refused.text());
}

#[tokio::test]
async fn support_is_asked_with_the_reference_filled_in() {
    for (support, before) in [
        ("it-help@acme.com", "mailto:it-help@acme.com?subject="),
        (
            "https://help.acme.com/new?about=mcp&ref={reference}",
            "https://help.acme.com/new?about=mcp&ref=",
        ),
    ] {
        let app = TestApp::with(Setup::toml(format!("[branding]\nsupport = {support:?}"))).await;
        let refused = app.client().await.authorize("mallory", &[]).await;
        let text = unescape(refused.text());
        let reference = refused.reference().replace('-', "%2D");
        assert!(text.contains(&format!("href=\"{before}{reference}\"")), "{text}");
    }
}

#[tokio::test]
async fn messages_lead_to_the_connected_applications() {
    let app = TestApp::start().await;
    let page = app.client().await.browser.get(&app.at("/nothing")).await;
    let base = app.url.strip_prefix(&app.origin).unwrap();
    let link = format!("<a href=\"{base}/account\">Your connected applications</a>");
    assert!(page.text().contains(&link), "{}", page.text());
}
