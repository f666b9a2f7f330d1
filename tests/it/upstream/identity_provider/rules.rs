//! C: from groups, roles and permissions to scopes, as a client sees it.

use serde_json::{Value, json};

use super::ask_again;
use crate::harness::client::{REDIRECT_URI, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const ALL: &str = "create:todos delete:todos read:todos";

async fn with_rules(rules: &str) -> TestApp {
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9/mcp\"\n\
         scopes = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n{rules}"
    );
    TestApp::with(Setup::toml(resources)).await
}

/// The scopes of a new sign-in; nothing when there is no access.
async fn scopes(app: &TestApp, person: &str) -> String {
    let client = app.client().await;
    let answer = client.authorize(person, &[]).await;
    match answer.status.as_u16() {
        403 => String::new(),
        _ => Tokens::of(&client.redeem(&answer.location_param("code").unwrap()).await).scope,
    }
}

#[tokio::test]
async fn the_to_do_example_holds_over_http() {
    let app = TestApp::start().await;
    assert_eq!(scopes(&app, "alice").await, ALL);
    assert_eq!(scopes(&app, "bob").await, "create:todos");
    assert_eq!(scopes(&app, "mallory").await, "");
    app.idp.set_roles("bob", &["User", "Admin"]);
    assert_eq!(scopes(&app, "bob").await, ALL);
    app.idp.set_roles("bob", &["admin", "USER"]);
    assert_eq!(scopes(&app, "bob").await, "");
}

const DENY: &str = "[[resource.rule]]\nroles = [\"Admin\"]\nallow = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n\
                    [[resource.rule]]\ngroups = [\"contractors\"]\ndeny = [\"delete:todos\"]\n\
                    [[resource.rule]]\ngroups = [\"staff\"]\nallow = [\"create:todos\"]";

#[tokio::test]
async fn deny_beats_allow_and_unknown_groups_satisfy_denies_only() {
    let app = with_rules(DENY).await;
    assert_eq!(scopes(&app, "alice").await, ALL);
    app.idp.set_groups("alice", &["contractors"]);
    assert_eq!(scopes(&app, "alice").await, "create:todos read:todos");
    app.idp.misbehave(|how| {
        how.extra_claims = json!({ "groups": { "odd": true } }).as_object().unwrap().clone();
    });
    assert_eq!(scopes(&app, "alice").await, "create:todos read:todos");
    assert_eq!(scopes(&app, "bob").await, "", "staff, but nobody can tell");
}

#[tokio::test]
async fn a_claim_of_the_wrong_shape_is_unknown() {
    let app = with_rules(DENY).await;
    for (groups, expected) in [
        (json!([]), ALL),
        (Value::Null, ALL), // told by nobody: she has none
        (json!("contractors"), "create:todos read:todos"),
        (json!(["staff", 7]), "create:todos read:todos"),
        (json!({ "contractors": {} }), "create:todos read:todos"),
        (json!(true), "create:todos read:todos"),
    ] {
        app.idp.misbehave(|how| {
            how.extra_claims = json!({ "groups": groups }).as_object().unwrap().clone();
            how.change_userinfo = Some(|claims| {
                claims.as_object_mut().unwrap().remove("groups");
            });
        });
        assert_eq!(scopes(&app, "alice").await, expected, "{groups}");
    }
}

#[tokio::test]
async fn permissions_that_no_scope_is_named_after_pass_nothing_through() {
    let app = with_rules("[[resource.rule]]\npassthrough = \"permissions\"").await;
    for (permissions, expected) in [
        (json!(["read:todos", "admin:everything", "not a scope"]), "read:todos"),
        (json!(["admin:everything"]), ""),
        (json!({ "read:todos": {} }), ""),
        (json!(["READ:todos"]), ""),
    ] {
        app.idp.misbehave(|how| {
            how.extra_claims = json!({ "permissions": permissions }).as_object().unwrap().clone();
        });
        assert_eq!(scopes(&app, "alice").await, expected, "{permissions}");
    }
}

#[tokio::test]
async fn patterns_match_whole_names_and_a_group_is_no_role() {
    let app = with_rules(
        "[[resource.rule]]\ngroups = [\"glob:todo-*\"]\nallow = [\"read:todos\"]\n\
         [[resource.rule]]\ngroups = ['regex:team-[0-9]{1,3}']\nallow = [\"create:todos\"]\n\
         [[resource.rule]]\ngroups = [\"Admin\"]\nallow = [\"delete:todos\"]",
    )
    .await;
    for (groups, expected) in [
        (&["todo-readers"][..], "read:todos"),
        (&["my-todo-readers"], ""),
        (&["TODO-readers"], ""),
        (&["glob:todo-*"], ""),
        (&["team-7"], "create:todos"),
        (&["team-7777"], ""),
        (&["my-team-7"], ""),
        (&["todo-x", "team-7"], "create:todos read:todos"),
        (&["Admin"], "delete:todos"),
        (&["Admins"], ""),
        (&[], ""), // alice has the role Admin, which is no group
    ] {
        app.idp.set_groups("alice", groups);
        assert_eq!(scopes(&app, "alice").await, expected, "{groups:?}");
    }
}

