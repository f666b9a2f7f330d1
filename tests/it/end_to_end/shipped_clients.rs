//! Clients that people use, each as it was seen on the wire: what it registers or publishes, in which
//! order it asks, and what it cannot bear.

use std::net::IpAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, VERIFIER, challenge_of};
use crate::harness::http::{Answer, Http, encode};
use crate::harness::publisher::Publisher;
use crate::harness::signer::Signer;
use crate::harness::{Setup, TestApp};

/// No `null` anywhere, and whole numbers written as whole numbers: strict readers give up on both.
fn assert_strict_readers_are_content(json: &Value) {
    match json {
        Value::Null => panic!("null"),
        Value::Number(number) => assert!(number.is_i64() || number.is_u64(), "{number}"),
        Value::Array(items) => items.iter().for_each(assert_strict_readers_are_content),
        Value::Object(members) => members.values().for_each(assert_strict_readers_are_content),
        Value::Bool(_) | Value::String(_) => {}
    }
}

fn strict(answer: &Answer) -> Value {
    let json = answer.json();
    assert_strict_readers_are_content(&json);
    json
}

/// What every client reads before it registers: the challenge, the resource's metadata, the server's.
async fn discover(app: &TestApp, method: &str) -> (Value, Value) {
    let unauthorized = app.http.send(method, &app.mcp_url(), &[("accept", "*/*")], "").await;
    let challenge = unauthorized.assert_status(401).header("www-authenticate").unwrap().to_owned();
    let pointer = challenge.split("resource_metadata=\"").nth(1).unwrap();
    let pointer = pointer.split('"').next().unwrap();
    let resource = strict(app.http.get(pointer).await.assert_status(200));
    assert_eq!(resource["resource"], app.mcp_url());
    let issuer = resource["authorization_servers"][0].as_str().unwrap();
    let well_known = format!("{issuer}/.well-known/oauth-authorization-server");
    let server = strict(app.http.get(&well_known).await.assert_status(200));
    assert_eq!(server["issuer"], issuer);
    (resource, server)
}

async fn get_todos(client: &McpClient, tokens: &Tokens) -> u16 {
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.status.as_u16()
}

const CLAUDE_CALLBACK: &str = "https://claude.ai/api/mcp/auth_callback";

fn claude_registration() -> Value {
    json!({
        "redirect_uris": [CLAUDE_CALLBACK],
        "token_endpoint_auth_method": "client_secret_post",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "Claude",
    })
}

#[tokio::test]
async fn claude_ai_registers_twice_and_refreshes_from_two_addresses_at_once() {
    let app = TestApp::start().await;
    let (_, server) = discover(&app, "POST").await;
    // It builds these names at the origin, whatever the metadata says.
    for (name, path) in [
        ("authorization_endpoint", "/authorize"),
        ("token_endpoint", "/token"),
        ("registration_endpoint", "/register"),
    ] {
        assert_eq!(server[name], app.at(path));
    }
    let backend = [("user-agent", "python-httpx/0.28.1")];
    let mut client = None;
    for _ in 0..2 {
        let answer =
            app.http.post_json(&app.at("/register"), &claude_registration(), &backend).await;
        let registered = strict(answer.assert_status(201));
        assert_eq!(registered["client_secret_expires_at"], 0);
        assert!(registered["registration_client_uri"].is_string());
        let mut known =
            McpClient::known_as(&app, registered["client_id"].as_str().unwrap(), CLAUDE_CALLBACK);
        known.secret = registered["client_secret"].as_str().map(str::to_owned);
        client = Some(known);
        app.advance(2);
    }
    let client = client.unwrap();
    let tokens = client.sign_in("bob").await;
    assert_eq!(get_todos(&client, &tokens).await, 200);

    // Its credential is refreshed by two machines that know nothing of each other.
    app.advance(9 * 60);
    let form = encode(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", &tokens.refresh_token),
        ("client_id", &client.id),
        ("client_secret", client.secret.as_deref().unwrap()),
        ("resource", &app.mcp_url()),
    ]);
    let refresh = async |last: u8| {
        let http = Http::from_address(IpAddr::from([127, 0, 0, last]));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        http.send("POST", &app.at("/token"), &headers, form.clone()).await
    };
    let (one, two) = tokio::join!(refresh(2), refresh(3));
    strict(&one);
    let (one, two) = (Tokens::of(&one), Tokens::of(&two));
    assert_eq!(one.refresh_token, two.refresh_token);
    assert_eq!((get_todos(&client, &one).await, get_todos(&client, &two).await), (200, 200));

    // A registration that is gone is said in the one way that makes it register again.
    let mut forgotten = McpClient::known_as(&app, "client_gone", CLAUDE_CALLBACK);
    forgotten.secret = client.secret.clone();
    let gone = forgotten.refresh(&one.refresh_token).await;
    gone.assert_error(401, "invalid_client");
    strict(&gone);
}

