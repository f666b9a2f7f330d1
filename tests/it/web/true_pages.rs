//! Pages and tables say what is so: what is approved beside what is in force, why something was refused and
//! until when, links that lead somewhere, times with their zone.

use portcullis::storage::{ClientDecision, ReviewDecision};
use regex_lite::Regex;

use crate::harness::browser::{Form, unescape};
use crate::harness::client::McpClient;
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const BOB: &str = "/person?sub=oidc%3Ademo-bob";
const ALL: &str = "create:todos delete:todos read:todos";

async fn alice(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// The cells of a page under this heading.
fn cells(page: &str, heading: &str) -> Vec<String> {
    let cell = format!(r#"(?s)data-label="{heading}">(.*?)</td>"#);
    let tags = Regex::new("<[^>]*>").unwrap();
    let text = |found: regex_lite::Captures<'_>| tags.replace_all(&found[1], "").trim().to_owned();
    Regex::new(&cell).unwrap().captures_iter(page).map(text).collect()
}

/// What stands on `/account` between this term and the next.
fn described<'a>(page: &'a str, term: &str) -> &'a str {
    let rest = page.split_once(&format!("<dt>{term}</dt>"));
    let rest = rest.unwrap_or_else(|| panic!("no {term} in {page}")).1;
    rest.split_once("<dt>").unwrap().0
}

#[tokio::test]
async fn what_is_approved_stands_beside_what_is_in_force_on_every_page() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    assert_eq!(tokens.scope, "create:todos", "bob approved three scopes, and his role gives one");
    let admin = alice(&app).await;
    let client = with_query("/client", &[("id", &client.id)]);

    for path in ["/grants", BOB, &client] {
        let page = admin.page(path).await;
        assert_eq!(cells(&page, "Approved"), [ALL], "{path}");
        assert_eq!(cells(&page, "In force now"), ["create:todos"], "{path}");
    }
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let page = bob.page("/account").await;
    let (approved, in_force) = (described(&page, "You approved"), described(&page, "It may now"));
    assert!(approved.contains("delete:todos") && approved.contains("create:todos"), "{approved}");
    assert!(in_force.contains("create:todos") && in_force.contains("Add to-dos"), "{in_force}");
    assert!(!in_force.contains("delete:todos") && !in_force.contains("read:todos"), "{in_force}");
}

#[tokio::test]
async fn what_is_in_force_follows_the_rules_and_says_how_old_the_facts_are() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    let admin = alice(&app).await;
    assert!(!cells(&admin.page("/grants").await, "In force now")[0].contains("UTC"));

    app.advance(14 * 60); // the admin's own session goes on
    admin.page("/").await;
    app.advance(2 * 60);
    let old = &cells(&admin.page("/grants").await, "In force now")[0];
    assert!(old.contains("create:todos") && old.contains("2026-11-21 00:00 UTC"), "{old}");

    app.change_config(
        "roles = [\"User\"]\nallow = [\"create:todos\"]",
        "roles = [\"User\"]\nallow = [\"read:todos\"]",
    );
    app.reload().await;
    let follows = &cells(&admin.page("/grants").await, "In force now")[0];
    assert!(follows.starts_with("read:todos"), "{follows}");

    app.change_config("roles = [\"User\"]\nallow", "roles = [\"Nobody\"]\nallow");
    app.reload().await;
    let nothing = &cells(&admin.page("/grants").await, "In force now")[0];
    assert!(nothing.starts_with("nothing"), "{nothing}");
    assert_eq!(cells(&admin.page("/grants").await, "Approved"), [ALL]);
}

