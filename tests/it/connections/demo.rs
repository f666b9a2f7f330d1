//! The demo's calendar behind the demo's to-do server: a person connects it, uses it and disconnects it, through the
//! pages of both.

use serde_json::json;

use crate::harness::browser::{Browser, Form};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::connect;
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

/// The calendar's table in the configuration, as `portcullis demo` writes it.
const CALENDAR: &str = r#"
[[connection]]
name          = "calendar"
title         = "Demo calendar"
provider      = "oauth2"
client_id     = "portcullis-calendar"
client_secret = "calendar-secret-canary"
authorize_url = "{idp}/calendar/authorize"
token_url     = "{idp}/calendar/token"
revoke_url    = "{idp}/calendar/revoke"
userinfo_url  = "{idp}/calendar/me"
scopes        = ["calendar.read"]

[connection.scope_texts]
"calendar.read" = "See the events of your calendar"

[[resource.connection]]
name   = "calendar"
scopes = ["calendar.read"]
tools  = ["agenda"]
header = "X-Calendar-Token"
"#;

const ALICES_DAY: [&str; 2] = ["Stand-up", "Access review with Bob"];
const BOBS_DAY: [&str; 2] = ["Dentist", "Access review with Alice"];

async fn start() -> TestApp {
    TestApp::with(Setup::toml(CALENDAR)).await
}

/// Somebody with a client and a browser at `/account`.
struct Caller {
    client: McpClient,
    tokens: Tokens,
    console: Console,
}

impl Caller {
    async fn start(app: &TestApp, person: &str) -> Self {
        let (client, tokens) = app.tokens_of(person).await;
        let console = Console::account(app).signed_in(app, person).await;
        Self { client, tokens, console }
    }

    async fn agenda(&self) -> Answer {
        self.client.call_tool(&self.tokens.access_token, "agenda", json!({})).await
    }

    /// Calls the tool and answers what is in the calendar.
    async fn events(&self) -> Vec<String> {
        let answer = self.agenda().await.assert_status(200).json();
        let result = &answer["result"];
        assert_eq!(result["isError"], false, "{answer}");
        let events = result["structuredContent"]["events"].as_array().unwrap();
        events.iter().map(|event| event["what"].as_str().unwrap().to_owned()).collect()
    }

    /// Calls the tool and answers the path of the link in the text that a person reads.
    async fn link(&self, app: &TestApp) -> String {
        let answer = self.agenda().await.assert_status(200).json();
        let result = &answer["result"];
        assert_eq!(result["isError"], true, "{answer}");
        let text = result["content"][0]["text"].as_str().unwrap();
        let start = format!("{}/connect/", app.url);
        let at = text.find(&start).unwrap_or_else(|| panic!("no link in {text:?}"));
        let link = text[at..].split_whitespace().next().unwrap().trim_end_matches(['.', ')', ',']);
        assert_eq!(link, connect::connect_url(app, "calendar", &app.mcp_url()), "{text}");
        link.strip_prefix(&app.url).unwrap().to_owned()
    }

    /// Opens the link and goes on to the calendar; answers the address there.
    async fn go_to_calendar(&self, app: &TestApp) -> String {
        let link = self.link(app).await;
        let answer = self.console.press(&link, "action", "connect").await;
        answer.assert_leads_to(&format!("{}/calendar/authorize?", app.idp.issuer()));
        answer.location().to_owned()
    }

    /// Connects the calendar through the pages; answers the page that says so.
    async fn connect(&self, app: &TestApp) -> Answer {
        let at_calendar = self.go_to_calendar(app).await;
        let back = decide(&self.console.browser, &at_calendar, "allow").await;
        back.assert_leads_to(&connect::callback_url(app, "calendar"));
        self.finish(&back).await
    }

    /// Follows the redirect to our callback, and from there to a page.
    async fn finish(&self, back: &Answer) -> Answer {
        let answer = self.console.browser.get(back.location()).await;
        match answer.header("location") {
            Some(page) => self.console.browser.get(page).await,
            None => answer,
        }
    }

    /// The token that the to-do server received last.
    fn calendar_token(app: &TestApp) -> String {
        let recorded = app.todo.recorded();
        let mut tokens = recorded.iter().rev().filter_map(|seen| seen.header("x-calendar-token"));
        tokens.next().unwrap().to_owned()
    }
}

