//! `/account`: people see and end their own connections, and no others (threats AD-01, AD-03).

use serde_json::json;

use crate::harness::browser::Form;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::Console;
use crate::harness::{Setup, TestApp};

const FORMS: &[&str] =
    &["/account/disconnect", "/account/sign-out", "/account/sign-out-everywhere"];

async fn works(client: &McpClient, tokens: &Tokens) -> bool {
    client.call_tool(&tokens.access_token, "create-todo", json!({ "title": "x" })).await.status
        == 200
}

/// A client that registered this name, connected by a person.
async fn connected(app: &TestApp, name: &str, person: &str) -> (McpClient, Tokens) {
    let client = app.client_named(name).await;
    let tokens = client.sign_in(person).await;
    (client, tokens)
}

#[tokio::test]
async fn signed_out_there_is_a_page_with_a_button_and_nothing_else() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let stranger = Console::account(&app);
    let page = stranger.get("/account").await;
    page.assert_page(401);
    assert!(page.text().contains("Sign in with the demo identity provider"));
    for form in FORMS {
        stranger.post(form, &[("csrf", "x")]).await.assert_page(401);
    }
    // Neither a token of a client nor an administrator's session opens it.
    let bearer = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
    app.http.send("GET", &app.at("/account"), &headers, "").await.assert_page(401);
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    admin.browser.get(&app.at("/account")).await.assert_page(401);
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    bob.browser.get(&format!("{}/", app.admin_url)).await.assert_page(401);
}

#[tokio::test]
async fn people_see_what_they_have_connected_in_words() {
    let app = TestApp::start().await;
    connected(&app, "Robot of Bob", "bob").await;
    app.advance(24 * 60 * 60);
    connected(&app, "Robot of Bob", "bob").await;
    connected(&app, "Robot of Alice", "alice").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;

    let page = bob.page("/account").await;

    for text in [
        "Bob Brown",
        "Robot of Bob",
        "Not verified",
        "To-do list",
        &app.mcp_url(),
        "Add to-dos",
        "create:todos",
        "127.0.0.1:53124",
        "2026-11-21 00:00",
        "2026-11-22 00:00",
    ] {
        assert!(page.contains(text), "{text} is not on the page: {page}");
    }
    assert!(!page.contains("Alice"), "{page}");
    assert_eq!(page.matches("Robot of Bob").count(), 2, "one card, and the name of its button");
    assert!(!page.contains("<script"));
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = bob.browser.send("GET", &app.at("/account"), &ja, "").await;
    assert!(page.text().contains("接続しているアプリケーション"));
    assert!(page.text().contains("すべての場所でサインアウト"));
}

#[tokio::test]
async fn xs_01_hostile_client_names_stay_text_on_the_account_page() {
    let app = TestApp::start().await;
    for name in ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "{{7*7}}"] {
        connected(&app, name, "bob").await;
    }
    let page = Console::account(&app).signed_in(&app, "bob").await.page("/account").await;
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
}

#[tokio::test]
async fn ad_03_a_person_disconnects_their_own_application_and_nobody_elses() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alices = client.elsewhere().sign_in("alice").await;
    let first = client.sign_in("bob").await;
    let second = client.sign_in("bob").await;
    let (other, kept) = connected(&app, "Another", "bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let mallory = Console::account(&app).signed_in(&app, "mallory").await;
    assert!(mallory.page("/account").await.contains("No applications connected yet"));

    // Mallory names what is bob's and alice's; Bob names what is alice's.
    let (csrf, server) = (mallory.csrf().await, app.mcp_url());
    for also in ["", "oidc:demo-bob", "oidc:demo-alice"] {
        let fields = [
            ("csrf", csrf.as_str()),
            ("client", client.id.as_str()),
            ("server", server.as_str()),
            ("sub", also),
            ("subject", also),
        ];
        let answer = mallory.post("/account/disconnect", &fields).await;
        answer.assert_leads_to(&app.at("/account?done=not_there"));
    }
    assert!(works(&client, &first).await && works(&client, &second).await);

    let page = bob.page("/account").await;
    let (form, _) = crate::harness::console::forms(&page, &bob.at("/account"))
        .into_iter()
        .find(|(form, _)| form.fields.contains(&("client".to_owned(), client.id.clone())))
        .unwrap();
    let answer = bob.browser.post(&form.action, &form.with(&[]), &bob.origin).await;
    answer.assert_leads_to(&app.at("/account?done=disconnected"));

    assert!(!works(&client, &first).await && !works(&client, &second).await);
    client.refresh(&second.refresh_token).await.assert_error(400, "invalid_grant");
    assert!(works(&client, &alices).await, "alice is untouched");
    assert!(works(&other, &kept).await, "and so is what else bob has connected");
    let page = bob.page("/account?done=disconnected").await;
    assert!(!page.contains(&client.id) && page.contains("The application is disconnected."));
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'grants_revoked'
                AND actor = 'person' AND subject = 'oidc:demo-bob'";
    assert_eq!(app.database.number(told).await, 1);
}

