//! Providers that an administrator runs, and the barest one that OpenID Connect allows.

use portcullis::demo::Misbehaviour;
use serde_json::json;

use super::super::{HOUR, MINUTE, ask_again, assert_bridged, assert_fresh};
use super::{ALL, asked, assert_both_may_what_they_should, only_groups, play, rename, without};
use crate::harness::client::Tokens;

#[tokio::test]
async fn authentik_verifies_no_address() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            without(claims, &["roles"]);
            claims["email_verified"] = false.into();
        }),
        change_userinfo: Some(|claims| {
            without(claims, &["roles"]);
            claims["email_verified"] = false.into();
        }),
        ..Misbehaviour::default()
    };
    let preset = "provider = \"authentik\"\nurl = \"https://auth.example.com\"\napplication = \"portcullis\"";
    let app = play(preset, how).await;
    let (client, _) = assert_both_may_what_they_should(&app).await;
    // Without a signing key, authentik signs with the client secret.
    app.idp.misbehave(|how| how.algorithm = Some("HS256".to_owned()));
    client.authorize("alice", &[]).await.assert_page(403);
}

#[tokio::test]
async fn authelia_tells_groups_in_userinfo_and_forgets_after_ninety_minutes() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            without(claims, &["roles", "groups", "email", "email_verified", "name"]);
        }),
        change_userinfo: Some(only_groups),
        refresh_token_needs: Some(&[("prompt", "consent")]),
        refresh_idle: Some(90 * MINUTE),
        strict_rotation: true,
        only_client_auth: Some("client_secret_basic"),
        ..Misbehaviour::default()
    };
    let app = play("provider = \"authelia\"\nissuer = \"https://auth.example.com\"", how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    app.advance(90 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn gitlab_rotates_without_grace_and_tells_direct_groups() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            without(claims, &["roles", "email", "email_verified", "name"]);
            rename(claims, "groups", "groups_direct");
        }),
        // Userinfo lists all groups, inherited ones as well: another claim, and not read.
        change_userinfo: Some(|claims| {
            without(claims, &["roles"]);
            claims["groups"] = json!(["admins", "everybody"]);
        }),
        refused_scope: Some("offline_access"),
        refresh_token_needs: Some(&[]),
        strict_rotation: true,
        ..Misbehaviour::default()
    };
    let app = play("provider = \"gitlab\"\nhost = \"gitlab.example.com\"", how).await;
    let (client, mut tokens) = assert_both_may_what_they_should(&app).await;
    for _ in 0..3 {
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
}

const DEX: &str = "provider = \"dex\"\nissuer = \"https://dex.example.com/dex\"";

#[tokio::test]
async fn dex_without_refresh_tells_no_refresh_token() {
    let how = Misbehaviour { no_refresh_token: true, ..Misbehaviour::default() };
    let app = play(DEX, how).await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, ALL);
    app.advance(8 * HOUR - 1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    app.advance(1);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn dex_tells_changed_groups_at_a_refresh() {
    let how = Misbehaviour {
        change_id_token: Some(only_groups),
        change_userinfo: Some(only_groups),
        strict_rotation: true,
        rotation_grace: 3,
        ..Misbehaviour::default()
    };
    let app = play(DEX, how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    app.idp.set_groups("alice", &["staff"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, "create:todos");
    app.idp.set_groups("alice", &["staff", "admins", "contractors"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, "create:todos read:todos");
}

#[tokio::test]
async fn the_barest_openid_provider_is_enough() {
    let how = Misbehaviour {
        change_discovery: Some(|document| {
            let required = [
                "issuer",
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "response_types_supported",
                "subject_types_supported",
                "id_token_signing_alg_values_supported",
            ];
            document.as_object_mut().unwrap().retain(|name, _| required.contains(&name.as_str()));
        }),
        no_callback_iss: true,
        no_refresh_token: true,
        ..Misbehaviour::default()
    };
    let app = play("provider = \"oidc\"\nissuer = \"https://id.example.com\"", how).await;
    let (client, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, ALL);
    assert_eq!(asked(&app, "scope").as_deref(), Some("openid profile email"));
    assert_eq!(app.idp.requests_to("/userinfo"), 0);
    assert_fresh(&ask_again(&app, &client, &tokens).await);

    // One that gives refresh tokens unasked, and is away for a while.
    app.idp.misbehave(|how| {
        how.no_refresh_token = false;
        how.refresh_token_needs = Some(&[]);
    });
    let tokens = client.sign_in("alice").await;
    app.idp.misbehave(|how| how.token_answer = Some((503, String::new())));
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_bridged(&tokens);
}