/// It gives up after about ten seconds, and takes that for a failed sign-in: a provider that hangs
/// must not make us hang.
#[tokio::test]
async fn claude_ai_is_answered_in_time_while_the_identity_provider_hangs() {
    // With a shorter time limit the test is shorter; with the default of ten seconds it is seven.
    let app = TestApp::with(Setup::toml("[upstream]\ntimeout = \"1s\"")).await;
    let client = McpClient::register_as(&app, claude_registration()).await;
    let tokens = client.sign_in("bob").await;
    app.advance(16 * 60);
    app.idp.token_gate().close();

    let answer = tokio::time::timeout(
        std::time::Duration::from_secs(10),
        client.refresh(&tokens.refresh_token),
    )
    .await
    .expect("an answer in time");

    let refreshed = Tokens::of(&answer);
    assert_eq!(refreshed.expires_in, 300, "on the provider's last word, for a short time");
    assert_eq!(get_todos(&client, &refreshed).await, 200);
    app.idp.token_gate().open();
}

#[tokio::test]
async fn claude_ai_prefers_its_document_and_an_unknown_grant_in_it_is_no_obstacle() {
    let id = "https://claude.ai/oauth/mcp-oauth-client-metadata";
    let publisher = Publisher::start(&["claude.ai"]).await;
    publisher.publish(id, &json!({
        "client_id": id, "client_name": "Claude", "client_uri": "https://claude.ai",
        "redirect_uris": [CLAUDE_CALLBACK],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
        "response_types": ["code"], "token_endpoint_auth_method": "none",
    }));
    let app = TestApp::with(publisher.setup("")).await;
    let (_, server) = discover(&app, "POST").await;
    // Both are needed, or it falls back to registering.
    assert_eq!(server["client_id_metadata_document_supported"], true);
    let methods = server["token_endpoint_auth_methods_supported"].as_array().unwrap();
    assert!(methods.contains(&json!("none")));

    let client = McpClient::known_as(&app, id, CLAUDE_CALLBACK);
    let (page, _) = client.ask(&[]).await;
    assert!(
        page.text().contains("<h1 class=\"ask\"><span class=\"host\">claude.ai</span>"),
        "first: where the answer goes"
    );
    let tokens = client.sign_in("bob").await;
    let both = client.refresh_at_once(&tokens.refresh_token, 2).await;
    for answer in &both {
        strict(answer.assert_status(200));
    }
    assert_eq!(get_todos(&client, &Tokens::of(&both[0])).await, 200);
}

