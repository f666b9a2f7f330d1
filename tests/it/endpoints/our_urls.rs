//! How clients and people spell the URL of an MCP server, and whose web pages may call it.

use serde_json::json;

use crate::harness::client::{REDIRECT_URI, Tokens, jwt_part};
use crate::harness::{Setup, TestApp};

const TWO: &str = r#"
[[resource]]
path = "/one"
scopes = ["read"]
[[resource]]
path = "/two"
scopes = ["read"]
default = true
"#;

async fn two(path: Option<&'static str>) -> TestApp {
    TestApp::with(Setup { path, ..Setup::toml(TWO) }).await
}

/// What each spelling means where there is one MCP server at `/mcp`.
fn spellings(app: &TestApp) -> Vec<(String, bool)> {
    let (url, origin) = (&app.url, &app.origin);
    let port = origin.rsplit(':').next().unwrap();
    let base = url.strip_prefix(origin.as_str()).unwrap();
    let mut table = vec![
        // Exactly one of our servers can be meant.
        (format!("{url}/mcp"), true),
        (format!("{url}/mcp/"), true),
        (format!("{url}/mcp?x=1"), true),
        (format!("{url}/mcp?"), true),
        (format!("{url}/mcp/?x=1&y=/a"), true),
        (format!("{url}?x=1"), true),
        (url.clone(), true),
        (format!("{url}/"), true),
        (format!("HTTP://127.0.0.1:{port}{base}/mcp/"), true),
        // Another path, or one that others read as this one.
        (format!("{url}/mcp//"), false),
        (format!("{url}//mcp"), false),
        (format!("{url}/MCP"), false),
        (format!("{url}/mcp/tools"), false),
        (format!("{url}/mcp-other"), false),
        (format!("{url}/%6dcp"), false),
        (format!("{url}/mcp%2f"), false),
        (format!("{url}/mcp%2F"), false),
        (format!("{url}/mcp%3Fx=1"), false),
        (format!("{url}/x/../mcp"), false),
        (format!("{url}/./mcp"), false),
        (format!("{url}/mcp/."), false),
        (format!("{url}/mcp;v=1"), false),
        (format!("{url}/mcp\\"), false),
        (format!("{url}/m"), false),
        // A document about the server is not the server.
        (format!("{url}/.well-known/oauth-protected-resource/mcp"), false),
        (app.well_known("oauth-protected-resource", "/mcp"), false),
        // A fragment is forbidden (RFC 8707 §2).
        (format!("{url}/mcp#"), false),
        (format!("{url}/mcp#x"), false),
        (format!("{url}/mcp?x#y"), false),
        (format!("{url}#"), false),
        // Another origin.
        (format!("https://127.0.0.1:{port}{base}/mcp"), false),
        (format!("http://127.0.0.1:1{base}/mcp"), false),
        (format!("http://127.0.0.1{base}/mcp"), false),
        (format!("http://localhost:{port}{base}/mcp"), false),
        (format!("http://127.1:{port}{base}/mcp"), false),
        (format!("http://user@127.0.0.1:{port}{base}/mcp"), false),
        (format!("http://127.0.0.1:{port}@evil.example{base}/mcp"), false),
        (format!("//127.0.0.1:{port}{base}/mcp"), false),
        ("/mcp".to_owned(), false),
        ("mcp".to_owned(), false),
        ("urn:mcp".to_owned(), false),
        (format!(" {url}/mcp"), false),
        (format!("{url}/mcp "), false),
        (format!("{url}/mcp\n"), false),
        (format!("{url}/mcp?{}", "x".repeat(3000)), false),
    ];
    if !base.is_empty() {
        // Another server may live at the root of the host, and would receive a token for ours.
        table.push((origin.clone(), false));
        table.push((format!("{origin}/"), false));
        table.push((format!("{origin}/mcp"), false));
    }
    table
}

#[tokio::test]
async fn a_resource_is_meant_where_exactly_one_of_ours_can_be() {
    for path in ["", "/auth"] {
        let app = TestApp::with(Setup { path: Some(path), ..Setup::default() }).await;
        let client = app.client().await;
        let mut refresh_token = client.sign_in("bob").await.refresh_token;
        for (resource, meant) in spellings(&app) {
            // The authorization endpoint.
            let set = [("resource", resource.as_str())];
            let browser = client.elsewhere().browser; // one browser is not asked so often
            let asked = browser.get(&client.authorize_url(&set)).await;
            if meant {
                asked.assert_page(200);
                assert!(asked.text().contains(&format!(">{}<", app.mcp_url())), "{resource}");
            } else {
                asked.assert_leads_to(REDIRECT_URI);
                let error = asked.location_param("error");
                assert_eq!(error.as_deref(), Some("invalid_target"), "{resource}");
            }
            // A refresh: the audience is always our own spelling.
            let refreshed = client.refresh_with(&refresh_token, &set).await;
            if meant {
                let tokens = Tokens::of(&refreshed);
                assert_eq!(jwt_part(&tokens.access_token, 1)["aud"], app.mcp_url());
                refresh_token = tokens.refresh_token;
            } else {
                refreshed.assert_error(400, "invalid_target");
            }
        }
        // The whole way with a spelling that differs each time.
        let spelt = |n: usize| spellings(&app)[n].0.clone();
        let back = client.authorize("bob", &[("resource", &spelt(1))]).await;
        let code = back.location_param("code").unwrap();
        let wrong = format!("{}/other", app.url);
        client
            .redeem_with(&code, &[("resource", &wrong)])
            .await
            .assert_error(400, "invalid_target");
        let code = client.code("bob").await;
        let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", &spelt(6))]).await);
        assert_eq!(jwt_part(&tokens.access_token, 1)["aud"], app.mcp_url());
        client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
    }
}

