//! `client_approval = "first_use"`: somebody has signed in, an administrator decides, and the very same
//! sign-in goes on, once.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::browser::Form;
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::console::{Console, forms, with_query};
use crate::harness::http::{Answer, encode};
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

async fn start() -> TestApp {
    start_with("").await
}

async fn start_with(upstream: &str) -> TestApp {
    TestApp::with(
        Setup::toml("client_approval = \"first_use\"").and(format!("[upstream]\n{upstream}")),
    )
    .await
}

/// A person connects and waits: the address of the page.
async fn waits(app: &TestApp, client: &McpClient, person: &str) -> String {
    let answer = client.authorize(person, &[]).await;
    answer.assert_leads_to(&app.at("/waiting?id="));
    answer.location().to_owned()
}

async fn assert_still_waits(client: &McpClient, page: &str) {
    let answer = client.browser.get(page).await;
    answer.assert_page(200);
    assert!(answer.text().contains("http-equiv=\"refresh\""), "{}", answer.text());
    assert!(answer.text().contains("administrator"));
}

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

async fn decide(admin: &Console, client: &McpClient, action: &str) {
    let path = with_query("/client", &[("id", &client.id)]);
    let mut answer = admin.press(&path, "action", action).await;
    if matches!(action, "refuse" | "block" | "end") {
        answer = admin.confirm(&answer, "action", action).await;
    }
    answer.assert_leads_to(&admin.at("/client"));
}

async fn codes(app: &TestApp) -> i64 {
    app.database.number("SELECT COUNT(*) FROM authorization_codes").await
}

#[tokio::test]
async fn the_first_person_waits_until_an_administrator_approves_and_then_goes_on() {
    let app = start().await;
    let client = app.client().await;

    let page = waits(&app, &client, "bob").await;

    assert_still_waits(&client, &page).await;
    assert_eq!(codes(&app).await, 0, "nothing is issued while somebody waits");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM grants").await, 0);
    let alice = admin(&app).await;
    let list = alice.page("/clients?standing=waiting").await;
    assert!(list.contains("Test client"), "{list}");
    assert!(list.contains("class=\"count\">1<"), "the navigation counts who waits");
    let one = alice.page(&with_query("/client", &[("id", &client.id)])).await;
    assert!(one.contains("Bob Brown") && one.contains("1 person waits"), "{one}");

    decide(&alice, &client, "approve").await;

    let back = client.browser.get(&page).await;
    back.assert_leads_to(REDIRECT_URI);
    assert_eq!(back.location_param("state").as_deref(), Some("client-state"));
    assert_eq!(back.location_param("iss").as_deref(), Some(app.url.as_str()));
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
    assert!(!alice.page("/clients?standing=waiting").await.contains("Test client"));
    // It is decided once: nobody waits for this client again.
    client.elsewhere().sign_in("alice").await;
    // And the waiting has ended.
    client.browser.get(&page).await.assert_page(410);
    assert!(!client.browser.cookie_names().iter().any(|name| name.contains("held")));
}

#[tokio::test]
async fn a_refused_client_is_told_and_so_is_the_person() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    decide(&admin(&app).await, &client, "refuse").await;

    let answer = client.browser.get(&page).await;

    answer.assert_page(403);
    assert!(answer.text().contains("This application is blocked"), "{}", answer.text());
    let to_client = crate::harness::browser::unescape(answer.text());
    assert!(to_client.contains(&format!("{REDIRECT_URI}?error=access_denied")), "{to_client}");
    assert!(to_client.contains("state=client-state"));
    assert_eq!(codes(&app).await, 0);
    client.browser.get(&client.authorize_url(&[])).await.assert_page(403);
}

#[tokio::test]
async fn a_client_blocked_while_somebody_waits_gets_nothing_ever() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    let alice = admin(&app).await;
    decide(&alice, &client, "block").await;
    client.browser.get(&page).await.assert_page(403);
    decide(&alice, &client, "unblock").await;
    decide(&alice, &client, "approve").await;
    client.browser.get(&page).await.assert_page(410);
    assert_eq!(codes(&app).await, 0);
}

