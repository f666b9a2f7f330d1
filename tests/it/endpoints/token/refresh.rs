//! Refresh tokens: rotation, the grace window, reuse. Rules R1 to R10, tests T1 to T8.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

const LIVE: &str = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
const SUCCESSORS: &str = "SELECT COUNT(*) FROM refresh_tokens WHERE parent_id IS NOT NULL";

fn successors(answers: &[Answer]) -> BTreeSet<String> {
    let won = answers.iter().filter(|answer| answer.status == 200);
    won.map(|answer| Tokens::of(answer).refresh_token).collect()
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// A hundred at once is more than a grant may ask for in a minute; here the rotation decides alone.
const UNLIMITED: &str = "[limits]\nrequest_rates = false";

fn unlimited() -> Setup {
    Setup::toml(UNLIMITED)
}

fn grace(seconds: u32) -> Setup {
    let tables = format!("{UNLIMITED}\n[tokens]\nrefresh_grace = \"{seconds}s\"");
    Setup::toml(tables)
}

#[tokio::test]
async fn rt_01_each_use_brings_a_new_token_and_the_same_scopes() {
    let app = TestApp::start().await;
    let (client, first) = app.tokens_of("alice").await;
    let second = Tokens::of(&client.refresh(&first.refresh_token).await);
    assert_ne!(first.refresh_token, second.refresh_token);
    assert_ne!(first.access_token, second.access_token);
    assert_eq!(first.scope, second.scope);
    client.call_tool(&second.access_token, "get-todos", json!({})).await.assert_status(200);
}

/// T1, the case of parallel workers.
#[tokio::test]
async fn rt_01_eleven_at_once_all_get_one_and_the_same_successor() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let (client, tokens) = app.tokens_of("bob").await;
        let answers = client.refresh_at_once(&tokens.refresh_token, 11).await;
        assert_eq!(count(&answers, 200), 11);
        assert_eq!(successors(&answers).len(), 1);
        assert_eq!(app.database.number(SUCCESSORS).await, 1);
        assert_eq!(app.database.number(LIVE).await, 1);
    }
}

/// T1, a hundred: with the grace as it is by default, and with 120 seconds.
#[tokio::test]
async fn rt_01_of_a_hundred_at_once_eleven_succeed_and_the_rest_is_told_to_wait() {
    for setup in rounds().flat_map(|_| [unlimited(), grace(120)]) {
        let app = TestApp::with(setup).await;
        let (client, tokens) = app.tokens_of("bob").await;
        app.advance(16 * 60); // the identity provider has to be asked, once
        let before = app.idp.requests_to("/token");
        let answers = client.refresh_at_once(&tokens.refresh_token, 100).await;
        assert_eq!((count(&answers, 200), count(&answers, 429)), (11, 89));
        for answer in answers.iter().filter(|answer| answer.status == 429) {
            assert!(answer.header("retry-after").is_some());
        }
        let successors = successors(&answers);
        assert_eq!(successors.len(), 1);
        assert_eq!(app.database.number(SUCCESSORS).await, 1);
        assert_eq!(app.database.number(LIVE).await, 1, "nothing is revoked");
        assert_eq!(app.idp.requests_to("/token") - before, 1);
        let successor = successors.first().unwrap();
        client.refresh(successor).await.assert_status(200);
    }
}

/// T2.
#[tokio::test]
async fn rt_02_without_grace_a_second_use_revokes_the_family() {
    for _ in rounds() {
        let app = TestApp::with(grace(0)).await;
        let (client, tokens) = app.tokens_of("bob").await;
        let answers = client.refresh_at_once(&tokens.refresh_token, 100).await;
        assert_eq!((count(&answers, 200), count(&answers, 400)), (1, 99));
        assert_eq!(app.database.number(LIVE).await, 0);
        let successor = successors(&answers).pop_first().unwrap();
        client.refresh(&successor).await.assert_error(400, "invalid_grant");
    }
}

