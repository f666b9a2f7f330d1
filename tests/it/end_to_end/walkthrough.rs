//! The main job, end to end: from a refusal without a token to an authorised tool call.

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, jwt_part};

fn todos(answer: &Value) -> &Vec<Value> {
    answer["result"]["structuredContent"]["todos"].as_array().unwrap()
}

#[tokio::test]
async fn a_client_that_knows_only_the_mcp_url_gets_to_a_tool_call() {
    let app = TestApp::start().await;

    // Without a token: told where to look.
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover" });
    let refused = app.http.post_json(&app.mcp_url(), &body, &[]).await;
    refused.assert_status(401);
    let challenge = refused.header("www-authenticate").unwrap();
    let metadata_url = challenge.split("resource_metadata=\"").nth(1).unwrap();
    let metadata_url = metadata_url.split('"').next().unwrap();

    // From the resource to the authorization server to its endpoints.
    let resource = app.http.get(metadata_url).await.assert_status(200).json();
    assert_eq!(resource["resource"], app.mcp_url());
    let issuer = resource["authorization_servers"][0].as_str().unwrap();
    let metadata = format!("{issuer}/.well-known/oauth-authorization-server");
    let metadata = app.http.get(&metadata).await.assert_status(200).json();
    assert_eq!(metadata["issuer"], issuer);
    assert_eq!(metadata["registration_endpoint"], app.at("/register"));

    // Register, ask, approve, sign in, redeem, call.
    let client = McpClient::register(&app).await;
    let tokens = client.sign_in("bob").await;
    let answer =
        client.call_tool(&tokens.access_token, "create-todo", json!({ "content": "Tea" })).await;
    assert_eq!(answer.assert_status(200).json()["result"]["isError"], false);

    // What the client holds.
    assert_eq!(jwt_part(&tokens.access_token, 0)["typ"], "at+jwt");
    let claims = jwt_part(&tokens.access_token, 1);
    assert_eq!(claims["iss"], app.url);
    assert_eq!(claims["aud"], app.mcp_url());
    assert_eq!(claims["client_id"], client.id);
    assert_eq!(claims["scope"], "create:todos");
    assert!(claims["jti"].is_string());

    // The server behind never saw it.
    for request in app.todo.recorded() {
        assert_eq!(request.header("authorization"), None);
        let all = format!("{request:?}");
        assert!(!all.contains(&tokens.access_token), "the token reached the MCP server");
    }
}

#[tokio::test]
async fn people_do_what_their_role_allows() {
    let app = TestApp::start().await;
    let (alice, alices) = app.tokens_of("alice").await;
    let (bob, bobs) = app.tokens_of("bob").await;
    let create = |text: &str| json!({ "content": text });
    alice
        .call_tool(&alices.access_token, "create-todo", create("Alice's"))
        .await
        .assert_status(200);
    bob.call_tool(&bobs.access_token, "create-todo", create("Bob's")).await.assert_status(200);

    // Bob sees his own only; Alice sees everybody's.
    let seen = bob.call_tool(&bobs.access_token, "get-todos", json!({})).await.json();
    assert_eq!(todos(&seen).len(), 1);
    assert_eq!(todos(&seen)[0]["content"], "Bob's");
    let bobs_todo = todos(&seen)[0]["id"].clone();
    let seen = alice.call_tool(&alices.access_token, "get-todos", json!({})).await.json();
    assert_eq!(todos(&seen).len(), 2);
    let alices_todo = todos(&seen)[0]["id"].clone();

    // He deletes his own, not hers; the error names the scope.
    let delete = |id: &Value| json!({ "id": id });
    let answer =
        bob.call_tool(&bobs.access_token, "delete-todo", delete(&alices_todo)).await.json();
    assert_eq!(answer["result"]["isError"], true);
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("delete:todos"));
    let answer = bob.call_tool(&bobs.access_token, "delete-todo", delete(&bobs_todo)).await.json();
    assert_eq!(answer["result"]["isError"], false);

    // Purging is stopped by the gateway; the MCP server does not hear of it.
    let before = app.todo.recorded().len();
    let refused = bob.call_tool(&bobs.access_token, "purge-todos", json!({})).await;
    refused.assert_status(403);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("delete:todos"), "{challenge}");
    assert_eq!(app.todo.recorded().len(), before);
    let purged = alice.call_tool(&alices.access_token, "purge-todos", json!({})).await.json();
    assert_eq!(purged["result"]["isError"], false);
}

#[tokio::test]
async fn mallory_is_told_politely_and_the_client_learns_access_denied() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let page = client.authorize("mallory", &[]).await;
    page.assert_page(403);
    assert!(page.text().contains("Mallory Miller"));
    assert!(page.text().contains("You have no access"));
    let html = page.text().replace("&#38;", "&").replace("&amp;", "&");
    let back = format!("{}?error=access_denied", client.redirect_uri);
    let link = format!("class=\"button return\" rel=\"noreferrer\" href=\"{back}");
    assert!(html.contains(&link), "the person goes back with one click: {html}");
    assert!(html.contains("state=client-state"), "{html}");
    assert!(!html.contains("http-equiv"), "the reference stays in view: {html}");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM grants").await, 0);
}