#[tokio::test]
async fn claude_code_listens_on_any_port_and_five_processes_share_one_credential() {
    let id = "https://claude.ai/oauth/claude-code-client-metadata";
    let publisher = Publisher::start(&["claude.ai"]).await;
    publisher.publish(
        id,
        &json!({
            "client_id": id, "client_name": "Claude Code", "client_uri": "https://claude.ai",
            "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "token_endpoint_auth_method": "none",
        }),
    );
    let app = TestApp::with(publisher.setup("")).await;
    discover(&app, "POST").await;
    let mut last = None;
    for redirect_uri in ["http://localhost:53124/callback", "http://127.0.0.1:40000/callback"] {
        let client = McpClient::known_as(&app, id, redirect_uri);
        let (page, _) = client.ask(&[]).await;
        // CI-09: any local program could say that it is Claude Code.
        assert!(page.text().contains("A program on this computer"));
        assert!(page.text().contains("claude.ai") && page.text().contains("not verified"));
        let tokens = client.sign_in("bob").await;
        last = Some((client, tokens));
    }
    for other in [
        "http://localhost:53124/other",
        "http://localhost.evil.example/callback",
        "https://localhost/callback",
    ] {
        let client = McpClient::known_as(&app, id, other);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    }

    let (client, mut tokens) = last.unwrap();
    for _ in 0..3 {
        app.advance(10 * 60);
        let answers = join_all((0..5).map(|_| client.refresh(&tokens.refresh_token))).await;
        let all: Vec<Tokens> = answers.iter().map(Tokens::of).collect();
        for one in &all {
            assert_eq!(one.refresh_token, all[0].refresh_token);
            assert_eq!(get_todos(&client, one).await, 200);
        }
        // A sixth that slept over it.
        app.advance(60);
        client.refresh(&tokens.refresh_token).await.assert_status(200);
        tokens = all[0].clone();
    }
}

#[tokio::test]
async fn cursor_registers_three_addresses_of_three_kinds_and_may_use_each() {
    let app = TestApp::start().await;
    discover(&app, "POST").await;
    let uris = [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ];
    let mut client = McpClient::register_as(
        &app,
        json!({
            "client_name": "Cursor", "redirect_uris": uris, "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "application_type": "web",
        }),
    )
    .await;
    for (uri, said) in uris.iter().zip(["cursor:", "www.cursor.com", "localhost:8787"]) {
        client.redirect_uri = (*uri).to_owned();
        let (page, _) = client.ask(&[]).await;
        assert!(page.text().contains(said), "{said}");
        let tokens = client.sign_in("bob").await;
        assert_eq!(get_todos(&client, &tokens).await, 200);
    }
    // With several, which one is meant must be said.
    let url = client.authorize_url(&[("redirect_uri", "")]);
    client.browser.get(&url).await.assert_page(400);
}

#[tokio::test]
async fn vs_code_publishes_a_grant_that_nobody_here_knows() {
    let id = "https://vscode.dev/oauth/client-metadata.json";
    let publisher = Publisher::start(&["vscode.dev"]).await;
    publisher.publish(id, &json!({
        "client_name": "Visual Studio Code", "client_id": id, "client_uri": "https://vscode.dev/product",
        "redirect_uris": ["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"], "token_endpoint_auth_method": "none", "application_type": "native",
    }));
    let app = TestApp::with(publisher.setup("")).await;
    let (resource, _) = discover(&app, "POST").await;
    assert_eq!(resource["resource"], app.mcp_url(), "compared exactly");
    // The listed port may be taken by another window.
    for redirect_uri in
        ["http://127.0.0.1:33418/", "http://127.0.0.1:40123/", "https://vscode.dev/redirect"]
    {
        let client = McpClient::known_as(&app, id, redirect_uri);
        let tokens = client.sign_in("bob").await;
        assert_eq!(get_todos(&client, &tokens).await, 200);
    }
}

