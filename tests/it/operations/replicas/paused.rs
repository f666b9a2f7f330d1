//! A replica that stands still for a while, as on a frozen machine, and goes on.

use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::Instant;

use super::fleet::{Fleet, a_moment};
use crate::harness::client::{McpClient, Tokens};
use crate::operations::crashes::assert_sound;

/// Opens an event stream at the server of this client, and reads its first chunk.
pub(super) async fn listen(client: &McpClient, tokens: &Tokens) -> Incoming {
    let authorization = format!("Bearer {}", tokens.access_token);
    let accept = ("accept", "application/json, text/event-stream");
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let (http, url) = (&client.server.http, client.server.mcp_url());
    let headers = [("authorization", authorization.as_str()), accept];
    let answer = http.post_json(&url, &initialize, &headers).await;
    let session = answer.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    let headers = [
        ("authorization", authorization.as_str()),
        accept,
        ("mcp-session-id", session.as_str()),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    let stream = http.open("GET", &url, &headers, "").await;
    assert_eq!(stream.status(), 200);
    let mut stream = stream.into_body();
    stream.frame().await.unwrap().unwrap();
    stream
}

/// How long the stream is still open.
pub(super) async fn cut_after(mut stream: Incoming) -> Duration {
    let since = Instant::now();
    while matches!(stream.frame().await, Some(Ok(_))) {}
    since.elapsed()
}

/// How long tokens of this grant are still taken.
pub(super) async fn refused_after(client: &McpClient, tokens: &Tokens) -> Duration {
    let since = Instant::now();
    loop {
        let answer = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
        if answer.status == 401 {
            return since.elapsed();
        }
        answer.assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_replica_that_was_paused_honours_what_was_revoked_meanwhile_within_a_second() {
    let fleet = Fleet::start().await;
    for pause in [50, 300, 1500] {
        let client = McpClient::register(&fleet).await;
        let there = fleet.at(0, &client);
        let tokens = client.sign_in("alice").await;
        let stream = listen(&there, &tokens).await;
        for _ in 0..3 {
            there.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
        }
        fleet.replicas[0].pause();
        fleet.balancer.send_to(&fleet.replicas[1..]);
        client.revoke(&tokens.refresh_token).await.assert_status(200);
        a_moment(pause).await;

        fleet.replicas[0].resume();
        let (refused, cut) = tokio::join!(refused_after(&there, &tokens), cut_after(stream));

        println!("paused for {pause} ms: refused after {refused:?}, stream cut after {cut:?}");
        assert!(refused < Duration::from_secs(1) && cut < Duration::from_secs(1));
        fleet.balancer.send_to(&fleet.replicas);
    }
}

/// Makes the provider's last answer old, so that the next refresh asks it.
async fn is_due(fleet: &Fleet) {
    fleet.database.execute("UPDATE upstream_sessions SET last_ok_at = last_ok_at - 1000").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn fifty_refreshes_over_three_replicas_ask_the_provider_once() {
    let fleet = Fleet::start().await;
    fleet.idp.misbehave(|how| how.strict_rotation = true);
    let client = McpClient::register(&fleet).await;
    let mut grants = Vec::new();
    for _ in 0..10 {
        grants.push(client.sign_in("bob").await); // one browser, one session there
    }
    for _ in 0..3 {
        is_due(&fleet).await;
        let before = fleet.idp.requests_to("/token");

        let refreshes = (0..50).map(|n| client.refresh(&grants[n % 10].refresh_token));
        let answers = join_all(refreshes).await;

        for (n, answer) in answers.iter().enumerate() {
            grants[n % 10] = Tokens::of(answer);
        }
        assert_eq!(fleet.idp.requests_to("/token"), before + 1);
    }
    assert_sound(&fleet.database, "the refreshes").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn the_lease_of_a_replica_that_is_paused_while_it_asks_is_taken_over() {
    let fleet = Fleet::start().await;
    fleet.idp.misbehave(|how| (how.strict_rotation, how.rotation_grace) = (true, 30));
    let client = McpClient::register(&fleet).await;
    let first = client.sign_in("bob").await;
    let second = client.sign_in("bob").await; // the same session there
    is_due(&fleet).await;
    fleet.idp.refresh_answers().close();
    let there = fleet.at(0, &client);
    let asking = tokio::spawn(async move { there.refresh(&first.refresh_token).await });
    fleet.idp.refresh_answers().until_waiting(1).await;
    fleet.replicas[0].pause();
    fleet.balancer.send_to(&fleet.replicas[1..]);
    fleet.idp.refresh_answers().open();
    let before = fleet.idp.requests_to("/token");

    // Until then the last yes holds for five minutes at a time; nobody is out.
    let since = Instant::now();
    let mut tokens = second;
    loop {
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        if tokens.expires_in > 300 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(40), "nobody took over");
    }
    println!(
        "a paused replica's question to the provider is taken over after {:?}",
        since.elapsed()
    );
    assert_eq!(fleet.idp.requests_to("/token"), before + 1, "one other asked");

    // What it goes on with is late, and does no harm.
    fleet.replicas[0].resume();
    Tokens::of(&asking.await.unwrap());
    fleet.balancer.send_to(&fleet.replicas);
    for _ in 0..3 {
        is_due(&fleet).await;
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert!(tokens.expires_in > 300, "the provider knows the token that is kept");
    }
    assert_sound(&fleet.database, "the pause").await;
}

/// Whoever stands still in the middle of a step holds rows that others need.
#[cfg(debug_assertions)] // it stops at a place that only builds for tests have
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_replica_that_stands_still_in_a_step_holds_nobody_up_for_ever() {
    let mut fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let tokens = client.sign_in("bob").await;
    fleet.replicas[0].kill();
    fleet.replicas[0].launch_with(&[("TEST_STOP_AT", "refresh: token used")]);
    let (there, token) = (fleet.at(0, &client), tokens.refresh_token.clone());
    let asking = tokio::spawn(async move { there.refresh(&token).await });
    let in_step = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    while fleet.database.number(in_step).await == 0 {}
    fleet.balancer.send_to(&fleet.replicas[1..]);

    let since = Instant::now();
    let mut waited = Vec::new();
    let answer = loop {
        let asked = Instant::now();
        let answer = client.refresh(&tokens.refresh_token).await;
        waited.push(asked.elapsed());
        if answer.status != 503 {
            break answer;
        }
        assert!(answer.header("retry-after").is_some());
    };

    println!("a refresh that somebody else held: {waited:?}, in all {:?}", since.elapsed());
    assert!(waited.iter().all(|waited| *waited < Duration::from_secs(6)));
    let next = Tokens::of(&answer);
    client.refresh(&next.refresh_token).await.assert_status(200);
    asking.abort();
    assert_sound(&fleet.database, "the standstill").await;
}
