//! `/servers`: what is configured, in words, and what somebody may do there.

use serde_json::json;

use crate::harness::console::{Console, with_query};
use crate::harness::{Setup, TestApp};

async fn attempt(alice: &Console, app: &TestApp, more: &[(&str, &str)]) -> String {
    let resource = app.mcp_url();
    let mut query = vec![("server", resource.as_str())];
    query.extend_from_slice(more);
    let page = alice.page(&with_query("/servers", &query)).await;
    page.split_once("id=\"try\"").unwrap().1.to_owned()
}

#[tokio::test]
async fn every_server_is_shown_as_it_was_read() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;

    let page = alice.page("/servers").await;

    for text in [
        app.mcp_url().as_str(),
        app.todo.url().as_str(),
        "To-do list",
        "Read everybody&#39;s to-dos",
        "ES256",
        "rule 1",
        "has one of the roles <strong>Admin</strong>",
        "purge-todos",
        "Recent refusals",
    ] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
}

#[tokio::test]
async fn what_somebody_may_do_is_answered_as_the_sign_in_would() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let bob = ("sub", "oidc:demo-bob");

    let all = [bob, ("scopes", "create:todos delete:todos")];
    let answer = attempt(&alice, &app, &all).await;
    assert!(answer.contains("Let in.") && answer.contains("rule 2"), "{answer}");
    assert!(answer.contains("<code>create:todos</code>"), "{answer}");
    assert!(answer.contains("<code>delete:todos</code>"), "{answer}");

    let refused = attempt(&alice, &app, &[bob, ("scopes", "delete:todos")]).await;
    assert!(refused.contains("Not let in"), "{refused}");
    let nobody = attempt(&alice, &app, &[("sub", "oidc:nobody")]).await;
    assert!(nobody.contains("Nobody with exactly this subject"));
    let nonsense = attempt(&alice, &app, &[bob, ("scopes", "a\"b")]).await;
    assert!(nonsense.contains("These are not scopes"));
    assert_eq!(app.database.number("SELECT COUNT(*) FROM grants").await, 1, "nothing was given");
}

#[tokio::test]
async fn a_block_of_the_person_or_the_client_is_said_beside_the_rules() {
    let app = TestApp::start().await;
    let (client, _) = app.tokens_of("bob").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));
    alice.press_and_confirm("/person?sub=oidc%3Ademo-bob", "action", "block").await;

    let asked = [("sub", "oidc:demo-bob"), ("client", client.id.as_str())];
    let answer = attempt(&alice, &app, &asked).await;

    assert!(answer.contains("This person is blocked"), "{answer}");
    assert!(answer.contains("This client is blocked or refused"), "{answer}");
    let unknown = [("sub", "oidc:demo-bob"), ("client", "https://claude.example/client")];
    assert!(attempt(&alice, &app, &unknown).await.contains("No client with this ID"));
}

#[tokio::test]
async fn rules_that_name_clients_and_deny_are_read_out() {
    let resource = r#"
[[resource]]
path   = "/mcp"
scopes = ["read", "write"]
token_alg = "EdDSA"

[resource.implies]
write = ["read"]

[[resource.rule]]
name    = "robots"
clients = ["client_robot"]
not_groups = ["/contractors"]
allow   = ["read", "write"]

[[resource.rule]]
email_domains = ["example.com"]
allow = ["read"]
deny  = ["write"]
"#;
    let upstream = "trust_email = true".to_owned();
    let setup = Setup::toml(resource).and(format!("[upstream]\n{upstream}"));
    let app = TestApp::with(setup).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let page = alice.page("/servers").await;
    for text in [
        "robots",
        "uses one of the clients <strong>client_robot</strong>",
        "is in none of the groups <strong>/contractors</strong>",
        "has a verified e-mail address at <strong>example.com</strong>",
        "EdDSA",
        "implies read",
        "nowhere: this server only gives out tokens for it",
    ] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let asked = [("sub", "oidc:demo-alice"), ("client", "client_robot")];
    let answer = attempt(&alice, &app, &asked).await;
    assert!(answer.contains("robots, rule 2"), "{answer}");
    let page = alice.page("/person?sub=oidc%3Ademo-alice").await;
    assert!(page.contains("Some rules name clients"));
}

#[tokio::test]
async fn recent_refusals_stand_at_their_server() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "purge-todos", json!({})).await.assert_status(403);
    app.client().await.authorize("mallory", &[]).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;

    let mut page = alice.page("/servers").await;
    while !page.contains("<code>tool_refused</code>") {
        page = alice.page("/servers").await; // it is stored within a second
    }

    assert!(page.contains("<code>access_denied</code>"), "{page}");
    assert!(page.contains("oidc:demo-mallory"), "{page}");
}