#[tokio::test]
async fn another_browser_sees_nothing_of_who_waits() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    let stranger = client.elsewhere();
    stranger.browser.get(&page).await.assert_page(410);
    // Waiting itself, it still cannot take over another's.
    waits(&app, &stranger, "alice").await;
    decide(&admin(&app).await, &client, "approve").await;
    stranger.browser.get(&page).await.assert_page(410);
    for address in ["/waiting", "/waiting?id=x", "/waiting?id=%00", "/waiting?id="] {
        client.browser.get(&app.at(address)).await.assert_page(410);
    }
    assert_eq!(codes(&app).await, 0);
    client.browser.get(&page).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn a_hundred_looks_at_once_after_the_approval_bring_one_code() {
    for _ in rounds() {
        let app = start().await;
        let client = app.client().await;
        let page = waits(&app, &client, "bob").await;
        decide(&admin(&app).await, &client, "approve").await;
        let cookies = client.browser.cookie_header("127.0.0.1");
        let headers = [("accept", "text/html"), ("cookie", cookies.as_str())];

        let answers = join_all((0..100).map(|_| app.http.send("GET", &page, &headers, ""))).await;

        let led_on: Vec<_> = answers.iter().filter(|answer| answer.status == 303).collect();
        assert_eq!(led_on.len(), 1);
        assert!(answers.iter().all(|answer| answer.status == 303 || answer.status == 410));
        assert_eq!(codes(&app).await, 1);
        let code = led_on[0].location_param("code").unwrap();
        client.redeem(&code).await.assert_status(200);
    }
}

/// The form that ends the waiting.
async fn cancel_form(client: &McpClient, page: &str) -> Form {
    let answer = client.browser.get(page).await;
    let all = forms(answer.text(), page);
    let found = all.into_iter().find(|(form, _)| form.action.ends_with("/waiting/cancel"));
    found.unwrap_or_else(|| panic!("{}", answer.text())).0
}

#[tokio::test]
async fn the_page_says_who_waits_for_what_since_when_and_until_when() {
    let support = "[branding]\nsupport = \"it-help@acme.com\"";
    let setup = Setup::toml("client_approval = \"first_use\"").and(support);
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    app.advance(3 * 60 + 59);
    let answer = client.browser.get(&page).await;
    for shown in [
        "<bdi class=\"name\">Test client</bdi> (127.0.0.1:53124)",
        "To-do list",
        "2026-11-21 00:00 UTC (3 min)",
        "2026-11-21 01:00 UTC",
        "it-help@acme.com",
        "Nobody is notified automatically",
    ] {
        assert!(answer.text().contains(shown), "{shown}: {}", answer.text());
    }
    assert!(!answer.text().contains("their list"), "{}", answer.text());
    // A name that imitates another is no help here.
    let imitator = app.client_named("Сlaude").await;
    let page = waits(&app, &imitator, "bob").await;
    let answer = imitator.browser.get(&page).await;
    assert!(!answer.text().contains("Сlaude"), "{}", answer.text());
    assert!(answer.text().contains("<b class=\"name\">127.0.0.1:53124</b>"), "{}", answer.text());
}

#[tokio::test]
async fn the_page_says_that_administrators_are_notified_where_they_are() {
    for (events, notified) in [("client_waits", true), ("provider_down", false)] {
        let notify = format!(
            "[[notify]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n\
             secret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\nallow_private = true\n\
             events = [{events:?}]"
        );
        let setup = Setup::toml("client_approval = \"first_use\"").and(notify);
        let app = TestApp::with(setup).await;
        let client = app.client().await;
        let page = waits(&app, &client, "bob").await;
        let answer = client.browser.get(&page).await;
        let says = answer.text().contains("The administrators have been notified.");
        assert_eq!(says, notified, "{}", answer.text());
        assert_eq!(answer.text().contains("Nobody is notified"), !notified);
    }
}

#[tokio::test]
async fn a_person_who_cancels_waits_no_longer_and_the_client_learns_it() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    let form = cancel_form(&client, &page).await;
    // Neither another website nor another browser can do it.
    client
        .browser
        .post(&form.action, &form.with(&[]), "https://evil.example")
        .await
        .assert_page(403);
    let stranger = client.elsewhere();
    stranger.browser.post(&form.action, &form.with(&[]), &app.url).await.assert_page(410);
    client.browser.get(&form.action).await.assert_page(405);
    assert_still_waits(&client, &page).await;

    let back = client.browser.post(&form.action, &form.with(&[]), &app.url).await;

    back.assert_leads_to(REDIRECT_URI);
    assert_eq!(back.location_param("error").as_deref(), Some("access_denied"));
    assert_eq!(back.location_param("state").as_deref(), Some("client-state"));
    assert_eq!(back.location_param("iss").as_deref(), Some(app.url.as_str()));
    client.browser.get(&page).await.assert_page(410);
    assert!(!client.browser.cookie_names().iter().any(|name| name.contains("held")));
    decide(&admin(&app).await, &client, "approve").await;
    client.browser.get(&page).await.assert_page(410);
    assert_eq!(codes(&app).await, 0);
    let cancelled = "SELECT COUNT(*) FROM audit_events WHERE event = 'wait_cancelled'";
    assert_eq!(app.database.number(cancelled).await, 1);
}

