//! B: providers as they are. The demo provider plays each one at its own address, behind the preset that
//! an administrator would choose.

use portcullis::demo::Misbehaviour;
use serde_json::{Value, json};

use super::{HOUR, MINUTE, ask_again, assert_bridged, assert_fresh};
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, jwt_part};
use crate::harness::{Setup, TestApp};

const DAY: i64 = 24 * HOUR;
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const ALL: &str = "create:todos delete:todos read:todos";

/// Whoever is in a group or role of administrators may do all, everybody may add, contractors never delete.
const RULES: &str = r#"
[[resource]]
path   = "/mcp"
target = "http://127.0.0.1:9/mcp"
scopes = ["read:todos", "create:todos", "delete:todos"]
baseline = ["create:todos"]
[[resource.rule]]
groups = ["admins", "Todo Admins", "/staff/admins", "acme/admins"]
allow  = ["read:todos", "delete:todos"]
[[resource.rule]]
roles  = ["Admin"]
allow  = ["read:todos", "delete:todos"]
[[resource.rule]]
passthrough = "permissions"
[[resource.rule]]
groups = ["contractors"]
deny   = ["delete:todos"]
"#;

async fn play(preset: &str, how: Misbehaviour) -> TestApp {
    play_with(Setup { persona: Some(preset.to_owned()), ..Setup::default() }, how).await
}

async fn play_with(setup: Setup, how: Misbehaviour) -> TestApp {
    let resources = Some(setup.resources.clone().unwrap_or_else(|| RULES.to_owned()));
    let app = TestApp::with(Setup { resources, ..setup }).await;
    app.idp.misbehave(|now| *now = how);
    app
}

/// Signs alice in, who administers, and bob, who does not; then asks about alice again.
async fn assert_both_may_what_they_should(app: &TestApp) -> (McpClient, Tokens) {
    let (_, bobs) = app.tokens_of("bob").await;
    assert_eq!(bobs.scope, "create:todos");
    let (client, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, ALL);
    let tokens = ask_again(app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, ALL);
    (client, tokens)
}

/// The parameters of the newest authorization request.
fn asked(app: &TestApp, name: &str) -> Option<String> {
    let requests = app.idp.recorded();
    requests.iter().rfind(|request| request.path == "/authorize").unwrap().query_param(name)
}

async fn refused_at_refresh(app: &TestApp, body: &Value, status: u16) {
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.refresh_answer = Some((status, body.to_string())));
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    app.idp.misbehave(|how| how.refresh_answer = None);
    client.sign_in("bob").await;
}

fn rename(claims: &mut Value, from: &str, to: &str) {
    if let Some(value) = claims.as_object_mut().unwrap().remove(from) {
        claims[to] = value;
    }
}

fn without(claims: &mut Value, names: &[&str]) {
    claims.as_object_mut().unwrap().retain(|name, _| !names.contains(&name.as_str()));
}

fn only_groups(claims: &mut Value) {
    without(claims, &["roles"]);
}

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

