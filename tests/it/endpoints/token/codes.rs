//! Authorization codes at the token endpoint: threats AC-01 to AC-08 and PK-01.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

const INVALID_GRANT: &str = r#"{"error":"invalid_grant","error_description":"the authorization code or refresh token is invalid, expired, revoked or was issued to another client; sign in again"}"#;

#[track_caller]
fn assert_invalid_grant(answer: &Answer) {
    answer.assert_error(400, "invalid_grant");
    assert_eq!(answer.text(), INVALID_GRANT, "every cause looks the same");
}

#[tokio::test]
async fn ac_01_of_a_hundred_redemptions_one_succeeds_and_its_tokens_die() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        let code = client.code("bob").await;
        let answers = join_all((0..100).map(|_| client.redeem(&code))).await;
        let (won, lost): (Vec<&Answer>, Vec<&Answer>) =
            answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 99));
        for answer in lost {
            assert_invalid_grant(answer);
        }
        let tokens = Tokens::of(won[0]);
        assert_invalid_grant(&client.refresh(&tokens.refresh_token).await);
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM grants").await, 1);
    }
}

#[tokio::test]
async fn ac_02_a_replayed_code_ends_the_grant_it_became() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    let tokens = Tokens::of(&client.redeem(&code).await);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    assert_invalid_grant(&client.redeem(&code).await);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    assert_invalid_grant(&client.refresh(&tokens.refresh_token).await);
}

/// One binding wrong at a time; the code stays good for its holder.
#[tokio::test]
async fn ac_03_a_code_is_bound_to_client_address_verifier_and_resource() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let other = McpClient::register_as(
        &app,
        json!({ "client_name": "Other", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" }),
    )
    .await;
    let code = client.code("bob").await;
    assert_invalid_grant(&other.redeem(&code).await);
    for set in [
        ("redirect_uri", "http://127.0.0.1:1/callback"),
        ("code_verifier", "another-verifier-of-43-characters-or-more-0123"),
    ] {
        assert_invalid_grant(&client.redeem_with(&code, &[set]).await);
    }
    let wrong = client.redeem_with(&code, &[("resource", "https://other.example/mcp")]).await;
    wrong.assert_error(400, "invalid_target");
    client.redeem(&code).await.assert_status(200);
}

#[tokio::test]
async fn pk_01_pkce_cannot_be_skipped_by_leaving_it_out() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    for verifier in
        ["", "short", &"x".repeat(129), "a-verifier with a space 43 characters or more!"]
    {
        assert_invalid_grant(&client.redeem_with(&code, &[("code_verifier", verifier)]).await);
    }
    client.redeem(&code).await.assert_status(200);
}

#[tokio::test]
async fn ac_05_a_code_lives_for_a_minute() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (early, late) = (client.code("bob").await, client.code("bob").await);
    app.advance(59);
    client.redeem(&early).await.assert_status(200);
    app.advance(1);
    assert_invalid_grant(&client.redeem(&late).await);
}

#[tokio::test]
async fn ac_10_wrong_attempts_burn_a_code() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    for _ in 0..5 {
        assert_invalid_grant(&client.redeem_with(&code, &[("code_verifier", "")]).await);
    }
    assert_invalid_grant(&client.redeem(&code).await);
}

#[tokio::test]
async fn ac_04_what_is_not_a_code_of_ours_is_invalid_grant_too() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let real = client.code("bob").await;
    let (head, _) = real.rsplit_once('_').unwrap();
    let guessed = format!("{head}_{}", "A".repeat(43));
    for code in ["x", &tokens.refresh_token, &tokens.access_token, &guessed, &"c".repeat(5000)] {
        assert_invalid_grant(&client.redeem(code).await);
    }
    client.redeem(&real).await.assert_status(200);
}

#[tokio::test]
async fn ac_08_redirect_uri_and_resource_may_be_left_out_at_the_token_endpoint() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    let left_out = [("redirect_uri", ""), ("resource", "")];
    client.redeem_with(&code, &left_out).await.assert_status(200);
}

#[tokio::test]
async fn at_01_tokens_of_every_algorithm_say_the_same() {
    for alg in ["ES256", "RS256", "EdDSA"] {
        let setup = Setup::toml(format!("[resource]\ntoken_alg = \"{alg}\""));
        let app = TestApp::with(setup).await;
        let (client, tokens) = app.tokens_of("bob").await;
        let header = crate::harness::client::jwt_part(&tokens.access_token, 0);
        assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some(alg), Some("at+jwt")));
        let claims = crate::harness::client::jwt_part(&tokens.access_token, 1);
        let mut names: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected = ["aud", "client_id", "exp", "grant_id", "iat", "iss", "jti", "scope", "sub"];
        assert_eq!(names, expected);
        assert_eq!(claims["sub"], "oidc:demo-bob", "never from an e-mail address");
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    }
}
