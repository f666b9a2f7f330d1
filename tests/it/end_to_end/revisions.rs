//! A whole way in as a client of each MCP revision goes it: 2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28.
//! The table of single requirements is in `repository/conformance.rs`.

use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, todo_resource};

/// MCP over streamable HTTP with a handshake, as before 2026-07-28.
struct Connection<'a> {
    app: &'a TestApp,
    headers: Vec<(&'static str, String)>,
}

impl<'a> Connection<'a> {
    async fn open(app: &'a TestApp, tokens: &Tokens, version: &str) -> Self {
        let mut connection = Self {
            app,
            headers: vec![
                ("authorization", format!("Bearer {}", tokens.access_token)),
                ("accept", "application/json, text/event-stream".to_owned()),
            ],
        };
        let params = json!({
            "protocolVersion": version, "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" },
        });
        let answer = connection.post(&request(0, "initialize", &params)).await;
        assert_eq!(answer.assert_status(200).json()["result"]["protocolVersion"], version);
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        connection.headers.push(("mcp-session-id", session));
        connection
    }

    async fn post(&self, body: &Value) -> Answer {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.app.http.post_json(&self.app.mcp_url(), body, &headers).await
    }
}

fn request(id: u32, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn create(id: u32) -> Value {
    request(id, "tools/call", &json!({ "name": "create-todo", "arguments": { "content": "Tea" } }))
}

/// Reads metadata as a client of `version` does.
async fn metadata(app: &TestApp, path: &str, version: &str) -> Answer {
    app.http.send("GET", &app.at(path), &[("mcp-protocol-version", version)], "").await
}

/// The MCP server as it was without resource metadata: nothing is asked for but what is at the origin.
#[tokio::test]
async fn m0326_everything_is_at_the_origin_and_no_resource_is_named() {
    let app = TestApp::start().await;
    let server = metadata(&app, "/.well-known/oauth-authorization-server", "2025-03-26").await;
    let server = server.assert_status(200).json();
    assert_eq!(server["issuer"], app.url, "the origin of the MCP server itself");

    let client = app.client().await;
    let back = client.authorize("bob", &[("resource", ""), ("scope", "")]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", "")]).await);
    assert_eq!(jwt_part(&tokens.access_token, 1)["aud"], app.mcp_url());
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

    // No MCP-Protocol-Version header yet, and batches.
    let connection = Connection::open(&app, &tokens, "2025-03-26").await;
    let batch = json!([create(1), request(2, "ping", &json!({}))]);
    let answers = connection.post(&batch).await.assert_status(200).json();
    assert_eq!(answers.as_array().unwrap().len(), 2);
    let purge = request(2, "tools/call", &json!({ "name": "purge-todos" }));
    connection.post(&json!([create(1), purge])).await.assert_status(403);
}

#[tokio::test]
async fn m0326_the_default_names_work_for_a_client_that_finds_no_metadata() {
    let app = TestApp::start().await;
    // The harness uses nothing but these names; what is shown is that metadata names the same.
    let server = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    for (member, path) in [
        ("authorization_endpoint", "/authorize"),
        ("token_endpoint", "/token"),
        ("registration_endpoint", "/register"),
    ] {
        assert_eq!(server[member], app.at(path));
    }
    let (_, tokens) = app.tokens_of("bob").await;
    Connection::open(&app, &tokens, "2025-03-26").await.post(&create(1)).await.assert_status(200);
}

/// Several MCP servers: a client that cannot name one gets the default, or an error it can tell.
#[tokio::test]
async fn m0326_without_resource_the_default_is_meant_or_the_client_is_told() {
    let resources = |default: &str| {
        format!(
            "[[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]\n{default}\n\
             [[resource]]\npath = \"/two\"\nscopes = [\"read\"]"
        )
    };
    let setup = Setup::toml(resources("default = true"));
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    let back = client.authorize("bob", &[("resource", ""), ("scope", "")]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", "")]).await);
    assert_eq!(jwt_part(&tokens.access_token, 1)["aud"], app.mcp_url());

    let app = TestApp::with(Setup::toml(resources(""))).await;
    let client = app.client().await;
    let answer = client.browser.get(&client.authorize_url(&[("resource", "")])).await;
    assert_eq!(answer.location_param("error").as_deref(), Some("invalid_target"));
}

#[tokio::test]
async fn m0618_the_challenge_leads_to_resource_metadata_and_resource_is_named_twice() {
    let app = TestApp::start().await;
    let body = request(0, "initialize", &json!({ "protocolVersion": "2025-06-18" }));
    let refused = app.http.post_json(&app.mcp_url(), &body, &[]).await;
    let challenge = refused.assert_status(401).header("www-authenticate").unwrap();
    let url = challenge.split("resource_metadata=\"").nth(1).unwrap().split('"').next().unwrap();
    let resource = app.http.get(url).await.assert_status(200).json();
    assert_eq!(resource["resource"], app.mcp_url());
    assert_eq!(resource["authorization_servers"], json!([app.url]));
    assert_eq!(resource["bearer_methods_supported"], json!(["header"]));

    // The harness names `resource` at both endpoints.
    let (_, tokens) = app.tokens_of("bob").await;
    let mut connection = Connection::open(&app, &tokens, "2025-06-18").await;
    connection.headers.push(("mcp-protocol-version", "2025-06-18".to_owned()));
    connection.post(&create(1)).await.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
}

#[tokio::test]
async fn m1125_well_known_places_are_enough_and_the_challenge_names_scopes() {
    let app = TestApp::start().await;
    let resource = metadata(&app, "/.well-known/oauth-protected-resource/mcp", "2025-11-25").await;
    let resource = resource.assert_status(200).json();
    let root = metadata(&app, "/.well-known/oauth-protected-resource", "2025-11-25").await;
    assert_eq!(root.assert_status(200).json(), resource, "the path first, then the root (SEP-985)");
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let server = metadata(&app, path, "2025-11-25").await.assert_status(200).json();
        assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]), "{path}");
    }
    let refused = app.http.post_json(&app.mcp_url(), &create(1), &[]).await;
    let challenge = refused.assert_status(401).header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"create:todos delete:todos read:todos\""), "{challenge}");

    let (_, tokens) = app.tokens_of("bob").await;
    let mut connection = Connection::open(&app, &tokens, "2025-11-25").await;
    connection.headers.push(("mcp-protocol-version", "2025-11-25".to_owned()));
    connection.post(&create(1)).await.assert_status(200);
}

