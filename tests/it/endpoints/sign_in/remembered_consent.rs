//! Remembered approvals: only what the person approved, only who approved, only in that browser, only
//! for clients that are trusted (threat CD-02, requirements CON-09 to CON-13 and CON-22).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::browser::Form;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

const SITE: &str = "https://app.example/cb";
const DAY: i64 = 24 * 60 * 60;

fn metadata() -> Value {
    json!({
        "client_name": "Reports",
        "redirect_uris": [SITE, "https://app.example/CB", "https://app.example/cb/",
                          "https://app.example/cb?x=1", "https://other.example/cb"],
        "token_endpoint_auth_method": "none",
    })
}

async fn trust(app: &TestApp, client: &McpClient) -> Console {
    let admin = Console::admin(app).signed_in(app, "alice").await;
    decide(&admin, client, "trust").await;
    admin
}

async fn decide(admin: &Console, client: &McpClient, action: &str) {
    let path = with_query("/client", &[("id", &client.id)]);
    let mut answer = admin.press(&path, "action", action).await;
    if matches!(action, "refuse" | "block" | "end") {
        answer = admin.confirm(&answer, "action", action).await;
    }
    answer.assert_leads_to(&admin.at("/client"));
}

/// A trusted client, and bob's browser, in which he has approved it for `create:todos`.
async fn approved(app: &TestApp) -> (McpClient, Console) {
    let client = McpClient::register_as(app, metadata()).await;
    let admin = trust(app, &client).await;
    let back = client.authorize("bob", &[("scope", "create:todos")]).await;
    back.assert_leads_to(SITE);
    let code = back.location_param("code").unwrap();
    client.redeem(&code).await.assert_status(200);
    (client, admin)
}

/// Opens the address as somebody who typed it, or pressed a button of a program on the device.
async fn open(client: &McpClient, set: &[(&str, &str)]) -> Answer {
    open_as(client, set, &[("sec-fetch-site", "none")]).await
}

async fn open_as(client: &McpClient, set: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
    let mut wanted = vec![("scope", "create:todos")];
    wanted.retain(|(name, _)| !set.iter().any(|(known, _)| known == name));
    wanted.extend_from_slice(set);
    let mut all = vec![("accept", "text/html")];
    all.extend_from_slice(headers);
    client.browser.send("GET", &client.authorize_url(&wanted), &all, "").await
}

#[track_caller]
fn assert_asks(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(answer.text().contains("name=\"decision\" value=\"approve\""), "{what}");
    assert!(answer.header("location").is_none(), "{what}");
}

#[tokio::test]
async fn a_trusted_client_is_approved_once_and_says_who_vouches_for_it() {
    let app = TestApp::start().await;
    let (client, admin) = approved(&app).await;

    let direct = open(&client, &[]).await;
    direct.assert_leads_to(app.idp.issuer());
    let callback = client.log_in(direct.location(), "bob").await;
    let back = client.browser.get(&callback).await;
    back.assert_leads_to(SITE);
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(tokens.scope, "create:todos");
    open_as(&client, &[], &[("sec-fetch-site", "same-origin")])
        .await
        .assert_leads_to(app.idp.issuer());
    let page = open(&client, &[("scope", "create:todos read:todos")]).await;
    assert!(page.text().contains("Verified by your administrator"));
    assert!(!page.text().contains("It calls itself"));
    let trail = app.database.number(
        "SELECT COUNT(*) FROM audit_events WHERE event = 'consent_remembered'
         AND subject = 'oidc:demo-bob'",
    );
    assert_eq!(trail.await, 2);

    decide(&admin, &client, "untrust").await;
    let page = open(&client, &[]).await;
    assert_asks(&page, "untrusted");
    assert!(page.text().contains("self-registered"));
}

/// The browser comes back to the page from a page of ours, but the person came from another website.
#[tokio::test]
async fn cd_02_a_language_that_is_chosen_on_the_page_approves_nothing() {
    let app = TestApp::start().await;
    let (client, _) = approved(&app).await;
    let foreign = [("sec-fetch-site", "cross-site")];
    for set in [&[][..], &[("prompt", "login")][..]] {
        assert_asks(&open_as(&client, set, &foreign).await, "from another website");
        let mut wanted = vec![("scope", "create:todos")];
        wanted.extend_from_slice(set);
        let from = client.authorize_url(&wanted);

        let chosen = client.browser.choose_language(&app.url, "fr", &from).await;

        chosen.assert_leads_to(&from);
        let ours = [("accept", "text/html"), ("sec-fetch-site", "same-origin")];
        let again = client.browser.send("GET", chosen.location(), &ours, "").await;
        assert_asks(&again, "in another language");
        assert!(again.text().contains("<html lang=\"fr\">"), "{}", again.text());
    }
}

