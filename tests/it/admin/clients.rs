//! The pages about clients: who waits and what they want, decisions from the list, changes of clients that
//! were created here, and the end of unused ones.

use serde_json::{Value, json};

use crate::harness::browser::unescape;
use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::console::{Console, forms, with_query};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const CLIENTS: &str = "SELECT COUNT(*) FROM clients";

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

async fn with_approval() -> TestApp {
    TestApp::with(Setup::toml("client_approval = \"first_use\"")).await
}

fn page_of(client: &McpClient) -> String {
    with_query("/client", &[("id", &client.id)])
}

/// A client that an administrator creates: the client, with its secret.
async fn created(app: &TestApp, alice: &Console, redirect_uri: &str) -> McpClient {
    let fields = [("name", "Reports"), ("redirect_uris", redirect_uri)];
    let page = alice.press_with("/clients/new", "action", "create", &fields).await;
    page.assert_page(200);
    let id = regex_lite::Regex::new("client_[0-9a-f]{32}").unwrap();
    let id = id.find(page.text()).unwrap().as_str();
    let mut client = McpClient::known_as(app, id, redirect_uri);
    client.secret = Some(secret_on(&page));
    client
}

fn secret_on(page: &Answer) -> String {
    let secret = regex_lite::Regex::new("cs_[A-Za-z0-9_-]{43}").unwrap();
    secret.find(page.text()).unwrap_or_else(|| panic!("{}", page.text())).as_str().to_owned()
}

async fn details(app: &TestApp, event: &str) -> Vec<Value> {
    use portcullis::storage::AuditFilter;
    let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
}

#[tokio::test]
async fn a_clients_page_says_who_waits_since_when_and_for_what() {
    let app = with_approval().await;
    let client = app.client().await;
    client.authorize("bob", &[("scope", "create:todos")]).await.assert_status(303);
    app.advance(60);
    client.elsewhere().authorize("bob", &[]).await.assert_status(303);
    client.elsewhere().authorize("alice", &[]).await.assert_status(303);
    let alice = admin(&app).await;

    let page = alice.page(&page_of(&client)).await;

    assert!(page.contains("2 people wait · first asked"), "{page}");
    for part in ["Bob Brown", "Alice Adams", "<code>create:todos</code>", "<code>read:todos</code>"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(">oidc:demo-bob<"), "people are named: {page}");
    // Each button says what it does.
    for action in ["approve", "refuse", "block", "delete"] {
        let (_, form) = forms(&page, &alice.at("/client"))
            .into_iter()
            .find(|(_, html)| html.contains(&format!("value=\"{action}\"")))
            .unwrap_or_else(|| panic!("{action}: {page}"));
        assert!(form.contains("<p class=\"note\">"), "{action}: {form}");
    }
    assert!(
        page.contains("“Skip the consent page” is not available for apps on a device."),
        "{page}"
    );
    let list = alice.page("/clients?standing=waiting").await;
    assert!(list.contains("2 people wait · first asked"), "{list}");
    // An hour later nobody waits, and the first is still named.
    app.advance(3600);
    let alice = admin(&app).await;
    let page = alice.page(&page_of(&client)).await;
    assert!(page.contains("Nobody waits at the moment") && page.contains("Bob Brown"), "{page}");
}

#[tokio::test]
async fn a_waiting_client_is_approved_from_the_list() {
    let app = with_approval().await;
    let client = app.client().await;
    let waiting = client.authorize("bob", &[]).await.location().to_owned();
    let alice = admin(&app).await;

    let answer = alice.press("/clients?standing=waiting", "action", "approve").await;

    assert_eq!(answer.location(), alice.at("/clients?standing=waiting&done=approve"));
    let list = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let list = alice.page(&list).await;
    assert!(list.contains("The client is approved") && !list.contains("Test client"), "{list}");
    client.browser.get(&waiting).await.assert_leads_to(REDIRECT_URI);

    // A client that changes between the list and the button is not approved.
    let other = app.client_named("Another").await;
    other.authorize("bob", &[]).await.assert_status(303);
    let page = alice.page("/clients?standing=waiting").await;
    let (form, _) = forms(&page, &alice.at("/clients"))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"approve\""))
        .unwrap();
    app.database
        .execute("UPDATE clients SET metadata = REPLACE(metadata, 'Another', 'Claude')")
        .await;
    let fields = form.with(&[("action", "approve")]);
    let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;
    assert_eq!(answer.location(), alice.at("/clients?standing=waiting&done=changed"));
    let approved = "SELECT COUNT(*) FROM client_reviews WHERE state = 'approved'";
    assert_eq!(app.database.number(approved).await, 1);
}

