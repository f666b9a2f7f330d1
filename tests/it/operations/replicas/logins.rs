//! Whole logins whose every step meets another replica, and races over all of them.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use super::fleet::{Fleet, REPLICAS};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::http::Answer;
use crate::laws::races::rounds;
use crate::operations::crashes::assert_sound;

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn three_replicas_that_start_at_once_on_an_empty_database_are_one() {
    for _ in rounds() {
        let fleet = Fleet::start().await;
        let keys = fleet.database.number("SELECT COUNT(*) FROM signing_keys").await;
        assert_eq!(keys, 1);
        let applied = "SELECT COUNT(*) - COUNT(DISTINCT version) FROM _sqlx_migrations";
        assert_eq!(fleet.database.number(applied).await, 0);
        let mut published = BTreeSet::new();
        for replica in &fleet.replicas {
            fleet.http.get(&format!("{}/ready", replica.url)).await.assert_status(200);
            let keys = fleet.http.get(&format!("{}/.well-known/jwks.json", replica.url)).await;
            published.insert(keys.text().to_owned());
        }
        assert_eq!(published.len(), 1, "they publish the same keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn logins_whose_every_step_meets_another_replica_are_whole() {
    let fleet = Fleet::start().await;
    for _ in 0..20 * rounds().len() {
        let client = McpClient::register(&fleet).await;
        let mut tokens = client.sign_in("alice").await;
        for _ in 0..=REPLICAS {
            client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
            tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        }
        client.revoke(&tokens.refresh_token).await.assert_status(200);
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    }
    assert_sound(&fleet.database, "the logins").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_hundred_at_once_over_three_replicas_count_as_at_one() {
    let fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    for _ in rounds() {
        // Consent.
        let (_, form) = client.ask(&[]).await;
        let consents = fleet.database.number("SELECT COUNT(*) FROM consents").await;
        let decided = join_all((0..100).map(|_| client.decide(&form, "approve"))).await;
        assert_eq!((count(&decided, 303), count(&decided, 403)), (1, 99));
        let after = fleet.database.number("SELECT COUNT(*) FROM consents").await;
        assert_eq!(after, consents + 1);

        // Callback.
        let decided = decided.iter().find(|answer| answer.status == 303).unwrap();
        let back = client.log_in(decided.location(), "bob").await;
        let codes = fleet.database.number("SELECT COUNT(*) FROM authorization_codes").await;
        let returned = join_all((0..100).map(|_| client.browser.get(&back))).await;
        assert_eq!((count(&returned, 303), count(&returned, 403)), (1, 99));
        let after = fleet.database.number("SELECT COUNT(*) FROM authorization_codes").await;
        assert_eq!(after, codes + 1);
        let returned = returned.iter().find(|answer| answer.status == 303).unwrap();
        let code = returned.location_param("code").unwrap();

        // Redemption: one wins, and the replays end what it won.
        let redeemed = join_all((0..100).map(|_| client.redeem(&code))).await;
        assert_eq!((count(&redeemed, 200), count(&redeemed, 400)), (1, 99));
        let won = redeemed.iter().find(|answer| answer.status == 200).unwrap();
        let dead = Tokens::of(won).refresh_token;
        client.refresh(&dead).await.assert_error(400, "invalid_grant");

        // Refresh, within the grace: eleven get the same successor, and 89 are to come back.
        let tokens = client.sign_in("bob").await;
        let refreshed = client.refresh_at_once(&tokens.refresh_token, 100).await;
        assert_eq!((count(&refreshed, 200), count(&refreshed, 429)), (11, 89));
        let successors: BTreeSet<String> = refreshed
            .iter()
            .filter(|answer| answer.status == 200)
            .map(|answer| Tokens::of(answer).refresh_token)
            .collect();
        assert_eq!(successors.len(), 1);
        let successor = successors.first().unwrap();
        client.refresh(successor).await.assert_status(200);
    }
    assert_sound(&fleet.database, "the races").await;
}