#[tokio::test]
async fn disconnecting_ends_a_code_that_is_on_its_way() {
    let app = TestApp::start().await;
    let client = app.client().await;
    client.sign_in("bob").await;
    let code = client.code("bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    bob.press("/account", "action", "disconnect").await.assert_status(303);
    client.redeem(&code).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn disconnecting_ends_nothing_of_the_same_client_at_another_mcp_server() {
    let other = "[resource]\n[[resource]]\npath = \"/notes\"\ntarget = \"http://127.0.0.1:9/\"\n\
        scopes = [\"read\"]";
    let app = TestApp::with(Setup::toml(other)).await;
    let (here, notes) = (app.mcp_url(), app.at("/notes"));
    let client = app.client().await;
    let at_notes = async || {
        let answer = client.authorize("bob", &[("resource", &notes), ("scope", "read")]).await;
        answer.location_param("code").unwrap()
    };
    let redeem = async |code: &str| client.redeem_with(code, &[("resource", &notes)]).await;
    let tokens = Tokens::of(&redeem(&at_notes().await).await);
    let code = at_notes().await;
    client.sign_in("bob").await;
    for server in [&here, &notes] {
        let of = format!("'oidc:demo-bob', '{}', '{server}'", client.id);
        for insert in [
            format!(
                "INSERT INTO remembered_consents (id, token_hash, redirect_uri, scopes,
                     metadata_hash, created_at, expires_at, subject, client_id, resource)
                 VALUES ('{server}', '', '', '', '', 1, 1, {of})"
            ),
            format!(
                "INSERT INTO logins_awaiting_approval (id, token_hash, session_id, login,
                     created_at, expires_at, subject, client_id, resource)
                 VALUES ('{server}', '', '', '', 1, 1, {of})"
            ),
        ] {
            app.database.execute(&insert).await;
        }
    }
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let page = bob.page("/account").await;
    let (form, _) = crate::harness::console::forms(&page, &bob.at("/account"))
        .into_iter()
        .find(|(form, _)| form.fields.contains(&("server".to_owned(), here.clone())))
        .unwrap();

    let answer = bob.browser.post(&form.action, &form.with(&[]), &bob.origin).await;

    answer.assert_leads_to(&app.at("/account?done=disconnected"));
    for left in [
        "SELECT COUNT(*) FROM remembered_consents",
        "SELECT COUNT(*) FROM logins_awaiting_approval WHERE ended_at IS NULL",
    ] {
        assert_eq!(app.database.number(left).await, 1, "{left}");
        let left = format!(
            "{left} {} id = '{notes}'",
            if left.contains("WHERE") { "AND" } else { "WHERE" }
        );
        assert_eq!(app.database.number_of(&left).await, 1, "{left}");
    }
    redeem(&code).await.assert_status(200);
    let again = [("resource", notes.as_str())];
    client.refresh_with(&tokens.refresh_token, &again).await.assert_status(200);
    let page = bob.page("/account").await;
    assert!(page.contains(&notes) && !page.contains(&here), "{page}");
}

#[tokio::test]
async fn ad_01_a_form_from_elsewhere_ends_nothing_of_a_person() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let other = Console::account(&app).signed_in(&app, "bob").await.csrf().await;
    let (csrf, server) = (bob.csrf().await, app.mcp_url());
    for path in FORMS {
        let url = bob.at(path);
        let fields = |csrf| [("csrf", csrf), ("client", client.id.as_str()), ("server", &server)];
        let form = crate::harness::http::encode(&fields(&csrf));
        let content = ("content-type", "application/x-www-form-urlencoded");
        for from in ["https://evil.example", app.admin_url.as_str()] {
            bob.browser.post(&url, &fields(&csrf), from).await.assert_page(403);
        }
        let ours = ("origin", bob.origin.as_str());
        for headers in [
            &[content][..],
            &[content, ("origin", "null")],
            &[content, ours, ("sec-fetch-site", "cross-site")],
            &[content, ours, ("sec-fetch-site", "same-site")],
        ] {
            bob.browser.send("POST", &url, headers, &form).await.assert_page(403);
        }
        bob.post(path, &fields("")).await.assert_page(403);
        bob.post(path, &fields(&other)).await.assert_page(403);
        bob.get(path).await.assert_page(405);
    }
    // Nobody can begin a sign-in in somebody's browser either.
    let sign_in = bob.at("/account/sign-in");
    bob.browser.post(&sign_in, &[], "https://evil.example").await.assert_page(403);
    assert!(works(&client, &tokens).await);
    bob.page("/account").await;
}

