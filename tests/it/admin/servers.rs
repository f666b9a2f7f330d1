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
async fn scopes_are_told_in_the_language_of_the_administrator() {
    let scopes = r#"{ "read:todos" = { text = { en = "Read to-dos", ja = "ToDoを読む" } } }"#;
    let resource =
        format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{{todo}}\"\nscopes = {scopes}\n");
    let app = TestApp::with(Setup::toml(&resource)).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/servers").await.contains("Read to-dos"));

    let japanese = [("accept-language", "ja"), ("accept", "text/html")];
    let page = alice.browser.send("GET", &alice.at("/servers"), &japanese, "").await;

    page.assert_page(200);
    assert!(page.text().contains("ToDoを読む"), "{}", page.text());
    assert!(!page.text().contains("Read to-dos"), "{}", page.text());
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
    assert!(nobody.contains("Nobody who has signed in or was refused matches."), "{nobody}");
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
    while !page.contains("was refused a tool") {
        page = alice.page("/servers").await; // it is stored within a second
    }

    for text in ["Mallory Miller", "Bob Brown", "<code>delete:todos</code>", "/refused/person?sub="]
    {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains(">oidc:demo-mallory"), "by name: {page}");
    assert!(page.contains("No call yet since the start"), "{page}");
    client.call_tool(&tokens.access_token, "create-todo", json!({ "content": "x" })).await;
    let page = alice.page("/servers").await;
    assert!(page.contains("Reachable"), "{page}");
}

/// The line in which a text of the configuration is, counted from 1.
fn line_of(app: &TestApp, text: &str) -> usize {
    let config = app.config_text();
    let at = config.lines().position(|line| line.contains(text));
    at.unwrap_or_else(|| panic!("{text} is not in {config}")) + 1
}

#[tokio::test]
async fn file_and_line_of_servers_and_rules_follow_the_file() {
    let mut app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let has_places = async |app: &TestApp| {
        let page = alice.page("/servers").await;
        let user = line_of(app, "roles = [\"User\"]") - 1;
        let server = line_of(app, "path   = \"/mcp\"") - 1;
        for line in [server, user] {
            let place = format!("<code>test.toml:{line}</code>");
            assert!(page.contains(&place), "{place} is missing: {page}");
        }
        assert!(page.contains("MCP servers and rules are in test.toml."), "{page}");
        user
    };
    let before = has_places(&app).await;

    app.change_config("[[resource]]", "# A comment moves\n# everything down.\n[[resource]]");
    app.reload().await;

    assert_eq!(has_places(&app).await, before + 2);
}

#[tokio::test]
async fn people_and_clients_are_picked_by_name() {
    let app = TestApp::start().await;
    let (bob, alice) = (app.tokens_of("bob").await.0, app.tokens_of("alice").await.0);
    app.idp.set_name("mallory", "Bob Miller");
    app.client_named("Weather One").await.authorize("mallory", &[]).await;
    let weather = app.client_named("Weather Two").await;
    assert_eq!(bob.id, alice.id);
    let admin = Console::admin(&app).signed_in(&app, "alice").await;

    let one = attempt(&admin, &app, &[("sub", "brown")]).await;
    assert!(one.contains("Bob Brown") && one.contains("Let in."), "{one}");
    let refused = attempt(&admin, &app, &[("sub", "bob miller")]).await;
    assert!(refused.contains("Not let in") && refused.contains("Give them the role"), "{refused}");
    let several = attempt(&admin, &app, &[("sub", "bob"), ("client", "weather")]).await;
    assert!(
        several.contains("Several people match") && several.contains("Bob Miller"),
        "{several}"
    );
    let link = regex_lite::Regex::new(r#"href="(/servers[^"]*demo-bob[^"]*)""#).unwrap();
    let chosen = crate::harness::browser::unescape(&link.captures(&several).unwrap()[1]);
    let clients = admin.page(chosen.trim_end_matches("#try")).await;
    assert!(clients.contains("Several clients match"), "{clients}");
    assert!(clients.contains("Weather One") && clients.contains(&weather.id), "{clients}");
    let both = [("sub", "brown"), ("client", "weather two")];
    let both = attempt(&admin, &app, &both).await;
    assert!(both.contains("Weather Two") && both.contains("Let in."), "{both}");
}

#[tokio::test]
async fn a_draft_shows_who_gains_and_loses_and_what_to_copy() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    app.idp.set_groups("mallory", &["staff"]);
    app.client().await.authorize("mallory", &[]).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let resource = app.mcp_url();
    let draft = |more: &[(&str, &str)]| {
        let mut query = vec![("server", resource.as_str())];
        query.extend_from_slice(more);
        with_query("/servers/draft", &query)
    };

    // From a rule as it is: nothing changes, and the text is the rule.
    let page = alice.page(&draft(&[("rule", "2")])).await;
    assert!(page.contains("0 gain, 0 lose, 3 stay as they are."), "{page}");
    let page = crate::harness::browser::unescape(&page);
    assert!(
        page.contains("[[resource.rule]]\nroles = [\"User\"]\nallow = [\"create:todos\"]"),
        "{page}"
    );
    let line = line_of(&app, "roles = [\"User\"]") - 1;
    assert!(page.contains(&format!("Copy it over the rule at test.toml:{line}.")), "{page}");

    // Changed: Bob loses, Mallory gains.
    let changed = [
        ("rule", "2"),
        ("groups", "staff"),
        ("not_roles", "User"),
        ("allow", "create:todos"),
        ("try", "1"),
    ];
    let page = alice.page(&draft(&changed)).await;
    assert!(page.contains("1 gain, 1 lose, 1 stay as they are."), "{page}");
    for row in [
        "Mallory Miller</bdi></a> <span class=\"tag quiet\">refused</span></td><td data-label=\"Gains\"><code>create:todos</code>",
        "Bob Brown</bdi></a></td><td data-label=\"Gains\"><code></code></td><td data-label=\"Loses\"><code>create:todos</code>",
    ] {
        assert!(page.contains(row), "{row} is missing: {page}");
    }
    // A new one, with a claim and a name; and what is no rule is explained.
    let new =
        [("name", "org"), ("claim", "/org_id = org_1"), ("allow", "read:todos"), ("try", "1")];
    let page = crate::harness::browser::unescape(&alice.page(&draft(&new)).await);
    assert!(page.contains("claim = { \"/org_id\" = [\"org_1\"] }"), "{page}");
    assert!(page.contains("before the next [[resource]]"), "{page}");
    let wrong = [("roles", "regex:(a"), ("allow", "purge"), ("try", "1")];
    let page = alice.page(&draft(&wrong)).await;
    assert!(page.contains("is not a regular expression"), "{page}");
    assert!(page.contains("is not a scope of this resource"), "{page}");
    assert!(!page.contains("The rule as TOML"), "{page}");
    alice.get("/servers/draft?server=https://other.example").await.assert_page(404);
}