#[tokio::test]
async fn nothing_is_in_force_where_the_grant_has_ended_or_the_server_is_gone() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    let admin = alice(&app).await;
    admin.press_and_confirm("/grants", "action", "one").await.assert_status(303);
    let ended = admin.page("/grants?ended=1").await;
    assert_eq!(cells(&ended, "In force now"), ["nothing"], "{ended}");
    assert_eq!(cells(&ended, "Approved"), [ALL]);

    app.tokens_of("bob").await;
    app.change_config("path   = \"/mcp\"", "path   = \"/other\"");
    app.reload().await;
    let gone = cells(&admin.page("/grants").await, "In force now");
    assert_eq!(gone, ["nothing: this MCP server is no longer configured"]);
}

#[tokio::test]
async fn the_consent_page_says_that_a_client_asks_and_what_the_role_allows_at_most() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (page, _) = client.ask(&[]).await;
    assert!(page.text().contains("It asks to"), "{}", page.text());
    assert!(page.text().contains("You give it at most what your role allows."));
    assert!(!page.text().contains("will be able to:") && !page.text().contains("It will be able"));
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = client.browser.send("GET", &client.authorize_url(&[]), &ja, "").await;
    assert!(page.text().contains("求めている操作"), "{}", page.text());
    assert!(page.text().contains("あなたのロールで許可された範囲を超えることはありません。"));
    assert!(!page.text().contains("許可される操作"));
}

fn says(page: &Answer, status: u16, title: &str) {
    page.assert_page(status);
    assert!(page.text().contains(&format!("<h1>{title}</h1>")), "{}", page.text());
}

#[tokio::test]
async fn what_was_open_for_too_long_says_so_although_its_cookie_is_gone() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for seconds in [10 * 60 + 6, 59 * 60, 3 * 3600] {
        let (_, form) = client.ask(&[]).await;
        app.advance(seconds);
        client.browser.let_pass(seconds);
        for decision in ["approve", "deny"] {
            let page = client.decide(&form, decision).await;
            says(&page, 403, "This page was open for too long");
        }
    }
    // A sign-in that takes longer than it may.
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    app.advance(16 * 60);
    client.browser.let_pass(16 * 60);
    says(&client.browser.get(&callback).await, 403, "The sign-in took too long");
    // The same at the pages behind a sign-in.
    for (console, home) in [(Console::admin(&app), "/"), (Console::account(&app), "/account")] {
        let page = console.get(home).await;
        let form = Form::of(&page, &console.at(home));
        let leave = console.browser.post(&form.action, &form.with(&[]), &console.origin).await;
        let at_provider = leave.location().to_owned();
        let page = console.browser.get(&at_provider).await;
        let form = Form::of(&page, &at_provider);
        let fields = form.with(&[("username", "alice"), ("password", "alice")]);
        let back = console.browser.post(&form.action, &fields, &at_provider).await;
        let passed_on = console.browser.get(back.location()).await;
        app.advance(16 * 60);
        console.browser.let_pass(16 * 60);
        let page = console.browser.get(passed_on.location()).await;
        says(&page, 403, "The sign-in took too long");
    }
}

#[tokio::test]
async fn a_page_that_was_answered_says_so_when_it_is_answered_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for first in ["approve", "deny"] {
        let (_, form) = client.ask(&[]).await;
        client.decide(&form, first).await.assert_status(303);
        for again in ["approve", "deny"] {
            says(&client.decide(&form, again).await, 403, "You have already decided");
        }
    }
}

#[tokio::test]
async fn a_browser_that_was_asked_too_often_is_told_why_and_when_to_try_again() {
    let app = TestApp::with(Setup::toml("[limits]\nconsent_pages = 2")).await;
    let client = app.client().await;
    client.ask(&[]).await;
    app.advance(3 * 60);
    client.ask(&[]).await;
    app.advance(30);
    let url = client.authorize_url(&[]);

    let page = client.browser.get(&url).await;

    says(&page, 429, "Too many attempts");
    assert!(page.text().contains("You opened this page too often"), "{}", page.text());
    assert!(page.text().contains("try again in 7 minutes"), "{}", page.text());
    assert_eq!(page.header("retry-after"), Some("390"));
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = client.browser.send("GET", &url, &ja, "").await;
    assert!(page.text().contains("7分後にもう一度お試しください。"), "{}", page.text());
    app.advance(6 * 60);
    let page = client.browser.get(&url).await;
    assert!(page.text().contains("try again in 1 minute."), "{}", page.text());
    app.advance(30);
    client.ask(&[]).await;
}

