//! `public_url` with a path: metadata documents stand where RFC 8414 §3.1 and RFC 9728 §3.1 put them,
//! everything else below the path, and nothing leads out of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use serde_json::{Value, json};
use url::Url;

use crate::harness::browser::{Browser, unescape};
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, jwt_part};
use crate::harness::console::Console;
use crate::harness::{Setup, TestApp};

/// One segment, two, names that are also names of our own pages, upper case, and all legal characters.
const PATHS: [&str; 7] =
    ["/auth", "/one/two", "/mcp", "/auth/callback", "/health", "/Team-A", "/a.b/c_d~e-1"];

async fn below(path: &'static str) -> TestApp {
    TestApp::with(Setup { path: Some(path), ..Setup::default() }).await
}

#[tokio::test]
async fn a_client_that_knows_only_the_mcp_url_gets_to_a_tool_call_below_any_path() {
    for path in PATHS {
        let app = below(path).await;
        assert_eq!(app.url, format!("{}{path}", app.origin));

        // The challenge names the document at the root of the host, and that everything else.
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover" });
        let refused = app.http.post_json(&app.mcp_url(), &body, &[]).await;
        refused.assert_status(401);
        let challenge = refused.header("www-authenticate").unwrap();
        let document = app.well_known("oauth-protected-resource", "/mcp");
        assert!(challenge.contains(&format!("resource_metadata=\"{document}\"")), "{challenge}");
        let resource = app.http.get(&document).await.assert_status(200).json();
        assert_eq!(resource["resource"], app.mcp_url());
        assert_eq!(resource["authorization_servers"], json!([app.url]));
        let server = app.http.get(&app.well_known("oauth-authorization-server", "")).await;
        let server = server.assert_status(200).json();
        assert_eq!(server["issuer"], app.url);
        for (member, below) in [
            ("authorization_endpoint", "/authorize"),
            ("token_endpoint", "/token"),
            ("registration_endpoint", "/register"),
            ("revocation_endpoint", "/revoke"),
            ("jwks_uri", "/.well-known/jwks.json"),
        ] {
            assert_eq!(server[member], app.at(below), "{path}");
        }
        app.http.get(&app.at("/.well-known/jwks.json")).await.assert_status(200);

        // Registration and its management.
        let metadata = json!({ "client_name": "Test", "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "client_secret_post" });
        let registered = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        let registered = registered.assert_status(201).json();
        let uri = registered["registration_client_uri"].as_str().unwrap();
        assert!(uri.starts_with(&app.at("/register/")), "{uri}");
        let token = registered["registration_access_token"].as_str().unwrap();
        let bearer = format!("Bearer {token}");
        let read = app.http.send("GET", uri, &[("authorization", bearer.as_str())], "").await;
        assert_eq!(read.assert_status(200).json()["registration_client_uri"], uri);

        // Consent, sign-in, code; `iss` comes back with it.
        let client = McpClient::register(&app).await;
        let back = client.authorize("bob", &[]).await;
        back.assert_leads_to(REDIRECT_URI);
        assert_eq!(back.location_param("iss").as_deref(), Some(app.url.as_str()));
        let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
        let claims = jwt_part(&tokens.access_token, 1);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(app.url), &json!(app.mcp_url())));

        // The gateway, a refresh, and the end.
        let tea = json!({ "content": "Tea" });
        let called = client.call_tool(&tokens.access_token, "create-todo", tea).await;
        assert_eq!(called.assert_status(200).json()["result"]["isError"], false);
        let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
        client.revoke(&tokens.refresh_token).await.assert_status(200);
        client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(401);
    }
}