/// Presses a button of the calendar's consent page.
async fn decide(browser: &Browser, at_calendar: &str, decision: &str) -> Answer {
    let page = browser.get(at_calendar).await;
    page.assert_page(200);
    assert!(page.text().contains("Portcullis wants to use your calendar"), "{}", page.text());
    let form = Form::of(&page, at_calendar);
    browser.post(&form.action, &form.with(&[("decision", decision)]), at_calendar).await
}

/// The status that the calendar's own API answers to this token.
async fn at_api(app: &TestApp, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let url = format!("{}/calendar/events", app.idp.issuer());
    let answer = app.http.send("GET", &url, &[("authorization", &authorization)], "").await;
    answer.status.as_u16()
}

#[tokio::test]
async fn people_connect_their_calendars_by_a_link_and_see_their_own_days() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    let page = alice.connect(&app).await;
    page.assert_page(200);
    assert!(page.text().contains("Demo calendar"), "{}", page.text());
    assert_eq!(alice.events().await, ALICES_DAY);

    // Bob has connected nothing yet, and nothing of Alice's is his.
    let bob = Caller::start(&app, "bob").await;
    bob.connect(&app).await.assert_page(200);
    assert_eq!(bob.events().await, BOBS_DAY);
    assert_eq!(alice.events().await, ALICES_DAY);

    let account = alice.console.page("/account/connections").await;
    for part in ["Demo calendar", "alice@calendar.example.com", "See the events of your calendar"] {
        assert!(account.contains(part), "{part} is not in {account}");
    }
    assert!(!account.contains("bob@calendar.example.com"), "{account}");

    // Other tools get no token, and no other program ever sees one.
    let token = Caller::calendar_token(&app);
    alice.client.call_tool(&alice.tokens.access_token, "get-todos", json!({})).await;
    let recorded = app.todo.recorded();
    assert_eq!(recorded.last().unwrap().header("x-calendar-token"), None);
    for (url, answer) in alice.console.browser.seen() {
        assert!(!answer.text().contains(&token), "{url}");
    }
}

/// Access tokens of the calendar live for five minutes, and each refresh token works once.
#[tokio::test]
async fn an_expired_token_is_refreshed_and_a_restart_forgets_nothing() {
    let mut app = start().await;
    let mut alice = Caller::start(&app, "alice").await;
    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
    let requests = || app.idp.requests_to("/calendar/token");
    assert_eq!(requests(), 1);
    let first = Caller::calendar_token(&app);
    for refreshes in 1..4 {
        app.advance(5 * 60);
        let renewed = alice.client.refresh(&alice.tokens.refresh_token).await;
        alice.tokens = Tokens::of(&renewed);
        assert_eq!(alice.events().await, ALICES_DAY);
        assert_eq!(app.idp.requests_to("/calendar/token"), 1 + refreshes);
    }
    assert_ne!(Caller::calendar_token(&app), first);
    assert_eq!(at_api(&app, &first).await, 401, "it has expired");

    app.restart().await;
    assert_eq!(alice.events().await, ALICES_DAY);
    assert_eq!(app.idp.requests_to("/calendar/token"), 4, "the stored token is still fresh");
}

#[tokio::test]
async fn disconnecting_revokes_the_token_at_the_calendar_and_the_tool_answers_with_the_link() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
    let token = Caller::calendar_token(&app);
    assert_eq!(at_api(&app, &token).await, 200);

    alice.console.press_and_confirm("/account/connections", "action", "disconnect").await;
    alice.link(&app).await;
    app.until_revoked().await;
    assert_eq!(
        app.idp.requests_to("/calendar/revoke"),
        2,
        "the refresh token and the access token"
    );
    assert_eq!(at_api(&app, &token).await, 401, "revoked");
    let account = alice.console.page("/account/connections").await;
    assert!(!account.contains("alice@calendar.example.com"), "{account}");

    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
}