#[tokio::test]
async fn waiting_refused_and_blocked_look_different() {
    let app = with_approval().await;
    let alice = admin(&app).await;
    for (name, action) in [("Waits", ""), ("Refused", "refuse"), ("Blocked", "block")] {
        let client = app.client_named(name).await;
        client.authorize("bob", &[]).await.assert_status(303);
        if !action.is_empty() {
            alice.press_and_confirm(&page_of(&client), "action", action).await.assert_status(303);
        }
    }

    let list = alice.page("/clients").await;

    for (class, text) in
        [("waits", "waiting for approval"), ("refused", "refused"), ("blocked", "blocked")]
    {
        assert!(list.contains(&format!("<span class=\"tag {class}\">{text}</span>")), "{list}");
    }
}

#[tokio::test]
async fn the_confirmation_of_a_refusal_names_who_waits() {
    let app = with_approval().await;
    let client = app.client().await;
    client.authorize("bob", &[]).await.assert_status(303);
    let alice = admin(&app).await;

    let asked = alice.press(&page_of(&client), "action", "refuse").await;

    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("1 sign-in that waits") && page.contains("Bob Brown"), "{page}");
}

#[tokio::test]
async fn a_client_is_found_by_any_part_of_its_name_and_of_its_host() {
    let app = TestApp::start().await;
    for (name, uri) in [
        ("Claude", "https://claude.ai/api/mcp/auth_callback"),
        ("100% _sure_", "https://sure.example/cb"),
        ("Überblick", "https://report.example/cb"),
    ] {
        let metadata = json!({ "client_name": name, "redirect_uris": [uri], "token_endpoint_auth_method": "none" });
        McpClient::register_as(&app, metadata).await;
    }
    let alice = admin(&app).await;
    for (search, found) in [
        ("aude", "Claude"),
        ("CLAUDE", "Claude"),
        ("ude.a", "Claude"),
        ("0% _s", "100 _sure_"),
        ("ÜBER", "Überblick"),
        ("blick", "Überblick"),
        ("port.ex", "Überblick"),
    ] {
        let page = alice.page(&with_query("/clients", &[("q", search)])).await;
        assert_eq!(page.matches("<a href=\"/client?id=").count(), 1, "{search}: {page}");
        assert!(page.contains(&format!(">{found}</bdi>")), "{search}: {page}");
    }
    for nothing in ["%", "c_aude", "cl%de", "\\", "zzzz"] {
        let page = alice.page(&with_query("/clients", &[("q", nothing)])).await;
        let found = page.matches("<a href=\"/client?id=").count();
        assert_eq!(found, usize::from(nothing == "%"), "{nothing}: {page}");
    }
    alice.get("/clients?q=%00").await.assert_page(400);
}

#[tokio::test]
async fn the_list_counts_connections_and_sorts_by_last_use() {
    let app = TestApp::start().await;
    let unused = app.client_named("Unused").await;
    let early = app.client_named("Early").await;
    early.sign_in("bob").await;
    app.advance(3600);
    let late = app.client_named("Late").await;
    late.sign_in("bob").await;
    late.elsewhere().sign_in("alice").await;
    let alice = admin(&app).await;

    let page = alice.page("/clients?sort=last-use").await;

    let row = |client: &McpClient| {
        let begins = page.find(&format!("/client?id={}", client.id)).unwrap();
        (begins, page[begins..].split("</tr>").next().unwrap().to_owned())
    };
    assert!(row(&late).0 < row(&early).0 && row(&early).0 < row(&unused).0);
    for (client, connections) in [(&late, 2), (&early, 1), (&unused, 0)] {
        let cell = format!("data-label=\"Connections\">{connections}<");
        assert!(row(client).1.contains(&cell), "{}", row(client).1);
    }
}

