//! What a browser gets at our own address and at the MCP URL, and that MCP clients get what they always got.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::harness::browser::{Browser, unescape};
use crate::harness::console::{Console, forms};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn open(app: &TestApp, url: &str) -> Answer {
    app.http.send("GET", url, &[("accept", CHROMIUM), ("accept-language", "en")], "").await
}

/// The addresses of links that begin like this.
fn links(page: &Answer, scheme: &str) -> Vec<String> {
    let link = Regex::new(r#"href="([^"]*)""#).unwrap();
    let found = link.captures_iter(page.text()).map(|found| unescape(&found[1]));
    found.filter(|link| link.starts_with(scheme)).collect()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// The copy lines and links for this MCP URL.
fn assert_says_how(page: &Answer, app: &TestApp) {
    let url = app.mcp_url();
    let text = unescape(page.text());
    for line in [
        format!("<code class=\"copy\">{url}</code>"),
        format!("claude mcp add --transport http to-do-list {url}<"),
        format!("npx @modelcontextprotocol/inspector@2 --web --transport http --server-url {url}<"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let [cursor] = &links(page, "cursor:")[..] else { panic!("{text}") };
    let rest = cursor.strip_prefix("cursor://anysphere.cursor-deeplink/mcp/install?name=").unwrap();
    let (name, config) = rest.split_once("&config=").unwrap();
    assert_eq!(decoded(name), "to-do-list");
    let config: Value = serde_json::from_slice(&STANDARD.decode(decoded(config)).unwrap()).unwrap();
    assert_eq!(config, json!({ "url": url }));
    let [vscode] = &links(page, "vscode:")[..] else { panic!("{text}") };
    let config = decoded(vscode.strip_prefix("vscode:mcp/install?").unwrap());
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config, json!({ "name": "to-do-list", "type": "http", "url": url }));
    assert!(links(page, "http").iter().all(|link| link.starts_with(&app.origin)), "{text}");
}

#[tokio::test]
async fn our_own_address_says_what_this_is_and_how_to_connect() {
    let app = TestApp::start().await;
    for url in [app.at("/"), app.at("/?utm_source=x")] {
        let page = open(&app, &url).await;
        page.assert_page(200);
        assert!(page.text().contains("<h1>Connect your AI applications</h1>"), "{}", page.text());
        assert_says_how(&page, &app);
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert!(page.text().contains("/account\">Your connected applications</a>"));
        // The server of the test exists on this computer only.
        assert!(page.text().contains("exists on this computer only"), "{}", page.text());
        assert!(!page.text().contains("<dt>Claude</dt>") && page.text().contains("<details open>"));
    }
}

#[tokio::test]
async fn the_mcp_url_in_a_browser_is_a_page_and_still_the_challenge() {
    let app = TestApp::start().await;
    let program = app.http.get(&app.mcp_url()).await;
    for url in [app.mcp_url(), format!("{}/", app.mcp_url())] {
        let page = open(&app, &url).await;
        page.assert_page(401);
        assert_eq!(page.header("www-authenticate"), program.header("www-authenticate"));
        assert!(page.text().contains("<h1>This is an MCP server</h1>"), "{}", page.text());
        assert!(page.text().contains("the demo identity provider"));
        assert_says_how(&page, &app);
        let vary: Vec<_> = page.headers.get_all("vary").iter().collect();
        assert!(vary.iter().any(|value| value.as_bytes() == b"accept"), "{vary:?}");
    }
    let german = [("accept", CHROMIUM), ("accept-language", "de-AT,de;q=0.9")];
    let page = app.http.send("GET", &app.mcp_url(), &german, "").await;
    assert!(page.text().contains("<h1>Dies ist ein MCP-Server</h1>"), "{}", page.text());
}

#[tokio::test]
async fn mcp_clients_and_programs_get_no_page() {
    let app = TestApp::start().await;
    let plain = app.http.get(&app.mcp_url()).await;
    plain.assert_error(401, "unauthorized");
    for headers in [
        &[("accept", "*/*")][..],
        &[("accept", "text/event-stream")],
        &[("accept", "application/json, text/event-stream")],
        &[("accept", "text/event-stream, application/json, text/html")],
        &[("accept", "text/html, application/json")],
    ] {
        let answer = app.http.send("GET", &app.mcp_url(), headers, "").await;
        assert_eq!(answer.status, plain.status, "{headers:?}");
        assert_eq!(answer.body, plain.body, "{headers:?}");
        for name in ["www-authenticate", "content-type", "cache-control", "vary"] {
            assert_eq!(answer.header(name), plain.header(name), "{headers:?}: {name}");
        }
    }
    // Another method, a token that is wrong, and a page that scripts asked for.
    let html = ("accept", CHROMIUM);
    let post = app.http.send("POST", &app.mcp_url(), &[html], "").await;
    assert_eq!(post.body, plain.body);
    let token = [html, ("authorization", "Bearer wrong")];
    app.http.send("GET", &app.mcp_url(), &token, "").await.assert_error(401, "invalid_token");
    let script = [html, ("origin", "http://127.0.0.1:1")];
    let answer = app.http.send("GET", &app.mcp_url(), &script, "").await;
    assert_eq!(answer.body, plain.body);
    for method in ["GET", "POST", "DELETE"] {
        let answer = app.http.send(method, &app.at("/"), &[("accept", "*/*")], "").await;
        answer.assert_error(404, "not_found");
    }
}

#[tokio::test]
async fn a_signed_in_person_sees_the_servers_that_they_may_use() {
    let app = TestApp::with(Setup::toml("[resource]\ndefault = true").and(
        "[[resource]]\npath = \"/reports\"\nname = \"Reports\"\ntarget = \"{todo}\"\n\
             scopes = [\"read:reports\"]\n[[resource.rule]]\nroles = [\"Auditor\"]\n\
             allow = [\"read:reports\"]",
    ))
    .await;
    let stranger = open(&app, &app.at("/")).await;
    for name in ["To-do list", "Reports"] {
        assert!(stranger.text().contains(name), "{}", stranger.text());
    }
    assert!(!stranger.text().contains("<details open>"), "two would be too long");

    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let page = bob.page("/").await;
    assert!(page.contains("You are signed in as <bdi class=\"name\">Bob Brown</bdi>"), "{page}");
    assert!(page.contains("To-do list") && !page.contains("Reports"), "{page}");
    assert!(!page.contains("sign-in"), "{page}");

    let mallory = Console::account(&app).signed_in(&app, "mallory").await;
    let page = mallory.page("/").await;
    assert!(page.contains("access to none of the MCP servers"), "{page}");
    assert!(!page.contains("To-do list") && !page.contains("Reports"), "{page}");
    // The session of the admin pages is another one.
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let page = admin.browser.get(&app.at("/")).await;
    assert!(page.text().contains("Sign in to see"), "{}", page.text());
}

#[tokio::test]
async fn a_sign_in_from_our_own_address_leads_back_to_it_and_nowhere_else() {
    let app = TestApp::start().await;
    for (go_on, leads_to) in [
        (None, "/"),
        (Some("https://evil.example/"), "/account"),
        (Some("//evil.example"), "/account"),
        (Some("/authorize?client_id=x"), "/account"),
    ] {
        let console = Console::account(&app);
        let page = console.get("/").await;
        let all = forms(page.text(), &app.at("/"));
        let (mut form, _) =
            all.into_iter().find(|(form, _)| form.action.ends_with("/sign-in")).unwrap();
        if let Some(go_on) = go_on {
            form.fields = vec![("go_on".to_owned(), go_on.to_owned())];
        }
        let back = console.pass_provider(&app, &form, "bob").await;
        assert_eq!(back.location(), app.at(leads_to), "{go_on:?}");
    }
}

#[tokio::test]
async fn a_language_is_chosen_at_our_own_address_too() {
    let app = TestApp::start().await;
    let browser = Browser::default();
    let home = app.at("/");
    let chosen = browser.choose_language(&app.url, "fr", &home).await;
    assert_eq!(chosen.location(), home);
    let page = browser.get(&home).await;
    assert!(page.text().contains("<html lang=\"fr\">"), "{}", page.text());
    assert!(page.text().contains("Connectez vos applications"), "{}", page.text());
}

#[tokio::test]
async fn the_pages_can_be_switched_off() {
    let mut app = TestApp::with(Setup::toml("landing = false")).await;
    open(&app, &app.at("/")).await.assert_page(404);
    open(&app, &app.mcp_url()).await.assert_error(401, "unauthorized");
    let mallory = Console::account(&app).signed_in(&app, "mallory").await;
    assert!(!mallory.page("/account").await.contains("How to connect"));
    app.change_config("landing = false", "landing = true");
    app.reload().await;
    open(&app, &app.at("/")).await.assert_page(200);
    assert!(mallory.page("/account").await.contains("How to connect an application</a>"));
}

#[tokio::test]
async fn below_a_path_the_pages_lead_nowhere_else() {
    let app = TestApp::with(Setup { path: Some("/one/two"), ..Setup::default() }).await;
    for url in [app.at("/"), app.at("")] {
        let page = open(&app, &url).await;
        page.assert_page(200);
        assert_says_how(&page, &app);
        assert!(page.text().contains("action=\"/one/two/account/sign-in\""));
        assert!(links(&page, "/").iter().all(|link| link.starts_with("/one/two/")));
    }
    let page = open(&app, &app.mcp_url()).await;
    page.assert_page(401);
    assert!(page.text().contains("<a href=\"/one/two/\">All MCP servers here</a>"));
    open(&app, &format!("{}/", app.origin)).await.assert_page(404);
}

#[tokio::test]
async fn a_connected_person_reads_how_long_it_lasts() {
    let app = TestApp::with(Setup::toml("[tokens]\nrefresh_idle = \"36h\"")).await;
    app.tokens_of("bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let page = bob.page("/account").await;
    let sentence = "A connection ends after 36 hours without use, and after 90 days at the latest.";
    assert!(page.contains(sentence), "{page}");
}