#[tokio::test]
async fn who_loses_everything_is_told_so_and_ends() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.set_roles("alice", &["User"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, "create:todos");
    app.idp.set_roles("alice", &["Admin"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, ALL, "back to what was consented");
    app.idp.set_roles("alice", &[]);
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    let page: Answer = client.authorize("alice", &[]).await;
    page.assert_page(403);
    assert!(page.text().contains("error=access_denied"));
    assert!(page.text().contains(REDIRECT_URI.trim_start_matches("http://")));
}

#[tokio::test]
async fn up_02_only_a_verified_address_of_a_trusted_provider_satisfies_a_domain() {
    let resources = "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9/mcp\"\n\
                     scopes = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n\
                     [[resource.rule]]\nemail_domains = [\"example.com\"]\nallow = [\"read:todos\"]";
    let setup = super::upstream("trust_email = true").and(resources);
    let app = TestApp::with(setup).await;
    assert_eq!(scopes(&app, "bob").await, "read:todos");
    for claims in [
        json!({ "email_verified": false }),
        json!({ "email_verified": "true" }),
        json!({ "email_verified": null }),
        json!({ "email": "bob@example.com.evil" }),
        json!({ "email": "bob@sub.example.com" }),
        json!({ "email": "bob@evil.com@evil.example" }),
        json!({ "email": "example.com" }),
    ] {
        app.idp.misbehave(|how| {
            how.extra_claims = claims.as_object().unwrap().clone();
            how.change_userinfo = Some(|claims| {
                claims.as_object_mut().unwrap().retain(|name, _| !name.starts_with("email"));
            });
        });
        assert_eq!(scopes(&app, "bob").await, "", "{claims}");
    }
}

const DENIES: &str = "[[resource.rule]]\nroles = [\"Admin\"]\nallow = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n\
                      [[resource.rule]]\nclaim = { \"employment\" = [\"contractor\", \"7\", \"true\"] }\ndeny = [\"delete:todos\"]\n\
                      [[resource.rule]]\nemail_domains = [\"contractors.example\"]\ndeny = [\"read:todos\"]";

/// Alice's domain and employment are told by userinfo alone.
async fn with_denies() -> TestApp {
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9/mcp\"\n\
         scopes = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n{DENIES}"
    );
    let setup = super::upstream("trust_email = true").and(resources);
    let app = TestApp::with(setup).await;
    app.idp.misbehave(|how| {
        how.change_id_token = Some(|claims| {
            claims.as_object_mut().unwrap().retain(|name, _| !name.starts_with("email"));
        });
        how.change_userinfo = Some(|claims| claims["employment"] = "permanent".into());
    });
    app
}

#[tokio::test]
async fn a_deny_on_a_claim_or_domain_holds_while_userinfo_is_silent() {
    let app = with_denies().await;
    let client = app.client().await;
    let tokens = client.sign_in("alice").await;
    assert_eq!(tokens.scope, ALL);
    for silent in [503, 429, 403] {
        app.idp.misbehave(|how| how.userinfo_answer = Some((silent, String::new())));
        assert_eq!(scopes(&app, "alice").await, "create:todos", "{silent}");
    }
    // Later, what was known stays known.
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, ALL);
    app.idp.misbehave(|how| how.userinfo_answer = None);
    assert_eq!(ask_again(&app, &client, &tokens).await.scope, ALL);
    // Somebody who signed in while nothing could be known gets the rest when it is.
    app.idp.misbehave(|how| how.userinfo_down = true);
    let client = app.client().await;
    let tokens = client.sign_in("alice").await;
    assert_eq!(tokens.scope, "create:todos");
    assert_eq!(ask_again(&app, &client, &tokens).await.scope, "create:todos");
    app.idp.misbehave(|how| how.userinfo_down = false);
    assert_eq!(scopes(&app, "alice").await, ALL);
}

