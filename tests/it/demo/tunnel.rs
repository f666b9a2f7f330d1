//! The demo behind a tunnel: one public host name for Portcullis and for the pages of the identity provider.

use serde_json::json;

use crate::harness::browser::{Browser, Form};
use crate::harness::client::{McpClient, Place};
use crate::harness::demo::DemoProcess;
use crate::harness::http::Http;
use crate::harness::process::run;

const PUBLIC: &str = "https://demo.example";

struct Tunnelled {
    demo: DemoProcess,
    place: Place,
}

impl Tunnelled {
    async fn start() -> Self {
        let arguments = ["--no-client-documents", "--public-url", "https://demo.example/"];
        let demo = DemoProcess::start(&arguments, &[]).await;
        let http = Http::through_tunnel(PUBLIC, demo.address);
        let place = Place { url: PUBLIC.to_owned(), idp: format!("{PUBLIC}/demo-login"), http };
        Self { demo, place }
    }

    fn browser(&self) -> Browser {
        Browser::through(self.place.http.clone())
    }

    async fn client(&self) -> McpClient {
        McpClient::register(&self.place).await.with_browser(&self.browser())
    }

    /// The address after this label of what the demo printed.
    fn printed(&self, label: &str) -> String {
        let line = self.demo.text.lines().find(|line| line.trim().starts_with(label)).unwrap();
        line.trim()[label.len()..].split_whitespace().next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_person_connects_through_the_tunnel_and_calls_a_tool() {
    let tunnelled = Tunnelled::start().await;
    let (place, mcp) = (&tunnelled.place, format!("{PUBLIC}/mcp"));
    assert_eq!(tunnelled.printed("MCP URL"), mcp);

    // As Claude on the web does: the challenge, then the metadata, then registration.
    let challenged = place.http.post_json(&mcp, &json!({}), &[]).await;
    challenged.assert_status(401);
    let challenge = challenged.header("www-authenticate").unwrap();
    assert!(challenge.contains(&place.mcp_metadata()), "{challenge}");
    let metadata = place.http.get(&place.mcp_metadata()).await.assert_status(200).json();
    assert_eq!(
        (&metadata["resource"], &metadata["authorization_servers"][0]),
        (&json!(mcp), &json!(PUBLIC))
    );

    let client = tunnelled.client().await;
    let tokens = client.sign_in("bob").await;
    let created =
        client.call_tool(&tokens.access_token, "create-todo", json!({ "content": "Milk" }));
    let created = created.await;
    created.assert_status(200);
    assert!(created.text().contains("Milk"), "{}", created.text());

    // Everything that the browser saw was on the one public host, and no answer sent it anywhere else.
    for (url, answer) in client.browser.seen() {
        assert!(url.starts_with(PUBLIC), "{url}");
        if let Some(location) = answer.header("location") {
            let ours = location.starts_with(PUBLIC) || location.starts_with(&client.redirect_uri);
            assert!(ours, "{url} leads to {location}");
        }
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("Secure"), "{cookie}");
            if cookie.starts_with("demo-identity-provider") {
                assert!(cookie.contains("; Path=/demo-login;"), "{cookie}");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_password_shows_the_same_page_again_behind_the_tunnel() {
    let tunnelled = Tunnelled::start().await;
    let client = tunnelled.client().await;
    let url = client.approve(&[]).await;
    let page = client.browser.get(&url).await;
    let form = Form::of(&page, &url);
    assert_eq!(form.action, format!("{PUBLIC}/demo-login/login"));
    let fields = form.with(&[("username", "bob"), ("password", "wrong")]);
    let again = client.browser.post(&form.action, &fields, &url).await;
    again.assert_page(200);
    let form = Form::of(&again, &form.action);
    let fields = form.with(&[("username", "bob"), ("password", "bob")]);
    let back = client.browser.post(&form.action, &fields, &url).await;
    back.assert_leads_to(&format!("{PUBLIC}/auth/callback"));
    client.browser.get(back.location()).await.assert_leads_to(&client.redirect_uri);
}

/// The tunnel publishes what browsers need, and nothing else of this machine.
#[tokio::test]
async fn the_tunnel_reaches_neither_the_admin_pages_nor_the_tokens_of_the_provider() {
    let tunnelled = Tunnelled::start().await;
    let http = &tunnelled.place.http;
    for path in
        ["", "/", "/token", "/jwks", "/userinfo", "/revoke", "/.well-known/openid-configuration"]
    {
        let answer = http.get(&format!("{PUBLIC}/demo-login{path}")).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    let code = http.post_form(&format!("{PUBLIC}/demo-login/token"), &[("code", "x")], &[]).await;
    code.assert_status(404);
    for path in ["/clients", "/audit", "/metrics", "/sign-in"] {
        let answer = http.get(&format!("{PUBLIC}{path}")).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    // A page of a stranger does not reach the demo by making its own name lead here.
    let foreign = Http::through_tunnel("https://stranger.example", tunnelled.demo.address);
    foreign.get("https://stranger.example/mcp").await.assert_status(421);
}

#[tokio::test]
async fn an_administrator_signs_in_on_this_machine_with_pages_behind_the_tunnel() {
    let tunnelled = Tunnelled::start().await;
    let admin = tunnelled.printed("Admin pages");
    assert!(admin.starts_with("http://127.0.0.1:"), "{admin}");
    let browser = tunnelled.browser();
    let home = format!("{admin}/");
    let page = browser.get(&home).await;
    let form = Form::of(page.assert_page(401), &home);
    let to = browser.post(&form.action, &form.with(&[]), &home).await;
    to.assert_leads_to(&format!("{PUBLIC}/demo-login/authorize"));
    let login = browser.get(to.location()).await;
    let form = Form::of(&login, to.location());
    let fields = form.with(&[("username", "alice"), ("password", "alice")]);
    let back = browser.post(&form.action, &fields, to.location()).await;
    let passed_on = browser.get(back.assert_leads_to(PUBLIC).location()).await;
    let signed_in = browser.get(passed_on.assert_leads_to(&admin).location()).await;
    signed_in.assert_leads_to(&home);
    browser.get(&home).await.assert_page(200);
}

/// Whoever publishes the demo knows what is open before anybody uses it.
#[tokio::test]
async fn the_demo_warns_of_what_a_tunnel_opens() {
    let text = Tunnelled::start().await.demo.text.clone();
    let warning = text.split("WARNING").nth(1).unwrap_or_else(|| panic!("no warning: {text}"));
    for part in ["anyone", "passwords", "alice", "/account", "Not open", "http://127.0.0.1:"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert!(text.contains("Claude on the web"), "{text}");
    assert!(!text.contains("on this machine only. Ctrl-C"), "{text}");
}

#[tokio::test]
async fn only_an_https_url_without_a_path_is_a_public_url_of_the_demo() {
    let place = crate::harness::database::Database::new().await;
    for (url, part) in [
        ("http://demo.example", "https"),
        ("http://127.0.0.1:8000", "https"),
        ("https://demo.example/below", "path"),
        ("demo.example", "is not a URL"),
        ("https://demo.example?x=1", "query"),
    ] {
        let ran =
            run(&place.folder, &["demo", "--public-url", url, "--listen", "127.0.0.1:0"], &[]);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success(), "{url}");
        assert!(said.contains("--public-url") && said.contains(part), "{url}: {said}");
    }
}
