//! PostgreSQL fails over to a standby: one that was behind, and one that has everything.

use std::process::{Command, Stdio};

use serde_json::json;

use super::fleet::{Fleet, REPLICAS, a_moment};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::process::free_address;
use crate::harness::role::as_superuser;

async fn standby(what: String) {
    let standby = std::env::var("TEST_POSTGRES_STANDBY").expect("scripts/test-replicas sets it");
    let command = format!("{standby} {what}");
    let done = tokio::task::spawn_blocking(move || {
        Command::new("sh").args(["-c", &command]).stdout(Stdio::null()).status().unwrap()
    });
    assert!(done.await.unwrap().success());
}

/// Asks every replica again and again, with a token that was revoked, until all of them are ready.
async fn refused_until_ready(fleet: &Fleet, client: &McpClient, revoked: &Tokens) {
    for replica in 0..REPLICAS {
        let there = fleet.at(replica, client);
        loop {
            let called = there.call_tool(&revoked.access_token, "get-todos", json!({})).await;
            assert!([401, 503].contains(&called.status.as_u16()), "{}", called.status);
            let refreshed = there.refresh(&revoked.refresh_token).await;
            assert!([400, 503].contains(&refreshed.status.as_u16()), "{}", refreshed.status);
            if fleet.http.get(&format!("{}/ready", there.server.url)).await.status == 200 {
                break;
            }
            a_moment(20).await;
        }
    }
}

const WENT_BACK: &str = "SELECT COUNT(*) FROM audit_events WHERE event = 'database_went_back'";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_database_that_went_back_in_time_is_noticed_and_settled() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    // What is lost had not been chained, and had been seen chained by every replica.
    for (round, chained) in [(1, false), (2, true)] {
        let (revoked, kept) = (client.sign_in("bob").await, client.sign_in("alice").await);
        let code = client.code("alice").await;
        standby("copy".to_owned()).await;
        client.revoke(&revoked.refresh_token).await.assert_status(200);
        let rotated = Tokens::of(&client.refresh(&kept.refresh_token).await);
        if chained {
            let unchained = "SELECT COUNT(*) FROM audit_events WHERE seq IS NULL";
            while fleet.database.number(unchained).await > 0 {
                a_moment(20).await;
            }
            a_moment(1100).await; // every replica looks once a second
        }

        standby("fail-over".to_owned()).await;

        refused_until_ready(&fleet, &client, &revoked).await;
        assert_eq!(fleet.database.number(WENT_BACK).await, round, "one replica settles");
        for tokens in [&revoked, &kept, &rotated] {
            client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        }
        client.redeem(&code).await.assert_error(400, "invalid_grant");

        // Everybody signs in again, once.
        let again = client.sign_in("bob").await;
        a_moment(2500).await; // every replica looks once more
        for replica in 0..REPLICAS {
            let there = fleet.at(replica, &client);
            let called = there.call_tool(&again.access_token, "get-todos", json!({})).await;
            called.assert_status(200);
        }
        client.refresh(&again.refresh_token).await.assert_status(200);
        assert_eq!(fleet.database.number(WENT_BACK).await, round);
        fleet.command(&["audit", "verify"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_failover_to_a_synchronous_standby_loses_nothing_and_ends_nothing() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    standby("copy".to_owned()).await;
    standby(format!("follow {}", free_address().port())).await;
    as_superuser("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    as_superuser("SELECT CAST(pg_reload_conf() AS TEXT)").await;
    let synchronous = "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    while fleet.database.number(synchronous).await == 0 {
        a_moment(20).await;
    }
    let (revoked, kept) = (client.sign_in("bob").await, client.sign_in("alice").await);
    client.revoke(&revoked.refresh_token).await.assert_status(200);
    let rotated = Tokens::of(&client.refresh(&kept.refresh_token).await);

    standby("fail-over".to_owned()).await;

    refused_until_ready(&fleet, &client, &revoked).await;
    client.refresh(&rotated.refresh_token).await.assert_status(200);
    client.refresh(&revoked.refresh_token).await.assert_error(400, "invalid_grant");
    assert_eq!(fleet.database.number(WENT_BACK).await, 0);
}
