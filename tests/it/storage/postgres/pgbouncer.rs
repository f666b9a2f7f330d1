//! PgBouncer in between, as it is installed: sessions are pooled; transactions are refused.

use portcullis::oauth::secret::random_bytes;
use portcullis::storage::Storage;
use serde_json::json;

use crate::harness::database::Database;
use crate::harness::{Setup, TestApp};

const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";

/// A database of its own: PgBouncer passes no search path on.
async fn behind(variable: &str) -> String {
    let bouncer = std::env::var(variable).expect("scripts/test-postgres sets it");
    let name = format!("bounced_{:x}", u128::from_be_bytes(random_bytes::<16>()));
    let database = Database::new().await;
    database.execute(&format!("CREATE DATABASE {name}")).await;
    format!("{bouncer}/{name}")
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/test-postgres"]
async fn everything_works_through_pgbouncer_as_it_is_installed() {
    let url = behind("TEST_PGBOUNCER").await;
    let mut app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    let before = app.database.url.clone();
    app.change_config(&before, &url);
    app.restart().await;

    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    let again = client.refresh(&tokens.refresh_token).await;
    again.assert_status(200);
    app.http.get(&app.at("/ready")).await.assert_status(200);
    // A command works beside the server.
    let beside = Storage::attach(&url, Some(KEY)).await.unwrap();
    beside.last_time().await.unwrap();
    beside.close().await;
    // What a connection has set does not outlive it, and the next start finds its schema.
    app.restart().await;
    client.refresh(again.json()["refresh_token"].as_str().unwrap()).await.assert_status(200);
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/test-postgres"]
async fn a_pool_of_transactions_is_refused_with_the_hint() {
    let url = behind("TEST_PGBOUNCER_TRANSACTION").await;
    for _ in 0..3 {
        let said = Storage::open(&url, Some(KEY)).await.err().unwrap().to_string();
        assert!(said.contains("pool_mode = session"), "{said}");
        assert_eq!(said.matches(". ").count(), 0, "one sentence: {said}");
    }
}
