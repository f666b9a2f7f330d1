//! Approval by pattern: a client whose redirect URIs all go to a website that an administrator named needs
//! no review, and no other client profits from that.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::client::McpClient;
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::process::portcullis;
use crate::harness::publisher::{Page, Publisher};
use crate::harness::{Setup, TestApp};

const CALLBACK: &str = "https://chatgpt.com/connector/oauth/abc";
const FIRST_USE: &str = "client_approval = \"first_use\"\nredirect_schemes = [\"cursor\"]";

async fn start() -> TestApp {
    TestApp::with(Setup::toml(FIRST_USE)).await
}

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

async fn add(alice: &Console, website: &str, until: &str) -> Answer {
    let set = [("website", website), ("until", until)];
    alice.press_with("/clients/patterns", "action", "add", &set).await
}

async fn registered(app: &TestApp, redirect_uris: &[&str]) -> McpClient {
    let metadata = json!({
        "client_name": "ChatGPT",
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": "none",
    });
    let mut client = McpClient::register_as(app, metadata).await;
    redirect_uris[0].clone_into(&mut client.redirect_uri);
    client
}

async fn waits(app: &TestApp, client: &McpClient) -> String {
    let answer = client.authorize("bob", &[]).await;
    answer.assert_leads_to(&app.at("/waiting?id="));
    answer.location().to_owned()
}

async fn details(app: &TestApp, event: &str) -> Vec<Value> {
    use portcullis::storage::AuditFilter;
    let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
}

#[tokio::test]
async fn a_client_that_goes_to_a_named_website_needs_no_review() {
    let app = start().await;
    let alice = admin(&app).await;
    let answer = add(&alice, " ChatGPT.com ", "").await;
    assert!(answer.location().ends_with("done=added&approved=0"), "{}", answer.location());

    let client = registered(&app, &[CALLBACK, "https://chatgpt.com/other"]).await;
    client.sign_in("bob").await;

    let page = alice.page("/clients/patterns").await;
    assert!(page.contains("chatgpt.com") && page.contains("Alice Adams"), "{page}");
    assert!(page.contains("data-label=\"Approved so far\">1<"), "{page}");
    let told = details(&app, "client_approved_by_pattern").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["pattern"], "chatgpt.com");
    assert_eq!(details(&app, "approval_pattern_added").await[0]["pattern"], "chatgpt.com");
    // Approved for good: a second person does not depend on the pattern.
    client.elsewhere().sign_in("alice").await;
    assert_eq!(details(&app, "client_approved_by_pattern").await.len(), 1);
}

#[tokio::test]
async fn look_alikes_and_clients_that_also_go_elsewhere_get_nothing_by_a_pattern() {
    let app = start().await;
    let alice = admin(&app).await;
    add(&alice, "chatgpt.com", "").await.assert_status(303);
    for redirect_uris in [
        &["https://chatgpt.com.evil.example/cb"][..],
        &["https://evilchatgpt.com/cb"],
        &["https://xn--hatgpt-hrf.com/cb"],
        &["https://www.chatgpt.com/cb"],
        &["https://chatgpt.com:8443/cb"],
        &["http://127.0.0.1:1234/chatgpt.com"],
        &["http://localhost:1234/cb"],
        &["cursor://anysphere.cursor-mcp/oauth/callback"],
        &["com.chatgpt://cb"],
        &[CALLBACK, "https://evil.example/cb"],
        &["https://evil.example/cb", CALLBACK],
        &[CALLBACK, "http://127.0.0.1/cb"],
        &[CALLBACK, "com.chatgpt://cb"],
    ] {
        let client = registered(&app, redirect_uris).await;
        waits(&app, &client).await;
    }
    assert_eq!(details(&app, "client_approved_by_pattern").await, Vec::<Value>::new());
    // The same when the pattern comes later than those who wait.
    let answer = add(&alice, "chatgpt.com", "").await;
    assert!(answer.location().ends_with("approved=0"), "{}", answer.location());
}