/// T3.
#[tokio::test]
async fn rt_03_the_window_ends_when_it_ends() {
    let app = TestApp::with(grace(60)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let mut all = Vec::new();
    for wait in [0, 10, 40, 10] {
        app.advance(wait);
        all.push(client.refresh(&tokens.refresh_token).await);
    }
    assert_eq!(count(&all, 200), 4);
    assert_eq!(successors(&all).len(), 1);
    app.advance(1);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    assert_eq!(app.database.number(LIVE).await, 0);
}

/// T4: R3 and R4.
#[tokio::test]
async fn rt_02_an_old_token_whose_successor_is_in_use_revokes_the_family() {
    for age in [1, 2] {
        let app = TestApp::start().await;
        let (client, first) = app.tokens_of("bob").await;
        let mut latest = first.refresh_token.clone();
        for _ in 0..=age {
            latest = Tokens::of(&client.refresh(&latest).await).refresh_token;
        }
        client.refresh(&first.refresh_token).await.assert_error(400, "invalid_grant");
        client.refresh(&latest).await.assert_error(400, "invalid_grant");
        assert_eq!(app.database.number(LIVE).await, 0);
    }
}

/// T5: R5.
#[tokio::test]
async fn rt_05_another_client_gets_nothing_and_revokes_nothing() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let other = McpClient::register_as(
        &app,
        json!({ "client_name": "Other", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" }),
    )
    .await;
    other.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    other.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.refresh(&next.refresh_token).await.assert_status(200);
}

/// T7.
#[tokio::test]
async fn rt_04_a_clock_that_jumps_back_extends_no_grace() {
    let app = TestApp::with(grace(60)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(-3600);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn rt_06_scopes_can_be_narrowed_for_one_token_and_never_widened() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("alice").await;
    let narrow = client.refresh_with(&tokens.refresh_token, &[("scope", "read:todos")]).await;
    let narrow = Tokens::of(&narrow);
    assert_eq!(narrow.scope, "read:todos");
    let whole = Tokens::of(&client.refresh(&narrow.refresh_token).await);
    assert_eq!(whole.scope, tokens.scope, "the grant itself is as it was");
    let client = client.elsewhere();
    let back = client.authorize("alice", &[("scope", "read:todos")]).await;
    let little = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    let wider = [("scope", "read:todos delete:todos")];
    client.refresh_with(&little.refresh_token, &wider).await.assert_error(400, "invalid_scope");
    client.refresh(&little.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn rt_07_a_wrong_resource_is_invalid_target_and_uses_nothing_up() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let other = [("resource", "https://other.example/mcp")];
    client.refresh_with(&tokens.refresh_token, &other).await.assert_error(400, "invalid_target");
    let ours = app.mcp_url();
    client.refresh_with(&tokens.refresh_token, &[("resource", &ours)]).await.assert_status(200);
}

#[tokio::test]
async fn rt_08_a_token_ends_when_idle_and_a_grant_ends_for_good() {
    let day = 24 * 60 * 60;
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(14 * day);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");

    let mut tokens = client.sign_in("bob").await;
    for _ in 0..6 {
        app.advance(13 * day);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    }
    app.advance(12 * day); // ninety days in all
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn rules_are_asked_again_at_every_refresh() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.set_roles("alice", &["User"]);
    app.advance(16 * 60);
    let demoted = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(demoted.scope, "create:todos");
    app.idp.set_roles("alice", &["Admin"]);
    app.advance(16 * 60);
    let back = Tokens::of(&client.refresh(&demoted.refresh_token).await);
    assert_eq!(back.scope, tokens.scope, "up to what was consented");
    app.idp.set_roles("alice", &[]);
    app.advance(16 * 60);
    client.refresh(&back.refresh_token).await.assert_error(400, "invalid_grant");
}

/// C7: whatever the order, nothing is minted after the revocation was answered.
#[tokio::test]
async fn c7_revocation_wins_every_race() {
    for _ in rounds() {
        let app = TestApp::start().await;
        for _ in 0..25 {
            let (client, tokens) = app.tokens_of("bob").await;
            let race = join_all((0..4).map(|_| client.refresh(&tokens.refresh_token)));
            let (answers, revoked) = tokio::join!(race, client.revoke(&tokens.refresh_token));
            revoked.assert_status(200);
            for answer in answers.iter().filter(|answer| answer.status == 200) {
                let won = Tokens::of(answer);
                client.refresh(&won.refresh_token).await.assert_error(400, "invalid_grant");
                client
                    .call_tool(&won.access_token, "get-todos", json!({}))
                    .await
                    .assert_status(401);
            }
            client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        }
    }
}
