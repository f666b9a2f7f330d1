//! PostgreSQL itself restarted under load, its listeners cut off, its locks stuck.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::fleet::{Fleet, REPLICAS, a_moment};
use super::load::Load;
use super::paused::{cut_after, listen, refused_after};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::database::Database;
use crate::laws::races::rounds;
use crate::operations::crashes::assert_sound;

/// Has PostgreSQL stopped or started.
pub(super) async fn postgres(what: &'static str) {
    let control = std::env::var("TEST_POSTGRES_CONTROL").expect("scripts/test-replicas sets it");
    let control = format!("{control} {what}");
    let done = tokio::task::spawn_blocking(move || {
        Command::new("sh").args(["-c", &control]).stdout(Stdio::null()).status().unwrap()
    });
    assert!(done.await.unwrap().success());
}

async fn until_ready(fleet: &Fleet) {
    for replica in &fleet.replicas {
        while fleet.http.get(&format!("{}/ready", replica.url)).await.status != 200 {
            a_moment(10).await;
        }
    }
}

/// What a replica without its database says.
async fn refuses(fleet: &Fleet, client: McpClient, tokens: &Tokens) {
    let at = |path: &str| format!("{}{path}", client.server.url);
    fleet.http.get(&at("/health")).await.assert_status(200);
    let metadata = at("/.well-known/oauth-authorization-server");
    fleet.http.get(&metadata).await.assert_status(200);
    let (asked, ready) = (Instant::now(), at("/ready"));
    let ready = async {
        loop {
            let answer = fleet.http.get(&ready).await;
            // It may be five seconds behind: see docs/operations/monitoring.md.
            if answer.status != 200 || asked.elapsed() > Duration::from_secs(6) {
                return answer;
            }
            a_moment(50).await;
        }
    };
    let (ready, refused) = tokio::join!(ready, client.refresh(&tokens.refresh_token));
    assert_eq!(ready.assert_status(503).json()["database"], "unavailable");
    refused.assert_error(503, "temporarily_unavailable");
    assert!(refused.header("retry-after").is_some());
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_restart_of_postgresql_under_load_is_503_meanwhile_and_over_when_it_is_over() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    for how in ["-m fast stop", "-m immediate stop"].repeat(rounds().len()) {
        let others = client.sign_in("alice").await;
        let code = client.code("alice").await;
        let (_, form) = client.ask(&[]).await;
        let stream = listen(&fleet.at(0, &client), &others).await;
        let load = Load::begin(&fleet, &client, 9, 5).await;
        a_moment(300).await;

        postgres(how).await;

        let refusals = (0..REPLICAS).map(|n| refuses(&fleet, fleet.at(n, &client), &others));
        let redeeming = client.redeem(&code);
        let calling = async {
            a_moment(1100).await; // what was known of the grant is too old then
            client.call_tool(&others.access_token, "get-todos", json!({})).await
        };
        let deciding = client.decide(&form, "approve");
        let (_, redeemed, decided, called) =
            tokio::join!(join_all(refusals), redeeming, deciding, calling);
        redeemed.assert_error(503, "temporarily_unavailable");
        decided.assert_page(503);
        assert_eq!(called.status, 503, "what cannot be known is never a yes");

        postgres("start").await;

        let since = Instant::now();
        until_ready(&fleet).await;
        let ready = since.elapsed();
        Tokens::of(&client.redeem(&code).await);
        client.decide(&form, "approve").await.assert_leads_to(&client.server.idp);
        let (met, tokens) = load.end().await;
        for token in tokens {
            client.refresh(&token).await.assert_status(200);
        }
        println!("{how}: ready {ready:?} after the start; clients met {met:?}");
        assert!(met.unavailable > 0 && met.rotations > 0);

        // The replicas hear of each other again.
        client.revoke(&others.refresh_token).await.assert_status(200);
        let there = fleet.at(0, &client);
        let (refused, cut) = tokio::join!(refused_after(&there, &others), cut_after(stream));
        println!("{how}: a revocation is heard {refused:?} later, the stream cut after {cut:?}");
        assert!(refused < Duration::from_secs(1) && cut < Duration::from_secs(2));
        assert_sound(&fleet.database, how).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn what_was_said_while_nobody_could_listen_is_caught_up_with() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    for _ in 0..3 {
        let tokens = client.sign_in("bob").await;
        let there = fleet.at(0, &client);
        let stream = listen(&there, &tokens).await;
        there.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);

        let deaf = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE query LIKE 'LISTEN %'";
        assert_eq!(fleet.database.number(deaf).await, 3);
        fleet.at(1, &client).revoke(&tokens.refresh_token).await.assert_status(200);

        let (refused, cut) = tokio::join!(refused_after(&there, &tokens), cut_after(stream));
        println!("deaf for a moment: refused after {refused:?}, the stream cut after {cut:?}");
        assert!(refused < Duration::from_millis(1100) && cut < Duration::from_secs(2));
        let listening =
            "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND state = 'idle'";
        while fleet.database.number(listening).await < 3 {
            a_moment(20).await;
        }
    }
}

/// Keeps a table locked for as long as the process lives that is returned.
fn lock(database: &Database, table: &str) -> std::process::Child {
    use std::io::Write;
    let mut psql = Command::new("psql")
        .args(["-q", "-X", &database.url])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = psql.stdin.as_mut().unwrap();
    writeln!(stdin, "BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;").unwrap();
    psql
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_lock_that_is_stuck_is_503_in_bounded_time_and_over_when_it_is_released() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let tokens = client.sign_in("bob").await;
    let code = client.code("bob").await;
    let mut holder = lock(&fleet.database, "grants");
    let held = "SELECT COUNT(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                AND relation = 'grants'::regclass";
    while fleet.database.number(held).await == 0 {}

    // More of them than there are connections.
    let since = Instant::now();
    let refused = join_all((0..90).map(|_| client.refresh(&tokens.refresh_token))).await;
    let longest = since.elapsed();
    for answer in &refused {
        answer.assert_error(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    client.redeem(&code).await.assert_error(503, "temporarily_unavailable");
    println!("a stuck lock: 90 refreshes, the longest {longest:?}");
    assert!(longest < Duration::from_secs(11));

    holder.kill().unwrap();
    holder.wait().unwrap();
    while fleet.database.number(held).await > 0 {}
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    Tokens::of(&client.redeem(&code).await);
    assert_sound(&fleet.database, "the lock").await;
}