#[tokio::test]
async fn a_client_created_here_is_edited_and_stays_approved() {
    let app = with_approval().await;
    let alice = admin(&app).await;
    let mut client = created(&app, &alice, "https://reports.example/cb").await;
    client.sign_in("bob").await;
    let edit = with_query("/clients/edit", &[("id", &client.id)]);
    let page = alice.page(&edit).await;
    assert!(page.contains("https://reports.example/cb") && page.contains("value=\"Reports\""));

    // What is wrong is said, and what was entered stays.
    let wrong = [("name", "News"), ("redirect_uris", "http://reports.example/cb")];
    let refused = alice.press_with(&edit, "action", "save", &wrong).await;
    refused.assert_page(400);
    assert!(refused.text().contains("http is allowed for"), "{}", refused.text());
    assert!(refused.text().contains("value=\"News\""), "{}", refused.text());

    let right = [
        ("name", "News"),
        ("redirect_uris", "https://news.example/cb"),
        ("owner", "Team <News>"),
        ("note", "ticket 17"),
    ];
    let answer = alice.press_with(&edit, "action", "save", &right).await;
    assert!(answer.location().ends_with("done=saved"), "{}", answer.location());
    let page = unescape(&alice.page(&page_of(&client)).await);
    for part in ["News", "https://news.example/cb", "Team <News>", "ticket 17"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(unescape(&alice.page("/clients?q=news").await).contains("Team <News>"));
    // The former redirect URI is gone, the new one works, and nobody waits.
    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    client.redirect_uri = "https://news.example/cb".to_owned();
    client.elsewhere().sign_in("bob").await;
    let told = details(&app, "client_changed").await;
    assert_eq!(told[0]["changed"], json!(["owner", "note", "name", "redirect_uris"]));
    let told = told[0].to_string();
    assert!(!told.contains("News") && !told.contains("ticket 17"), "no texts: {told}");
    let stolen = String::from_utf8_lossy(&app.database.dump().await).into_owned();
    assert!(!stolen.contains("ticket 17"), "the note is sealed");
}

#[tokio::test]
async fn trust_ends_with_an_edit_and_an_older_form_saves_nothing() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let client = created(&app, &alice, "https://reports.example/cb").await;
    alice.press(&page_of(&client), "action", "trust").await.assert_status(303);
    let edit = with_query("/clients/edit", &[("id", &client.id)]);
    let page = alice.page(&edit).await;
    let (form, _) = forms(&page, &alice.at(&edit))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"save\""))
        .unwrap();
    let uris = ("redirect_uris", "https://reports.example/cb");
    let set = [("name", "Reports 2"), uris, ("action", "save")];

    let answer = alice.browser.post(&form.action, &form.with(&set), &alice.origin).await;

    assert!(answer.location().ends_with("done=saved"), "{}", answer.location());
    let trusted = "SELECT COUNT(*) FROM client_reviews WHERE trusted = 1";
    assert_eq!(app.database.number(trusted).await, 0);
    assert!(alice.page(&page_of(&client)).await.contains("no longer applies"));
    let set = [("name", "Reports 3"), uris, ("action", "save")];
    let answer = alice.browser.post(&form.action, &form.with(&set), &alice.origin).await;
    assert!(answer.location().ends_with("done=changed"), "{}", answer.location());
    let again = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&again).await;
    assert!(page.contains("has changed since") && page.contains("Reports 2"), "{page}");
}

#[tokio::test]
async fn of_a_client_that_registered_itself_only_owner_and_note_are_edited() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = admin(&app).await;
    let edit = with_query("/clients/edit", &[("id", &client.id)]);
    let page = alice.page(&edit).await;
    assert!(!page.contains("name=\"redirect_uris\""), "{page}");
    let before = app.database.text("SELECT metadata FROM clients").await;

    let set = [("owner", "Bob's team"), ("name", "x"), ("redirect_uris", "https://evil.example")];
    alice.press_with(&edit, "action", "save", &set).await.assert_leads_to(&alice.at("/client"));

    assert_eq!(app.database.text("SELECT metadata FROM clients").await, before);
    assert!(unescape(&alice.page("/clients").await).contains("Bob's team"));
    alice.get("/clients/edit?id=nobody").await.assert_page(404);
}

#[tokio::test]
async fn a_rotated_secret_ends_the_former_one_at_once() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let mut client = created(&app, &alice, "https://reports.example/cb").await;
    let tokens = client.sign_in("bob").await;

    let asked = alice.press(&page_of(&client), "action", "rotate").await;
    asked.assert_leads_to(&alice.at("/confirm"));
    let tokens = crate::harness::client::Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let page = alice.confirm(&asked, "action", "rotate").await;

    page.assert_page(200);
    let secret = secret_on(&page);
    assert_ne!(Some(&secret), client.secret.as_ref());
    client.refresh(&tokens.refresh_token).await.assert_error(401, "invalid_client");
    client.secret = Some(secret.clone());
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert!(!alice.page(&page_of(&client)).await.contains(&secret), "it is shown once");
    assert_eq!(details(&app, "client_secret_rotated").await.len(), 1);
    // A client that registered itself has no secret of ours to rotate.
    let own = app.client().await;
    let csrf = alice.csrf().await;
    let fields = [("csrf", csrf.as_str()), ("id", own.id.as_str()), ("action", "rotate")];
    alice.post("/client", &fields).await.assert_page(404);
}