#[tokio::test]
async fn every_other_page_that_says_too_many_names_its_reason_and_a_time() {
    let limits = "[limits]\nauthorize_per_minute = 1\npending_logins = 1\nconsent_per_minute = 5";
    let app = TestApp::with(Setup::toml("trusted_proxies = [\"127.0.0.1\"]").and(limits)).await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    let ask = async |from: &str| {
        let headers = [("accept", "text/html"), ("x-forwarded-for", from)];
        client.browser.send("GET", &url, &headers, "").await
    };
    let (one, two) = (ask("203.0.113.7").await, ask("203.0.113.8").await);
    let often = ask("203.0.113.7").await;
    says(&often, 429, "Too many requests");
    assert!(often.text().contains("from your network"), "{}", often.text());
    let seconds = often.header("retry-after").unwrap();
    assert!(often.text().contains(&format!("Please wait {seconds} seconds.")), "{}", often.text());

    let decide = async |page: &Answer| client.decide(&Form::of(page, &url), "approve").await;
    decide(&one).await.assert_leads_to(app.idp.issuer());
    let full = decide(&two).await;
    says(&full, 429, "Too many attempts");
    assert!(full.text().contains("Too many sign-ins are in progress"), "{}", full.text());
    let seconds: u64 = full.header("retry-after").unwrap().parse().unwrap();
    let minutes = seconds.div_ceil(60);
    assert!((2..=15).contains(&minutes), "a place is free when the oldest expires: {seconds}");
    assert!(full.text().contains(&format!("try again in {minutes} minutes.")), "{}", full.text());
}

/// People, clients and connections of every kind that a line of a list can be about, also such as are gone.
async fn busy(app: &TestApp) -> Console {
    app.tokens_of("bob").await;
    let (client, _) = app.tokens_of("bob").await;
    let refused = app.client_named("Refused").await;
    refused.authorize("mallory", &[]).await.assert_page(403);
    let gone = app.client_named("Gone").await;
    gone.sign_in("bob").await;
    let storage = app.storage();
    let event = |name| app.audit_event(name);
    storage.delete_client(&gone.id, app.now(), event("client_deleted")).await.unwrap();
    let block = event("person_blocked");
    storage.block_person("oidc:demo-bob", "shell", app.now(), block).await.unwrap();
    let block = ClientDecision::new(&client.id, ReviewDecision::Block, "shell");
    storage.decide_client(block, app.now(), event("x")).await.unwrap();
    let told = event("consent_denied").client("client_that_never_was").subject("oidc:never-seen");
    storage.record(vec![told]).await.unwrap();
    let admin = alice(app).await;
    while !admin.page("/audit?event=access_denied").await.contains("demo-mallory") {} // within a second
    admin
}

