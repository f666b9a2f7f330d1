//! The consent page, and `POST /consent`: threats CD-01, CD-04, CD-05, and what a decision is bound to.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

#[tokio::test]
async fn con_02_the_page_says_who_asks_for_what_and_who_signs_in() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (page, _) = client.ask(&[("scope", "create:todos")]).await;
    for text in [
        "127.0.0.1:53124",
        "Test client",
        "To-do list",
        &app.mcp_url(),
        "Add to-dos",
        "Continue to the demo identity provider",
        "self-registered",
        &app.at("/account"),
    ] {
        assert!(page.text().contains(text), "{text} is not on the page");
    }
    assert!(!page.text().contains("Read everybody"));
}

#[tokio::test]
async fn the_page_speaks_japanese_to_those_who_prefer_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    let headers = [("accept-language", "ja,en;q=0.5")];
    let page = client.browser.send("GET", &url, &headers, "").await;
    assert!(page.text().contains("<html lang=\"ja\">") && page.text().contains("に進む"));
    assert_eq!(page.header("content-language"), Some("ja"));
}

#[tokio::test]
async fn xs_01_what_a_client_calls_itself_is_text_and_nothing_else() {
    let app = TestApp::start().await;
    let metadata = json!({
        "client_name": "<script>alert(1)</script>\"onmouseover=x",
        "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let (page, _) = client.ask(&[("state", "<script>state")]).await;
    assert!(!page.text().contains("<script"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("form-action"),
        "{policy}"
    );
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
}

/// A client that signs somebody in in a popup learns from its window when that is over (`use-mcp`,
/// `oidc-client-ts`): the pages of the flow do not cut that tie. Those of the account and of administrators do.
#[tokio::test]
async fn pages_of_the_flow_keep_their_opener_and_all_others_do_not() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (consent, form) = client.ask(&[]).await;
    let denied = client.decide(&form, "deny").await;
    let broken = app.http.get(&app.at("/authorize?client_id=x")).await;
    let callback = app.http.get(&app.at("/auth/callback?state=x&code=y")).await;
    let connect = app.http.get(&app.at("/connect/github")).await;
    let connected = app.http.get(&app.at("/auth/connect/github/callback?state=x&code=y")).await;
    for (what, page) in [
        ("consent", &consent),
        ("deny", &denied),
        ("refusal", &broken),
        ("callback", &callback),
        ("connect", &connect),
        ("connected", &connected),
    ] {
        assert_eq!(page.header("cross-origin-opener-policy"), None, "{what}");
    }
    for path in [
        "/account",
        "/account/confirm",
        "/account/signed-in",
        "/account/sign-in",
        "/account/connections",
        "/account/connections/confirm",
        "/account/connections/remove",
    ] {
        let page = app.http.get(&app.at(path)).await;
        assert_eq!(page.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
    }
    for path in ["/", "/clients", "/signed-in", "/nothing"] {
        let page = app.http.get(&format!("{}{path}", app.admin_url)).await;
        assert_eq!(page.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
    }
}

/// Consent before anything of the identity provider, even with a live session there.
#[tokio::test]
async fn cd_01_a_new_client_never_reaches_the_identity_provider_without_consent() {
    let app = TestApp::start().await;
    let (bob, _) = app.tokens_of("bob").await;
    let metadata = json!({
        "client_name": "Evil", "redirect_uris": ["https://evil.example/cb"],
        "token_endpoint_auth_method": "none",
    });
    let mut evil = McpClient::register_as(&app, metadata).await;
    evil.browser = bob.browser.clone(); // Bob's browser, with his live session at the provider
    let before = app.idp.requests_to("/authorize");
    let (page, form) = evil.ask(&[]).await;
    assert!(page.text().contains("evil.example"));
    assert_eq!(app.idp.requests_to("/authorize"), before);

    // And his earlier approval of another client approves nothing.
    let denied = evil.decide(&form, "deny").await;
    denied.assert_leads_to("https://evil.example/cb?error=access_denied");
    assert_eq!(app.idp.requests_to("/authorize"), before);
}

#[tokio::test]
async fn cd_01_the_same_client_is_asked_about_again_every_time() {
    let app = TestApp::start().await;
    let client = app.client().await;
    client.sign_in("bob").await;
    let (page, _) = client.ask(&[]).await;
    assert!(page.text().contains("value=\"approve\""));
}

#[tokio::test]
async fn con_03_deny_tells_the_client_and_the_page_is_used_up() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let denied = client.decide(&form, "deny").await;
    denied.assert_leads_to(REDIRECT_URI);
    assert_eq!(denied.location_param("error").as_deref(), Some("access_denied"));
    assert_eq!(denied.location_param("state").as_deref(), Some("client-state"));
    assert_eq!(denied.location_param("iss").as_deref(), Some(app.url.as_str()));
    client.decide(&form, "approve").await.assert_page(403);
    client.decide(&form, "deny").await.assert_page(403);
    assert_eq!(app.idp.recorded().iter().filter(|r| r.path == "/authorize").count(), 0);
}

/// A form that is sent by another page, or by a browser the page was not shown to.
#[tokio::test]
async fn cd_05_a_decision_from_elsewhere_is_refused() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let fields = form.with(&[("decision", "approve")]);
    let body = crate::harness::http::encode(&fields);
    let type_ = ("content-type", "application/x-www-form-urlencoded");
    let ours = ("origin", app.origin.as_str());
    let same = ("sec-fetch-site", "same-origin");
    let cases: Vec<Vec<(&str, &str)>> = vec![
        vec![type_, same],
        vec![type_, ("origin", "null"), same],
        vec![type_, ("origin", "https://evil.example"), same],
        vec![type_, ours, ("sec-fetch-site", "cross-site")],
        vec![type_, ours, ("sec-fetch-site", "same-site")],
        vec![type_, ours, ("origin", "https://evil.example"), same],
    ];
    for headers in cases {
        let answer = client.browser.send("POST", &form.action, &headers, &body).await;
        answer.assert_page(403);
    }
    // Another browser: without our cookie, and with a cookie of its own.
    let stranger = client.elsewhere();
    stranger.decide(&form, "approve").await.assert_page(403);
    stranger.ask(&[]).await;
    stranger.decide(&form, "approve").await.assert_page(403);
    // None of it used the page up.
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_changed_or_foreign_request_is_refused() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let sealed = form.fields.iter().find(|(name, _)| name == "request").unwrap().1.clone();
    let mut middle = sealed.clone().into_bytes();
    let at = middle.len() / 2;
    middle[at] = if middle[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(middle).unwrap();
    for request in [changed.as_str(), "", "x", &sealed[..sealed.len() - 4]] {
        let fields = form.with(&[("request", request), ("decision", "approve")]);
        client.browser.post(&form.action, &fields, &app.url).await.assert_page(403);
    }
    let fields = form.with(&[("decision", "perhaps")]);
    client.browser.post(&form.action, &fields, &app.url).await.assert_page(400);
}

#[tokio::test]
async fn a_consent_page_is_good_for_ten_minutes() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let (_, late) = client.ask(&[]).await;
    app.advance(10 * 60 - 1);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
    app.advance(1);
    client.decide(&late, "approve").await.assert_page(403);
}

#[tokio::test]
async fn cd_04_one_page_approves_once_however_often_it_is_pressed() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        let (_, form) = client.ask(&[]).await;
        let answers = join_all((0..100).map(|_| client.decide(&form, "approve"))).await;
        let led_on = answers.iter().filter(|answer| answer.status == 303).count();
        let refused = answers.iter().filter(|answer| answer.status == 403).count();
        assert_eq!((led_on, refused), (1, 99));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM logins").await, 1);
    }
}

