//! Who used what, counted by all replicas together.

use serde_json::json;

use super::fleet::{Fleet, REPLICAS};
use crate::harness::client::McpClient;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn calls_through_every_replica_add_up_when_they_have_ended() {
    let mut fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let tokens = client.sign_in("alice").await;
    for replica in 0..REPLICAS {
        let there = fleet.at(replica, &client);
        for _ in 0..=replica {
            let called = there.call_tool(&tokens.access_token, "get-todos", json!({}));
            called.await.assert_status(200);
        }
    }

    for replica in &mut fleet.replicas {
        assert!(replica.terminate().await.unwrap().success());
    }

    let calls = "SELECT CAST(SUM(answered) AS BIGINT) FROM usage_hours";
    assert_eq!(fleet.database.number(calls).await, 1 + 2 + 3);
    assert_eq!(fleet.database.number("SELECT COUNT(*) FROM usage_keys").await, 1);
}