#[tokio::test]
async fn cd_02_any_single_changed_field_asks_again() {
    let other = "[resource]\n[[resource]]\npath = \"/other\"\ntarget = \"http://127.0.0.1:1/\"\n\
        scopes = [\"create:todos\"]";
    let app = TestApp::with(Setup::toml("[limits]\nconsent_pages = 50").and(other)).await;
    let (client, _) = approved(&app).await;
    let mut twin = metadata();
    twin["client_name"] = "Reports 2".into();
    let mut twin = McpClient::register_as(&app, twin).await;
    trust(&app, &twin).await;
    twin.browser = client.browser.clone();
    let other = app.at("/other");

    assert_asks(&open(&twin, &[]).await, "another client");
    for (name, value) in [
        ("redirect_uri", "https://other.example/cb"),
        ("redirect_uri", "https://app.example/cb?x=1"),
        ("redirect_uri", "https://app.example/cb/"),
        ("redirect_uri", "https://app.example/CB"),
        ("resource", other.as_str()),
        ("scope", "create:todos read:todos"),
        ("prompt", "consent"),
        ("prompt", "login"),
        ("prompt", "select_account"),
    ] {
        assert_asks(&open(&client, &[(name, value)]).await, value);
    }
    assert_asks(&open(&client.elsewhere(), &[]).await, "another browser");
    // And never by asking for silence.
    let silent = open(&client, &[("prompt", "none")]).await;
    assert!(!silent.text().is_empty() && silent.header("location").is_none());

    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
    let rename = |from: &str, to: &str| {
        format!(
            "UPDATE clients SET metadata = REPLACE(metadata, '\"{from}\"', '\"{to}\"') WHERE id = '{}'",
            client.id
        )
    };
    app.database.execute(&rename("Reports", "Claude")).await;
    assert_asks(&open(&client, &[]).await, "what the client registered");
    app.database.execute(&rename("Claude", "Reports")).await;
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn cd_02_whoever_is_led_here_by_another_site_is_asked() {
    let app = TestApp::with(Setup::toml("[limits]\nconsent_pages = 50")).await;
    let (client, _) = approved(&app).await;
    for headers in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "None")],
        &[("sec-fetch-site", "")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "none")],
        &[("sec-fetch-site", "none"), ("sec-purpose", "prefetch")],
    ] {
        assert_asks(&open_as(&client, &[], headers).await, &format!("{headers:?}"));
    }
    assert_eq!(app.database.number("SELECT COUNT(*) FROM logins WHERE ended_at IS NULL").await, 0);
}

#[tokio::test]
async fn con_13_somebody_else_who_comes_back_is_asked_and_nothing_is_issued() {
    let app = TestApp::start().await;
    let (client, _) = approved(&app).await;
    let codes = "SELECT COUNT(*) FROM authorization_codes";
    let before = app.database.number(codes).await;
    client.browser.forget("demo-identity-provider");
    let direct = open(&client, &[]).await;
    direct.assert_leads_to(app.idp.issuer());

    let callback = client.log_in(direct.location(), "alice").await;
    let page = client.browser.get(&callback).await;

    assert_asks(&page, "alice did not approve");
    assert_eq!(app.database.number(codes).await, before);
    client.browser.get(&callback).await.assert_page(403);
    // It is a page like any other: alice can approve it, for herself.
    let idp_url = client.decide(&Form::of(&page, &app.url), "approve").await;
    let callback = client.log_in(idp_url.location(), "alice").await;
    let back = client.browser.get(&callback).await;
    back.assert_leads_to(SITE);
    client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);
    // From now on this browser remembers what she approved.
    let direct = open(&client, &[]).await;
    let callback = client.log_in(direct.location(), "alice").await;
    client.browser.get(&callback).await.assert_leads_to(SITE);
}

#[tokio::test]
async fn an_approval_is_forgotten_after_thirty_days_however_often_it_was_used() {
    let app = TestApp::start().await;
    let (client, _) = approved(&app).await;
    app.advance(29 * DAY);
    let direct = open(&client, &[]).await;
    let callback = client.log_in(direct.location(), "bob").await;
    client.browser.get(&callback).await.assert_leads_to(SITE);
    app.advance(DAY - 1);
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
    app.advance(1);
    assert_asks(&open(&client, &[]).await, "thirty days");
}

