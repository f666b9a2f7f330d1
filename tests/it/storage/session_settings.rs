//! What a role of PostgreSQL is set to breaks nothing: every connection sets what is relied on.
//!
//! `scripts/test-postgres` runs these tests; on SQLite there are no roles, and they end at once.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

/// What a role is set to, and what a session of ours must say all the same.
const WRONG: &[(&str, &str, &str)] = &[
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_isolation", "repeatable read", "read committed"),
    ("default_transaction_isolation", "read uncommitted", "read committed"),
    ("default_transaction_read_only", "on", "off"),
    ("default_transaction_deferrable", "on", "off"),
    ("statement_timeout", "1ms", "10s"),
    ("statement_timeout", "0", "10s"),
    ("lock_timeout", "1ms", "4s"),
    ("lock_timeout", "0", "4s"),
    ("idle_in_transaction_session_timeout", "1ms", "5s"),
    ("idle_in_transaction_session_timeout", "0", "5s"),
    ("idle_session_timeout", "300ms", "0"),
    ("synchronous_commit", "off", "on"),
    ("synchronous_commit", "local", "on"),
    ("synchronous_commit", "remote_write", "remote_write"),
    ("synchronous_commit", "remote_apply", "remote_apply"),
    ("synchronous_commit", "on", "on"),
    ("standard_conforming_strings", "off", "on"),
    ("exit_on_error", "on", "off"),
];

async fn set_to(name: &'static str, wrong: &'static str) -> Option<TestApp> {
    if std::env::var("TEST_DATABASE_URL").is_err() {
        return None;
    }
    let tables = "[limits]\nrequest_rates = false".to_owned();
    let role = vec![(name, wrong)];
    Some(TestApp::with(Setup { role, ..Setup::toml(tables) }).await)
}

#[tokio::test]
async fn every_session_setting_that_is_relied_on_is_set_whatever_the_role_says() {
    for (name, wrong, right) in WRONG {
        let Some(app) = set_to(name, wrong).await else { return };
        let is = app.storage().server_setting(name).await.unwrap();
        assert_eq!(is.as_deref(), Some(*right), "{name} = {wrong}");
        let (client, tokens) = app.tokens_of("bob").await;
        let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
        client.revoke(&tokens.refresh_token).await.assert_status(200);
    }
}

/// A role whose default isolation is stricter fails steps that merely compete.
#[tokio::test]
async fn sign_ins_that_compete_succeed_whatever_isolation_the_role_is_set_to() {
    for isolation in ["serializable", "repeatable read"] {
        let Some(app) = set_to("default_transaction_isolation", isolation).await else { return };
        let client = app.client().await;
        let signed_in = join_all((0..40).map(|_| async {
            let client = client.elsewhere();
            client.code("bob").await;
        }));
        signed_in.await;
    }
}

/// The command line works beside the servers on connections of its own.
#[tokio::test]
async fn commands_beside_the_server_set_the_same() {
    for (name, wrong) in [
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1ms"),
        ("default_transaction_isolation", "serializable"),
        ("synchronous_commit", "off"),
    ] {
        let Some(app) = set_to(name, wrong).await else { return };
        let beside = portcullis::storage::Storage::attach(
            &app.database.url,
            Some(b"a test key that is long enough to be one, 0123456789"),
        );
        let beside = beside.await.unwrap();
        let right = WRONG.iter().find(|(known, value, _)| (*known, *value) == (name, wrong));
        let is = beside.server_setting(name).await.unwrap();
        assert_eq!(is.as_deref(), right.map(|(_, _, right)| *right), "{name} = {wrong}");
        let event = app.audit_event("backup_made");
        beside.record(vec![event]).await.unwrap();
        beside.close().await;
    }
}