fn links(page: &str) -> Vec<String> {
    let href = Regex::new(r#"href="(/[^"]*)""#).unwrap();
    href.captures_iter(page).map(|found| unescape(&found[1])).collect()
}

/// Every page that can be reached by links, from the first.
async fn crawl(admin: &Console, language: &str) -> Vec<(String, String)> {
    let mut known = vec!["/".to_owned()];
    let mut pages = Vec::new();
    let mut next = 0;
    while let Some(path) = known.get(next).cloned() {
        next += 1;
        let headers = [("accept", "text/html"), ("accept-language", language)];
        let answer = admin.browser.send("GET", &admin.at(&path), &headers, "").await;
        assert_eq!(answer.status, 200, "{path} is linked, and is not there");
        if path.starts_with("/audit/export") || path == "/branding/icon" {
            continue; // a file
        }
        for link in links(answer.text()) {
            let link = link.split('#').next().unwrap().to_owned();
            if !known.contains(&link) {
                known.push(link);
            }
        }
        pages.push((path, answer.text().to_owned()));
    }
    assert!(pages.len() > 15, "{known:?}");
    pages
}

#[tokio::test]
async fn every_link_on_every_admin_page_leads_to_a_page() {
    let app = TestApp::start().await;
    let admin = busy(&app).await;
    let pages = crawl(&admin, "en").await;
    let audit = pages.iter().filter(|(path, _)| path.starts_with("/audit"));
    let audit: String = audit.map(|(_, page)| page.as_str()).collect();
    for link in [
        "/audit?sub=oidc%3Ademo-mallory",
        "href=\"/person?sub=oidc%3Ademo-bob\"",
        "/audit?client=client_that_never_was",
    ] {
        assert!(audit.contains(link), "{link} is missing");
    }
}

#[tokio::test]
async fn an_admin_page_that_is_not_there_says_so_to_an_administrator() {
    let app = TestApp::start().await;
    let admin = alice(&app).await;
    for path in ["/nothing", "/person?sub=oidc%3Anobody", "/client?id=nobody", "/audit/export"] {
        let page = admin.get(path).await;
        page.assert_page(404);
        assert!(!page.text().contains("put its URL into your application"), "{}", page.text());
        assert!(page.text().contains("href=\"/audit\""), "{path}: {}", page.text());
    }
}

#[tokio::test]
async fn every_time_on_every_page_says_its_zone() {
    let app = TestApp::start().await;
    let admin = busy(&app).await;
    let time = Regex::new(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}(:\d{2})?( UTC)?").unwrap();
    let mut seen = 0;
    let bob = Console::account(&app);
    let mut pages = crawl(&admin, "en").await;
    app.storage().unblock_person("oidc:demo-bob", app.audit_event("x")).await.unwrap();
    app.client_named("Another").await.sign_in("bob").await;
    let bob = bob.signed_in(&app, "bob").await;
    pages.push(("/account".to_owned(), bob.page("/account").await));
    for (path, page) in pages {
        for found in time.find_iter(&page) {
            seen += 1;
            assert!(found.as_str().ends_with(" UTC"), "{path}: {}", found.as_str());
        }
    }
    assert!(seen > 50, "{seen}");
}

/// A Japanese sentence with a stop of another script.
fn foreign_stop(text: &str) -> Option<String> {
    let stop =
        Regex::new("[\u{3040}-\u{30ff}\u{4e00}-\u{9fff}\u{ff01}-\u{ff60}」]\\s*[.,](\\s|<|\"|$)");
    let found = stop.unwrap().find(text)?;
    let from = text[..found.start()].char_indices().rev().nth(20).map_or(0, |(at, _)| at);
    Some(text[from..found.end()].to_owned())
}

#[tokio::test]
async fn no_japanese_sentence_ends_in_a_stop_of_another_script() {
    let app = TestApp::with(Setup::toml("client_approval = \"first_use\"")).await;
    let waits = app.client_named("Waits").await;
    waits.authorize("bob", &[]).await.assert_status(303);
    let admin = alice(&app).await;
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let mut pages = crawl(&admin, "ja").await;
    let overview = &pages[0].1;
    assert!(overview.contains("承認を待っています。"), "{overview}");
    for url in [waits.authorize_url(&[]), app.at("/nothing"), app.at("/account")] {
        let page = waits.browser.send("GET", &url, &ja, "").await;
        pages.push((url, page.text().to_owned()));
    }
    for (path, page) in pages {
        assert_eq!(foreign_stop(&page), None, "{path}");
    }
    // And what no test sees: every word that is written down.
    let mut folders = vec![std::path::PathBuf::from("src"), "templates".into(), "locales".into()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let told = Regex::new("\"[^\"]*\"").unwrap();
                for literal in told.find_iter(line) {
                    let literal = literal.as_str().trim_matches('"');
                    assert_eq!(foreign_stop(literal), None, "{}", path.display());
                }
            }
        }
    }
    assert!(files > 50);
}