#[tokio::test]
async fn every_place_where_a_client_looks_for_metadata_answers_below_a_path() {
    let resources = "[[resource]]\npath = \"/one\"\nscopes = [\"read\"]\ndefault = true\n\
        [[resource]]\npath = \"/auth-team/two\"\nscopes = [\"read\"]\n\
        [[resource]]\nid = \"https://elsewhere.example/mcp\"\nscopes = [\"read\"]";
    let app = TestApp::with(Setup { path: Some("/auth"), ..Setup::toml(resources) }).await;
    let at = |path: &str| format!("{}{path}", app.origin);
    for path in [
        "/.well-known/oauth-authorization-server/auth", // RFC 8414 §3.1
        "/.well-known/openid-configuration/auth",
        "/auth/.well-known/openid-configuration", // OpenID Connect Discovery
        "/auth/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/auth/one", // clients of 2025-03-26 with the MCP URL
        "/.well-known/oauth-authorization-server",          // the same, at the root of the host
        "/.well-known/openid-configuration",
    ] {
        let answer = app.http.get(&at(path)).await;
        assert_eq!(answer.assert_status(200).json()["issuer"], app.url, "{path}");
    }
    for (path, resource) in [
        ("/.well-known/oauth-protected-resource/auth/one", "/one"), // RFC 9728 §3.1
        ("/.well-known/oauth-protected-resource/auth/one/", "/one"),
        ("/.well-known/oauth-protected-resource/auth/auth-team/two", "/auth-team/two"),
        ("/auth/one/.well-known/oauth-protected-resource", "/one"),
        ("/.well-known/oauth-protected-resource/auth", "/one"), // the default
        ("/.well-known/oauth-protected-resource", "/one"),
    ] {
        let answer = app.http.get(&at(path)).await;
        assert_eq!(answer.assert_status(200).json()["resource"], app.at(resource), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_below_the_path_is_not_there_and_a_proxy_that_takes_it_off_is_named() {
    let app = below("/auth").await;
    let at = |path: &str| format!("{}{path}", app.origin);
    for path in [
        "/",
        "/authorize",
        "/token",
        "/register",
        "/mcp",
        "/account",
        "/consent",
        "/callback",
        "/authx/token",
        "/Auth/token",
        "/%61uth/token",
        "//auth/token",
        "/x/../auth/token",
        "/.well-known/jwks.json",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server/authx",
        "/.well-known/oauth-authorization-server/mcp",
    ] {
        for method in ["GET", "POST"] {
            let answer = app.http.send(method, &at(path), &[], "").await;
            let json = answer.assert_status(404).json();
            assert_eq!(json["error"], "not_found", "{path}");
            let why = json["error_description"].as_str().unwrap();
            assert!(why.contains("/auth") && why.contains("proxy"), "{path}: {why}");
        }
    }
    for path in ["/auth", "/auth/", "/auth/nothing", "/auth//token", "/auth/../auth/token"] {
        app.http.get(&at(path)).await.assert_status(404);
    }
    // A person reads a page.
    Browser::default().get(&at("/authorize?client_id=x")).await.assert_page(404);
    // The names that are checked in front of everything else are checked here too.
    let headers = [("host", "evil.example")];
    app.http.send("GET", &at("/token"), &headers, "").await.assert_status(421);
    app.http.send("GET", &at("/auth/token"), &headers, "").await.assert_status(421);
}

#[tokio::test]
async fn orchestrators_find_health_and_readiness_at_the_root_and_below_the_path() {
    let app = below("/auth").await;
    for path in ["/health", "/ready", "/auth/health", "/auth/ready"] {
        let url = format!("{}{path}", app.origin);
        app.http.get(&url).await.assert_status(200);
        // They ask an address, not our name.
        let answer = app.http.send("GET", &url, &[("host", "10.1.2.3:8000")], "").await;
        answer.assert_status(200);
    }
}

/// Where a page or an answer leads: links, forms, style sheets, refreshes, redirects.
fn ways_out(url: &str, answer: &crate::harness::http::Answer) -> Vec<String> {
    let page = Url::parse(url).unwrap();
    let mut ways: Vec<String> = Vec::new();
    if let Some(location) = answer.header("location") {
        ways.push(page.join(location).unwrap().to_string());
    }
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
        let html = answer.text();
        let attribute =
            Regex::new(r#"\s(?:href|action|src|formaction|data|poster)\s*=\s*"([^"]*)""#).unwrap();
        let refresh = Regex::new(r#"content="\d+;\s*url=([^"]*)""#).unwrap();
        let imported = Regex::new(r#"(?:url\(|@import\s+)["']?([^"')\s;]+)"#).unwrap();
        for pattern in [attribute, refresh, imported] {
            for found in pattern.captures_iter(html) {
                ways.push(page.join(&unescape(&found[1])).unwrap().to_string());
            }
        }
    }
    ways
}

#[tokio::test]
async fn no_link_form_redirect_or_cookie_of_any_page_leads_out_of_the_path() {
    let app = TestApp::with(Setup {
        path: Some("/one/two"),
        ..Setup::toml("client_approval = \"first_use\"")
    })
    .await;
    let browser = Browser::default();
    let client = app.client().await.with_browser(&browser);

    // Asked, denied; asked again, approved; waiting for an administrator; let in.
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "deny").await.assert_leads_to(REDIRECT_URI);
    let waiting = client.authorize("bob", &[]).await;
    waiting.assert_leads_to(&app.at("/waiting?id="));
    browser.get(waiting.location()).await.assert_page(200);
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let clients = admin.page("/clients").await;
    assert!(!clients.contains("href=\"/one/two"), "the admin pages have an origin of their own");
    admin.press(&format!("/client?id={}", client.id), "action", "approve").await;
    browser.get(waiting.location()).await.assert_leads_to(REDIRECT_URI);

    // Their own pages: signed out, signed in, disconnected, signed out again.
    let tokens = client.sign_in("bob").await;
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
    let mut account = Console::account(&app);
    account.browser = browser.clone();
    let account = account.signed_in(&app, "bob").await;
    account.press("/account", "action", "disconnect").await.assert_leads_to(&app.at("/account"));
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(401);
    account.page("/account?done=disconnected").await;
    let back = app.at("/account?done=disconnected");
    assert_eq!(browser.choose_language(&app.url, "fr", &back).await.location(), back);
    account.press("/account", "action", "here").await.assert_status(303);
    account.get("/account").await.assert_page(401);

    // Pages that say what went wrong.
    for (path, status) in [
        ("/authorize", 400),
        ("/authorize?client_id=nobody", 400),
        ("/consent", 405),
        ("/auth/callback", 403),
        ("/auth/callback?state=x&code=y", 403),
        ("/waiting?id=x", 410),
        ("/account/sign-in", 405),
        ("/nothing", 404),
    ] {
        browser.get(&app.at(path)).await.assert_page(status);
    }

    let mut names = BTreeSet::new();
    let mut pages = 0;
    for (url, answer) in browser.seen() {
        if !url.starts_with(&app.origin) {
            continue; // at the identity provider
        }
        pages += 1;
        for way in ways_out(&url, &answer) {
            let ours = way == app.url
                || ["/", "?", "#"]
                    .iter()
                    .any(|next| way.starts_with(&format!("{}{next}", app.url)));
            let theirs = way.starts_with(app.idp.issuer()) || way.starts_with(REDIRECT_URI);
            assert!(ours || theirs, "{url} leads to {way}");
        }
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            names.insert(set.split('=').next().unwrap().to_owned());
            assert!(set.contains("; Path=/") && !set.contains("Domain"), "{set}");
        }
    }
    assert!(pages > 25, "{pages} answers");
    assert!(names.len() > 5, "{names:?}");
    let tag = names.first().unwrap().split('-').nth(1).unwrap().to_owned();
    for name in &names {
        assert!(name.starts_with(&format!("portcullis-{tag}-")), "{name} has no tag of the path");
    }
}

/// A page that somebody adds tomorrow.
#[test]
fn templates_of_the_public_pages_write_no_path_from_the_root() {
    fn html(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                html(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut files = Vec::new();
    html(&templates, &mut files);
    let rooted =
        Regex::new(r#"(?:href|action|src|formaction|url)\s*=\s*["']?/|url\(["']?/"#).unwrap();
    let mut read = 0;
    for file in files {
        let place = file.strip_prefix(&templates).unwrap();
        // The admin pages have an origin of their own, the demo provider too.
        if place.starts_with("admin") || place.starts_with("demo") {
            continue;
        }
        read += 1;
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!rooted.is_match(&text), "{}: write {{{{ base }}}} before it", place.display());
    }
    assert!(read > 5);
}

#[tokio::test]
async fn installations_on_one_host_keep_their_cookies_apart() {
    // One browser, one host: cookies do not tell ports apart.
    let browser = Browser::default();
    let apps = [below("").await, below("/a").await, below("/b").await, below("/a/b").await];
    let mut consoles = Vec::new();
    for app in &apps {
        let mut console = Console::account(app);
        console.browser = browser.clone();
        consoles.push(console.signed_in(app, "bob").await);
        // Consent pages are counted for each installation by itself.
        let client = app.client().await.with_browser(&browser);
        for _ in 0..3 {
            client.ask(&[]).await;
        }
    }
    for console in &consoles {
        console.page("/account").await;
    }
    consoles[1].press("/account", "action", "here").await.assert_status(303);
    consoles[1].get("/account").await.assert_page(401);
    for console in [&consoles[0], &consoles[2], &consoles[3]] {
        console.page("/account").await;
    }
}

#[tokio::test]
async fn a_browser_names_our_origin_without_the_path() {
    let app = below("/auth").await;
    let (client, tokens) = app.tokens_of("bob").await;
    // Loopback is let in as such; elsewhere the origin alone decides (src/gateway/origin.rs).
    for (origin, status) in
        [(app.origin.as_str(), 200), (app.url.as_str(), 403), ("https://evil.example", 403)]
    {
        let (url, token) = (app.mcp_url(), &tokens.access_token);
        let said = [("origin", origin)];
        let answer = client.rpc_at(&url, token, "tools/list", json!({}), &said).await;
        assert_eq!(answer.status.as_u16(), status, "{origin}");
    }
    // A form whose Origin had the path would be somebody's invention.
    let (_, form) = client.ask(&[]).await;
    let fields = crate::harness::http::encode(&form.with(&[("decision", "approve")]));
    for (origin, status) in [(app.url.as_str(), 403), (app.origin.as_str(), 303)] {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin),
            ("accept", "text/html"),
        ];
        let answer = client.browser.send("POST", &form.action, &headers, &fields).await;
        answer.assert_status(status);
    }
}

#[tokio::test]
async fn introspection_and_client_assertions_name_the_url_with_its_path() {
    let resource = "introspection_secret = \"0123456789012345678901234567890123456789\"".to_owned();
    let app = TestApp::with(Setup {
        path: Some("/auth"),
        ..Setup::toml(format!("[resource]\n{resource}"))
    })
    .await;
    let (_, tokens) = app.tokens_of("bob").await;
    let server = app.http.get(&app.well_known("oauth-authorization-server", "")).await.json();
    assert_eq!(server["introspection_endpoint"], app.at("/introspect"));
    let form = [
        ("token", tokens.access_token.as_str()),
        ("client_id", &app.mcp_url()),
        ("client_secret", "0123456789012345678901234567890123456789"),
    ];
    let answer = app.http.post_form(&app.at("/introspect"), &form, &[]).await;
    let told: Value = answer.assert_status(200).json();
    assert_eq!(told["active"], true);
    assert_eq!((&told["iss"], &told["aud"]), (&json!(app.url), &json!(app.mcp_url())));
}