#[tokio::test]
async fn chatgpt_signs_its_requests_and_checks_iss() {
    let id = "https://chatgpt.com/oauth/client.json";
    let keys = "https://chatgpt.com/oauth/jwks.json";
    let callback = "https://chatgpt.com/connector_platform_oauth_redirect";
    let signer = Signer::new("chatgpt");
    let publisher = Publisher::start(&["chatgpt.com"]).await;
    publisher.publish(keys, &signer.jwks());
    publisher.publish(id, &json!({
        "client_id": id, "client_name": "ChatGPT", "redirect_uris": [callback],
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
        "jwks_uri": keys,
    }));
    let app = TestApp::with(publisher.setup("")).await;
    let (_, server) = discover(&app, "POST").await;
    assert_eq!(server["authorization_response_iss_parameter_supported"], true);
    let list = |name: &str| server[name].as_array().unwrap().clone();
    assert!(list("token_endpoint_auth_methods_supported").contains(&json!("private_key_jwt")));
    assert!(list("token_endpoint_auth_signing_alg_values_supported").contains(&json!("ES256")));
    assert!(list("scopes_supported").contains(&json!("offline_access")));

    let client = McpClient::known_as(&app, id, callback);
    let scope = [("scope", "create:todos offline_access")];
    let back = client.authorize("bob", &scope).await;
    back.assert_leads_to(callback);
    assert_eq!(back.location_param("iss").as_deref(), Some(app.url.as_str()));
    let code = back.location_param("code").unwrap();
    let mut tokens = Tokens::of(&signer.redeem(&app, &client, &code).await);
    assert_eq!(get_todos(&client, &tokens).await, 200);
    for _ in 0..3 {
        app.advance(10 * 60);
        let resource = app.mcp_url();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.refresh_token.as_str()),
            ("resource", &resource),
        ];
        tokens = Tokens::of(&signer.token(&app, &client, &form).await);
    }
    // Errors carry `iss` as well.
    let denied = client.ask(&scope).await.1;
    let denied = client.decide(&denied, "deny").await;
    assert_eq!(denied.location_param("iss").as_deref(), Some(app.url.as_str()));
}

#[tokio::test]
async fn mcp_remote_gets_first_and_asks_for_what_it_was_told() {
    let app = TestApp::start().await;
    // undici, GET, before any POST; and once more.
    for _ in 0..2 {
        discover(&app, "GET").await;
    }
    let (resource, _) = discover(&app, "POST").await;
    let scope: Vec<&str> = resource["scopes_supported"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect();
    let scope = scope.join(" ");
    let callback = "http://localhost:11446/oauth/callback";
    let metadata = json!({
        "redirect_uris": [callback], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "client_name": "MCP CLI Proxy",
        "client_uri": "https://github.com/modelcontextprotocol/mcp-cli",
        "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d", "software_version": "0.15.1",
        "scope": scope, "application_type": "native",
    });
    let headers = [("accept", "*/*"), ("sec-fetch-mode", "cors"), ("user-agent", "undici")];
    let answer = app.http.post_json(&app.at("/register"), &metadata, &headers).await;
    let registered = strict(answer.assert_status(201));
    for (name, value) in metadata.as_object().unwrap() {
        assert_eq!(&registered[name], value, "{name} is echoed");
    }
    let client = McpClient::known_as(&app, registered["client_id"].as_str().unwrap(), callback);
    let back = client
        .authorize("bob", &[("scope", &scope), ("state", "0b9c7b8e-5f0e-4c5e-8b57-3f0a4c0d1a11")])
        .await;
    back.assert_leads_to(callback);
    assert_eq!(
        back.location_param("state").as_deref(),
        Some("0b9c7b8e-5f0e-4c5e-8b57-3f0a4c0d1a11")
    );
    // The order of its form, and `resource` with a slash where the resource is an origin.
    assert_eq!(challenge_of(VERIFIER).len(), 43);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &back.location_param("code").unwrap()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", callback),
        ("resource", &app.mcp_url()),
        ("client_id", &client.id),
    ];
    let answer = app.http.post_form(&app.at("/token"), &form, &headers).await;
    strict(&answer);
    let tokens = Tokens::of(&answer);
    assert_eq!(get_todos(&client, &tokens).await, 200);
}