#[tokio::test]
async fn a_page_explains_the_buttons_that_are_there_and_no_other() {
    let app = TestApp::with(Setup::toml("[admin.read_only]\nroles = [\"User\"]\n")).await;
    let client = app.client().await;
    client.sign_in("bob").await;
    let admin = alice(&app).await;
    let (block, end) =
        ("They cannot sign in until they are unblocked", "Ends what their clients have");
    let page = admin.page(BOB).await;
    assert!(page.contains(block) && page.contains(end), "{page}");
    let own = admin.page("/person?sub=oidc%3Ademo-alice").await;
    assert!(!own.contains(block) && !own.contains(end), "{own}");
    assert!(own.contains("You cannot block yourself"));
    let client = with_query("/client", &[("id", &client.id)]);
    let page = admin.page(&client).await;
    for text in ["Nobody can connect it until it is unblocked", "Removes its registration"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("cannot tell apart") || page.contains("value=\"trust\""), "{page}");
    admin.press_and_confirm(&client, "action", "block").await;
    let page = admin.page(&client).await;
    assert!(!page.contains("Nobody can connect it until it is unblocked"), "{page}");
    let viewer = Console::admin(&app).signed_in(&app, "bob").await;
    assert!(!viewer.page("/keys").await.contains("A new key is published at once"));
    assert!(admin.page("/keys").await.contains("A new key is published at once"));
    admin.press("/keys", "action", "rotate").await.assert_status(303);
    assert!(!admin.page("/keys").await.contains("A new key is published at once"));
}

#[tokio::test]
async fn a_form_that_comes_after_the_session_has_ended_leads_back_to_its_page() {
    let app = TestApp::start().await;
    let client: McpClient = app.client().await;
    let admin = alice(&app).await;
    let path = with_query("/client", &[("id", &client.id)]);
    let page = admin.page(&path).await;
    let form = crate::harness::console::forms(&page, &admin.at(&path))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"block\""))
        .unwrap()
        .0;
    app.advance(16 * 60);
    let fields = crate::harness::http::encode(&form.with(&[("action", "block")]));
    let from = admin.at(&path);
    let headers = [
        ("accept", "text/html"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", admin.origin.as_str()),
        ("referer", from.as_str()),
    ];
    let asked = admin.browser.send("POST", &form.action, &headers, &fields).await;
    asked.assert_page(401);
    let form = Form::of(&asked, &admin.at("/client"));
    let back = admin.pass_provider(&app, &form, "alice").await;
    assert_eq!(back.location(), admin.at(&path));
}

/// An origin that only begins like ours is another one: nothing of its address comes onto our page.
#[tokio::test]
async fn a_form_that_claims_to_come_from_a_similar_origin_leads_back_to_the_first_page() {
    let app = TestApp::start().await;
    let stranger = Console::admin(&app);
    let ours = stranger.origin.clone();
    for referer in [
        format!("{ours}1/clients"),
        format!("{ours}.evil.example/clients"),
        format!("{ours}@evil.example/clients"),
        format!("{ours}x"),
        format!("{ours}?x"),
        ours.replace("http://", "https://"),
    ] {
        let headers = [
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", ours.as_str()),
            ("referer", referer.as_str()),
        ];
        let asked = stranger.browser.send("POST", &stranger.at("/client"), &headers, "").await;
        asked.assert_page(401);
        let form = Form::of(&asked, &stranger.at("/client"));
        let go_on = form.with(&[]).into_iter().find(|(name, _)| *name == "go_on");
        assert_eq!(go_on, Some(("go_on", "/")), "{referer}");
    }
}
