//! Where answers may go by the present configuration: for clients that were there before it, for sign-ins
//! that are under way, and for addresses that open an app.

use portcullis::app::Reloaded;
use serde_json::{Value, json};

use crate::harness::browser::unescape;
use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::console::Console;
use crate::harness::publisher::Publisher;
use crate::harness::{Setup, TestApp, logs};

const LISTED: &str = "https://listed.example/cb";
const OTHER: &str = "https://other.example/cb";

fn public(uris: &[&str]) -> Value {
    json!({ "redirect_uris": uris, "token_endpoint_auth_method": "none" })
}

async fn with_top(top: &str) -> TestApp {
    TestApp::with(Setup::toml(top)).await
}

async fn take(app: &mut TestApp, before: &str, after: &str) {
    app.change_config(before, after);
    let taken = app.reload().await;
    assert!(matches!(taken, Reloaded::Applied { .. }), "{taken:?}");
}

const NO_LIST: &str = "client_approval = \"none\"";
const LIST: &str = "client_approval = \"none\"\nallowed_redirect_uris = [\"https://listed.example/cb\", \"http://127.0.0.1/listed\"]";

#[tokio::test]
async fn a_list_of_addresses_holds_for_clients_that_registered_before_it() {
    let mut app = with_top(NO_LIST).await;
    let client = McpClient::register_as(&app, public(&[LISTED, OTHER])).await;
    let other = McpClient::known_as(&app, &client.id, OTHER);
    // Sign-ins under way, each a step further.
    let (_, page) = other.ask(&[]).await;
    let approved = other.elsewhere();
    let at_provider = approved.approve(&[]).await;
    let signed_in = approved.log_in(&at_provider, "bob").await;
    let coded = other.elsewhere();
    let code = coded.code("bob").await;
    let tokens = other.elsewhere().sign_in("bob").await;

    take(&mut app, NO_LIST, LIST).await;

    for set in [vec![], vec![("response_type", "token")], vec![("prompt", "none")]] {
        let answer = other.browser.get(&other.authorize_url(&set)).await;
        answer.assert_page(400);
        assert!(!answer.text().contains("href=\"https://other.example"), "{}", answer.text());
        assert!(answer.text().contains("does not allow the return address"), "{}", answer.text());
    }
    for decision in ["approve", "deny"] {
        other.decide(&page, decision).await.assert_page(400);
    }
    let asked = app.idp.requests_to("/token");
    approved.browser.get(&signed_in).await.assert_page(400);
    assert_eq!(app.idp.requests_to("/token"), asked, "the provider never hears of it");
    coded.redeem(&code).await.assert_error(400, "invalid_grant");
    // The same client at the listed address is told directly, and goes on.
    let listed = McpClient::known_as(&app, &client.id, LISTED);
    let wrong = listed.authorize_url(&[("response_type", "token")]);
    listed.browser.get(&wrong).await.assert_leads_to(LISTED);
    listed.sign_in("bob").await;
    // With one address left, that one is meant.
    let unnamed = listed.authorize_url(&[("redirect_uri", "")]);
    assert_eq!(listed.browser.get(&unnamed).await.status, 200);
    // What is connected goes on: ending it is another decision.
    other.refresh(&tokens.refresh_token).await.assert_status(200);

    // The list is taken away, and the page that was shown before is good again.
    take(&mut app, LIST, NO_LIST).await;
    other.decide(&page, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_list_of_addresses_holds_for_published_clients_and_not_for_those_of_the_configuration() {
    let id = "https://client.example/c";
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(
        id,
        &json!({ "client_id": id, "client_name": "P", "redirect_uris": [LISTED, OTHER] }),
    );
    let setup = publisher.setup(&format!(
        "[[client]]\nclient_id = \"intranet\"\nname = \"x\"\nredirect_uris = [\"{OTHER}\"]\npublic = true"
    ));
    let setup = setup.and(NO_LIST);
    let mut app = TestApp::with(setup).await;
    let published = McpClient::known_as(&app, id, OTHER);
    let (_, page) = published.ask(&[]).await;
    let written = McpClient::known_as(&app, "intranet", OTHER);

    take(&mut app, NO_LIST, LIST).await;

    published.browser.get(&published.authorize_url(&[])).await.assert_page(400);
    published.decide(&page, "approve").await.assert_page(400);
    McpClient::known_as(&app, id, LISTED).sign_in("bob").await;
    // Who wrote the list wrote the client as well.
    written.sign_in("bob").await;
    let wrong = written.authorize_url(&[("response_type", "token")]);
    written.browser.get(&wrong).await.assert_leads_to(OTHER);
}

#[tokio::test]
async fn a_list_with_a_loopback_address_leaves_its_port_free_for_clients_that_were_there_before() {
    let mut app = with_top(NO_LIST).await;
    let uris = ["http://127.0.0.1:1/listed", "http://127.0.0.1:1/other"];
    let mut client = McpClient::register_as(&app, public(&uris)).await;
    take(&mut app, NO_LIST, LIST).await;
    client.redirect_uri = "http://127.0.0.1:53999/listed".to_owned();
    client.sign_in("bob").await;
    client.redirect_uri = "http://127.0.0.1:53999/other".to_owned();
    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
}

#[tokio::test]
async fn a_scheme_that_is_taken_away_is_gone_for_clients_that_registered_it() {
    let schemes = "redirect_schemes = [\"myapp\"]";
    let mut app = with_top(schemes).await;
    let client = McpClient::register_as(&app, public(&["myapp://callback"])).await;
    let (_, page) = client.ask(&[]).await;
    let waiting = client.elsewhere();
    let callback = waiting.log_in(&waiting.approve(&[]).await, "bob").await;
    let coded = client.elsewhere();
    let code = coded.code("bob").await;

    take(&mut app, schemes, "redirect_schemes = []").await;

    client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    client.decide(&page, "deny").await.assert_page(400);
    waiting.browser.get(&callback).await.assert_page(400);
    coded.redeem(&code).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_sign_in_that_waits_for_an_administrator_goes_nowhere_that_is_not_allowed_any_more() {
    let first_use = "client_approval = \"first_use\"";
    let mut app = with_top(first_use).await;
    let client = McpClient::register_as(&app, public(&[OTHER])).await;
    let waiting = client.authorize("bob", &[]).await;
    take(&mut app, first_use, &format!("{first_use}\nallowed_redirect_uris = [\"{LISTED}\"]"))
        .await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = crate::harness::console::with_query("/client", &[("id", &client.id)]);
    admin.press(&path, "action", "approve").await.assert_status(303);
    client.browser.get(waiting.location()).await.assert_page(400);
}

/// Every mistake that a request can hold once client and address are proven.
fn mistakes() -> Vec<Vec<(&'static str, &'static str)>> {
    vec![
        vec![("response_type", "token")],
        vec![("response_type", "")],
        vec![("response_mode", "fragment")],
        vec![("code_challenge", "")],
        vec![("code_challenge_method", "plain")],
        vec![("resource", "https://other.example/mcp")],
        vec![("scope", "a\"b")],
        vec![("request", "x.y.z")],
        vec![("request_uri", "https://x.example/")],
        vec![("prompt", "none")],
    ]
}

#[tokio::test]
async fn az_28_no_app_is_opened_by_a_mistake_alone() {
    let schemes = "redirect_schemes = [\"cursor\", \"vscode\", \"myapp\", \"claude\"]";
    let app = with_top(schemes).await;
    for uri in [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "claude://claude.ai/mcp-auth-callback/sdk",
        "vscode://saoudrizwan.claude-dev/mcp-auth/callback/abc123",
        "myapp://callback",
        "com.example.app:/oauth2redirect",
    ] {
        let client = McpClient::register_as(&app, public(&[uri])).await;
        for mistake in mistakes() {
            let answer = client.browser.get(&client.authorize_url(&mistake)).await;
            answer.assert_page(400);
            assert!(!answer.text().contains("http-equiv=\"refresh\""), "{uri} {mistake:?}");
            // The person may go there: it is where this app takes answers, and opens nothing else.
            assert!(unescape(answer.text()).contains(&format!("href=\"{uri}?error=")), "{uri}");
        }
        let state = "s".repeat(5000);
        client.browser.get(&client.authorize_url(&[("state", &state)])).await.assert_page(400);
        for twice in ["&scope=x", "&state=x", "&code_challenge=x"] {
            let url = format!("{}{twice}", client.authorize_url(&[]));
            client.browser.get(&url).await.assert_page(400);
        }
        // A page that has expired leads nowhere, and a person who decides is led on.
        let (_, form) = client.ask(&[]).await;
        client.decide(&form, "deny").await.assert_leads_to(uri);
        let (_, form) = client.ask(&[]).await;
        app.advance(601);
        client.decide(&form, "approve").await.assert_page(403);
        client.sign_in("bob").await;
    }
    // Programs that listen on this computer are told directly, as before.
    let client = app.client().await;
    let wrong = client.authorize_url(&[("response_type", "token")]);
    client.browser.get(&wrong).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn az_28_an_app_of_the_configuration_or_the_list_is_opened_by_no_mistake_either() {
    let uri = "cursor://anysphere.cursor-mcp/oauth/callback";
    let tables = format!(
        "[[client]]\nclient_id = \"cursor\"\nname = \"Cursor\"\nredirect_uris = [\"{uri}\"]\npublic = true"
    );
    let top = format!("allowed_redirect_uris = [\"{uri}\"]");
    let app = TestApp::with(Setup::toml(top).and(tables)).await;
    let listed = McpClient::register_as(&app, public(&[uri])).await;
    for client in [listed, McpClient::known_as(&app, "cursor", uri)] {
        for mistake in mistakes() {
            client.browser.get(&client.authorize_url(&mistake)).await.assert_page(400);
        }
        client.sign_in("bob").await;
    }
}

/// What makes an app do something is no place for an answer.
const DEEP_LINKS: &[&str] = &[
    "cursor://anysphere.cursor-deeplink/mcp/install?name=x&config=eyJjb21tYW5kIjoicm0ifQ",
    "cursor://anysphere.cursor-deeplink/mcp/install",
    "cursor://anysphere.cursor-deeplink/prompt?text=x",
    "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
    "cursor://anysphere.cursor-mcp/oauth/callback/",
    "cursor://anysphere.cursor-mcp/oauth/callback/more",
    "cursor://anysphere.cursor-mcp/other",
    "cursor://file/etc/passwd",
    "cursor://x/cb",
    "cursor:x",
    "vscode://vscode.git/clone?url=https://evil.example/x",
    "vscode://file/etc/passwd",
    "vscode://vscode-remote/ssh-remote+evil.example/home",
    "vscode:extension/evil.extension",
    "vscode:mcp/install",
    "vscode://evil.extension/mcp-auth/callback/abc",
    "vscode://saoudrizwan.claude-dev/task",
    "vscode://saoudrizwan.claude-dev/mcp-auth/callback/a/b",
    "vscode-insiders://vscode.git/clone",
    "windsurf://windsurf-mcp-registry",
    "claude://claude.ai/new",
    "claude://code/new",
    "zed://extension/evil",
    "myapp://callback?x=1",
    "com.example.app:/oauth?action=1",
];

#[tokio::test]
async fn a_deep_link_of_an_app_cannot_be_registered_unless_an_administrator_wrote_it_down() {
    let schemes = "[\"cursor\", \"vscode\", \"vscode-insiders\", \"windsurf\", \"claude\", \"zed\", \"myapp\"]";
    let app = with_top(&format!("redirect_schemes = {schemes}")).await;
    for uri in DEEP_LINKS {
        app.advance(3600); // ten registrations an hour
        let answer = app.http.post_json(&app.at("/register"), &public(&[uri]), &[]).await;
        answer.assert_error(400, "invalid_redirect_uri");
        let told = answer.json()["error_description"].as_str().unwrap().to_owned();
        let shown = uri.split('?').next().unwrap();
        assert!(told.contains(shown) && told.contains("`redirect_schemes`"), "{told}");
    }
    for uri in [
        "cursor://anysphere.cursor-retrieval/oauth/user-todos/callback",
        "vscode-insiders://saoudrizwan.claude-dev/mcp-auth/callback/abc",
        "claude://claude.ai/mcp-auth-callback/sdk",
        "vscode://vscode.github-authentication/did-authenticate",
    ] {
        app.advance(3600);
        McpClient::register_as(&app, public(&[uri])).await;
    }

    let written =
        "[\"cursor\", \"vscode://evil.extension/mcp-auth/callback/abc\", \"other://cb?x=1\"]";
    let app = with_top(&format!("redirect_schemes = {written}")).await;
    for uri in ["vscode://evil.extension/mcp-auth/callback/abc", "other://cb?x=1"] {
        McpClient::register_as(&app, public(&[uri])).await.sign_in("bob").await;
    }
    for uri in ["vscode://evil.extension/mcp-auth/callback/abcd", "other://cb?x=2", "other://cb"] {
        let answer = app.http.post_json(&app.at("/register"), &public(&[uri]), &[]).await;
        answer.assert_error(400, "invalid_redirect_uri");
    }
}

#[tokio::test]
async fn a_deep_link_in_a_document_is_left_out_and_the_document_is_not_refused() {
    let id = "https://client.example/c";
    let publisher = Publisher::start(&["client.example"]).await;
    let link = "cursor://anysphere.cursor-deeplink/mcp/install?name=x";
    let uris = json!([link, "unknown://cb", LISTED]);
    publisher.publish(id, &json!({ "client_id": id, "client_name": "P", "redirect_uris": uris }));
    let app = TestApp::with(publisher.setup("")).await;
    McpClient::known_as(&app, id, LISTED).sign_in("bob").await;
    for uri in [link, "unknown://cb"] {
        let client = McpClient::known_as(&app, id, uri);
        for set in [vec![], vec![("response_type", "token")]] {
            client.browser.get(&client.authorize_url(&set)).await.assert_page(400);
        }
    }
}

/// A deep link that an earlier version registered is not used any more.
#[tokio::test]
async fn a_deep_link_that_was_registered_before_opens_nothing() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(&app, public(&[OTHER])).await;
    let link = "cursor://anysphere.cursor-deeplink/mcp/install?name=x";
    app.database
        .execute(&format!("UPDATE clients SET metadata = REPLACE(metadata, '{OTHER}', '{link}')"))
        .await;
    let client = McpClient::known_as(&app, &client.id, link);
    for set in [vec![], vec![("response_type", "token")]] {
        let answer = client.browser.get(&client.authorize_url(&set)).await;
        answer.assert_page(400);
        assert!(!answer.text().contains("anysphere"), "{}", answer.text());
    }
}

/// Refusals that an administrator can change say what was refused and by which key.
#[tokio::test]
async fn a_refused_registration_names_the_value_and_the_key_of_the_administrator() {
    let top = format!("allowed_redirect_uris = [\"{LISTED}\"]\nredirect_schemes = [\"cursor\"]");
    let tables = "[limits]\nrequest_rates = false\nredirect_uris = 2\nregister_body = 1024\nclients = 1\nregistrations_at_once = 1000\nregistrations_per_hour = 1000";
    let app = TestApp::with(Setup::toml(top).and(tables)).await;
    let long = format!("https://listed.example/{}", "x".repeat(900));
    let three = [LISTED, "https://a.example/1", "https://a.example/2"];
    for (body, status, value, key) in [
        (public(&["myapp://callback"]), 400, "`myapp`", "`redirect_schemes`"),
        (public(&["unknown-app:/cb"]), 400, "`unknown-app`", "`redirect_schemes`"),
        (public(&["cursor://x/cb"]), 400, "`cursor://x/cb`", "`redirect_schemes`"),
        (public(&[OTHER]), 400, OTHER, "`allowed_redirect_uris`"),
        (
            public(&["http://127.0.0.1:1/cb"]),
            400,
            "`http://127.0.0.1:1/cb`",
            "`allowed_redirect_uris`",
        ),
        (public(&three), 400, "3", "`limits.redirect_uris`"),
        (public(&[&long, &long]), 413, "1024", "`limits.register_body`"),
    ] {
        let answer = app.http.post_json(&app.at("/register"), &body, &[]).await;
        answer.assert_status(status);
        let told = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(told.contains(value) && told.contains(key), "{value} {key}: {told}");
        assert!(logs::all().contains(&told), "the log says the same: {told}");
        assert!(!told.contains(['"', '\\']), "RFC 6749 §5.2: {told}");
    }
    McpClient::register_as(&app, public(&[LISTED])).await;
    let another = json!({ "client_name": "2", "redirect_uris": [LISTED], "token_endpoint_auth_method": "none" });
    let full = app.http.post_json(&app.at("/register"), &another, &[]).await;
    full.assert_error(429, "temporarily_unavailable");
    let told = full.json()["error_description"].as_str().unwrap().to_owned();
    assert!(told.contains("`limits.clients`") && told.contains('1'), "{told}");
}

#[tokio::test]
async fn a_registration_that_comes_too_often_names_the_limit() {
    let tables = "[limits]\nregistrations_at_once = 1\nregistrations_per_hour = 1".to_owned();
    let app = TestApp::with(Setup::toml("trusted_proxies = [\"127.0.0.1\"]").and(tables)).await;
    let from = [("x-forwarded-for", "203.0.113.7")];
    let register = async |name: &str| {
        let metadata = json!({ "client_name": name, "redirect_uris": [OTHER] });
        app.http.post_json(&app.at("/register"), &metadata, &from).await
    };
    register("1").await.assert_status(201);
    let refused = register("2").await;
    refused.assert_error(429, "temporarily_unavailable");
    let told = refused.json()["error_description"].as_str().unwrap().to_owned();
    assert!(told.contains("`limits.registrations_per_hour`"), "{told}");
}

/// On a page the person reads what to say to whom; the log has the value and the key under its reference.
#[tokio::test]
async fn a_refused_authorization_names_the_value_and_the_key_in_the_log() {
    let id = "https://client.example/c";
    let publisher = Publisher::start(&["client.example"]).await;
    publisher
        .publish(id, &json!({ "client_id": id, "client_name": "P", "redirect_uris": [OTHER] }));
    let off = TestApp::with(publisher.setup("enabled = false")).await;
    let hosts = TestApp::with(publisher.setup("allowed_hosts = [\"claude.ai\"]")).await;
    let listed = publisher.setup("").and(format!("allowed_redirect_uris = [\"{LISTED}\"]"));
    let listed = TestApp::with(listed).await;
    let pages = publisher.setup("\n[limits]\nconsent_pages = 1");
    let pages = TestApp::with(pages).await;
    let logins = publisher.setup("\n[limits]\npending_logins = 1");
    let logins = TestApp::with(logins).await;
    let in_the_log = |answer: &crate::harness::http::Answer, value: &str, key: &str| {
        let reference = answer.reference();
        let lines = logs::all();
        let line = lines.lines().find(|line| line.contains(&reference)).unwrap().to_owned();
        assert!(line.contains(value) && line.contains(key), "{value} {key}: {line}");
    };
    for (app, value, key) in [
        (&off, id, "`client_documents.enabled`"),
        (&hosts, "client.example", "`client_documents.allowed_hosts`"),
        (&listed, OTHER, "`allowed_redirect_uris`"),
    ] {
        let client = McpClient::known_as(app, id, OTHER);
        let answer = client.browser.get(&client.authorize_url(&[])).await;
        answer.assert_page(400);
        in_the_log(&answer, value, key);
    }
    let client = McpClient::known_as(&pages, id, OTHER);
    client.ask(&[]).await;
    let often = client.browser.get(&client.authorize_url(&[])).await;
    often.assert_page(429);
    in_the_log(&often, "1", "`limits.consent_pages`");
    let client = McpClient::known_as(&logins, id, OTHER);
    client.approve(&[]).await;
    let (_, form) = client.ask(&[]).await;
    let many = client.decide(&form, "approve").await;
    many.assert_page(429);
    in_the_log(&many, "1", "`limits.pending_logins`");
}

/// What an administrator makes by hand is held to the same rules, and reads the same words.
#[tokio::test]
async fn a_client_that_an_administrator_makes_is_refused_with_the_same_words() {
    let app = TestApp::start().await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let fields = [("name", "Reports"), ("redirect_uris", "myapp://callback")];
    let page = admin.press_with("/clients/new", "action", "create", &fields).await;
    page.assert_page(400);
    let text = unescape(page.text());
    assert!(text.contains("`myapp`") && text.contains("`redirect_schemes`"), "{text}");
}
