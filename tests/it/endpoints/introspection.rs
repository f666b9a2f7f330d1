//! Introspection for MCP servers that ask about tokens: RFC 7662, RFC 9701.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const ONE: &str = "the secret of the first server + 0123456789:/";
const TWO: &str = "the secret of the second one, 0123456789abc";

/// Two MCP servers that check tokens themselves; the third may not ask.
async fn started() -> TestApp {
    let resources = format!(
        r#"
[[resource]]
id      = "https://one.example/mcp"
scopes  = ["read", "admin"]
default = true
introspection_secret = "{ONE}"
implies = {{ admin = ["read"] }}
[[resource]]
id     = "https://two.example/mcp"
scopes = ["read"]
token_alg = "RS256"
introspection_secret = "{TWO}"
[[resource]]
path   = "/mcp"
scopes = ["read"]
"#
    );
    TestApp::with(Setup::toml(resources)).await
}

async fn tokens(app: &TestApp, resource: &str, scope: &str) -> (McpClient, Tokens) {
    let client = app.client().await;
    let back = client.authorize("bob", &[("resource", resource), ("scope", scope)]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", resource)]).await);
    (client, tokens)
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn ask(app: &TestApp, token: &str, headers: &[(&str, &str)]) -> Answer {
    app.http.post_form(&app.at("/introspect"), &[("token", token)], headers).await
}

async fn ask_as_one(app: &TestApp, token: &str) -> Value {
    let authorization = basic("https://one.example/mcp", ONE);
    let answer = ask(app, token, &[("authorization", &authorization)]).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.assert_status(200).json()
}

#[tokio::test]
async fn int_03_a_live_token_is_told_about_in_full() {
    let app = started().await;
    let (client, tokens) = tokens(&app, "https://one.example/mcp", "admin").await;
    let claims = jwt_part(&tokens.access_token, 1);
    assert_eq!(
        ask_as_one(&app, &tokens.access_token).await,
        json!({
            "active": true,
            "scope": "admin read", // with what it implies
            "client_id": client.id,
            "sub": "oidc:demo-bob",
            "aud": "https://one.example/mcp",
            "iss": app.url,
            "exp": claims["exp"],
            "iat": claims["iat"],
            "jti": claims["jti"],
            "token_type": "Bearer",
        })
    );
}

#[tokio::test]
async fn int_02_whatever_is_not_a_live_token_for_the_asker_is_inactive_and_no_more() {
    let app = started().await;
    let (client, held) = tokens(&app, "https://one.example/mcp", "read").await;
    let (_, foreign) = tokens(&app, "https://two.example/mcp", "read").await;
    let inactive = json!({ "active": false });
    for token in [&held.refresh_token, &foreign.access_token, &foreign.refresh_token, "x", "a.b.c"]
    {
        assert_eq!(ask_as_one(&app, token).await, inactive, "{token}");
    }
    assert_eq!(ask_as_one(&app, &held.access_token).await["active"], true);

    // Revoked: at once. Expired: at once.
    let fresh = Tokens::of(&client.refresh(&held.refresh_token).await);
    client.revoke(&fresh.refresh_token).await.assert_status(200);
    assert_eq!(ask_as_one(&app, &held.access_token).await, inactive);
    assert_eq!(ask_as_one(&app, &fresh.access_token).await, inactive);
    let (_, other) = tokens(&app, "https://one.example/mcp", "read").await;
    app.advance(10 * 60);
    assert_eq!(ask_as_one(&app, &other.access_token).await, inactive);
}

#[tokio::test]
async fn int_01_only_a_configured_server_that_proves_itself_may_ask() {
    let app = started().await;
    let (_, tokens) = tokens(&app, "https://one.example/mcp", "read").await;
    let token = tokens.access_token.as_str();
    let id = "https://one.example/mcp";
    let bearer = format!("Bearer {token}");
    for authorization in [
        basic(id, "wrong"),
        basic(id, ""),
        basic(id, TWO),
        basic("https://two.example/mcp", ONE),
        basic(&app.mcp_url(), ONE),
        basic("https://one.example", &format!("/mcp:{ONE}x")),
        bearer,
        "Basic !".to_owned(),
    ] {
        let refused = ask(&app, token, &[("authorization", &authorization)]).await;
        refused.assert_error(401, "invalid_client");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
    }
    ask(&app, token, &[]).await.assert_error(401, "invalid_client");
    // A client of ours is no resource server.
    let client = McpClient::register_as(
        &app,
        json!({ "redirect_uris": ["http://127.0.0.1/x"], "token_endpoint_auth_method": "client_secret_basic" }),
    )
    .await;
    let authorization = basic(&client.id, client.secret.as_deref().unwrap());
    ask(&app, token, &[("authorization", &authorization)]).await.assert_status(401);
    let twice = [("token", token), ("client_id", id), ("client_secret", ONE)];
    let headers = [("authorization", basic(id, ONE))];
    let headers = [("authorization", headers[0].1.as_str())];
    app.http
        .post_form(&app.at("/introspect"), &twice, &headers)
        .await
        .assert_error(400, "invalid_request");
    app.http
        .post_form(&app.at("/introspect"), &[], &headers)
        .await
        .assert_error(400, "invalid_request");
    app.http.get(&app.at("/introspect")).await.assert_status(405);
}

#[tokio::test]
async fn a_server_may_prove_itself_in_every_way_that_libraries_do() {
    let app = started().await;
    let (_, tokens) = tokens(&app, "https://one.example/mcp", "read").await;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let id = "https://one.example/mcp";
    for authorization in [basic(id, ONE), basic(&encode(id), &encode(ONE))] {
        let answer = ask(&app, &tokens.access_token, &[("authorization", &authorization)]).await;
        assert_eq!(answer.assert_status(200).json()["active"], true);
    }
    let form = [
        ("token", tokens.access_token.as_str()),
        ("token_type_hint", "refresh_token"),
        ("client_id", id),
        ("client_secret", ONE),
    ];
    let answer = app.http.post_form(&app.at("/introspect"), &form, &[]).await;
    assert_eq!(answer.assert_status(200).json()["active"], true);
}

#[tokio::test]
async fn int_07_an_answer_is_signed_when_asked_for() {
    let app = started().await;
    let (_, held) = tokens(&app, "https://two.example/mcp", "read").await;
    let authorization = basic("https://two.example/mcp", TWO);
    let ask_signed = |token: String, accept: &'static str| {
        let (app, authorization) = (&app, authorization.as_str());
        async move {
            let headers = [("authorization", authorization), ("accept", accept)];
            ask(app, &token, &headers).await
        }
    };
    let signed = "application/token-introspection+jwt";
    for (token, active) in [(held.access_token.clone(), true), ("x".to_owned(), false)] {
        let answer = ask_signed(token, signed).await;
        answer.assert_status(200);
        assert_eq!(answer.header("content-type"), Some(signed));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let header = jwt_part(answer.text(), 0);
        assert_eq!(
            (&header["typ"], &header["alg"]),
            (&json!("token-introspection+jwt"), &json!("RS256"))
        );
        let claims = jwt_part(answer.text(), 1);
        assert_eq!(claims["iss"], app.url);
        assert_eq!(claims["aud"], "https://two.example/mcp");
        assert_eq!(claims["iat"], app.now().unix());
        assert_eq!(claims["token_introspection"]["active"], active);
        assert!(claims.get("sub").is_none() && claims.get("exp").is_none(), "RFC 9701 §8.1");
        // It opens nothing.
        assert_eq!(ask_as_one(&app, answer.text()).await, json!({ "active": false }));
    }
    for plain in ["application/json", "*/*", "application/token-introspection+jwt;q=0, */*"] {
        let answer = ask_signed(held.access_token.clone(), plain).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{plain}");
    }
}

#[tokio::test]
async fn meta_16_introspection_is_advertised_exactly_when_it_is_on() {
    let app = started().await;
    let url = app.at("/.well-known/oauth-authorization-server");
    let metadata = app.http.get(&url).await.json();
    assert_eq!(metadata["introspection_endpoint"], app.at("/introspect"));
    let methods = &metadata["introspection_endpoint_auth_methods_supported"];
    assert_eq!(*methods, json!(["client_secret_basic", "client_secret_post"]));
    let algs = &metadata["introspection_signing_alg_values_supported"];
    assert_eq!(*algs, json!(["ES256", "RS256"]));

    let off = TestApp::start().await;
    let metadata = off.http.get(&off.at("/.well-known/oauth-authorization-server")).await.json();
    let members = metadata.as_object().unwrap();
    assert!(!members.keys().any(|name| name.starts_with("introspection")), "{metadata}");
    off.http.post_form(&off.at("/introspect"), &[("token", "x")], &[]).await.assert_status(404);
}

#[tokio::test]
async fn int_01_it_fails_closed_when_the_grant_cannot_be_looked_up() {
    let app = started().await;
    let (_, tokens) = tokens(&app, "https://one.example/mcp", "read").await;
    app.database.execute("ALTER TABLE grants RENAME TO grants_gone").await;
    let authorization = basic("https://one.example/mcp", ONE);
    let answer = ask(&app, &tokens.access_token, &[("authorization", &authorization)]).await;
    // A table that is gone does not come back by trying again.
    answer.assert_error(500, "server_error");
    app.database.execute("ALTER TABLE grants_gone RENAME TO grants").await;
}