#[tokio::test]
async fn con_10_a_program_on_a_device_is_always_asked_about() {
    let app = TestApp::with(Setup::toml("redirect_schemes = [\"cursor\"]")).await;
    for uri in ["http://127.0.0.1:53124/callback", "cursor://anysphere.cursor-mcp/oauth/callback"] {
        let metadata = json!({
            "redirect_uris": [uri, SITE], "token_endpoint_auth_method": "none",
        });
        let client = McpClient::register_as(&app, metadata).await;
        // Not even when somebody puts the mark into the database by hand.
        app.database
            .execute(&format!(
                "INSERT INTO client_reviews (client_id, state, trusted, blocked, changed_at, changed_by)
                 VALUES ('{}', 'approved', 1, 0, 0, 'x')",
                client.id
            ))
            .await;
        client.authorize("bob", &[("scope", "create:todos")]).await.assert_leads_to(uri);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM remembered_consents").await, 0);
        let page = open(&client, &[]).await;
        assert_asks(&page, uri);
        assert!(page.text().contains("self-registered"));
    }
}

#[tokio::test]
async fn con_22_nothing_is_remembered_for_a_client_that_is_not_trusted() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(&app, metadata()).await;
    client.authorize("bob", &[("scope", "create:todos")]).await.assert_leads_to(SITE);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM remembered_consents").await, 0);
    trust(&app, &client).await;
    assert_asks(&open(&client, &[]).await, "approved before it was trusted");
}

#[tokio::test]
async fn an_approval_is_remembered_only_after_that_person_has_signed_in() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(&app, metadata()).await;
    trust(&app, &client).await;
    let remembered = "SELECT COUNT(*) FROM remembered_consents";
    let idp_url = client.approve(&[("scope", "create:todos")]).await;
    assert_asks(&open(&client, &[]).await, "nobody has signed in");
    // Mallory signs in, and no rule lets her in.
    let callback = client.log_in(&idp_url, "mallory").await;
    client.browser.get(&callback).await.assert_page(403);
    assert_eq!(app.database.number(remembered).await, 0);
}

#[tokio::test]
async fn what_ends_a_connection_forgets_the_approval_at_once() {
    let app = TestApp::start().await;
    for how in ["untrust", "block", "end", "disconnect", "everywhere", "revoke", "one", "person"] {
        let (client, admin) = approved(&app).await;
        open(&client, &[]).await.assert_leads_to(app.idp.issuer());
        let bob = Console::account(&app).signed_in(&app, "bob").await;
        match how {
            "disconnect" => {
                bob.press("/account", "action", how).await.assert_status(303);
            }
            "everywhere" => {
                bob.press_and_confirm("/account", "action", how).await.assert_status(303);
            }
            "revoke" => {
                let direct = open(&client, &[]).await;
                let callback = client.log_in(direct.location(), "bob").await;
                let back = client.browser.get(&callback).await;
                let code = back.location_param("code").unwrap();
                let tokens = Tokens::of(&client.redeem(&code).await);
                client.revoke(&tokens.refresh_token).await.assert_status(200);
            }
            "one" => {
                let path = with_query("/grants", &[("client", &client.id)]);
                admin.press_and_confirm(&path, "action", "one").await.assert_status(303);
            }
            "person" => {
                app.storage()
                    .block_person(
                        "oidc:demo-bob",
                        "x",
                        app.now(),
                        app.audit_event("person_blocked"),
                    )
                    .await
                    .unwrap();
                let unblocked = app.audit_event("person_unblocked");
                app.storage().unblock_person("oidc:demo-bob", unblocked).await.unwrap();
            }
            how => decide(&admin, &client, how).await,
        }
        match how {
            "untrust" => decide(&admin, &client, "trust").await,
            "block" => {
                open(&client, &[]).await.assert_page(403);
                decide(&admin, &client, "unblock").await;
            }
            _ => {}
        }
        assert_asks(&open(&client, &[]).await, how);
        let path = with_query("/client", &[("id", &client.id)]);
        admin.press_and_confirm(&path, "action", "delete").await.assert_status(303);
        open(&client, &[]).await.assert_page(400);
        let left = app.database.number("SELECT COUNT(*) FROM remembered_consents").await;
        assert_eq!(left, 0, "{how}");
    }
}

#[tokio::test]
async fn an_approval_forgotten_while_the_person_signs_in_is_asked_again() {
    let app = TestApp::start().await;
    let (client, admin) = approved(&app).await;
    let direct = open(&client, &[]).await;
    decide(&admin, &client, "untrust").await;
    let callback = client.log_in(direct.location(), "bob").await;
    assert_asks(&client.browser.get(&callback).await, "untrusted under way");

    decide(&admin, &client, "trust").await;
    client.authorize("bob", &[("scope", "create:todos")]).await.assert_leads_to(SITE);
    let direct = open(&client, &[]).await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    bob.press("/account", "action", "disconnect").await.assert_status(303);
    let callback = client.log_in(direct.location(), "bob").await;
    assert_asks(&client.browser.get(&callback).await, "disconnected under way");
}

