//! Gateway authorization in depth: scopes that imply others, lists of tools, signed assertions.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

/// The to-do server with an `admin:todos` that implies everything, and `extra` before its tables.
async fn with_admin_scope(extra: &str) -> TestApp {
    let resources = format!(
        r#"
[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{{todo}}"
scopes = {{ "read:todos" = "Read everybody's to-dos", "create:todos" = "Add to-dos", "delete:todos" = "Delete everybody's to-dos", "admin:todos" = "Manage the list" }}
on_denied_tool = "challenge"
{extra}

[[resource.rule]]
roles = ["Admin"]
allow = ["admin:todos"]

[[resource.rule]]
roles = ["User"]
allow = ["create:todos"]

[resource.implies]
"admin:todos" = ["delete:todos", "create:todos"]
"delete:todos" = ["read:todos"]

[resource.tools]
"purge-todos" = ["delete:todos"]
"get-todos" = ["read:todos"]
"#
    );
    TestApp::with(Setup::toml(resources)).await
}

async fn tokens(app: &TestApp, person: &str, scope: &str) -> (McpClient, Tokens) {
    let client = app.client().await;
    let back = client.authorize(person, &[("scope", scope)]).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    (client, tokens)
}

#[tokio::test]
async fn gw_07_a_broad_scope_opens_what_needs_a_narrow_one() {
    let app = with_admin_scope("").await;
    let (client, broad) = tokens(&app, "alice", "admin:todos").await;
    assert_eq!(broad.scope, "admin:todos", "the token says what was granted");
    for tool in ["purge-todos", "get-todos"] {
        let answer = client.call_tool(&broad.access_token, tool, json!({})).await;
        assert_eq!(answer.assert_status(200).json()["result"]["isError"], false, "{tool}");
    }
    // The server behind is told what that amounts to: it knows nothing of our hierarchy.
    let seen = app.todo.recorded().pop().unwrap();
    let told = seen.header("x-portcullis-scopes").unwrap();
    assert_eq!(told, "admin:todos create:todos delete:todos read:todos");

    // Who may have the broad one may have the narrow one alone, and that opens no more than it says.
    let (client, narrow) = tokens(&app, "alice", "read:todos").await;
    assert_eq!(narrow.scope, "read:todos");
    client.call_tool(&narrow.access_token, "get-todos", json!({})).await.assert_status(200);
    let refused = client.call_tool(&narrow.access_token, "purge-todos", json!({})).await;
    refused.assert_status(403);
    // What the client has, and what it needs: it loses nothing by asking for exactly this.
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"delete:todos read:todos\""), "{challenge}");
}

