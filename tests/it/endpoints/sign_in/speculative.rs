//! Requests that nobody makes on purpose take no step (RFC 9110 §9.2.1): `HEAD`, prefetches, pages that
//! embed an address, and programs that follow links.

use crate::harness::browser::Browser;
use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

/// Method and headers of each kind, sent by the very browser whose step it is.
const GUESSES: &[(&str, &[(&str, &str)])] = &[
    ("HEAD", &[]),
    ("HEAD", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]),
    ("GET", &[("sec-purpose", "prefetch")]),
    ("GET", &[("sec-purpose", "prefetch;prerender")]),
    ("GET", &[("sec-purpose", "prefetch;anonymous-client-ip")]),
    ("GET", &[("purpose", "prefetch")]),
    ("GET", &[("purpose", "preview")]),   // older Safari
    ("GET", &[("x-purpose", "preview")]), // Safari's pictures of pages
    ("GET", &[("x-moz", "prefetch")]),    // Firefox
    ("GET", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]), // <img>
    ("GET", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "empty")]), // <link rel=prefetch>
    ("GET", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]), // fetch()
    ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]), // a hidden frame
];

#[track_caller]
fn assert_no_step(answer: &Answer, what: &str) {
    assert!(answer.status == 200 || answer.status == 503, "{what}: {}", answer.status);
    assert_eq!(answer.header("location"), None, "{what}");
    assert_eq!(answer.header("set-cookie"), None, "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    assert!(answer.body.is_empty(), "{what}");
}

async fn guess_all(browser: &Browser, url: &str) {
    for (method, headers) in GUESSES {
        let what = format!("{method} {headers:?} {url}");
        assert_no_step(&browser.send(method, url, headers, "").await, &what);
    }
}

#[tokio::test]
async fn a_guess_takes_no_step_of_a_login_or_sign_in() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let before = app.idp.requests_to("/token");
    guess_all(&client.browser, &callback).await;
    let denied = callback.replace("code=", "error=access_denied&x=");
    guess_all(&client.browser, &denied).await;
    for (n, pages) in [Console::account(&app), Console::admin(&app)].iter().enumerate() {
        let url = pages.nearly_signed_in(&app, "alice").await;
        guess_all(&pages.browser, &url).await;
        assert_eq!(app.idp.requests_to("/token"), before + n, "nobody was asked");
        pages.browser.go(&url).await.assert_leads_to(&pages.origin);
    }
    client.browser.go(&callback).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn a_guess_does_not_end_the_waiting_for_an_administrator() {
    let app = TestApp::with(Setup::toml("client_approval = \"first_use\"")).await;
    let client = app.client().await;
    let waiting = client.authorize("bob", &[]).await;
    waiting.assert_leads_to(&app.at("/waiting?id="));
    let page = waiting.location().to_owned();
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    admin.press(&path, "action", "approve").await.assert_status(303);

    guess_all(&client.browser, &page).await;

    assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 0);
    client.browser.go(&page).await.assert_leads_to(REDIRECT_URI);
}

/// Programs that follow links have no cookie of ours: those that are no browser, and those that are a real one.
#[tokio::test]
async fn a_scanner_that_follows_a_link_does_not_burn_the_login_of_the_right_browser() {
    let app = TestApp::start().await;
    let scanners: &[&[(&str, &str)]] = &[
        &[],
        &[("user-agent", "Mozilla/5.0"), ("accept", "text/html")],
        &[("user-agent", "curl/8.9"), ("accept", "*/*")],
        &[("accept", "text/html"), ("range", "bytes=0-1023")],
        &[("accept", "text/html"), ("cookie", "another=cookie; __Host-portcullis-login-x=y")],
    ];
    for headers in scanners {
        let client = app.client().await;
        let idp_url = client.approve(&[]).await;
        let callback = client.log_in(&idp_url, "bob").await;
        for _ in 0..2 {
            let page = app.http.send("GET", &callback, headers, "").await;
            page.assert_page(403);
            assert!(page.text().contains("not started in this browser"));
        }
        client.browser.go(&callback).await.assert_leads_to(REDIRECT_URI);
    }
    // A mail scanner that opens the link of the mail in a real browser: the link leads through the provider,
    // with another code. The person opens it after that.
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let scanner = client.elsewhere();
    let theirs = scanner.log_in(&idp_url, "bob").await;
    scanner.browser.go(&theirs).await.assert_page(403);
    let callback = client.log_in(&idp_url, "bob").await;
    client.browser.go(&callback).await.assert_leads_to(REDIRECT_URI);
}

/// A remembered approval leads on at once, and only a person who comes by themselves.
#[tokio::test]
async fn a_guess_does_not_begin_a_login_on_a_remembered_approval() {
    let app = TestApp::start().await;
    let uri = "https://trusted.example/callback";
    let metadata = serde_json::json!({
        "client_name": "Trusted", "redirect_uris": [uri], "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    admin.press(&path, "action", "trust").await.assert_status(303);
    client.sign_in("bob").await;
    let url = client.authorize_url(&[]);
    let logins = async || app.database.number("SELECT COUNT(*) FROM logins").await;
    let before = logins().await;
    for (method, headers) in GUESSES {
        let mut headers = headers.to_vec();
        headers.push(("sec-fetch-site", "none"));
        let answer = client.browser.send(method, &url, &headers, "").await;
        assert_eq!(answer.status, 200, "{method} {headers:?}: the page, which changes nothing");
        client.browser.forget("consent"); // so many pages are shown to one browser
    }
    assert_eq!(logins().await, before);
    let headers = [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
    client.browser.send("GET", &url, &headers, "").await.assert_leads_to(app.idp.issuer());
}
