//! The languages of people's pages: by `Accept-Language`, and by choice.

use portcullis::web::words::Language;

use crate::harness::browser::Browser;
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

async fn speak(browser: &Browser, url: &str, languages: &str) -> Answer {
    let headers = [("accept", "text/html"), ("accept-language", languages)];
    browser.send("GET", url, &headers, "").await
}

#[track_caller]
fn assert_in(page: &Answer, language: Language, status: u16, title: &str) {
    page.assert_page(status);
    let (text, tag) = (page.text(), language.tag());
    assert!(text.contains(&format!("<html lang=\"{tag}\">")), "not in {tag}: {text}");
    assert!(text.contains(&format!("<title>{title} · ")), "no {title}: {text}");
    assert_eq!(page.header("content-language"), Some(tag));
    assert_eq!(page.header("vary"), Some("accept-language, cookie"));
}

#[tokio::test]
async fn every_language_has_its_consent_page_its_messages_and_its_account_pages() {
    let app = TestApp::with(Setup::toml("[limits]\nconsent_pages = 50")).await;
    let client = app.client().await;
    app.tokens_of("bob").await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    for language in Language::ALL {
        let (w, tag) = (language.words(), language.tag());
        let consent = speak(&client.browser, &client.authorize_url(&[]), tag).await;
        assert_in(&consent, language, 200, &w.consent.consent_title);
        for text in [&w.consent.cancel, &w.consent.asks_to, &w.consent.at_most] {
            assert!(consent.text().contains(text.as_str()), "{text}: {}", consent.text());
        }

        let unknown = speak(&client.browser, &app.at("/authorize?client_id=x"), tag).await;
        assert_in(&unknown, language, 400, &w.messages.unknown_client.title);
        let nothing = speak(&client.browser, &app.at("/nothing"), tag).await;
        assert_in(&nothing, language, 404, &w.messages.not_found.title);
        let sign_in = speak(&Browser::default(), &app.at("/account"), tag).await;
        assert_in(&sign_in, language, 401, &w.sign_in.title);

        let account = speak(&bob.browser, &app.at("/account"), tag).await;
        assert_in(&account, language, 200, &w.account.title);
        assert!(account.text().contains(&w.account.disconnect), "{}", account.text());
        let confirm = speak(&bob.browser, &app.at("/account/confirm"), tag).await;
        assert_in(&confirm, language, 200, &w.account.confirm_title);
        let number = format!("<strong>{}</strong>", w.account.one_connection);
        assert!(confirm.text().contains(&number), "{}", confirm.text());
    }
}

#[tokio::test]
async fn accept_language_is_weighed() {
    let app = TestApp::start().await;
    for (header, language) in [
        ("de-CH, fr;q=0.9, en;q=0.8", Language::German),
        ("pt-BR, es;q=0.7, en;q=0.3", Language::Spanish),
        ("zh-CN, zh;q=0.9, en;q=0.8", Language::SimplifiedChinese),
        ("fr;q=0.2, ja;q=0.4", Language::Japanese),
        ("ko, *;q=0.1", Language::English),
        ("", Language::English),
    ] {
        let page = speak(&Browser::default(), &app.at("/account"), header).await;
        assert_in(&page, language, 401, &language.words().sign_in.title);
    }
}

#[tokio::test]
async fn a_chosen_language_lasts_for_the_whole_sign_in() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    let english = speak(&client.browser, &url, "en").await;
    assert!(english.text().contains("value=\"de\" lang=\"de\">Deutsch</button>"));
    assert!(!english.text().contains("client-state"), "the request is not on the page");

    let chosen = client.browser.choose_language(&app.url, "de", &url).await;

    chosen.assert_status(303);
    assert_eq!(chosen.location(), format!("{url}&prompt=consent"));
    let cookie = chosen.header("set-cookie").unwrap();
    for part in ["language=de;", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=31536000"] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    let german = Language::German.words();
    let page = speak(&client.browser, chosen.location(), "en").await;
    assert_in(&page, Language::German, 200, &german.consent.consent_title);
    let refused = client.authorize("mallory", &[]).await;
    assert_in(&refused, Language::German, 403, &german.messages.no_access.title);
    assert!(!refused.text().contains("/account/language"), "this page cannot be shown again");
}

#[tokio::test]
async fn a_language_is_chosen_on_the_account_pages_too_and_can_be_changed() {
    let app = TestApp::start().await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    for (from, language) in [
        ("/account", Language::French),
        ("/account/confirm", Language::SimplifiedChinese),
        ("/account?done=disconnected", Language::English),
    ] {
        let tag = language.tag();
        let chosen = bob.browser.choose_language(&app.url, tag, &app.at(from)).await;
        assert_eq!(chosen.location(), app.at(from));
        let page = speak(&bob.browser, &app.at("/account"), "ja").await;
        assert_in(&page, language, 200, &language.words().account.title);
        assert!(page.text().contains(&format!("lang=\"{tag}\" aria-current=\"true\"")));
    }
}

#[tokio::test]
async fn a_choice_leads_back_to_a_page_of_the_server_only() {
    let app = TestApp::start().await;
    let browser = Browser::default();
    for from in [
        "",
        "https://evil.example/account",
        &format!("{}.evil.example/account", app.url),
        &app.at("/auth/callback?code=x&state=y"),
        &app.at("/consent"),
        &app.at("/mcp"),
    ] {
        let chosen = browser.choose_language(&app.url, "es", from).await;
        chosen.assert_status(303);
        assert_eq!(chosen.location(), app.at("/account"), "from {from:?}");
    }
}

#[tokio::test]
async fn only_a_page_of_the_server_chooses_and_only_a_language_of_the_pages() {
    let app = TestApp::start().await;
    let browser = Browser::default();
    let at = app.at("/account/language");
    let foreign = browser.post(&at, &[("language", "de")], "https://evil.example").await;
    foreign.assert_page(403);
    for tag in ["", "pt", "EN", "de\"><b>"] {
        let refused = browser.choose_language(&app.url, tag, &app.at("/account")).await;
        refused.assert_page(400);
    }
    browser.get(&at).await.assert_page(405);
    assert_eq!(browser.cookie_names(), Vec::<String>::new());
}

#[tokio::test]
async fn administrators_pages_are_in_two_languages() {
    let app = TestApp::start().await;
    let admin = Console::admin(&app);
    for (header, language) in [
        ("de, ja;q=0.5, en;q=0.4", Language::Japanese),
        ("fr, en;q=0.5", Language::English),
        ("zh-CN", Language::English),
    ] {
        let page = speak(&admin.browser, &admin.at("/"), header).await;
        assert_in(&page, language, 401, &language.words().sign_in.title);
        assert!(!page.text().contains("/account/language"), "{}", page.text());
    }
    // The choice is about people's pages. Both may be on one host, with one set of cookies.
    admin.browser.choose_language(&app.url, "de", &app.at("/account")).await.assert_status(303);
    let page = speak(&admin.browser, &admin.at("/"), "ja").await;
    assert_in(&page, Language::Japanese, 401, &Language::Japanese.words().sign_in.title);
}