#[tokio::test]
async fn a_secret_rotates_once_however_often_the_button_is_pressed() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let mut client = created(&app, &alice, "https://reports.example/cb").await;
    let tokens = client.sign_in("bob").await;
    let asked = alice.press(&page_of(&client), "action", "rotate").await;
    let path = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&path).await;
    assert!(page.contains("Its former secret ends at once"), "it says so before: {page}");
    let (form, _) = forms(&page, &alice.at(&path))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"rotate\""))
        .unwrap();
    let fields = form.with(&[("action", "rotate")]);
    let press = || alice.browser.post(&form.action, &fields, &alice.origin);

    let answers = futures_util::future::join_all((0..20).map(|_| press())).await;

    let (shown, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status.as_u16() == 200);
    assert_eq!(shown.len(), 1, "one press rotates it");
    client.secret = Some(secret_on(&shown[0]));
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    for answer in &others {
        answer.assert_leads_to(&alice.at("/confirm"));
    }
    let again = others[0].location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&again).await;
    assert!(page.contains("Nothing was done: the secret was rotated since"), "{page}");
    assert!(!page.contains(client.secret.as_deref().unwrap()), "it is shown once");
    assert_eq!(details(&app, "client_secret_rotated").await.len(), 1);
}

#[tokio::test]
async fn unused_clients_are_deleted_together_after_their_number_is_typed() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let kept = created(&app, &alice, "https://reports.example/cb").await;
    let used = app.client_named("Used").await;
    used.sign_in("bob").await;
    let mut unused = Vec::new();
    for number in 0..3 {
        let client = app.client_named(&format!("Robot {number}")).await;
        client.sign_in("bob").await;
        unused.push(client);
    }
    app.advance(31 * 24 * 3600);
    used.elsewhere().sign_in("bob").await;
    let alice = admin(&app).await;
    let list = alice.page("/clients?standing=unused").await;
    assert!(list.contains("Robot 0") && !list.contains("Used<") && !list.contains("Reports"));
    let before = app.database.number(CLIENTS).await;

    let asked = alice.press("/clients?standing=unused", "action", "delete_unused").await;

    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("<strong>3</strong> clients are deleted."), "{page}");
    assert!(page.contains("Robot 0") && page.contains("Type <strong>3</strong>"), "{page}");
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"delete_unused\""))
        .unwrap();
    let send = async |typed: &str| {
        let set = [("action", "delete_unused"), ("typed", typed), ("reason", "OPS-1")];
        alice.browser.post(&form.action, &form.with(&set), &alice.origin).await
    };
    send("4").await.assert_page(400);
    assert_eq!(app.database.number(CLIENTS).await, before);
    // One of them is used meanwhile: it is asked again.
    app.database
        .execute("UPDATE clients SET last_used_at = 9999999999 WHERE metadata LIKE '%Robot 0%'")
        .await;
    send("3").await.assert_leads_to(&alice.at("/confirm"));
    assert_eq!(app.database.number(CLIENTS).await, before);

    let asked = alice.press("/clients?standing=unused", "action", "delete_unused").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let set = [("typed", "2"), ("reason", "OPS-1")];
    let done = alice.press_with(&between, "action", "delete_unused", &set).await;

    assert!(done.location().ends_with("done=unused"), "{}", done.location());
    assert_eq!(app.database.number(CLIENTS).await, before - 2);
    let told = details(&app, "client_deleted").await;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|line| line["reason"] == "OPS-1" && line["because"] == "unused"));
    assert!(alice.page("/clients").await.contains("Reports"));
    alice.page(&page_of(&kept)).await;
    alice.get(&page_of(&unused[1])).await.assert_page(404);
    assert!(alice.page("/clients?standing=unused").await.contains("No clients match."));
}

#[tokio::test]
async fn words_of_the_pages_about_clients() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = admin(&app).await;
    let mut pages = String::new();
    for path in ["/clients", "/clients?q=zzzz", "/clients/new", &page_of(&client)] {
        pages.push_str(&alice.page(path).await);
    }
    for text in ["Search", "Status", "Redirects to", "Authentication", "none (public client)"] {
        assert!(pages.contains(text), "{text}");
    }
    for text in
        ["Find", "Standing", "Answers go to", "Proves itself", "made here", "No client fits"]
    {
        assert!(!pages.contains(text), "{text}");
    }
}