#[tokio::test]
async fn what_could_be_two_of_our_resources_is_neither() {
    for path in ["", "/auth"] {
        let app = two(Some(path)).await;
        let client = app.client().await;
        for (resource, meant) in [
            (app.at("/one/"), Some("/one")),
            (app.at("/two?x=1"), Some("/two")),
            (app.url.clone(), None), // even with a default: that is for requests that name none
            (app.at("/"), None),
            (app.at("?x=1"), None),
            (app.at("/three"), None),
        ] {
            let set = [("resource", resource.as_str()), ("scope", "read")];
            let asked = client.browser.get(&client.authorize_url(&set)).await;
            if let Some(path) = meant {
                asked.assert_page(200);
                assert!(asked.text().contains(&format!(">{}<", app.at(path))), "{resource}");
            } else {
                let error = asked.location_param("error");
                assert_eq!(error.as_deref(), Some("invalid_target"), "{resource}");
            }
        }
        // A token for one is refreshed for that one only, however the other is spelt.
        let back = client.authorize("bob", &[("resource", &app.at("/one/")), ("scope", "")]).await;
        let code = back.location_param("code").unwrap();
        let one = [("resource", app.at("/one?x"))];
        let one = [("resource", one[0].1.as_str())];
        let tokens = Tokens::of(&client.redeem_with(&code, &one).await);
        assert_eq!(jwt_part(&tokens.access_token, 1)["aud"], app.at("/one"));
        for other in [app.at("/two"), app.at("/two/"), app.url.clone()] {
            let set = [("resource", other.as_str())];
            let refused = client.refresh_with(&tokens.refresh_token, &set).await;
            refused.assert_error(400, "invalid_target");
        }
    }
}

#[tokio::test]
async fn a_slash_that_a_person_typed_at_the_end_of_an_mcp_url_is_forgiven() {
    for path in ["", "/auth"] {
        let app = TestApp::with(Setup { path: Some(path), ..Setup::default() }).await;
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        let metadata = app.well_known("oauth-protected-resource", "/mcp");
        for url in [app.at("/mcp/"), app.at("/mcp/?x=1")] {
            for method in ["POST", "GET", "DELETE"] {
                let answer = app.http.send(method, &url, &[], ping.to_string()).await;
                answer.assert_status(401);
                let challenge = answer.header("www-authenticate").unwrap();
                assert!(challenge.contains(&format!("resource_metadata=\"{metadata}\"")), "{url}");
            }
            let asked = app.http.send("OPTIONS", &url, &[("origin", "http://localhost:6274")], "");
            asked.await.assert_status(204);
        }
        // A client that goes on with what the person typed works.
        let client = app.client().await;
        let back = client.authorize("bob", &[("resource", &app.at("/mcp/"))]).await;
        let code = back.location_param("code").unwrap();
        let typed = app.at("/mcp/");
        let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", &typed)]).await);
        let before = app.todo.recorded().len();
        let rpc = async |url: String| {
            client.rpc_at(&url, &tokens.access_token, "tools/list", json!({}), &[]).await
        };
        rpc(app.at("/mcp/")).await.assert_status(200);
        // It is forwarded to the configured target, whatever was typed.
        let recorded = app.todo.recorded();
        assert_eq!(recorded.len(), before + 1);
        // One slash, and nothing else.
        for other in ["/mcp//", "/MCP/", "/mcp/x/", "/mcp%2f", "/mcp/.", "/mcp/%2f", "/mcp;/"] {
            rpc(app.at(other)).await.assert_status(404);
        }
        assert_eq!(app.todo.recorded().len(), before + 1);
    }
}

#[tokio::test]
async fn pages_of_extensions_and_desktop_programs_can_be_let_in_by_their_exact_origin() {
    let listed = [
        "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhh",
        "app://obsidian.md",
        "vscode-webview://1a2b3c",
        "https://app.example.com:8443",
    ];
    let top = format!("allowed_origins = {listed:?}");
    let app = TestApp::with(Setup::toml(top)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let others = [
        "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhi",
        "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhh/",
        "app://obsidian.md.evil.example",
        "app://obsidian",
        "APP://obsidian.md",
        "https://app.example.com",
        "https://x.app.example.com:8443",
        "null",
    ];
    let table = listed.iter().map(|origin| (origin, 200)).chain(others.iter().map(|o| (o, 403)));
    for (origin, status) in table {
        let (url, token) = (app.mcp_url(), &tokens.access_token);
        let said = [("origin", *origin)];
        let answer = client.rpc_at(&url, token, "tools/list", json!({}), &said).await;
        assert_eq!(answer.status.as_u16(), status, "{origin}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, (status == 200).then_some(*origin), "{origin}");
    }
}
