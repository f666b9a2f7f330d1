//! Providers that others run.

use portcullis::demo::{KeyUse, Misbehaviour};
use portcullis::oauth::secret::random_text;
use serde_json::{Value, json};

use super::super::{ask_again, assert_fresh};
use super::{
    ALL, RULES, TENANT, asked, assert_both_may_what_they_should, only_groups, play, play_with,
    refused_at_refresh, rename, without,
};
use crate::harness::Setup;
use crate::harness::client::{REDIRECT_URI, jwt_part};

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
    let setup = Setup {
        persona: true,
        client_secret: Some(secret),
        ..Setup::toml(format!("[upstream]\n{preset}"))
    };
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

/// Entra's `sub` is not what a person is known by here: whichever of its names a message uses is found.
#[tokio::test]
async fn entra_ends_everything_of_a_person_whichever_name_the_message_uses() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| {
            let who = claims["preferred_username"].as_str().unwrap().to_owned();
            claims["tid"] = TENANT.into();
            claims["oid"] = format!("object-of-{who}").into();
        }),
        ..Misbehaviour::default()
    };
    let app = play(&format!("provider = \"entra\"\ntenant = \"{TENANT}\""), how).await;
    let oid = json!("object-of-alice");
    for (name, overtakes) in [
        (json!({ "sub": "demo-alice" }), false),
        (json!({ "sub": "demo-alice" }), true),
        (json!({ "sub": "another", "tid": TENANT, "oid": oid }), false),
        (json!({ "sub": "another", "tid": TENANT, "oid": oid }), true),
    ] {
        let (bob, others) = app.tokens_of("bob").await;
        let (client, tokens) = app.tokens_of("alice").await;
        let callback = client.log_in(&client.approve(&[]).await, "alice").await;
        let mut claims = json!({
            "iss": app.idp.issuer(), "aud": "portcullis", "jti": random_text(),
            "iat": app.now().unix(), "exp": app.now().unix() + 120,
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        claims.as_object_mut().unwrap().extend(name.as_object().unwrap().clone());
        let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
        let form = [("logout_token", token.as_str())];
        app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await.assert_status(200);
        if overtakes {
            client.browser.get(&callback).await.assert_page(403);
        }
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        bob.refresh(&others.refresh_token).await.assert_status(200);
    }
    // A request for global revocation names people by `sub` as well.
    let endpoint = app.at("/global-token-revocation");
    let (client, tokens) = app.tokens_of("alice").await;
    let claims = json!({
        "iss": app.idp.issuer(), "aud": endpoint, "sub": "portcullis", "jti": "r",
        "iat": app.now().unix(), "exp": app.now().unix() + 300,
    });
    let body =
        json!({ "sub_id": { "format": "iss_sub", "iss": app.idp.issuer(), "sub": "demo-alice" } });
    let token = app.idp.sign("global-token-revocation+jwt", &claims, None).unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    app.http.post_json(&endpoint, &body, &headers).await.assert_status(204);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

/// Google names itself in two ways in its tokens; a message under either is from it.
#[tokio::test]
async fn a_message_of_google_under_its_other_name_counts() {
    let how = Misbehaviour {
        change_id_token: Some(|claims| claims["hd"] = "acme.com".into()),
        ..Misbehaviour::default()
    };
    let app = play("provider = \"google\"\nhosted_domains = [\"acme.com\"]", how).await;
    let (client, tokens) = app.tokens_of("alice").await;
    let claims = json!({
        "iss": "accounts.google.com", "aud": "portcullis", "jti": "1", "sub": "demo-alice",
        "iat": app.now().unix(), "exp": app.now().unix() + 120,
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
    let form = [("logout_token", token.as_str())];
    app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await.assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
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
    // Google's issuer has two spellings, and one of them is no URL.
    app.idp.misbehave(|how| how.id_token_issuer = Some("accounts.google.com".to_owned()));
    assert_fresh(&ask_again(&app, &client, &tokens).await);
    client.sign_in("alice").await;
    let forged: [fn(&mut Misbehaviour); 6] = [
        |how| how.algorithm = Some("none".to_owned()),
        |how| how.algorithm = Some("HS256".to_owned()),
        |how| how.keys = KeyUse::NextUnpublished,
        |how| how.wrong_nonce = true,
        |how| how.expired_id_token = true,
        |how| how.id_token_audience = Some("another-client".into()),
    ];
    for (n, forge) in forged.into_iter().enumerate() {
        app.idp.misbehave(|how| {
            *how = Misbehaviour {
                id_token_issuer: Some("accounts.google.com".to_owned()),
                change_id_token: Some(|claims| claims["hd"] = "acme.com".into()),
                ..Misbehaviour::default()
            };
            forge(how);
        });
        app.advance(60);
        let page = client.authorize("alice", &[]).await;
        assert_eq!(page.status, 403, "forgery {n}");
    }
    app.idp.misbehave(|how| {
        *how = Misbehaviour::default();
        how.change_id_token = Some(|claims| claims["hd"] = "acme.com".into());
    });
    client.authorize("alice", &[]).await.assert_leads_to(&format!("{REDIRECT_URI}?code="));
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
            // Zitadel names its project beside the client.
            claims["aud"] = json!([claims["aud"].as_str().unwrap(), "291820000000000001"]);
            claims["azp"] = claims["aud"][0].clone();
        }),
        change_userinfo: Some(|claims| without(claims, &["roles", "groups"])),
        ..Misbehaviour::default()
    };
    let resources = format!(
        "{RULES}\n[[resource.rule]]\nemail_domains = [\"elsewhere.example\"]\ndeny = [\"create:todos\"]"
    );
    let preset = "provider = \"zitadel\"\ndomain = \"acme.zitadel.cloud\"\ntrust_email = true";
    let setup =
        Setup { persona: true, ..Setup::toml(format!("[upstream]\n{preset}")).and(resources) };
    let app = play_with(setup, how).await;
    assert_both_may_what_they_should(&app).await;
    assert!(app.idp.requests_to("/userinfo") > 0);
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
    // What it tells at its userinfo endpoint alone counts at once.
    app.idp.set_roles("alice", &["User"]);
    app.idp.set_groups("alice", &[]);
    assert_eq!(ask_again(&app, &client, &tokens).await.scope, "create:todos");
    app.idp.set_roles("alice", &["Admin"]);
    let tokens = client.sign_in("alice").await;
    assert_eq!(tokens.scope, ALL);
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
