//! People leave out scopes on the consent page. The form can take scopes away and never add one.

use crate::harness::browser::Form;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const ALL: &str = "create:todos delete:todos read:todos";

/// Sends the form with these boxes ticked and no others.
async fn choose(client: &McpClient, form: &Form, ticked: &[&str], decision: &str) -> Answer {
    let mut fields = form.with(&[("decision", decision)]);
    fields.retain(|(name, _)| *name != "scope");
    fields.extend(ticked.iter().map(|scope| ("scope", *scope)));
    client.browser.post(&form.action, &fields, &client.server.url).await
}

/// Signs alice in, who may do everything, after this answer of the form.
async fn tokens_after(client: &McpClient, answer: &Answer) -> Tokens {
    let callback = client.log_in(answer.location(), "alice").await;
    let back = client.browser.get(&callback).await;
    Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await)
}

fn boxes(page: &Answer) -> usize {
    page.text().matches("type=\"checkbox\"").count()
}

#[tokio::test]
async fn the_token_has_what_was_ticked_and_no_refresh_brings_the_rest() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (page, form) = client.ask(&[]).await;
    assert_eq!(boxes(&page), 3);
    let answer = choose(&client, &form, &["create:todos", "read:todos"], "approve").await;
    let tokens = tokens_after(&client, &answer).await;
    assert_eq!(tokens.scope, "create:todos read:todos");
    let refreshed = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(refreshed.scope, "create:todos read:todos");
    let wider = client.refresh_with(&refreshed.refresh_token, &[("scope", ALL)]).await;
    wider.assert_error(400, "invalid_scope");
    let recorded = "SELECT COUNT(*) FROM audit_events WHERE event = 'consent_approved'
         AND detail LIKE '%left_out%delete:todos%'";
    assert_eq!(app.database.number(recorded).await, 1);

    // All boxes are ticked at first.
    let (_, form) = client.ask(&[]).await;
    let answer = client.decide(&form, "approve").await;
    assert_eq!(tokens_after(&client, &answer).await.scope, ALL);
}

#[tokio::test]
async fn one_scope_must_stay_and_the_page_can_be_answered_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    for decision in ["approve", "approve_other"] {
        let page = choose(&client, &form, &[], decision).await;
        page.assert_page(400);
        assert!(page.text().contains("Choose at least one permission"), "{}", page.text());
    }
    assert_eq!(app.idp.requests_to("/authorize"), 0);
    let answer = choose(&client, &form, &["read:todos"], "approve").await;
    assert_eq!(tokens_after(&client, &answer).await.scope, "read:todos");

    // Cancel needs no box.
    let (_, form) = client.ask(&[]).await;
    let denied = choose(&client, &form, &[], "deny").await;
    assert_eq!(denied.location_param("error").as_deref(), Some("access_denied"));
}

#[tokio::test]
async fn a_changed_list_widens_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[("scope", "create:todos read:todos")]).await;
    for added in
        ["delete:todos", "unknown", "openid", "", "create:todos delete:todos", "CREATE:TODOS"]
    {
        let page = choose(&client, &form, &["create:todos", added], "approve").await;
        page.assert_page(400);
    }
    assert_eq!(app.database.number("SELECT COUNT(*) FROM logins").await, 0);
    // The same scope twice is that scope.
    let answer = choose(&client, &form, &["create:todos", "create:todos"], "approve").await;
    assert_eq!(tokens_after(&client, &answer).await.scope, "create:todos");
}

#[tokio::test]
async fn without_a_choice_the_form_is_not_asked() {
    let app = TestApp::with(Setup::toml("consent_choice = false")).await;
    let client = app.client().await;
    let (page, form) = client.ask(&[]).await;
    assert_eq!(boxes(&page), 0);
    let answer = choose(&client, &form, &["create:todos"], "approve").await;
    assert_eq!(tokens_after(&client, &answer).await.scope, ALL);

    // Of one scope there is nothing to leave out.
    let app = TestApp::start().await;
    let client = app.client().await;
    let (page, form) = client.ask(&[("scope", "create:todos")]).await;
    assert_eq!(boxes(&page), 0);
    let answer = choose(&client, &form, &[], "approve").await;
    assert_eq!(tokens_after(&client, &answer).await.scope, "create:todos");
}

#[tokio::test]
async fn a_destructive_scope_looks_different_and_an_included_one_says_in_what() {
    let resource = r#"
[[resource]]
path = "/mcp"
target = "{todo}"
scopes = { "read" = "Read", "delete" = { text = "Delete", destructive = true } }

[resource.implies]
"delete" = ["read"]
"#;
    let app = TestApp::with(Setup::toml(resource)).await;
    let client = app.client().await;
    let (page, _) = client.ask(&[("scope", "read delete")]).await;
    let text = page.text();
    let destructive = text.split("<li class=\"pick destructive\">").nth(1).unwrap();
    let destructive = destructive.split("</li>").next().unwrap();
    assert!(destructive.contains("Delete") && destructive.contains("deletes or overwrites"));
    assert_eq!(text.matches("deletes or overwrites").count(), 1, "{text}");
    assert!(text.contains("Included in delete"), "{text}");
    assert_eq!(boxes(&page), 2, "whoever leaves out the broader one may keep the other");
}
