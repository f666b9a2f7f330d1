//! `POST /revoke`: RFC 7009.

use serde_json::json;

use crate::harness::TestApp;
use crate::harness::client::{McpClient, REDIRECT_URI};

#[tokio::test]
async fn either_token_ends_the_grant_at_once() {
    let app = TestApp::start().await;
    for by_access_token in [false, true] {
        let (client, tokens) = app.tokens_of("bob").await;
        let token = if by_access_token { &tokens.access_token } else { &tokens.refresh_token };
        for _ in 0..2 {
            // The gateway remembers token and grant from here on.
            client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
        }
        client.revoke(token).await.assert_status(200);
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        client.revoke(token).await.assert_status(200); // §2.2: it is as the client wants it
    }
}

#[tokio::test]
async fn an_unknown_token_is_no_error() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for token in ["x", "rt_0_x", "eyJ.x.y"] {
        client.revoke(token).await.assert_status(200);
    }
    client.revoke("").await.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn nobody_revokes_for_somebody_else() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let other = McpClient::register_as(
        &app,
        json!({ "client_name": "Other", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" }),
    )
    .await;
    for token in [&tokens.refresh_token, &tokens.access_token] {
        other.revoke(token).await.assert_error(400, "invalid_grant");
    }
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    let unknown = [("client_id", "client_x"), ("token", tokens.refresh_token.as_str())];
    app.http.post_form(&app.at("/revoke"), &unknown, &[]).await.assert_error(401, "invalid_client");
}

#[tokio::test]
async fn one_grant_ends_and_the_persons_others_go_on() {
    let app = TestApp::start().await;
    let (client, one) = app.tokens_of("bob").await;
    let two = client.sign_in("bob").await;
    client.revoke(&one.refresh_token).await.assert_status(200);
    client.call_tool(&two.access_token, "get-todos", json!({})).await.assert_status(200);
    client.refresh(&two.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn what_is_remembered_of_a_token_ends_with_it() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    for _ in 0..2 {
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    }
    app.advance(tokens.expires_in);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    app.advance(-1);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
}