/// No handshake, no session: every request says what it is, in headers and in the body.
#[tokio::test]
async fn m0728_a_stateless_client_gets_to_a_tool_call() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let token = &tokens.access_token;
    let discovered = client.rpc(token, "server/discover", json!({})).await;
    assert_eq!(
        discovered.assert_status(200).json()["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    assert_eq!(discovered.header("mcp-session-id"), None);
    let called = client.call_tool(token, "create-todo", json!({ "content": "Tea" })).await;
    assert_eq!(called.assert_status(200).json()["result"]["isError"], false);
    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    assert_eq!(seen.header("mcp-name"), Some("create-todo"));
}

#[tokio::test]
async fn m0728_iss_is_in_every_answer_byte_for_byte_and_advertised() {
    let app = TestApp::start().await;
    let server = metadata(&app, "/.well-known/oauth-authorization-server", "2026-07-28").await;
    let server = server.json();
    assert_eq!(server["authorization_response_iss_parameter_supported"], true);
    let issuer = server["issuer"].as_str().unwrap();
    let client = app.client().await;
    let success = client.authorize("bob", &[]).await;
    assert_eq!(success.location_param("iss").as_deref(), Some(issuer));
    let (_, form) = client.ask(&[]).await;
    let denied = client.decide(&form, "deny").await;
    assert_eq!(denied.location_param("error").as_deref(), Some("access_denied"));
    assert_eq!(denied.location_param("iss").as_deref(), Some(issuer));
    let wrong = client.authorize_url(&[("code_challenge", "")]);
    let refused = client.browser.get(&wrong).await;
    assert_eq!(refused.location_param("iss").as_deref(), Some(issuer));
}

#[tokio::test]
async fn m0728_application_type_is_taken_and_echoed() {
    let app = TestApp::start().await;
    for (kind, redirect_uri) in
        [("native", "http://127.0.0.1:53124/callback"), ("web", "https://app.example/callback")]
    {
        let body = json!({
            "client_name": "x", "redirect_uris": [redirect_uri], "application_type": kind,
            "token_endpoint_auth_method": "none",
        });
        let answer = app.http.post_json(&app.at("/register"), &body, &[]).await;
        assert_eq!(answer.assert_status(201).json()["application_type"], kind);
    }
}

#[tokio::test]
async fn m0728_one_challenge_names_all_scopes_that_a_call_needs() {
    let app = TestApp::start().await;
    let resource = todo_resource(&app.todo, "").replace(
        "\"purge-todos\" = [\"delete:todos\"]",
        "\"purge-todos\" = [\"delete:todos\", \"read:todos\"]",
    );
    let resource = resource.replace(&app.todo.url(), "{todo}");
    let app = TestApp::with(Setup::toml(resource)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    for _ in 0..2 {
        let refused = client.call_tool(&tokens.access_token, "purge-todos", json!({})).await;
        let challenge = refused.assert_status(403).header("www-authenticate").unwrap().to_owned();
        assert!(
            challenge.contains("scope=\"create:todos delete:todos read:todos\""),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn m0728_offline_access_is_the_authorization_servers_word_alone() {
    let app = TestApp::start().await;
    let server = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    assert!(server["scopes_supported"].as_array().unwrap().contains(&json!("offline_access")));
    let resource = app.http.get(&app.at("/.well-known/oauth-protected-resource/mcp")).await.json();
    assert!(!resource["scopes_supported"].to_string().contains("offline_access"));
    let client = McpClient::register(&app).await;
    let scope = "create:todos offline_access";
    let back = client.authorize("bob", &[("scope", scope), ("prompt", "consent")]).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(tokens.scope, "create:todos", "it is in no token");
    assert!(!tokens.refresh_token.is_empty());
}

/// Servers fall back to an older era when they hear a 400 without a JSON-RPC error.
#[tokio::test]
async fn gw_37_refusals_of_the_gateway_are_never_a_bare_400() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", authorization.as_str()), ("mcp-method", "tools/list")];
    let answer = app.http.post_json(&app.mcp_url(), &create(1), &headers).await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32020);
    let answer = app.http.send("POST", &app.mcp_url(), &headers[..1], "{").await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32700);
}