#[tokio::test]
async fn a_hundred_uses_at_once_are_a_hundred_logins_and_respect_the_quota() {
    for _ in rounds() {
        let app = TestApp::with(Setup::toml("[limits]\npending_logins = 60")).await;
        let (client, _) = approved(&app).await;
        let cookies = client.browser.cookie_header("127.0.0.1");
        let url = client.authorize_url(&[("scope", "create:todos")]);
        let headers =
            [("accept", "text/html"), ("sec-fetch-site", "none"), ("cookie", cookies.as_str())];

        let answers = join_all((0..100).map(|_| app.http.send("GET", &url, &headers, ""))).await;

        let led_on: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 303).collect();
        // On PostgreSQL the count is taken beside others that are about to commit: as many connections.
        let most = if app.database.is_postgres() { 60 + 16 } else { 60 };
        assert!((60..=most).contains(&led_on.len()), "{}", led_on.len());
        let states: BTreeSet<_> =
            led_on.iter().map(|answer| answer.location_param("state")).collect();
        assert_eq!(states.len(), led_on.len(), "each is a login of its own");
        for answer in answers.iter().filter(|answer| answer.status != 303) {
            assert_asks(answer, "beyond the quota");
        }
        let open_logins = "SELECT COUNT(*) FROM logins WHERE ended_at IS NULL";
        assert_eq!(app.database.number(open_logins).await, i64::try_from(led_on.len()).unwrap());
        app.advance(16 * 60);
        let direct = open(&client, &[]).await;
        let callback = client.log_in(direct.location(), "bob").await;
        client.browser.get(&callback).await.assert_leads_to(SITE);
    }
}

#[tokio::test]
async fn a_browser_remembers_ten_clients_and_lets_the_oldest_go() {
    let app = TestApp::start().await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let browser = app.client().await.browser;
    let mut clients = Vec::new();
    for number in 0..11 {
        app.advance(1);
        let mut metadata = metadata();
        metadata["client_name"] = format!("Reports {number}").into();
        let mut client = McpClient::register_as(&app, metadata).await;
        decide(&admin, &client, "trust").await;
        client.browser = browser.clone();
        client.authorize("bob", &[("scope", "create:todos")]).await.assert_leads_to(SITE);
        clients.push(client);
    }
    let names = browser.cookie_names();
    assert_eq!(names.iter().filter(|name| name.contains("remembered")).count(), 10);
    assert_asks(&open(&clients[0], &[]).await, "the oldest");
    open(&clients[1], &[]).await.assert_leads_to(app.idp.issuer());
    open(&clients[10], &[]).await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn while_the_provider_is_away_a_remembered_approval_shows_the_page() {
    let mut app = TestApp::start().await;
    let (client, _) = approved(&app).await;
    app.idp.misbehave(|idp| idp.discovery_down = true);
    app.restart().await; // what was known of the provider is gone
    assert_asks(&open(&client, &[]).await, "no provider");
    app.idp.misbehave(|idp| idp.discovery_down = false);
    app.advance(120);
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_client_that_the_configuration_trusts_is_remembered_until_it_no_longer_says_so() {
    let table = |trusted: bool| {
        format!(
            "[[client]]\nclient_id = \"reports\"\nname = \"Reports\"\nredirect_uris = [\"{SITE}\"]\n\
             public = true\ntrusted = {trusted}"
        )
    };
    let mut app = TestApp::with(Setup::toml(table(true))).await;
    let client = McpClient::known_as(&app, "reports", SITE);
    let back = client.authorize("bob", &[("scope", "create:todos")]).await;
    client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
    app.restart().await;
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());

    app.change_config(&table(true), &table(false));
    app.restart().await;

    assert_asks(&open(&client, &[]).await, "no longer trusted");
}

/// What a person left out was not approved, and so it is not remembered.
#[tokio::test]
async fn a_scope_that_was_left_out_is_asked_about_again() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(&app, metadata()).await;
    trust(&app, &client).await;
    let both = [("scope", "create:todos read:todos")];
    let (_, form) = client.ask(&both).await;
    let mut fields = form.with(&[("decision", "approve")]);
    fields.retain(|field| *field != ("scope", "read:todos"));
    let answer = client.browser.post(&form.action, &fields, &client.server.url).await;
    let callback = client.log_in(answer.location(), "alice").await;
    client.browser.get(&callback).await.assert_leads_to(SITE);

    assert_asks(&open(&client, &both).await, "more than was ticked");
    open(&client, &[]).await.assert_leads_to(app.idp.issuer());
}
