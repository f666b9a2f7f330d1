//! What all admin pages have in common: a title, an icon, a word on what the page is for, and times that say how
//! long ago something was, and in which zone.

use crate::harness::TestApp;
use crate::harness::console::{Console, with_query};

const PAGES: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/clients", "Clients"),
    ("/grants", "Connections"),
    ("/people", "People"),
    ("/servers", "MCP servers"),
    ("/usage", "Usage"),
    ("/notifications", "Notifications"),
    ("/keys", "Keys"),
    ("/audit", "Audit"),
    ("/person?sub=oidc%3Ademo-bob", "Bob Brown"),
];

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

#[tokio::test]
async fn every_page_has_a_title_an_icon_a_zone_and_a_word_on_what_it_is_for() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    for (path, title) in PAGES {
        let page = alice.page(path).await;
        assert!(page.contains(&format!("<title>{title} · Portcullis</title>")), "{path}: {page}");
        assert!(page.contains("rel=\"icon\""), "{path}: {page}");
        assert!(page.contains("<summary>About this page</summary><p>"), "{path}: {page}");
        assert!(page.contains("All times are UTC."), "{path}: {page}");
        let ja = [("accept", "text/html"), ("accept-language", "ja")];
        let page = alice.browser.send("GET", &alice.at(path), &ja, "").await;
        assert!(page.text().contains("このページについて"), "{path}: {}", page.text());
        assert!(page.text().contains("時刻はすべてUTCです。"), "{path}: {}", page.text());
    }
}

#[tokio::test]
async fn the_icon_is_there_before_somebody_signs_in_and_is_only_a_picture() {
    let app = TestApp::start().await;
    let stranger = Console::admin(&app);
    for path in ["/favicon.svg", "/favicon.ico"] {
        let icon = stranger.get(path).await;
        icon.assert_status(200);
        assert_eq!(icon.header("content-type"), Some("image/svg+xml"));
        assert_eq!(icon.header("x-content-type-options"), Some("nosniff"));
        let policy = icon.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("sandbox"), "{policy}");
        assert!(icon.text().starts_with("<svg") && !icon.text().contains("script"));
    }
    let alice = admin(&app).await;
    let page = alice.get("/audit").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("img-src 'self';") && policy.starts_with("default-src 'none'"));
}

#[tokio::test]
async fn a_time_of_the_last_day_says_how_long_ago_it_was_and_an_older_one_its_date() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await; // at midnight
    let path = with_query("/people", &[("q", "bob")]);
    for (seconds, shown, in_japanese) in [
        (0, "just now (00:00 UTC)", "たった今 (00:00 UTC)"),
        (59, "just now (00:00 UTC)", "たった今 (00:00 UTC)"),
        (1, "1 min ago (00:00 UTC)", "1分前 (00:00 UTC)"),
        (59 * 60 - 1, "59 min ago (00:00 UTC)", "59分前 (00:00 UTC)"),
        (1, "1 h ago (00:00 UTC)", "1時間前 (00:00 UTC)"),
        (22 * 3600 + 3599, "23 h ago (00:00 UTC)", "23時間前 (00:00 UTC)"),
        (1, "2026-11-21 00:00 UTC", "2026-11-21 00:00 UTC"),
    ] {
        app.advance(seconds);
        let alice = admin(&app).await;
        let time = |text: &str| {
            let title = "title=\"2026-11-21 00:00:00 UTC\"";
            format!("<time datetime=\"2026-11-21T00:00:00Z\" {title}>{text}</time>")
        };
        let page = alice.page(&path).await;
        assert!(page.contains(&time(shown)), "{shown} is missing: {page}");
        let ja = [("accept", "text/html"), ("accept-language", "ja")];
        let page = alice.browser.send("GET", &alice.at(&path), &ja, "").await;
        assert!(page.text().contains(&time(in_japanese)), "{in_japanese}: {}", page.text());
    }
    let account = Console::account(&app).signed_in(&app, "bob").await.page("/account").await;
    assert!(!account.contains(" ago ("), "people's pages have dates: {account}");
}