#[tokio::test]
async fn a_refusal_a_block_and_a_change_are_stronger_than_a_pattern() {
    let app = start().await;
    let alice = admin(&app).await;
    for action in ["refuse", "block"] {
        let client = registered(&app, &[CALLBACK, &format!("{CALLBACK}/{action}")]).await;
        let page = waits(&app, &client).await;
        let path = with_query("/client", &[("id", &client.id)]);
        alice.press_and_confirm(&path, "action", action).await.assert_status(303);
        add(&alice, "chatgpt.com", "").await.assert_status(303);
        client.browser.get(&page).await.assert_page(403);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(403);
        alice.press_and_confirm("/clients/patterns", "action", "remove").await.assert_status(303);
    }
    assert_eq!(details(&app, "client_approved_by_pattern").await, Vec::<Value>::new());
}

#[tokio::test]
async fn who_waits_already_and_matches_is_approved_at_once() {
    let app = start().await;
    let alice = admin(&app).await;
    let client = registered(&app, &[CALLBACK]).await;
    let page = waits(&app, &client).await;
    let other = registered(&app, &["https://evil.example/cb"]).await;
    let others = waits(&app, &other).await;

    let answer = add(&alice, "chatgpt.com", "").await;

    let path = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
    assert!(alice.page(&path).await.contains("1 waiting client is approved."));
    client.browser.get(&page).await.assert_leads_to(CALLBACK);
    other.browser.get(&others).await.assert_page(200);
    let waiting = alice.page("/clients?standing=waiting").await;
    assert_eq!(waiting.matches("<a href=\"/client?id=").count(), 1, "{waiting}");
}

#[tokio::test]
async fn after_its_end_or_its_removal_a_pattern_approves_nobody_new() {
    let app = start().await;
    let alice = admin(&app).await;
    // The clock of a test begins in November 2026.
    add(&alice, "chatgpt.com", "2026-11-21").await.assert_status(303);
    let client = registered(&app, &[CALLBACK]).await;
    client.sign_in("bob").await;
    app.advance(2 * 24 * 3600);
    let late = registered(&app, &[&format!("{CALLBACK}/2")]).await;
    waits(&app, &late).await;
    client.elsewhere().sign_in("bob").await;
    let alice = admin(&app).await;
    assert!(
        alice.page("/clients/patterns").await.contains("<span class=\"tag quiet\">over</span>")
    );

    add(&alice, "chatgpt.com", "2027-01-01").await.assert_status(303);
    registered(&app, &[&format!("{CALLBACK}/3")]).await.sign_in("bob").await;
    let asked = alice.press("/clients/patterns", "action", "remove").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    assert!(alice.page(&between).await.contains("chatgpt.com"));
    registered(&app, &[&format!("{CALLBACK}/4")]).await.sign_in("bob").await;
    alice.confirm(&asked, "action", "remove").await.assert_status(303);

    waits(&app, &registered(&app, &[&format!("{CALLBACK}/5")]).await).await;
    client.elsewhere().sign_in("bob").await;
    assert_eq!(details(&app, "approval_pattern_removed").await.len(), 1);
}

