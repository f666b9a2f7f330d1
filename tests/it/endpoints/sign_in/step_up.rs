//! Step-up, end to end: a tool needs more, the client comes back with what it was told, and the call
//! succeeds, or the person is told why not.

use serde_json::json;

use crate::harness::client::{McpClient, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, logs};
use crate::laws::races::rounds;

/// The to-do server, where `User` has `allowed` and deleting is a tool of its own; what the rules do not allow is
/// challenged like any other missing scope.
async fn where_users_may(allowed: &str) -> TestApp {
    where_users_may_and(allowed, "on_denied_tool = \"challenge\"").await
}

async fn where_users_may_and(allowed: &str, extra: &str) -> TestApp {
    let resources = format!(
        r#"
[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{{todo}}"
scopes = {{ "read:todos" = "Read everybody's to-dos", "create:todos" = "Add to-dos", "delete:todos" = "Delete everybody's to-dos" }}
{extra}

[[resource.rule]]
roles = ["User"]
allow = [{allowed}]

[resource.tools]
"get-todos" = ["read:todos"]
"purge-todos" = ["delete:todos"]
"#
    );
    let tables = "[limits]\nrequests_per_person = 100\nrequests_per_client = 100".to_owned(); // a hundred at once
    TestApp::with(Setup::toml(resources).and(tables)).await
}

async fn purge(client: &McpClient, tokens: &Tokens) -> Answer {
    client.call_tool(&tokens.access_token, "purge-todos", json!({})).await
}

/// The scopes that a challenge asks for.
fn scope_of(answer: &Answer) -> String {
    let challenge = answer.assert_status(403).header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    challenge.split(" scope=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

async fn connect(client: &McpClient, scope: &str) -> Tokens {
    let back = client.authorize("bob", &[("scope", scope)]).await;
    Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await)
}

#[tokio::test]
async fn a_client_comes_back_with_the_union_and_the_call_succeeds() {
    let app = where_users_may(r#""read:todos", "create:todos", "delete:todos""#).await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos").await;
    let asked = scope_of(&purge(&client, &tokens).await);
    assert_eq!(
        asked, "create:todos delete:todos",
        "what it has and what it needs, not all there is"
    );

    let (page, form) = client.ask(&[("scope", &asked)]).await;
    // Both are listed, as both are asked for; the page says which is new, and shows that first.
    let text = page.text();
    let (new, before) = (text.find(">New<").unwrap(), text.find(">Approved before<").unwrap());
    let position = |words: &str| text.find(words).unwrap();
    assert!(position("Delete everybody&#39;s to-dos") < new && new < position("Add to-dos"));
    assert!(position("Add to-dos") < before);
    assert!(!text.contains("Read everybody"), "never asked for");

    let answer = client.decide(&form, "approve").await;
    let callback = client.log_in(answer.location(), "bob").await;
    let back = client.browser.get(&callback).await;
    let wider = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(wider.scope, asked);
    let purged = purge(&client, &wider).await;
    assert_eq!(purged.assert_status(200).json()["result"]["isError"], false);
    // The token before it is not taken away: other windows of the client may still use it.
    purge(&client, &tokens).await.assert_status(403);
}

#[tokio::test]
async fn where_the_rules_forbid_it_the_page_says_so_and_the_client_hears_access_denied() {
    let app = where_users_may(r#""create:todos""#).await;
    let client = app.client().await;
    // As most clients: it asked for all from the start, and got what the rules allow.
    let tokens = connect(&client, "create:todos delete:todos read:todos").await;
    assert_eq!(tokens.scope, "create:todos");
    let asked = scope_of(&purge(&client, &tokens).await);

    let page = client.authorize("bob", &[("scope", &asked)]).await;

    page.assert_page(403);
    let text = page.text();
    assert!(text.contains("You can’t give it more access"), "{text}");
    let missing =
        text.split_once("<ul class=\"soft asked\">").unwrap().1.split_once("</ul>").unwrap().0;
    assert_eq!(missing.matches("<li>").count(), 1, "{missing}");
    assert!(missing.to_lowercase().contains("delete"), "{missing}");
    let text = text.replace("&#38;", "&").replace("&amp;", "&");
    assert!(text.contains("?error=access_denied"), "a client that hears this does not ask again");
    assert!(text.contains("state=client-state"), "{text}");
    // Nothing was taken away.
    client
        .call_tool(&tokens.access_token, "create-todo", json!({ "content": "x" }))
        .await
        .assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn a_person_who_may_meanwhile_is_not_turned_away_by_an_old_refusal() {
    let app = where_users_may(r#""create:todos""#).await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos delete:todos").await;
    let asked = scope_of(&purge(&client, &tokens).await);
    client.authorize("bob", &[("scope", &asked)]).await.assert_page(403);

    // A fresh connection of the same client (another computer, say) is no step-up and just works.
    let elsewhere = client.elsewhere();
    assert_eq!(connect(&elsewhere, "create:todos delete:todos").await.scope, "create:todos");
    // And after a quarter of an hour nobody remembers the refusal.
    purge(&client, &tokens).await.assert_status(403);
    app.advance(15 * 60);
    assert_eq!(connect(&elsewhere, "create:todos delete:todos").await.scope, "create:todos");
}

#[tokio::test]
async fn what_is_marked_as_approved_before_is_this_persons_with_this_client_and_still_live() {
    let app = where_users_may(r#""read:todos", "create:todos", "delete:todos""#).await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos").await;
    let scope = [("scope", "create:todos delete:todos")];
    let marked = |page: &Answer| page.text().contains("Approved before");

    assert!(marked(&client.ask(&scope).await.0));
    assert!(!marked(&client.elsewhere().ask(&scope).await.0), "another browser knows nobody");
    let other = json!({
        "client_name": "Other", "redirect_uris": [client.redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let mut other = McpClient::register_as(&app, other).await;
    other.browser = client.browser.clone();
    assert!(!marked(&other.ask(&scope).await.0), "another client was never approved");
    let forged =
        McpClient { browser: crate::harness::browser::Browser::default(), ..client.elsewhere() };
    let url = forged.authorize_url(&scope);
    let cookie = [("cookie", "portcullis-person=oidc:demo-bob")];
    let page = app.http.send("GET", &url, &cookie, "").await;
    assert!(!marked(page.assert_page(200)), "the cookie is sealed");

    client.revoke(&tokens.refresh_token).await.assert_status(200);
    assert!(!marked(&client.ask(&scope).await.0), "a grant that has ended is no approval");
}

#[tokio::test]
async fn a_hundred_refusals_at_once_are_remembered_as_one() {
    for _ in rounds() {
        let app = where_users_may(r#""create:todos""#).await;
        let client = app.client().await;
        let tokens = connect(&client, "create:todos delete:todos").await;
        let calls = (0..100).map(|_| purge(&client, &tokens));
        for answer in futures_util::future::join_all(calls).await {
            answer.assert_status(403);
        }
        assert_eq!(app.database.number("SELECT COUNT(*) FROM scope_challenges").await, 1);

        // Turning to another tool and back is no way to make every refusal a write.
        let get = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
        get.assert_status(403);
        app.advance(30);
        purge(&client, &tokens).await.assert_status(403);
        let latest = app.database.number("SELECT MAX(challenged_at) FROM scope_challenges").await;
        assert_eq!(latest, app.now().unix() - 30);
    }
}

#[tokio::test]
async fn a_client_that_asks_for_the_missing_scope_alone_hears_the_same() {
    let app = where_users_may(r#""create:todos""#).await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos").await;
    purge(&client, &tokens).await.assert_status(403);
    let page = client.authorize("bob", &[("scope", "delete:todos")]).await;
    page.assert_page(403);
    assert!(page.text().contains("You can’t give it more access"), "{}", page.text());
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

/// Clients send a person who meets a challenge to sign in again, some of them by themselves. Where the rules do not
/// allow it, that helps nobody: the tool answers, and says why.
#[tokio::test]
async fn a_tool_that_the_rules_do_not_allow_answers_with_a_result_that_says_so() {
    let app = where_users_may_and(r#""create:todos""#, "").await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos delete:todos").await;
    let answer = purge(&client, &tokens).await;
    assert_eq!(answer.assert_status(200).header("www-authenticate"), None);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let result = answer.json();
    assert_eq!((&result["jsonrpc"], &result["result"]["isError"]), (&json!("2.0"), &json!(true)));
    assert!(result["id"].is_number(), "{result}");
    let text = result["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("purge-todos") && text.contains("delete:todos"), "{text}");
    assert!(text.contains("administrator") && !text.contains("create:todos"), "{text}");
    let reference = regex_lite::Regex::new("[0-9A-Z]{4}-[0-9A-Z]{4}").unwrap();
    let reference = reference.find(text).unwrap().as_str().to_owned();
    let lines = logs::all();
    let line = lines.lines().find(|line| line.contains(&reference)).unwrap();
    assert!(line.contains("tool_refused") && line.contains("denied_by_rules"), "{line}");

    // Nothing is remembered, so nobody is mistaken for a client that comes back.
    assert_eq!(app.database.number("SELECT COUNT(*) FROM scope_challenges").await, 0);
    for _ in 0..2 {
        let elsewhere = client.elsewhere();
        let tokens = connect(&elsewhere, "create:todos delete:todos").await;
        assert_eq!(tokens.scope, "create:todos");
        assert_eq!(purge(&elsewhere, &tokens).await.json()["result"]["isError"], true);
    }
}

/// Requests that cannot have such a result, and rules that allow the scope: a challenge, as before.
#[tokio::test]
async fn what_a_new_sign_in_can_get_is_challenged_and_so_is_what_has_no_result() {
    let app = where_users_may_and(r#""create:todos", "delete:todos""#, "").await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos").await;
    assert_eq!(scope_of(&purge(&client, &tokens).await), "create:todos delete:todos");

    let app = where_users_may_and(r#""create:todos""#, "").await;
    let client = app.client().await;
    let tokens = connect(&client, "create:todos").await;
    let bearer = format!("Bearer {}", tokens.access_token);
    let params = json!({ "name": "purge-todos", "arguments": {} });
    for message in [
        json!({ "jsonrpc": "2.0", "method": "tools/call", "params": params }),
        json!([{ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }]),
        json!({ "jsonrpc": "2.0", "id": null, "method": "tools/call", "params": params }),
    ] {
        let headers =
            [("authorization", bearer.as_str()), ("accept", "application/json, text/event-stream")];
        let answer = app.http.post_json(&app.at("/mcp"), &message, &headers).await;
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{message}: {}", answer.status);
    }
}

/// One client id stands for many installations, and a refusal belongs to the one that met it: another one that
/// signs in is not told that it stays connected with what it had.
#[tokio::test]
async fn a_sign_in_of_another_installation_is_not_taken_for_a_step_up() {
    let app = where_users_may(r#""create:todos""#).await;
    let client = app.client().await;
    for scope in ["create:todos delete:todos read:todos", "create:todos read:todos", ""] {
        let tokens = connect(&client, "create:todos").await;
        let asked = scope_of(&purge(&client, &tokens).await);
        assert_eq!(asked, "create:todos delete:todos");
        assert_eq!(connect(&client.elsewhere(), scope).await.scope, "create:todos", "{scope:?}");
        // The installation that was challenged still reads why.
        client.authorize("bob", &[("scope", &asked)]).await.assert_page(403);
    }
    // One that asks for the same, because it is what everybody asks for, signs in soon after.
    let all = "create:todos delete:todos read:todos";
    let tokens = connect(&client, all).await;
    let get = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    assert_eq!(scope_of(&get), "create:todos read:todos");
    app.advance(2 * 60);
    assert_eq!(connect(&client.elsewhere(), all).await.scope, "create:todos");
}