#[tokio::test]
async fn entra_is_known_by_tenant_and_object() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            let who = claims["preferred_username"].as_str().unwrap().to_owned();
            claims["tid"] = TENANT.into();
            claims["oid"] = format!("object-of-{who}").into();
            without(claims, &["groups", "email_verified"]);
        }),
        refused_param: Some("resource"), // AADSTS9010010
        only_client_auth: Some("client_secret_post"),
        ..Misbehaviour::default()
    };
    let preset = format!("provider = \"entra\"\ntenant = \"{TENANT}\"");
    let secret = "Abc8Q~+/=%~ &_";
    let setup = Setup { persona: Some(preset), client_secret: Some(secret), ..Setup::default() };
    let app = play_with(setup, how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    let subject = format!("entra:{TENANT}.object-of-alice");
    assert_eq!(jwt_part(&tokens.access_token, 1)["sub"], subject);

    // Another address, the same person.
    app.idp.misbehave(|how| {
        how.extra_claims.insert("email".to_owned(), "alice.adams@acme.example".into());
    });
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(jwt_part(&tokens.access_token, 1)["sub"], subject);

    // Something has to be done in a browser again.
    let body = json!({
        "error": "interaction_required", "error_codes": [50076], "suberror": "basic_action",
        "claims": "{\"access_token\":{}}",
    });
    refused_at_refresh(&app, &body, 400).await;
    let body = json!({ "error": "invalid_grant", "error_codes": [70008, 50173] });
    refused_at_refresh(&app, &body, 400).await;

    // People of another tenant, and an answer that comes as a form.
    app.idp.misbehave(|how| {
        how.change_id_token = Some(|claims| {
            claims["tid"] = "99999999-2222-3333-4444-555555555555".into();
            claims["oid"] = "object-of-a-stranger".into();
        });
    });
    let answer = client.authorize("alice", &[]).await;
    answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    let form = [("code", "x"), ("state", "y")];
    app.http.post_form(&app.at("/auth/callback"), &form, &[]).await.assert_status(405);
}

#[tokio::test]
async fn entra_cuts_long_lists_of_groups_short() {
    let preset = format!("provider = \"entra\"\ntenant = \"{TENANT}\"");
    let app = play(&preset, Misbehaviour::default()).await;
    let overages: [fn(&mut Value); 2] = [
        |claims| {
            without(claims, &["groups"]);
            claims["_claim_names"] = json!({ "groups": "src1" });
            claims["_claim_sources"] = json!({ "src1": { "endpoint": "https://graph.example" } });
            (claims["tid"], claims["oid"]) = (TENANT.into(), "o".into());
        },
        |claims| {
            without(claims, &["groups"]);
            claims["hasgroups"] = true.into();
            (claims["tid"], claims["oid"]) = (TENANT.into(), "o".into());
        },
    ];
    for overage in overages {
        app.idp.misbehave(|how| how.change_id_token = Some(overage));
        let (_, tokens) = app.tokens_of("alice").await;
        // The role still allows; that alice is no contractor is not known, so she may not delete.
        assert_eq!(tokens.scope, "create:todos read:todos");
    }
}

#[tokio::test]
async fn google_wants_no_offline_scope_and_a_hosted_domain() {
    let how = Misbehaviour {
        refused_scope: Some("offline_access"),
        refresh_token_needs: Some(&[("access_type", "offline"), ("prompt", "consent")]),
        keeps_refresh_token: true,
        change_id_token: Some(|claims| {
            without(claims, &["roles", "groups"]);
            claims["hd"] = "acme.com".into();
        }),
        ..Misbehaviour::default()
    };
    let app = play("provider = \"google\"\nhosted_domains = [\"acme.com\"]", how).await;
    let (client, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, "create:todos", "Google tells no groups");
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    app.idp
        .misbehave(|how| how.id_token_issuer = Some("https://accounts.google.com.evil".to_owned()));
    client.authorize("alice", &[]).await.assert_page(403);
    app.idp.misbehave(|how| how.id_token_issuer = None);

    let foreign: [fn(&mut Value); 3] = [
        |claims| claims["hd"] = "other.com".into(),
        |claims| without(claims, &["hd"]), // a consumer account
        |claims| claims["hd"] = "ACME.com.evil".into(),
    ];
    for change in foreign {
        app.idp.misbehave(|how| how.change_id_token = Some(change));
        let answer = client.authorize("alice", &[]).await;
        answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    }
}