#[tokio::test]
async fn a_hundred_cancellations_at_once_are_one() {
    for _ in rounds() {
        let app = start().await;
        let client = app.client().await;
        let page = waits(&app, &client, "bob").await;
        let form = cancel_form(&client, &page).await;
        let cookies = client.browser.cookie_header("127.0.0.1");
        let headers = [
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", app.origin.as_str()),
            ("cookie", cookies.as_str()),
        ];
        let body = encode(&form.with(&[]));
        let send = || app.http.send("POST", &form.action, &headers, body.clone());

        let answers = join_all((0..100).map(|_| send())).await;

        let led_back = answers.iter().filter(|answer| answer.status == 303).count();
        assert_eq!(led_back, 1);
        assert!(answers.iter().all(|answer| answer.status == 303 || answer.status == 410));
        let cancelled = "SELECT COUNT(*) FROM audit_events WHERE event = 'wait_cancelled'";
        assert_eq!(app.database.number(cancelled).await, 1);
    }
}

/// Of an approval and a cancellation at once, one counts.
#[tokio::test]
async fn a_cancellation_and_the_release_at_once_bring_a_code_or_an_error() {
    for _ in rounds() {
        let app = start().await;
        let client = app.client().await;
        let page = waits(&app, &client, "bob").await;
        let form = cancel_form(&client, &page).await;
        decide(&admin(&app).await, &client, "approve").await;
        let fields = form.with(&[]);
        let (looked, cancelled) = tokio::join!(
            client.browser.get(&page),
            client.browser.post(&form.action, &fields, &app.url),
        );
        let back: Vec<&Answer> =
            [&looked, &cancelled].into_iter().filter(|answer| answer.status == 303).collect();
        let [back] = back[..] else { panic!("{} {}", looked.status, cancelled.status) };
        let issued = back.location_param("code").is_some();
        assert_eq!(codes(&app).await, i64::from(issued));
    }
}

#[tokio::test]
async fn the_waiting_is_over_after_an_hour() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    app.advance(3600 - 1);
    assert_still_waits(&client, &page).await;
    app.advance(1);
    client.browser.get(&page).await.assert_page(410);
    decide(&admin(&app).await, &client, "approve").await;
    client.browser.get(&page).await.assert_page(410);
    assert_eq!(codes(&app).await, 0);
    client.sign_in("bob").await;
}

#[tokio::test]
async fn a_client_made_by_an_administrator_needs_no_approval() {
    let app = start().await;
    let alice = admin(&app).await;
    let fields = [("name", "Reports"), ("redirect_uris", "https://reports.example/cb")];
    let page = alice.press_with("/clients/new", "action", "create", &fields).await;
    page.assert_page(200);
    let id = regex_lite::Regex::new("client_[0-9a-f]{32}").unwrap();
    let mut client = app.client().await;
    let secret = regex_lite::Regex::new("cs_[A-Za-z0-9_-]{43}").unwrap();
    client.id = id.find(page.text()).unwrap().as_str().to_owned();
    client.secret = Some(secret.find(page.text()).unwrap().as_str().to_owned());
    client.redirect_uri = "https://reports.example/cb".to_owned();
    client.sign_in("bob").await;
}

#[tokio::test]
async fn two_people_wait_and_both_go_on_as_themselves() {
    let app = start().await;
    let client = app.client().await;
    let other = client.elsewhere();
    let page = waits(&app, &client, "bob").await;
    let others = waits(&app, &other, "alice").await;
    let alice = admin(&app).await;
    assert!(alice.page("/").await.contains("class=\"count\">1<"), "one client, however many wait");
    decide(&alice, &client, "approve").await;
    for (client, page, scope) in
        [(&client, page, "create:todos"), (&other, others, "create:todos delete:todos read:todos")]
    {
        let back = client.browser.get(&page).await;
        back.assert_leads_to(REDIRECT_URI);
        let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
        assert_eq!(tokens.scope, scope);
    }
    let asked = "SELECT COUNT(*) FROM audit_events WHERE event = 'client_waits'";
    assert_eq!(app.database.number(asked).await, 1);
}