#[tokio::test]
async fn con_02_the_page_tells_what_a_broad_scope_brings_with_it() {
    let app = with_admin_scope("").await;
    let client = app.client().await;
    let (page, _) = client.ask(&[("scope", "admin:todos")]).await;
    for words in ["Manage the list", "Delete everybody&#39;s to-dos", "Read everybody&#39;s to-dos"]
    {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    assert!(page.text().contains("Included in"), "{}", page.text());
}

fn names(list: &Value) -> Vec<&str> {
    let tools = list["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

async fn list(client: &McpClient, tokens: &Tokens, params: Value) -> Answer {
    client.rpc(&tokens.access_token, "tools/list", params).await
}

#[tokio::test]
async fn hidden_tools_are_in_no_list_and_still_refused() {
    let app = with_admin_scope("hide_forbidden_tools = true").await;
    let (alice, alices) = tokens(&app, "alice", "admin:todos").await;
    let (bob, bobs) = tokens(&app, "bob", "create:todos").await;

    let answer = list(&alice, &alices, json!({})).await;
    let all = answer.assert_status(200).json();
    assert_eq!(names(&all), ["create-todo", "get-todos", "delete-todo", "purge-todos", "agenda"]);
    let answer = list(&bob, &bobs, json!({})).await;
    let some = answer.assert_status(200).json();
    assert_eq!(names(&some), ["create-todo", "delete-todo", "agenda"]);
    assert_eq!(some["id"], 1);
    assert_eq!(some["result"]["resultType"], "complete", "everything else stays");
    bob.call_tool(&bobs.access_token, "purge-todos", json!({})).await.assert_status(403);

    // The same as an event stream.
    let answer = list(&bob, &bobs, json!({ "_meta": {}, "progressToken": 1 })).await;
    answer.assert_status(200);
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/list",
                       "params": { "_meta": { "progressToken": 1 } } });
    let authorization = format!("Bearer {}", bobs.access_token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
    ];
    let answer = app.http.post_json(&app.mcp_url(), &body, &headers).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let data = answer.text().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let listed: Value = serde_json::from_str(data).unwrap();
    assert_eq!(names(&listed), ["create-todo", "delete-todo", "agenda"]);
}

#[tokio::test]
async fn without_the_key_a_list_of_tools_is_not_touched() {
    let app = with_admin_scope("").await;
    let (bob, bobs) = tokens(&app, "bob", "create:todos").await;
    let all = list(&bob, &bobs, json!({})).await.json();
    assert_eq!(names(&all), ["create-todo", "get-todos", "delete-todo", "purge-todos", "agenda"]);
}

#[tokio::test]
async fn a_list_of_tools_that_cannot_be_read_is_not_passed_on() {
    let app = with_admin_scope("hide_forbidden_tools = true").await;
    let (bob, bobs) = tokens(&app, "bob", "create:todos").await;
    let packed = vec![("content-encoding", "gzip".to_owned())];
    app.todo.misbehave(|how| how.answer = Some((200, packed)));
    list(&bob, &bobs, json!({})).await.assert_status(502);
    app.todo.misbehave(|how| how.break_off = true);
    list(&bob, &bobs, json!({})).await.assert_status(502);
}

#[tokio::test]
async fn a_signed_assertion_says_who_calls_and_is_good_for_one_backend_and_one_minute() {
    let app = with_admin_scope("assertion = true").await;
    let (client, held) = tokens(&app, "alice", "admin:todos").await;
    client.call_tool(&held.access_token, "get-todos", json!({})).await.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    let assertion = seen.header("x-portcullis-assertion").unwrap().to_owned();

    assert_eq!(jwt_part(&assertion, 0)["typ"], "portcullis-assertion+jwt");
    let claims = jwt_part(&assertion, 1);
    let now = app.now().unix();
    let expected = json!({
        "iss": app.url, "aud": app.todo.url(), "sub": "oidc:demo-alice", "client_id": client.id,
        "grant_id": jwt_part(&held.access_token, 1)["grant_id"],
        "scope": "admin:todos create:todos delete:todos read:todos", "jti": claims["jti"],
        "iat": now, "exp": now + 60,
        "name": "Alice Adams", "email": "alice@example.com", "email_verified": true,
    });
    assert_eq!(claims, expected);
    assert_eq!(jwks_verifies(&app, &assertion).await, Ok(()));

    // It opens nothing here: not the gateway, not revocation.
    let authorization = format!("Bearer {assertion}");
    let headers = [("authorization", authorization.as_str())];
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    app.http.post_json(&app.mcp_url(), &ping, &headers).await.assert_status(401);
    client.revoke(&assertion).await.assert_status(200);
    client.call_tool(&held.access_token, "get-todos", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn gw_14_a_client_cannot_bring_an_assertion_of_its_own() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "ping"),
        ("x-portcullis-assertion", "forged"),
    ];
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    app.http.post_json(&app.mcp_url(), &ping, &headers).await.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!(seen.header("x-portcullis-assertion"), None, "off by default");
}

/// What a backend does: the key by `kid` from the published set, then the signature.
async fn jwks_verifies(app: &TestApp, jwt: &str) -> Result<(), aws_lc_rs::error::Unspecified> {
    let set = app.http.get(&app.at("/.well-known/jwks.json")).await.json();
    let kid = &jwt_part(jwt, 0)["kid"];
    let key =
        set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == *kid).unwrap().clone();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], part("x"), part("y")].concat();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature)
}

#[tokio::test]
async fn gw_05_a_name_that_a_lenient_server_might_read_as_a_guarded_tool_is_guarded_as_well() {
    let app = with_admin_scope("").await;
    let (client, tokens) = tokens(&app, "bob", "create:todos").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let before = app.todo.recorded().len();
    for name in [
        "purge-todos",
        "Purge-Todos",
        "PURGE-TODOS",
        " purge-todos",
        "purge-todos\u{a0}",
        "purge_todos",
        "purge\u{200b}-todos",
        "\u{feff}purge-todos",
        "ｐurge-todos",
        "purge‐todos",
    ] {
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name },
        });
        let headers = [("authorization", authorization.as_str())];
        let answer = app.http.post_json(&app.mcp_url(), &call, &headers).await;
        assert_eq!(answer.status, 403, "{name:?}");
    }
    assert_eq!(app.todo.recorded().len(), before);
    client.call_tool(&tokens.access_token, "purge-todo", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn gw_05_only_post_brings_a_message_to_a_server() {
    let app = with_admin_scope("").await;
    let (_, tokens) = tokens(&app, "bob", "create:todos").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "purge-todos" },
    });
    for method in ["GET", "DELETE"] {
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/json")];
        app.http.send(method, &app.mcp_url(), &headers, call.to_string()).await;
        let seen = app.todo.recorded().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.body.len()), (method, 0));
    }
}
