//! Clients that publish their metadata, where this machine reaches no website: the demo offers that only while it
//! can read such a document, and `check` says what it finds.

use serde_json::{Value, json};

use crate::cli::check::{check_with, finding};
use crate::harness::TestApp;
use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::demo::DemoProcess;
use crate::harness::http::{Answer, Http};
use crate::harness::proxy::Proxy;
use crate::harness::publisher::{Page, Publisher};

const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";
const VS_CODE: &str = "https://vscode.dev/oauth/client-metadata.json";
const LOOPBACK: &str = "http://127.0.0.1:40000/callback";
const OFFERED: &str = "client_id_metadata_document_supported";

fn claude_code() -> Value {
    json!({
        "client_id": CLAUDE_CODE, "client_name": "Claude Code",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
    })
}

fn vs_code() -> Value {
    json!({
        "client_id": VS_CODE, "client_name": "Visual Studio Code",
        "redirect_uris": ["http://127.0.0.1:33418/"], "token_endpoint_auth_method": "none",
    })
}

/// Both websites, answering.
async fn websites() -> Publisher {
    let publisher = Publisher::start(&["claude.ai", "vscode.dev"]).await;
    publisher.publish(CLAUDE_CODE, &claude_code());
    publisher.publish(VS_CODE, &vs_code());
    publisher
}

/// `portcullis demo`, which reaches the world through `proxy` alone.
struct Demo {
    url: String,
    process: DemoProcess,
    http: Http,
}

impl Demo {
    async fn start(proxy: &Proxy, authority: &str, arguments: &[&str]) -> Self {
        let env = [
            ("HTTPS_PROXY", proxy.url()),
            ("SSL_CERT_FILE", authority.to_owned()),
            ("PORTCULLIS_LOG", "info".to_owned()),
        ];
        let process = DemoProcess::start(arguments, &env).await;
        Self { url: format!("http://{}", process.address), process, http: Http::default() }
    }

    async fn offers_documents(&self) -> bool {
        let url = format!("{}/.well-known/oauth-authorization-server", self.url);
        let metadata = self.http.get(&url).await.assert_status(200).json();
        let openid = format!("{}/.well-known/openid-configuration", self.url);
        let openid = self.http.get(&openid).await.assert_status(200).json();
        assert_eq!(metadata.get(OFFERED), openid.get(OFFERED));
        metadata.get(OFFERED).is_some()
    }

    /// What the browser of somebody shows whose client presents this document.
    async fn presents(&self, id: &str, language: &str) -> Answer {
        let query = crate::harness::http::encode(&[
            ("response_type", "code"),
            ("client_id", id),
            ("redirect_uri", LOOPBACK),
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
        ]);
        let url = format!("{}/authorize?{query}", self.url);
        let headers = [("accept", "text/html"), ("accept-language", language)];
        self.http.send("GET", &url, &headers, String::new()).await
    }

    /// What a client does that finds no documents offered.
    async fn registers(&self) {
        let body = json!({ "client_name": "Claude Code", "redirect_uris": [REDIRECT_URI] });
        let answer = self.http.post_json(&format!("{}/register", self.url), &body, &[]).await;
        answer.assert_status(201);
    }
}

