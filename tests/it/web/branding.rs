//! `[branding]`: what people see of the organisation, and what the pages stay strict about.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::browser::unescape;
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const DRAWING: &str = "<svg xmlns='http://www.w3.org/2000/svg'><path d='m0 0h1'/></svg>";

/// Returns a configuration with everything, and a logo in a file of this name.
fn acme(file: &str) -> Setup {
    let path = std::env::temp_dir().join(format!("portcullis-{}-{file}", std::process::id()));
    std::fs::write(&path, DRAWING).unwrap();
    let logo = path.display().to_string();
    Setup::toml(format!(
        "[branding]\nname = \"Acme & <Sons>\"\nlogo = {logo:?}\naccent = \"#ffff00\"\n\
         support = \"it-help@acme.com\"\nterms = \"https://acme.com/terms\"\n\
         privacy = \"https://acme.com/privacy\""
    ))
}

fn policy(page: &Answer) -> &str {
    page.header("content-security-policy").unwrap()
}

/// The policy has the hash of the style that the page really has, and one exception.
#[track_caller]
fn assert_strict(page: &Answer) {
    let style = page.text().split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
    let expected = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    assert_eq!(policy(page), expected);
    assert!(!page.text().contains("<script") && !page.text().contains(" style="));
}

#[tokio::test]
async fn every_page_of_a_person_shows_whose_it_is() {
    let app = TestApp::with(acme("every.svg")).await;
    let client = app.client().await;
    let (consent, _) = client.ask(&[]).await;
    let html = [("accept", "text/html")];
    let not_found = client.browser.send("GET", &app.at("/nothing"), &html, "").await;
    let sign_in = client.browser.send("GET", &app.at("/account"), &html, "").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    let account = bob.browser.send("GET", &app.at("/account"), &html, "").await;
    for (what, page) in [
        ("consent", &consent),
        ("message", &not_found),
        ("sign in", &sign_in),
        ("account", &account),
    ] {
        assert_strict(page);
        let text = unescape(page.text());
        for shown in [
            "<span>Acme & <Sons></span>",
            "· Acme & <Sons></title>",
            "/branding/logo?v=",
            "href=\"mailto:it-help@acme.com\">it-help@acme.com<",
            "href=\"https://acme.com/terms\"",
            "href=\"https://acme.com/privacy\"",
        ] {
            assert!(text.contains(shown), "{what} lacks {shown}: {text}");
        }
        assert!(!page.text().contains("Acme & <Sons>"), "{what}: escaped");
        assert!(!text.contains("Portcullis<"), "{what}");
        // Nobody could read yellow on white.
        assert!(!text.contains("--accent: #ffff00; --accent-ink: #ffffff"), "{what}");
    }
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = client.browser.send("GET", &client.authorize_url(&[]), &ja, "").await;
    assert!(page.text().contains("プライバシーポリシー"), "{}", page.text());
}

#[tokio::test]
async fn the_admin_pages_stay_as_they_are() {
    let app = TestApp::with(acme("admin.svg")).await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let page = admin.browser.get(&format!("{}/", app.admin_url)).await;
    assert!(page.text().contains("<span>Portcullis</span>") && !page.text().contains("Acme"));
    // Their own icon in the browser's tab is the only picture.
    assert!(policy(&page).contains("img-src 'self';") && !page.text().contains("<img"));
    assert!(page.text().contains("href=\"/favicon.svg\"") && !page.text().contains("/logo"));
    app.http.get(&format!("{}/branding/logo", app.admin_url)).await.assert_status(404);
}

#[tokio::test]
async fn the_icon_of_the_tab_is_the_logo_or_ours() {
    let app = TestApp::with(acme("icon.svg")).await;
    let (page, _) = app.client().await.ask(&[]).await;
    let base = app.url.strip_prefix(&app.origin).unwrap();
    let logo = format!("<link rel=\"icon\" href=\"{base}/branding/logo?v=");
    assert!(page.text().contains(&logo), "{}", page.text());

    let plain = TestApp::start().await;
    let (page, _) = plain.client().await.ask(&[]).await;
    let link = format!("<link rel=\"icon\" href=\"{base}/branding/icon\">");
    assert!(page.text().contains(&link), "{}", page.text());
    let icon = plain.http.get(&plain.at("/branding/icon")).await;
    assert!(icon.assert_status(200).text().starts_with("<svg"));
    assert_eq!(icon.header("content-type"), Some("image/svg+xml"));
    assert!(icon.header("content-security-policy").unwrap().ends_with("sandbox"));
}

#[tokio::test]
async fn times_are_in_the_configured_zone_which_is_named() {
    let setup = Setup::toml("[branding]\ntimezone = \"Asia/Tokyo\"");
    let app = TestApp::with(setup).await;
    app.tokens_of("bob").await;
    let page = Console::account(&app).signed_in(&app, "bob").await.page("/account").await;
    assert!(page.contains("2026-11-21 09:00 JST (UTC+09:00)</time>"), "{page}");
    assert!(page.contains("datetime=\"2026-11-21T00:00:00Z\""), "{page}");
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let page = admin.page("/grants").await;
    assert!(page.contains("00:00 UTC") && !page.contains("JST"), "{page}");
}

#[tokio::test]
async fn the_logo_is_served_with_strict_headers_and_only_where_there_is_one() {
    let app = TestApp::with(acme("served.svg")).await;
    let (page, _) = app.client().await.ask(&[]).await;
    let path = page.text().split_once("src=\"").unwrap().1.split_once('"').unwrap().0;
    let logo = app.http.get(&format!("{}{}", app.origin, unescape(path))).await;
    assert_eq!(logo.assert_status(200).text(), DRAWING);
    for (name, value) in [
        ("content-type", "image/svg+xml"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "public, max-age=86400"),
    ] {
        assert_eq!(logo.header(name), Some(value), "{name}");
    }
    let policy = policy(&logo);
    assert!(policy.starts_with("default-src 'none'") && policy.ends_with("sandbox"), "{policy}");

    let plain = TestApp::start().await;
    plain.http.get(&plain.at("/branding/logo")).await.assert_status(404);
}

#[tokio::test]
async fn a_reload_changes_the_name_and_the_colour() {
    let setup = Setup::toml("[branding]\nname = \"Acme\"\naccent = \"#1f4fd1\"");
    let mut app = TestApp::with(setup).await;
    let client = app.client().await;
    let (page, _) = client.ask(&[]).await;
    let before = policy(&page).to_owned();
    assert!(page.text().contains("<span>Acme</span>"));
    app.change_config(
        "name = \"Acme\"\naccent = \"#1f4fd1\"",
        "name = \"Other\"\naccent = \"#d11f4f\"",
    );
    app.reload().await;
    let (page, _) = client.ask(&[]).await;
    assert!(page.text().contains("<span>Other</span>") && page.text().contains("#d11f4f"));
    assert_ne!(policy(&page), before, "the policy has the hash of the new style");
}