#[tokio::test]
async fn logto_signs_with_es384_and_wants_consent_for_a_refresh_token() {
    let how = Misbehaviour {
        algorithm: Some("ES384".to_owned()),
        refresh_token_needs: Some(&[("prompt", "consent")]),
        strict_rotation: true,
        rotation_grace: 3,
        ..Misbehaviour::default()
    };
    let app = play("provider = \"logto\"\ndomain = \"acme.logto.app\"", how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    assert_eq!(asked(&app, "prompt").as_deref(), Some("consent"));
    app.idp.misbehave(|how| how.lose_refresh_answers = 1);
    assert_fresh(&ask_again(&app, &client, &tokens).await);
}

#[tokio::test]
async fn cognito_has_its_endpoints_elsewhere_and_no_offline_scope() {
    let how = Misbehaviour {
        change_discovery: Some(|document| {
            for name in ["token_endpoint", "userinfo_endpoint"] {
                let elsewhere = document[name].as_str().unwrap().replace("127.0.0.1", "localhost");
                document[name] = elsewhere.into();
            }
        }),
        refused_scope: Some("offline_access"),
        refresh_token_needs: Some(&[]),
        keeps_refresh_token: true,
        change_id_token: Some(|claims| {
            without(claims, &["roles"]);
            rename(claims, "groups", "cognito:groups");
            claims["email_verified"] = "true".into(); // a text
        }),
        access_token: Some(|_| json!({ "client_id": "portcullis", "token_use": "access" })),
        change_userinfo: Some(|claims| without(claims, &["roles", "groups"])),
        ..Misbehaviour::default()
    };
    let preset =
        "provider = \"cognito\"\nregion = \"eu-central-1\"\nuser_pool_id = \"eu-central-1_AbC\"";
    let app = play(preset, how).await;
    assert_both_may_what_they_should(&app).await;
}

#[tokio::test]
async fn zitadel_names_roles_as_keys_and_the_address_in_userinfo() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            let roles = claims["roles"].as_array().unwrap().clone();
            without(claims, &["roles", "groups", "email", "email_verified", "name"]);
            claims["urn:zitadel:iam:org:project:roles"] = roles
                .into_iter()
                .map(|role| (role.as_str().unwrap().to_owned(), json!({ "1": "acme.example" })))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }),
        change_userinfo: Some(|claims| without(claims, &["roles", "groups"])),
        ..Misbehaviour::default()
    };
    let resources = format!(
        "{RULES}\n[[resource.rule]]\nemail_domains = [\"elsewhere.example\"]\ndeny = [\"create:todos\"]"
    );
    let preset = "provider = \"zitadel\"\ndomain = \"acme.zitadel.cloud\"\ntrust_email = true";
    let setup =
        Setup { persona: Some(preset.to_owned()), resources: Some(resources), ..Setup::default() };
    let app = play_with(setup, how).await;
    assert_both_may_what_they_should(&app).await;
    assert!(app.idp.requests_to("/userinfo") > 0);
}

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
async fn pingfederate_refreshes_without_an_id_token() {
    let how = Misbehaviour {
        no_id_token_on_refresh: true,
        keeps_refresh_token: true,
        ..Misbehaviour::default()
    };
    let app = play("provider = \"oidc\"\nissuer = \"https://ping.example.com\"", how).await;
    let (client, tokens) = assert_both_may_what_they_should(&app).await;
    // What it does not tell again is as it was at the sign-in.
    app.idp.set_roles("alice", &["User"]);
    app.idp.set_groups("alice", &[]);
    assert_eq!(ask_again(&app, &client, &tokens).await.scope, ALL);
    let again = client.sign_in("alice").await;
    assert_eq!(again.scope, "create:todos");
}

#[tokio::test]
async fn onelogin_knows_no_offline_scope_and_ends_sessions_of_other_applications() {
    let how = Misbehaviour {
        change_id_token: Some(only_groups),
        change_userinfo: Some(only_groups),
        refused_scope: Some("offline_access"),
        refresh_token_needs: Some(&[]),
        ..Misbehaviour::default()
    };
    let app = play("provider = \"onelogin\"\nsubdomain = \"acme\"", how).await;
    assert_both_may_what_they_should(&app).await;
    assert_eq!(asked(&app, "scope").as_deref(), Some("openid profile groups"));
    // Signing out of any application there kills our tokens.
    refused_at_refresh(&app, &json!({ "error": "invalid_grant" }), 400).await;
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