#[tokio::test]
async fn a_demo_without_a_network_lets_clients_register_and_says_so() {
    let publisher = websites().await;
    let proxy = Proxy::start(&[]).await; // it leads nowhere
    let mut demo = Demo::start(&proxy, publisher.authority(), &[]).await;
    assert!(demo.process.text.contains("--no-client-documents"), "{}", demo.process.text);
    demo.process.says("this machine reaches no website").await;
    assert!(!demo.offers_documents().await);
    demo.registers().await;
    // A client that was connected before, or read the metadata elsewhere.
    let page = demo.presents(CLAUDE_CODE, "en").await;
    page.assert_page(503);
    for words in ["This computer reaches no website", "add it again", "--no-client-documents"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let page = demo.presents(CLAUDE_CODE, "ja").await;
    assert!(page.text().contains("どのウェブサイトにも接続できません"), "{}", page.text());
    assert_eq!(publisher.requests(), 0);
}

#[tokio::test]
async fn a_demo_with_a_network_offers_documents_once_it_has_read_one() {
    let publisher = websites().await;
    let places = [("claude.ai:443", publisher.address()), ("vscode.dev:443", publisher.address())];
    let proxy = Proxy::start(&places).await;
    let mut demo = Demo::start(&proxy, publisher.authority(), &[]).await;
    demo.process.says("clients may publish their metadata").await;
    assert!(demo.offers_documents().await);
    demo.presents(CLAUDE_CODE, "en").await.assert_page(200);

    // One website that fails is no matter of ours.
    let page = demo.presents("https://client.example/c", "en").await;
    page.assert_page(503);
    assert!(page.text().contains("cannot be checked right now"), "{}", page.text());
    assert!(demo.offers_documents().await);

    // The network is lost: the very first that fails is told why, and nobody else is sent there.
    proxy.answers(Some(502));
    let page = demo.presents("https://other.example/c", "en").await;
    page.assert_page(503);
    assert!(page.text().contains("This computer reaches no website"), "{}", page.text());
    assert!(!demo.offers_documents().await);
    demo.presents(CLAUDE_CODE, "en").await.assert_page(200); // what was read is still known

    // And found again by whoever tries.
    proxy.answers(None);
    demo.presents(VS_CODE, "en").await;
    assert!(demo.offers_documents().await);
}

/// One website that answers is enough, even with an error page.
#[tokio::test]
async fn a_demo_that_reaches_one_website_has_a_network() {
    let publisher = Publisher::start(&["vscode.dev"]).await;
    publisher.answer(VS_CODE, Page::status(500));
    let proxy = Proxy::start(&[("vscode.dev:443", publisher.address())]).await;
    let mut demo = Demo::start(&proxy, publisher.authority(), &[]).await;
    demo.process.says("clients may publish their metadata").await;
    assert!(demo.offers_documents().await);
}

#[tokio::test]
async fn a_demo_that_is_told_so_takes_no_client_documents() {
    let publisher = websites().await;
    let places = [("claude.ai:443", publisher.address()), ("vscode.dev:443", publisher.address())];
    let proxy = Proxy::start(&places).await;
    let demo = Demo::start(&proxy, publisher.authority(), &["--no-client-documents"]).await;
    assert!(demo.process.text.contains("Clients register themselves"), "{}", demo.process.text);
    assert!(!demo.offers_documents().await);
    demo.registers().await;
    let page = demo.presents(CLAUDE_CODE, "en").await;
    page.assert_page(400);
    for words in ["has to register itself", "add it again"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let page = demo.presents(CLAUDE_CODE, "ja").await;
    assert!(page.text().contains("登録する必要があります"), "{}", page.text());
    assert_eq!(proxy.asked(), [], "nothing is fetched");
}

const PROBE: &str = "client_documents";

#[tokio::test]
async fn check_tries_one_document_and_says_what_it_found() {
    let mut publisher = websites().await;
    let app = TestApp::with_on_the_real_clock(publisher.setup("")).await;
    let (found, _) = check_with(&app, &app.config_text(), &[]).await;
    let tried = finding(&found, PROBE);
    assert_eq!(tried["severity"], "ok", "{tried}");
    let words = tried["found"].as_str().unwrap();
    assert!(words.contains(CLAUDE_CODE) && words.contains("Claude Code"), "{words}");
    assert_eq!(publisher.requests(), 1, "one");

    // One site that fails, in each way: the other shows that it is that site.
    let compressed = Page::json(&claude_code()).with("content-encoding", "gzip");
    for (page, reason) in [
        (Page::status(404), "status 404"),
        (Page::status(500), "status 500"),
        (compressed, "plain JSON"),
        (Page::json(&json!({ "client_id": VS_CODE })), "client_id"),
    ] {
        publisher.answer(CLAUDE_CODE, page);
        let (found, code) = check_with(&app, &app.config_text(), &[]).await;
        let tried = finding(&found, PROBE);
        assert_eq!((tried["severity"].as_str(), code), (Some("warning"), 1), "{tried}");
        let words = tried["found"].as_str().unwrap();
        assert!(words.contains(reason) && words.contains(CLAUDE_CODE), "{reason}: {words}");
        assert!(words.contains("vscode.dev") && words.contains("was read"), "{words}");
    }

    publisher.stop().await;
    let (found, code) = check_with(&app, &app.config_text(), &[]).await;
    let tried = finding(&found, PROBE);
    assert_eq!((tried["severity"].as_str(), code), (Some("warning"), 1), "{tried}");
    let words = tried["found"].as_str().unwrap();
    for part in [CLAUDE_CODE, VS_CODE, "there was no connection"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let hint = tried["hint"].as_str().unwrap();
    for part in ["enabled = false", "through_proxy"] {
        assert!(hint.contains(part), "{part}: {hint}");
    }
}

#[tokio::test]
async fn check_tries_none_where_none_may_be_read() {
    let publisher = websites().await;
    for (more, severity, words) in [
        ("enabled = false", None, ""),
        ("allowed_hosts = [\"client.example\"]", Some("ok"), "allowed_hosts"),
        ("allowed_hosts = [\"vscode.dev\"]", Some("ok"), VS_CODE),
    ] {
        let app = TestApp::with_on_the_real_clock(publisher.setup(more)).await;
        let (found, _) = check_with(&app, &app.config_text(), &[]).await;
        let tried = found.iter().find(|finding| finding["probe"] == PROBE);
        assert_eq!(tried.map(|tried| tried["severity"].as_str().unwrap()), severity, "{more}");
        let said = tried.map(|tried| tried["found"].as_str().unwrap()).unwrap_or_default();
        assert!(said.contains(words), "{more}: {said}");
    }
    assert_eq!(publisher.requests_to(CLAUDE_CODE), 0);
    assert_eq!(publisher.requests_to(VS_CODE), 1);
}

/// A server that anybody reaches says nothing of its network to strangers, and offers what it is configured to.
#[tokio::test]
async fn a_server_tells_strangers_nothing_of_its_network() {
    let mut publisher = websites().await;
    let app = TestApp::with(publisher.setup("")).await;
    publisher.stop().await;
    let client = McpClient::known_as(&app, CLAUDE_CODE, LOOPBACK);
    let page = client.browser.get(&client.authorize_url(&[])).await;
    page.assert_page(503);
    assert!(page.text().contains("cannot be checked right now"), "{}", page.text());
    let metadata = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata[OFFERED], true);
}