/// The calendar ends the connection on its side: the next call but one says that it must be connected again.
#[tokio::test]
async fn a_token_that_the_calendar_refuses_is_replaced_or_the_person_is_asked_to_connect_again() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
    let token = Caller::calendar_token(&app);
    let revoke = format!("{}/calendar/revoke", app.idp.issuer());
    let form = [
        ("token", token.as_str()),
        ("client_id", "portcullis-calendar"),
        ("client_secret", "calendar-secret-canary"),
    ];
    app.http.post_form(&revoke, &form, &[]).await.assert_status(200);

    let refused = alice.agenda().await;
    assert_ne!(refused.status, 401, "the client would sign in at Portcullis again");
    assert!(!refused.text().contains("Stand-up"), "{}", refused.text());
    alice.link(&app).await;
    let account = alice.console.page("/account/connections").await;
    assert!(account.contains("Demo calendar"), "a broken connection is shown: {account}");

    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
}

#[tokio::test]
async fn a_person_who_denies_at_the_calendar_connects_nothing() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    let at_calendar = alice.go_to_calendar(&app).await;
    let back = decide(&alice.console.browser, &at_calendar, "deny").await;
    assert_eq!(back.location_param("error").as_deref(), Some("access_denied"));
    let page = alice.finish(&back).await;
    assert!(page.text().contains("Demo calendar"), "{}", page.text());
    assert_eq!(app.idp.requests_to("/calendar/token"), 0);
    alice.link(&app).await;
    alice.connect(&app).await.assert_page(200);
    assert_eq!(alice.events().await, ALICES_DAY);
}

/// UT-01: Alice's link, finished by Bob, would give Alice's client Bob's calendar.
#[tokio::test]
async fn ut_01_the_calendar_of_a_victim_is_not_connected_to_the_account_that_began() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    let bob = Caller::start(&app, "bob").await;
    let at_calendar = alice.go_to_calendar(&app).await;
    let back = decide(&bob.console.browser, &at_calendar, "allow").await;
    let page = bob.finish(&back).await;
    assert!(page.status.is_client_error(), "{} {}", page.status, page.text());
    assert_eq!(app.idp.requests_to("/calendar/token"), 0, "the code is not redeemed");
    alice.link(&app).await;
    bob.link(&app).await;
}

/// What the demo's calendar itself refuses.
#[tokio::test]
async fn the_calendar_refuses_foreign_clients_codes_and_tokens() {
    let app = start().await;
    let alice = Caller::start(&app, "alice").await;
    let at_calendar = alice.go_to_calendar(&app).await;

    let browser = &alice.console.browser;
    let changed = at_calendar.replace("portcullis-calendar", "somebody-else");
    browser.get(&changed).await.assert_page(400);
    let changed = at_calendar.replace("callback", "elsewhere");
    browser.get(&changed).await.assert_page(400);
    for (asked, other, error) in [
        ("calendar.read", "calendar.write", "invalid_scope"),
        ("S256", "plain", "invalid_request"),
        ("response_type=code", "response_type=token", "invalid_request"),
    ] {
        let answer = browser.get(&at_calendar.replace(asked, other)).await;
        assert_eq!(answer.location_param("error").as_deref(), Some(error), "{other}");
    }

    // The form of one session decides nothing in another browser.
    let page = browser.get(&at_calendar).await;
    let form = Form::of(&page, &at_calendar);
    let fields = form.with(&[("decision", "allow")]);
    let stranger = Browser::default();
    stranger.post(&form.action, &fields, &at_calendar).await.assert_page(200);
    let bob = Caller::start(&app, "bob").await;
    bob.console.browser.post(&form.action, &fields, &at_calendar).await.assert_page(200);
    let back = browser.post(&form.action, &fields, &at_calendar).await;
    let code = back.location_param("code").unwrap();

    let token = format!("{}/calendar/token", app.idp.issuer());
    let redeem = |secret: &'static str, verifier: &'static str| {
        let redirect_uri = connect::callback_url(&app, "calendar");
        let (http, token, code) = (app.http.clone(), token.clone(), code.clone());
        async move {
            let form = [
                ("grant_type", "authorization_code"),
                ("code", code.as_str()),
                ("code_verifier", verifier),
                ("redirect_uri", redirect_uri.as_str()),
                ("client_id", "portcullis-calendar"),
                ("client_secret", secret),
            ];
            http.post_form(&token, &form, &[]).await
        }
    };
    redeem("wrong", "x").await.assert_error(401, "invalid_client");
    redeem("calendar-secret-canary", "x").await.assert_error(400, "invalid_grant");
    assert_eq!(at_api(&app, "made-up").await, 401);
    assert_eq!(at_api(&app, &app.idp.issued().last().unwrap().clone()).await, 401, "a code");
}
