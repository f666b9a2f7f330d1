//! `POST /token` itself: who calls, and how. RFC 6749 §2.3, §3.2, §5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::TestApp;
use crate::harness::client::{McpClient, Tokens, VERIFIER};
use crate::harness::console::Console;
use crate::harness::http::encode;

async fn confidential(app: &TestApp, method: &str) -> McpClient {
    let metadata = json!({
        "redirect_uris": ["https://app.example/callback"], "token_endpoint_auth_method": method,
    });
    McpClient::register_as(app, metadata).await
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

#[tokio::test]
async fn tok_07_a_confidential_client_may_use_either_secret_method() {
    let app = TestApp::start().await;
    let url = app.at("/token");
    for method in ["client_secret_basic", "client_secret_post"] {
        let client = confidential(&app, method).await;
        let secret = client.secret.clone().unwrap();
        let code = client.code("bob").await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &client.redirect_uri),
            ("code_verifier", VERIFIER),
        ];
        let authorization = basic(&client.id, &secret);
        let headers = [("authorization", authorization.as_str())];
        let tokens = Tokens::of(&app.http.post_form(&url, &form, &headers).await);
        client.refresh(&tokens.refresh_token).await.assert_status(200);
    }
}

#[tokio::test]
async fn tok_06_bad_client_authentication_is_invalid_client() {
    let app = TestApp::start().await;
    let client = confidential(&app, "client_secret_basic").await;
    let public = app.client().await;
    let url = app.at("/token");
    let form = [("grant_type", "refresh_token"), ("refresh_token", "x")];

    let wrong = basic(&client.id, "wrong");
    let answer = app.http.post_form(&url, &form, &[("authorization", &wrong)]).await;
    answer.assert_error(401, "invalid_client");
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));

    let unknown = basic("client_nobody", "x");
    app.http.post_form(&url, &form, &[("authorization", &unknown)]).await.assert_status(401);
    app.http.post_form(&url, &form, &[("authorization", "Basic !!")]).await.assert_status(401);

    for (id, secret) in
        [(client.id.as_str(), ""), (&client.id, "wrong"), (&public.id, "secret"), ("x", "")]
    {
        let mut all = form.to_vec();
        all.extend([("client_id", id), ("client_secret", secret)]);
        let answer = app.http.post_form(&url, &all, &[]).await;
        answer.assert_error(401, "invalid_client");
        assert_eq!(answer.header("www-authenticate"), None, "Basic was not used");
    }
}

#[tokio::test]
async fn pp_01_mixed_or_doubled_parameters_are_invalid_requests() {
    let app = TestApp::start().await;
    let client = confidential(&app, "client_secret_basic").await;
    let secret = client.secret.clone().unwrap();
    let code = client.code("bob").await;
    let good = encode(&[
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &client.redirect_uri),
        ("code_verifier", VERIFIER),
        ("client_id", &client.id),
        ("client_secret", &secret),
    ]);
    let url = app.at("/token");
    let form = ("content-type", "application/x-www-form-urlencoded");
    for extra in [
        "&code=x",
        "&grant_type=x",
        "&client_id=x",
        "&code_verifier=x",
        "&redirect_uri=x",
        "&x=%ff",
    ] {
        let body = format!("{good}{extra}");
        app.http.send("POST", &url, &[form], body).await.assert_error(400, "invalid_request");
    }
    let authorization = basic(&client.id, &secret);
    let both = [form, ("authorization", authorization.as_str())];
    app.http.send("POST", &url, &both, good.clone()).await.assert_error(400, "invalid_request");
    let in_url = format!("{url}?grant_type=authorization_code");
    app.http
        .send("POST", &in_url, &[form], good.clone())
        .await
        .assert_error(400, "invalid_request");
    let as_json = [("content-type", "application/json")];
    app.http.send("POST", &url, &as_json, "{}").await.assert_error(400, "invalid_request");
    let utf16 = [("content-type", "application/x-www-form-urlencoded; charset=utf-16")];
    app.http.send("POST", &url, &utf16, good.clone()).await.assert_error(400, "invalid_request");
    app.http.send("POST", &url, &[form], "x".repeat(20_000)).await.assert_status(413);
    app.http.get(&url).await.assert_status(405);

    // None of it used the code up.
    app.http.send("POST", &url, &[form], good).await.assert_status(200);
}

#[tokio::test]
async fn tok_16_grant_types_we_do_not_offer_are_named_so() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for grant_type in
        ["client_credentials", "password", "urn:ietf:params:oauth:grant-type:device_code"]
    {
        client
            .token(&[("grant_type", grant_type)])
            .await
            .assert_error(400, "unsupported_grant_type");
    }
    client.token(&[("grant_type", "")]).await.assert_error(400, "invalid_request");
    client
        .token(&[("grant_type", "authorization_code")])
        .await
        .assert_error(400, "invalid_request");
    client.token(&[("grant_type", "refresh_token")]).await.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn tok_04_an_answer_states_everything_and_is_cached_nowhere() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    let answer = client.redeem(&code).await;
    answer.assert_status(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let mut members: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!(json["expires_in"], 600);
    assert_eq!(json["scope"], "create:todos");
}

#[tokio::test]
async fn programs_in_browsers_may_call_it() {
    let app = TestApp::start().await;
    let headers = [
        ("origin", "http://localhost:6274"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,authorization"),
    ];
    let answer = app.http.send("OPTIONS", &app.at("/token"), &headers, "").await;
    assert!(answer.status.is_success());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

/// PostgreSQL takes no NUL in a text: what cannot be stored or found must be refused before.
#[tokio::test]
async fn pp_01_a_nul_is_refused_wherever_it_comes() {
    let app = TestApp::start().await;
    let basic = format!("Basic {}", STANDARD.encode("a%00b:c%00d"));
    let plain = format!("Basic {}", STANDARD.encode("a\0b:c\0d"));
    for credentials in [basic, plain] {
        let headers = [("authorization", credentials.as_str())];
        let form = [("grant_type", "refresh_token"), ("refresh_token", "rt_x")];
        let answer = app.http.post_form(&app.at("/token"), &form, &headers).await;
        assert!(answer.status.is_client_error(), "{credentials} {}", answer.status);
    }
    for path in ["/register/a%00b", "/.well-known/oauth-protected-resource/a%00b"] {
        let headers = [("authorization", "Bearer a")];
        let answer = app.http.send("GET", &app.at(path), &headers, "").await;
        assert!(answer.status.is_client_error(), "{path} {}", answer.status);
    }
    for member in ["client_name", "client_uri", "software_id", "scope", "jwks_uri", "contacts"] {
        let metadata = json!({
            "redirect_uris": ["http://127.0.0.1/cb"], "token_endpoint_auth_method": "none",
            member: "https://a\0b.example/",
        });
        let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
        assert!(answer.status.as_u16() < 500, "{member} {}", answer.status);
    }
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    for path in [
        "/person?sub=a%00b",
        "/clients?q=a%00b",
        "/client?id=a%00b",
        "/audit?client=a%00b",
        "/people?q=a%00b",
        "/grants?person=a%00b&after=a%00b",
    ] {
        let answer = admin.get(path).await;
        assert!(answer.status.as_u16() < 500, "{path} {}", answer.status);
    }
}
