//! Okta, Auth0, Keycloak.

use portcullis::demo::Misbehaviour;
use serde_json::{Value, json};

use super::super::{HOUR, MINUTE, ask_again, assert_fresh};
use super::{
    ALL, DAY, asked, assert_both_may_what_they_should, only_groups, play, refused_at_refresh,
    without,
};
use crate::harness::client::REDIRECT_URI;

#[tokio::test]
async fn okta_org_tells_groups_in_the_id_token_and_keeps_one_refresh_token() {
    let how = Misbehaviour {
        change_id_token: Some(only_groups),
        // The access token is not for us, whatever it says.
        access_token: Some(|_| json!({ "groups": ["Todo Admins"], "roles": ["Admin"] })),
        change_userinfo: Some(only_groups),
        keeps_refresh_token: true,
        refresh_idle: Some(7 * DAY),
        ..Misbehaviour::default()
    };
    let app = play("provider = \"okta\"\ndomain = \"acme.okta.com\"", how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    let scope = asked(&app, "scope").unwrap();
    assert_eq!(scope, "openid profile email groups offline_access");

    // A week of rest, and Okta has forgotten the session.
    app.advance(7 * DAY);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.sign_in("alice").await;
    let body = json!({ "error": "invalid_grant", "error_description": "The refresh token is invalid or expired." });
    refused_at_refresh(&app, &body, 400).await;

    // Not assigned to the application.
    app.idp.misbehave(|how| {
        how.authorize_error = Some("access_denied".to_owned());
        how.authorize_error_description =
            Some("User is not assigned to the client application.".to_owned());
    });
    let url = client.approve(&[]).await;
    let callback = client.browser.get(&url).await.location().to_owned();
    let answer = client.browser.get(&callback).await;
    answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    assert!(!answer.location().contains("assigned"), "what Okta says is for the log");
}

#[tokio::test]
async fn okta_custom_refuses_the_scope_groups_and_rotates_with_a_leeway() {
    let how = Misbehaviour {
        change_id_token: Some(only_groups),
        change_userinfo: Some(only_groups),
        refused_scope: Some("groups"),
        strict_rotation: true,
        rotation_grace: 30,
        ..Misbehaviour::default()
    };
    let preset =
        "provider = \"okta\"\ndomain = \"acme.okta.com\"\nauthorization_server = \"default\"";
    let app = play(preset, how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    app.idp.misbehave(|how| how.lose_refresh_answers = 1);
    assert_fresh(&ask_again(&app, &client, &tokens).await);
}

fn permissions(about: &Value) -> Value {
    let admin = about["roles"] == json!(["Admin"]);
    let all = json!(["read:todos", "create:todos", "delete:todos", "admin:tenant"]);
    json!({ "permissions": if admin { all } else { json!(["create:todos"]) } })
}

#[tokio::test]
async fn auth0_gives_permissions_to_an_audience_and_refuses_with_403() {
    let how = Misbehaviour {
        // Custom claims named roles or groups are reserved and silently dropped.
        change_id_token: Some(|claims| without(claims, &["roles", "groups"])),
        change_userinfo: Some(|claims| without(claims, &["roles", "groups"])),
        access_token: Some(permissions),
        strict_rotation: true,
        rotation_grace: 10,
        ..Misbehaviour::default()
    };
    let preset = "provider = \"auth0\"\ndomain = \"acme.eu.auth0.com\"\n\
                  audience = \"https://todo.example/mcp\"";
    let app = play(preset, how).await;
    let (client, mut tokens) = assert_both_may_what_they_should(&app).await;
    assert_eq!(asked(&app, "audience").as_deref(), Some("https://todo.example/mcp"));
    let before = app.idp.requests_to("/token");
    app.idp.misbehave(|how| how.lose_refresh_answers = 1);
    tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(app.idp.requests_to("/token"), before + 2);

    // Auth0 answers userinfo five times a minute; nobody is kept out by the sixth.
    app.idp.misbehave(|how| {
        how.userinfo_answer = Some((429, json!({ "error": "too_many_requests" }).to_string()));
    });
    assert!(app.tokens_of("alice").await.1.scope.contains("read:todos"));
    app.idp.misbehave(|how| how.userinfo_answer = None);

    let body = json!({ "error": "invalid_grant", "error_description": "Unknown or invalid refresh token." });
    refused_at_refresh(&app, &body, 403).await;
}

#[tokio::test]
async fn auth0_lets_in_only_the_organization_that_was_asked_for() {
    let preset =
        "provider = \"auth0\"\ndomain = \"acme.eu.auth0.com\"\norganization = \"org_acme\"";
    let app = play(preset, Misbehaviour::default()).await;
    let client = app.client().await;
    for (org, let_in) in [(Some("org_other"), false), (None, false), (Some("org_acme"), true)] {
        app.idp.misbehave(|how| {
            how.extra_claims.clear();
            how.extra_claims.extend(org.map(|org| ("org_id".to_owned(), org.into())));
        });
        let answer = client.authorize("bob", &[]).await;
        let expected = if let_in { "code=" } else { "error=access_denied" };
        answer.assert_leads_to(&format!("{REDIRECT_URI}?{expected}"));
    }
    assert_eq!(asked(&app, "organization").as_deref(), Some("org_acme"));
}

#[tokio::test]
async fn auth0_says_a_blocked_user_is_unauthorized() {
    let preset = "provider = \"auth0\"\ndomain = \"acme.eu.auth0.com\"";
    let app = play(preset, Misbehaviour::default()).await;
    let body = json!({ "error": "unauthorized", "error_description": "user is blocked" });
    refused_at_refresh(&app, &body, 403).await;
    app.idp.misbehave(|how| how.authorize_error = Some("unauthorized".to_owned()));
    let client = app.client().await;
    let url = client.approve(&[]).await;
    let callback = client.browser.get(&url).await.location().to_owned();
    let answer = client.browser.get(&callback).await;
    answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    // An application that is set to HS256 signs nobody in.
    app.idp.misbehave(|how| {
        how.authorize_error = None;
        how.algorithm = Some("HS256".to_owned());
    });
    client.authorize("bob", &[]).await.assert_page(403);
}

const KEYCLOAK: &str =
    "provider = \"keycloak\"\nurl = \"https://sso.example.com\"\nrealm = \"acme\"";

fn keycloak() -> Misbehaviour {
    Misbehaviour {
        change_id_token: Some(|claims| without(claims, &["roles", "groups"])),
        change_userinfo: Some(|claims| without(claims, &["roles", "groups"])),
        access_token: Some(|about| json!({ "realm_access": { "roles": about["roles"] } })),
        // Keycloak says how long its refresh token lives; 0 is for ever.
        change_token_answer: Some(|answer| answer["refresh_expires_in"] = 0.into()),
        ..Misbehaviour::default()
    }
}

#[tokio::test]
async fn keycloak_tells_roles_in_the_access_token_only() {
    let app = play(KEYCLOAK, keycloak()).await;
    assert_both_may_what_they_should(&app).await;
    // Groups by full path are other groups than those of the same last name.
    app.idp.misbehave(|how| {
        *how = Misbehaviour {
            change_id_token: Some(|claims| {
                without(claims, &["roles"]);
                claims["groups"] = json!(["/contractors/admins", "/staff"]);
            }),
            ..keycloak()
        };
        how.access_token = None;
    });
    let (_, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, "create:todos");

    // Tokens are had at an address inside, and people sign in at the one outside.
    app.idp.misbehave(|how| {
        *how = Misbehaviour {
            change_discovery: Some(|document| {
                for name in ["token_endpoint", "userinfo_endpoint", "jwks_uri"] {
                    let inside = document[name].as_str().unwrap().replace("127.0.0.1", "localhost");
                    document[name] = inside.into();
                }
            }),
            ..keycloak()
        };
    });
    app.advance(HOUR);
    let (_, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, ALL);
}

#[tokio::test]
async fn keycloak_says_in_many_words_that_a_session_is_over() {
    let app = play(KEYCLOAK, keycloak()).await;
    for description in [
        "Session not active",
        "User disabled",
        "Offline user session not found",
        "Stale token",
        "Maximum allowed refresh token reuse exceeded",
    ] {
        let body = json!({ "error": "invalid_grant", "error_description": description });
        refused_at_refresh(&app, &body, 400).await;
    }
    let body = json!({
        "error": "invalid_scope",
        "error_description": "Client no longer has requested consent from user",
    });
    refused_at_refresh(&app, &body, 400).await;
}

#[tokio::test]
async fn keycloak_forgets_a_browser_session_that_rests_for_half_an_hour() {
    let how = Misbehaviour { refresh_idle: Some(32 * MINUTE), ..keycloak() };
    let preset = format!("{KEYCLOAK}\nscopes = [\"profile\", \"email\"]");
    let how = Misbehaviour { refresh_token_needs: Some(&[]), ..how };
    let app = play(&preset, how).await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    assert_eq!(asked(&app, "scope").as_deref(), Some("openid profile email"));
    for _ in 0..4 {
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
    app.advance(32 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}