#[tokio::test]
async fn con_05_two_pages_opened_at_once_by_a_fresh_browser_both_work() {
    let app = TestApp::start().await;
    let client = app.client().await;
    // Neither request has a cookie yet.
    let ((_, one), (_, two)) = tokio::join!(client.ask(&[]), client.ask(&[]));
    client.decide(&one, "approve").await.assert_leads_to(app.idp.issuer());
    client.decide(&two, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn several_flows_at_once_in_one_browser_work_and_old_ones_make_room() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut idp_urls = Vec::new();
    for _ in 0..12 {
        app.advance(1); // the oldest makes room first
        idp_urls.push(client.approve(&[]).await);
    }
    let bindings =
        || client.browser.cookie_names().iter().filter(|name| name.contains("login")).count();
    assert_eq!(bindings(), 10, "ten at a time");
    for idp_url in idp_urls.split_off(2) {
        let callback = client.log_in(&idp_url, "bob").await;
        client.browser.get(&callback).await.assert_leads_to(REDIRECT_URI);
    }
    assert_eq!(bindings(), 0, "every finished login takes its cookie along");
}

#[tokio::test]
async fn a_quota_of_pending_logins_refuses_politely_and_loses_nothing() {
    let setup = Setup::toml("[limits]\npending_logins = 1");
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    client.approve(&[]).await;
    client.decide(&form, "approve").await.assert_page(429);
    app.advance(9 * 60);
    app.advance(50);
    client.decide(&form, "approve").await.assert_page(429);
}

#[tokio::test]
async fn an_unreachable_identity_provider_leaves_the_page_usable() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.discovery_down = true);
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let page = client.decide(&form, "approve").await;
    page.assert_page(503);
    assert!(page.header("retry-after").is_some());
    app.idp.misbehave(|how| how.discovery_down = false);
    app.advance(10);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
}

/// Pages are for the person alone: no script of another origin may read one, whatever the answer is.
#[tokio::test]
async fn xs_02_no_other_origin_reads_a_page() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let asked = client.authorize_url(&[]);
    let mut urls = vec![asked];
    for path in [
        "/authorize",
        "/consent",
        "/auth/callback",
        "/waiting",
        "/waiting/cancel",
        "/authorize/again",
        "/",
        "/branding/icon",
        "/account",
        "/account/sign-in",
        "/account/signed-in",
        "/account/confirm",
        "/account/disconnect",
        "/account/sign-out",
        "/account/language",
        "/account/connections",
        "/account/connections/confirm",
        "/account/connections/remove",
        "/connect/github",
        "/auth/connect/github/callback",
        "/nothing",
    ] {
        urls.push(app.at(path));
    }
    urls.extend(["/", "/clients", "/metrics"].map(|path| format!("{}{path}", app.admin_url)));
    let headers = [
        ("origin", "https://other.example"),
        ("accept", "text/html"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    for url in urls {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = app.http.send(method, &url, &headers, "").await;
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, None, "{method} {url}: {}", answer.status);
            assert_eq!(answer.header("access-control-allow-credentials"), None, "{method} {url}");
        }
    }
}
