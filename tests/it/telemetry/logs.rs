//! Nothing secret is logged (threat LG-01), at the finest level, in success and in failure.

use serde_json::json;

use crate::harness::client::{McpClient, Server, Tokens, random_part};
use crate::harness::process::Served;
use crate::harness::{TestApp, logs, todo_resource};

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

/// What anybody can bring about any number of times must not fill the disk that the log is on.
#[tokio::test]
async fn a_flood_of_garbage_is_a_line_a_second_of_each_kind() {
    let mut server = Served::prepared().await;
    let secret = "introspection_secret = \"an introspection secret of 32 characters\"";
    let with_secret = todo_resource(&server.todo, secret);
    let without = todo_resource(&server.todo, "");
    let text = std::fs::read_to_string(&server.config).unwrap();
    let text = text.replace(&without, &with_secret);
    std::fs::write(&server.config, format!("{text}\n[limits]\nrequest_rates = false\n")).unwrap();
    server.launch();
    let client = McpClient::register(&server).await;
    let id = client.id.as_str();
    let at = |path: &str| server.place().at(path);
    let http = &server.http;
    let origin = [("origin", "https://evil.example")];
    let bearer = [("authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.e30.AAAA")];
    let unknown = [("client_id", "nobody"), ("grant_type", "refresh_token")];
    let wrong = [("client_id", id), ("client_secret", "wrong")];
    let code = [("client_id", id), ("grant_type", "authorization_code"), ("code", "ac_0.0")];
    let refresh = [("client_id", id), ("grant_type", "refresh_token"), ("refresh_token", "x")];
    let assertion = [("client_assertion_type", "x"), ("client_assertion", "x.y.z")];
    let asked = [("client_id", "x"), ("client_secret", "wrong"), ("token", "x")];
    let not_ours = [("logout_token", "x.y.z")];
    let nothing = json!({});

    // What is sent, and what the log says of it.
    let start = tokio::time::Instant::now();
    let kinds = [
        "access token refused",
        "gateway request refused",
        "reason=\"unknown client\"",
        "reason=\"wrong or missing secret\"",
        "the authorization code is not known",
        "the refresh token is not known",
        "client_assertion_type is missing",
        "an MCP server could not be authenticated",
        "the message is not accepted",
        "code=\"invalid_redirect_uri\"",
        "authorization refused",
    ];
    for _ in 0..60 {
        http.get(&at("/authorize?client_id=unknown")).await.assert_page(400);
        http.get(&at("/auth/callback?state=x")).await.assert_page(403);
        http.send("GET", &at("/mcp"), &bearer, "").await.assert_status(401);
        http.send("GET", &at("/mcp"), &origin, "").await.assert_status(403);
        http.post_form(&at("/token"), &unknown, &[]).await.assert_status(401);
        http.post_form(&at("/token"), &wrong, &[]).await.assert_status(401);
        http.post_form(&at("/token"), &code, &[]).await.assert_status(400);
        http.post_form(&at("/token"), &refresh, &[]).await.assert_status(400);
        http.post_form(&at("/token"), &assertion, &[]).await.assert_status(401);
        http.post_form(&at("/introspect"), &asked, &[]).await.assert_status(401);
        http.post_form(&at("/backchannel-logout"), &not_ours, &[]).await.assert_status(400);
        http.post_json(&at("/register"), &nothing, &[]).await.assert_status(400);
        let refused = client.authorize_url(&[("response_type", "token")]);
        client.browser.get(&refused).await;
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    for kind in kinds {
        let told = server.logged(kind);
        // Three places say it, each once a second: the pages, the token endpoint and introspection.
        let places = if kind == "reason=\"unknown client\"" { 3 } else { 1 };
        let most = places * (seconds + 2);
        assert!(told <= most, "{kind}: {told} lines in {seconds} seconds");
        println!("{kind}: {told}");
    }
    let pages = server.logged("\"page shown\"") + server.logged("page shown");
    assert!(pages <= 2 * (seconds + 2), "{pages} pages in {seconds} seconds");
}