#[tokio::test]
async fn ad_01_a_visit_to_the_account_ends_when_idle() {
    let app = TestApp::start().await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    app.advance(14 * 60);
    bob.page("/account").await;
    app.advance(15 * 60);
    bob.get("/account").await.assert_page(401);
}

#[tokio::test]
async fn ad_01_a_sign_in_to_the_account_cannot_be_planted_in_another_browser() {
    let app = TestApp::start().await;
    let mallory = Console::account(&app);
    let page = mallory.get("/account").await;
    let form = Form::of(&page, &mallory.at("/account"));
    let leave = mallory.browser.post(&form.action, &form.with(&[]), &mallory.origin).await;
    let client = app.client().await;
    let page = client.browser.get(leave.location()).await;
    let form = Form::of(&page, leave.location());
    let fields = form.with(&[("username", "mallory"), ("password", "mallory")]);
    let back = client.browser.post(&form.action, &fields, leave.location()).await;
    let passed_on = client.browser.get(back.location()).await;
    passed_on.assert_leads_to(&app.at("/account/signed-in"));
    client.browser.get(passed_on.location()).await.assert_page(403);
    client.browser.get(&app.at("/account")).await.assert_page(401);
}

#[tokio::test]
async fn signing_out_here_ends_the_visit_and_leads_on_to_the_provider() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let elsewhere = Console::account(&app).signed_in(&app, "bob").await;
    let cookies = bob.browser.cookie_header("127.0.0.1");

    let answer = bob.press("/account", "action", "here").await;

    answer.assert_leads_to(&format!("{}/end_session?", app.idp.issuer()));
    assert_eq!(answer.location_param("post_logout_redirect_uri"), Some(app.at("/account")));
    bob.browser.get(answer.location()).await.assert_leads_to(&app.at("/account"));
    bob.get("/account").await.assert_page(401);
    // The cookie itself is worth nothing any more.
    let headers = [("accept", "text/html"), ("cookie", cookies.as_str())];
    app.http.send("GET", &app.at("/account"), &headers, "").await.assert_page(401);
    elsewhere.page("/account").await;
    assert!(works(&client, &tokens).await, "what is connected stays connected");
}

#[tokio::test]
async fn signing_out_works_without_the_provider() {
    let mut app = TestApp::start().await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let csrf = bob.csrf().await;
    app.idp.misbehave(|idp| idp.discovery_down = true);
    app.restart().await;
    let answer = bob.post("/account/sign-out", &[("csrf", &csrf)]).await;
    answer.assert_leads_to(&app.at("/account"));
    bob.get("/account").await.assert_page(401);
}

#[tokio::test]
async fn signing_out_everywhere_ends_everything_of_that_person_and_of_nobody_else() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let (other, kept) = app.tokens_of("alice").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let elsewhere = Console::account(&app).signed_in(&app, "bob").await;
    let alice = Console::account(&app).signed_in(&app, "alice").await;

    let answer = bob.press_and_confirm("/account", "action", "everywhere").await;

    answer.assert_leads_to(&format!("{}/end_session?", app.idp.issuer()));
    assert!(!works(&client, &tokens).await);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    bob.get("/account").await.assert_page(401);
    elsewhere.get("/account").await.assert_page(401);
    assert!(works(&other, &kept).await);
    alice.page("/account").await;
    // It is no block: who they are can be proved again.
    assert!(works(&client, &client.sign_in("bob").await).await);
}

#[tokio::test]
async fn somebody_cut_off_by_the_provider_is_out_of_the_account_after_the_re_check() {
    let app = TestApp::start().await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    app.idp.disable("bob");
    app.advance(8 * 60);
    bob.page("/account").await;
    app.advance(8 * 60);
    bob.get("/account").await.assert_page(401);
}