#[tokio::test]
async fn a_deny_on_a_claim_reads_each_item_of_a_list_and_each_type() {
    let app = with_denies().await;
    for (employment, may_delete) in [
        (json!("permanent"), true),
        (json!(["permanent", 8, false]), true),
        (Value::Null, true),
        (json!("contractor"), false),
        (json!(["permanent", "contractor"]), false),
        (json!(7), false),
        (json!([1, 7]), false),
        (json!([7.0]), false),
        (json!(true), false),
        (json!([false, true]), false),
        // What cannot be compared is not known.
        (json!({ "kind": "contractor" }), false),
        (json!([["contractor"]]), false),
        (json!(["permanent", { "kind": "x" }]), false),
    ] {
        app.idp.misbehave(|how| {
            how.extra_claims = json!({ "employment": employment }).as_object().unwrap().clone();
        });
        let expected = if may_delete { ALL } else { "create:todos read:todos" };
        assert_eq!(scopes(&app, "alice").await, expected, "{employment}");
    }
}

#[tokio::test]
async fn an_unverified_address_escapes_no_deny() {
    let app = with_denies().await;
    let without_read = "create:todos delete:todos";
    for (claims, expected) in [
        (json!({ "email": "a@good.example", "email_verified": true }), ALL),
        (json!({ "email": "a@contractors.example", "email_verified": true }), without_read),
        (json!({ "email": "a@contractors.example", "email_verified": false }), without_read),
        (json!({ "email": "a@good.example", "email_verified": false }), without_read),
        (json!({ "email": "a@good.example", "email_verified": "true" }), without_read),
        (json!({ "email": "a@good.example" }), without_read),
        (json!({ "email": "a@contractors.example.", "email_verified": true }), without_read),
        (json!({ "email": ["a@good.example"], "email_verified": true }), without_read),
        (
            json!({ "email": format!("{}@good.example", "a".repeat(300)), "email_verified": true }),
            without_read,
        ),
        (json!({ "email": "nobody", "email_verified": true }), without_read),
        // Nobody tells one: there is none.
        (json!({}), ALL),
        (json!({ "email": "" }), ALL),
    ] {
        app.idp.misbehave(|how| {
            how.change_id_token = None;
            how.extra_claims = json!({ "employment": "permanent" }).as_object().unwrap().clone();
            how.extra_claims.insert("email".to_owned(), Value::Null);
            how.extra_claims.insert("email_verified".to_owned(), Value::Null);
            how.extra_claims.extend(claims.as_object().unwrap().clone());
            how.change_userinfo = Some(|claims| {
                claims.as_object_mut().unwrap().retain(|name, _| !name.starts_with("email"));
            });
        });
        assert_eq!(scopes(&app, "alice").await, expected, "{claims}");
    }
}

/// `email_verified` vouches for the address beside it, and for no other.
#[tokio::test]
async fn up_02_the_flag_and_the_address_come_from_one_source() {
    let resources = "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9/mcp\"\n\
                     scopes = [\"read:todos\", \"create:todos\", \"delete:todos\"]\n\
                     [[resource.rule]]\nemail_domains = [\"example.com\"]\nallow = [\"read:todos\"]";
    let setup = super::upstream("trust_email = true").and(resources);
    let app = TestApp::with(setup).await;
    let bob = "bob@example.com";
    for (id_token, userinfo, expected) in [
        (json!({ "email": bob, "email_verified": true }), json!({}), "read:todos"),
        (json!({}), json!({ "email": bob, "email_verified": true }), "read:todos"),
        // The flag of one source, the address of another.
        (json!({ "email_verified": true }), json!({ "email": bob }), ""),
        (json!({ "email": bob }), json!({ "email_verified": true }), ""),
        (json!({ "email": bob }), json!({ "email": "b@x.example", "email_verified": true }), ""),
        (json!({ "email_verified": true }), json!({ "email": bob, "email_verified": false }), ""),
        (
            json!({ "email": bob, "email_verified": false }),
            json!({ "email": bob, "email_verified": true }),
            "",
        ),
        // Userinfo has both, for the address that the ID token tells without a flag.
        (json!({ "email": bob }), json!({ "email": bob, "email_verified": true }), "read:todos"),
    ] {
        app.idp.misbehave(|how| {
            how.change_id_token = Some(|claims| {
                let extra = claims["only"].take();
                let claims = claims.as_object_mut().unwrap();
                claims.retain(|name, _| !name.starts_with("email") && name != "only");
                claims.extend(extra.as_object().unwrap().clone());
            });
            how.extra_claims = json!({ "only": id_token }).as_object().unwrap().clone();
            let told = json!({ "sub": "demo-bob" }).as_object().unwrap().clone();
            let told: serde_json::Map<_, _> =
                told.into_iter().chain(userinfo.as_object().unwrap().clone()).collect();
            how.userinfo_answer = Some((200, Value::Object(told).to_string()));
        });
        assert_eq!(scopes(&app, "bob").await, expected, "{id_token} {userinfo}");
    }
}
