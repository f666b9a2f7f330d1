//! M25: nothing secret is logged, at the finest level, in success and in failure.

use serde_json::json;

use crate::harness::client::{McpClient, Tokens, random_part};
use crate::harness::{TestApp, logs};

#[tokio::test]
async fn lg_01_no_secret_reaches_the_log() {
    let app = TestApp::start().await;
    let confidential = McpClient::register_as(
        &app,
        json!({
            "client_name": "canary-name",
            "redirect_uris": ["https://app.example/canary-path"],
            "token_endpoint_auth_method": "client_secret_post",
        }),
    )
    .await;
    let mut secrets = vec![confidential.secret.clone().unwrap()];

    // Success …
    let state = ("state", "canary-client-state");
    let back = confidential.authorize("alice", &[state]).await;
    let code = back.location_param("code").unwrap();
    let first = Tokens::of(&confidential.redeem(&code).await);
    app.advance(16 * 60);
    let second = Tokens::of(&confidential.refresh(&first.refresh_token).await);
    confidential
        .call_tool(&second.access_token, "create-todo", json!({ "content": "canary-todo" }))
        .await;

    // … and failure of every kind.
    confidential.redeem_with(&code, &[("code_verifier", "canary-verifier")]).await;
    confidential.redeem("ac_0_canary-code").await;
    confidential.refresh(&first.refresh_token).await;
    confidential.refresh("rt_0_canary-refresh").await;
    confidential.call_tool("canary.access.token", "get-todos", json!({})).await;
    confidential.token(&[("grant_type", "canary-grant-type")]).await;
    let wrong =
        [("client_id", confidential.id.as_str()), ("client_secret", "canary-client-secret")];
    app.http.post_form(&app.at("/token"), &wrong, &[]).await;
    app.http.get(&app.at("/auth/callback?code=canary-callback&state=canary-state")).await;
    app.http.get(&app.at("/authorize?client_id=canary-client&scope=canary-scope")).await;
    app.http.get(&app.at("/canary-nothing?token=canary-query")).await;
    confidential.browser.get(&confidential.authorize_url(&[("scope", "canary\"scope")])).await;
    app.idp.misbehave(|how| how.token_answer = Some((500, "canary-upstream-body".to_owned())));
    confidential.authorize("alice", &[]).await;
    app.idp.misbehave(|how| how.token_answer = Some((200, "{\"canary-json\"".to_owned())));
    confidential.authorize("alice", &[]).await;
    app.idp.misbehave(|how| *how = portcullis::demo::Misbehaviour::default());
    app.idp.misbehave(|how| how.wrong_nonce = true);
    confidential.authorize("alice", &[]).await;

    for tokens in [first, second] {
        secrets.extend([tokens.access_token, tokens.refresh_token]);
    }
    secrets.push(code);
    secrets.extend(app.idp.issued());
    let cookies = confidential.browser.cookie_header("127.0.0.1");
    secrets.extend(cookies.split("; ").filter_map(|c| Some(c.split_once('=')?.1.to_owned())));
    let log = logs::all();
    assert!(log.contains(&confidential.id), "the log says who did what");
    assert!(log.contains("code_issued") && log.contains("refresh_rotated"));
    for secret in secrets {
        let random = random_part(&secret);
        assert!(!log.contains(random), "{secret:.12}… is in the log");
    }
    let sent: Vec<&str> = log.lines().filter(|line| line.contains("canary")).collect();
    assert_eq!(sent, Vec::<&str>::new(), "what somebody sent is in the log");
    assert!(!log.contains("alice@example.com"), "an address is in the log");
}
