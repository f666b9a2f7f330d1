//! How soon what one replica does, or a command beside them, is so at every replica.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::fleet::{Fleet, REPLICAS, a_moment};
use super::paused::refused_after;
use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::laws::races::rounds;

/// Everywhere known, and remembered.
async fn call_everywhere(clients: &[McpClient], tokens: &Tokens) {
    for client in clients {
        for _ in 0..2 {
            let called = client.call_tool(&tokens.access_token, "get-todos", json!({}));
            called.await.assert_status(200);
        }
    }
}

/// The longest time that tokens of this grant are still taken anywhere.
async fn refused_everywhere_after(clients: &[McpClient], tokens: &Tokens) -> Duration {
    let refused = clients.iter().map(|client| refused_after(client, tokens));
    join_all(refused).await.into_iter().max().unwrap()
}

/// What was measured, in words.
fn within_a_second(what: &str, mut times: Vec<Duration>) -> String {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(longest < Duration::from_secs(1), "{what}: {longest:?}");
    let of = times.len();
    format!("{what}: everywhere after {median:?} (median), {longest:?} (longest of {of})")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn what_ends_grants_is_heard_at_every_replica_within_a_second() {
    let fleet = Fleet::start().await;
    let mut times = Vec::new();
    for _ in 0..40 * rounds().len() {
        let client = McpClient::register(&fleet).await;
        let clients: Vec<McpClient> = (0..REPLICAS).map(|n| fleet.at(n, &client)).collect();
        let tokens = client.sign_in("alice").await;
        call_everywhere(&clients, &tokens).await;
        client.revoke(&tokens.refresh_token).await.assert_status(200);
        times.push(refused_everywhere_after(&clients, &tokens).await);
    }
    println!("{}", within_a_second("a revocation", times));

    let (mut clients_blocked, mut people_blocked) = (Vec::new(), Vec::new());
    for n in 0..5 * rounds().len() {
        let client = McpClient::register_as(&fleet, json!({
            "client_name": format!("Client {n}"), "redirect_uris": [crate::harness::client::REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        }))
        .await;
        let clients: Vec<McpClient> = (0..REPLICAS).map(|n| fleet.at(n, &client)).collect();
        let tokens = client.sign_in("bob").await;
        call_everywhere(&clients, &tokens).await;
        fleet.command(&["people", "block", "oidc:demo-bob", "--yes"]);
        people_blocked.push(refused_everywhere_after(&clients, &tokens).await);
        fleet.command(&["people", "unblock", "oidc:demo-bob"]);

        let tokens = client.sign_in("alice").await;
        call_everywhere(&clients, &tokens).await;
        fleet.command(&["clients", "block", &client.id, "--yes"]);
        clients_blocked.push(refused_everywhere_after(&clients, &tokens).await);
        for client in &clients {
            let refused = client.refresh(&tokens.refresh_token).await;
            assert!(matches!(refused.status.as_u16(), 400 | 401), "{}", refused.status);
        }
    }
    println!("{}", within_a_second("a person blocked from the shell", people_blocked));
    println!("{}", within_a_second("a client blocked from the shell", clients_blocked));
}

/// Replicas read the keys once a minute, so that this takes minutes: with more than one round only.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_new_key_is_published_everywhere_before_it_signs_anywhere() {
    if rounds().len() < 2 {
        return;
    }
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let clients: Vec<McpClient> = (0..REPLICAS).map(|n| fleet.at(n, &client)).collect();
    let mut tokens = client.sign_in("alice").await;
    let former = jwt_part(&tokens.access_token, 0)["kid"].clone();
    fleet.command(&["keys", "rotate"]);

    let mut published = 0;
    while published < REPLICAS {
        published = 0;
        for replica in &fleet.replicas {
            let keys = fleet.http.get(&format!("{}/.well-known/jwks.json", replica.url)).await;
            published += usize::from(keys.json()["keys"].as_array().unwrap().len() == 2);
        }
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(jwt_part(&tokens.access_token, 0)["kid"], former, "not yet known everywhere");
        a_moment(500).await;
    }

    // Ten minutes have gone by.
    fleet.database.execute("UPDATE signing_keys SET signs_from = created_at").await;
    let mut signed_anew = 0;
    while signed_anew < 2 * REPLICAS {
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        let anew = jwt_part(&tokens.access_token, 0)["kid"] != former;
        signed_anew = if anew { signed_anew + 1 } else { 0 };
        call_everywhere(&clients, &tokens).await; // whoever signed it, everybody takes it
        a_moment(500).await;
    }
}