#[tokio::test]
async fn the_rules_are_read_again_with_what_the_provider_says_by_then() {
    let app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "alice").await;
    app.idp.set_roles("alice", &["User"]);
    app.advance(16 * 60);
    approve_past_the_pages(&app, &client).await;
    let back = client.browser.get(&page).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(tokens.scope, "create:todos");

    let client = app.client_named("Another").await;
    let page = waits(&app, &client, "bob").await;
    app.idp.set_roles("bob", &[]);
    app.advance(16 * 60);
    approve_past_the_pages(&app, &client).await;
    let before = codes(&app).await;
    let answer = client.browser.get(&page).await;
    answer.assert_page(403);
    assert!(answer.text().contains("Bob Brown"), "{}", answer.text());
    assert_eq!(codes(&app).await, before);
}

#[tokio::test]
async fn who_is_cut_off_or_signs_out_while_waiting_gets_nothing() {
    for how in ["disabled", "blocked", "signed out", "logged out there"] {
        let app = start().await;
        let client = app.client().await;
        let page = waits(&app, &client, "bob").await;
        match how {
            "disabled" => {
                app.idp.disable("bob");
                app.advance(16 * 60);
            }
            "blocked" => {
                let event = app.audit_event("person_blocked");
                app.storage().block_person("oidc:demo-bob", "x", app.now(), event).await.unwrap();
            }
            "signed out" => {
                let bob = Console::account(&app).signed_in(&app, "bob").await;
                bob.press_and_confirm("/account", "action", "everywhere").await.assert_status(303);
            }
            _ => {
                let claims = json!({
                    "iss": app.idp.issuer(), "aud": "portcullis", "jti": "1", "sub": "demo-bob",
                    "iat": app.now().unix(), "exp": app.now().unix() + 120,
                    "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
                });
                let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
                let form = [("logout_token", token.as_str())];
                let url = app.at("/backchannel-logout");
                app.http.post_form(&url, &form, &[]).await.assert_status(200);
            }
        }
        decide(&admin(&app).await, &client, "approve").await;
        client.browser.get(&page).await.assert_page(410);
        client.browser.get(&page).await.assert_page(410);
        assert_eq!(codes(&app).await, 0, "{how}");
    }
}

#[tokio::test]
async fn an_outage_of_the_provider_at_the_release_uses_nothing_up() {
    let app = start_with("outage_grace = \"0s\"").await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    app.advance(14 * 60);
    let alice = admin(&app).await;
    decide(&alice, &client, "approve").await;
    app.advance(2 * 60);
    app.idp.misbehave(|idp| idp.refresh_answer = Some((503, String::new())));
    client.browser.get(&page).await.assert_page(503);
    assert_eq!(codes(&app).await, 0);
    app.idp.misbehave(|idp| idp.refresh_answer = None);
    app.advance(120);
    client.browser.get(&page).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn a_restart_keeps_who_waits() {
    let mut app = start().await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    app.restart().await;
    assert_still_waits(&client, &page).await;
    decide(&admin(&app).await, &client, "approve").await;
    app.restart().await;
    let back = client.browser.get(&page).await;
    back.assert_leads_to(REDIRECT_URI);
    client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);
}

#[tokio::test]
async fn a_flood_of_registrations_does_not_push_out_a_client_somebody_waits_for() {
    let app =
        TestApp::with(Setup::toml("client_approval = \"first_use\"").and("[limits]\nclients = 3"))
            .await;
    let client = app.client().await;
    let page = waits(&app, &client, "bob").await;
    app.advance(11 * 60);
    for number in 0..4 {
        app.client_named(&format!("Flood {number}")).await;
        app.advance(11 * 60);
    }
    assert_still_waits(&client, &page).await;
    decide(&admin(&app).await, &client, "approve").await;
    client.browser.get(&page).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn where_nobody_has_to_approve_nobody_waits() {
    let app = TestApp::start().await;
    let (client, _) = app.tokens_of("bob").await;
    client.browser.get(&app.at("/waiting")).await.assert_page(410);
    assert!(!admin(&app).await.page("/").await.contains("class=\"count\""));
}

async fn approve_past_the_pages(app: &TestApp, client: &McpClient) {
    use portcullis::storage::{ClientDecision, ReviewDecision};
    let event = app.audit_event("client_approved");
    let storage = app.storage();
    let done = storage
        .decide_client(
            ClientDecision::new(&client.id, ReviewDecision::Approve, "x"),
            app.now(),
            event,
        )
        .await;
    assert!(done.unwrap());
}