#[tokio::test]
async fn what_is_no_website_is_not_accepted_as_a_pattern() {
    let app = start().await;
    let alice = admin(&app).await;
    for (website, until, problem) in [
        ("https://chatgpt.com", "", "Write the host alone"),
        ("*.chatgpt.com", "", "Write the host alone"),
        ("localhost", "", "Write the whole name"),
        ("127.0.0.1", "", "Write the whole name"),
        ("com", "", "Write the whole name"),
        ("xn--hatgpt-hrf.com", "", "may look like another name"),
        ("\u{441}hatgpt.com", "", "may look like another name"),
        ("chatgpt.com", "2026-11-01", "Enter a date"),
        ("chatgpt.com", "soon", "Enter a date"),
    ] {
        let answer = add(&alice, website, until).await;
        answer.assert_page(400);
        assert!(answer.text().contains(problem), "{website} {until}: {}", answer.text());
    }
    let patterns = "SELECT COUNT(*) FROM approval_patterns";
    assert_eq!(app.database.number(patterns).await, 0);
    // A hundred are the most.
    for number in 0..100 {
        app.database
            .execute(&format!(
                "INSERT INTO approval_patterns (host, approved, created_at, created_by)
                 VALUES ('host{number}.example', 0, 0, 'shell')"
            ))
            .await;
    }
    let answer = add(&alice, "chatgpt.com", "").await;
    assert!(answer.text().contains("100 patterns already"), "{}", answer.text());
    assert_eq!(app.database.number(patterns).await, 100);
    add(&alice, "host7.example", "2027-01-01").await.assert_status(303);
}

#[tokio::test]
async fn a_published_client_is_approved_by_a_pattern_as_its_document_is_now() {
    const ID: &str = "https://client.example/oauth/client.json";
    let document = |redirect_uri: &str| {
        let body =
            json!({ "client_id": ID, "client_name": "Reports", "redirect_uris": [redirect_uri] });
        Page::json(&body).with("cache-control", "max-age=60")
    };
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.answer(ID, document("https://client.example/callback"));
    let app = TestApp::with(publisher.setup("").and("client_approval = \"first_use\"")).await;
    let alice = admin(&app).await;
    add(&alice, "client.example", "").await.assert_status(303);
    let client = McpClient::known_as(&app, ID, "https://client.example/callback");
    client.authorize("bob", &[]).await.assert_leads_to("https://client.example/callback");

    // It goes elsewhere now: what a pattern approved was the former document.
    publisher.answer(ID, document("https://elsewhere.example/callback"));
    app.advance(61);
    let moved = McpClient::known_as(&app, ID, "https://elsewhere.example/callback");
    moved.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting?id="));
    // And back, under the pattern again.
    publisher.answer(ID, document("https://client.example/callback"));
    app.advance(61);
    client.authorize("bob", &[]).await.assert_leads_to("https://client.example/callback");
}

#[tokio::test]
async fn patterns_are_listed_added_and_removed_from_the_shell() {
    let app = TestApp::with(Setup::toml(FIRST_USE)).await;
    std::fs::write(app.database.folder.join("portcullis.toml"), app.config_text()).unwrap();
    let client = registered(&app, &[CALLBACK]).await;
    let page = waits(&app, &client).await;
    let run = async |arguments: &[&str]| -> Output {
        let mut command = portcullis(&app.database.folder);
        command.args(["clients", "patterns"]).args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let json_of = |ran: Output| -> Value {
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        serde_json::from_slice(&ran.stdout).unwrap()
    };

    let added = json_of(run(&["add", "chatgpt.com", "--until", "2999-12-31", "--json"]).await);

    assert_eq!(added["approved"], 1);
    client.browser.get(&page).await.assert_leads_to(CALLBACK);
    let listed = json_of(run(&["list", "--json"]).await);
    assert_eq!(listed["patterns"][0]["website"], "chatgpt.com");
    assert_eq!(listed["patterns"][0]["until"], "3000-01-01T00:00:00Z");
    for wrong in ["https://chatgpt.com", "localhost", "xn--hatgpt-hrf.com"] {
        assert_eq!(run(&["add", wrong]).await.status.code(), Some(2), "{wrong}");
    }
    let over = run(&["add", "example.com", "--until", "2001-01-01"]).await;
    assert!(String::from_utf8_lossy(&over.stderr).contains("that day is over"));
    assert_eq!(json_of(run(&["remove", "chatgpt.com", "--json"]).await)["changed"], true);
    assert_eq!(json_of(run(&["remove", "chatgpt.com", "--json"]).await)["changed"], false);
    assert_eq!(details(&app, "approval_pattern_removed").await.len(), 1);
}
