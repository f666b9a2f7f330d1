//! A database that is put back to an older state under a running server.

use std::fmt::Write as _;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::client::Tokens;
use crate::harness::console::Console;
use crate::harness::database::Database;
use crate::harness::{TestApp, logs, patiently};

/// Every table, each after those that it refers to.
const TABLES: &[&str] = &[
    "installation",
    "counters",
    "signing_keys",
    "clients",
    "client_reviews",
    "consents",
    "logins",
    "people",
    "people_words",
    "upstream_sessions",
    "upstream_sign_outs",
    "replay_guard",
    "grants",
    "authorization_codes",
    "refresh_tokens",
    "remembered_consents",
    "logins_awaiting_approval",
    "web_sessions",
    "scope_challenges",
    "mcp_tasks",
    "connections",
    "connection_attempts",
    "token_revocations",
    "audit_gaps",
    "audit_events",
];

async fn run(database: &Database, sql: String) {
    let attempt = async || {
        let mut connection = sqlx::AnyConnection::connect(&database.url).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await;
        connection.close().await?;
        done
    };
    patiently(attempt).await;
}

async fn save(database: &Database) {
    let copies =
        TABLES.iter().map(|table| format!("CREATE TABLE then_{table} AS SELECT * FROM {table};"));
    run(database, copies.collect()).await;
}

async fn put_back(database: &Database) {
    let begin = if database.is_postgres() { "BEGIN;" } else { "BEGIN IMMEDIATE;" };
    let mut sql = begin.to_owned();
    for table in TABLES.iter().rev() {
        let _ = write!(sql, "DELETE FROM {table};");
    }
    for table in TABLES {
        let _ = write!(sql, "INSERT INTO {table} SELECT * FROM then_{table};");
    }
    run(database, sql + "COMMIT;").await;
}

#[tokio::test]
async fn a_database_that_is_put_back_under_a_running_server_is_settled() {
    let app = TestApp::start().await;
    let (client, revoked) = app.tokens_of("bob").await;
    let kept = client.sign_in("alice").await;
    let code = client.code("alice").await;
    let settle = async || while app.storage().settle_audit().await.unwrap() > 0 {};
    settle().await;
    save(&app.database).await;
    client.revoke(&revoked.refresh_token).await.assert_status(200);
    let rotated = Tokens::of(&client.refresh(&kept.refresh_token).await);
    settle().await;
    assert!(!app.look_back().await, "nothing is missing yet");

    put_back(&app.database).await;

    // The server looks once a second by itself; here it may have done so already.
    app.look_back().await;
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'database_went_back'";
    assert_eq!(app.database.number(told).await, 1);
    client.call_tool(&revoked.access_token, "get-todos", json!({})).await.assert_status(401);
    for tokens in [&revoked, &kept, &rotated] {
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    }
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    let again = client.sign_in("bob").await;
    settle().await;
    assert!(!app.look_back().await, "it is settled once");
    client.refresh(&again.refresh_token).await.assert_status(200);
    assert_eq!(app.database.number(told).await, 1);

    assert!(logs::all().contains("the database went back in time: a failover"));
    let metrics = app.metrics().await;
    assert!(metrics["portcullis_events_total{event=\"database_went_back\"}"] > 0.5);
    let noticed = metrics["portcullis_database_went_back_timestamp"];
    assert_eq!(format!("{noticed:.0}"), app.now().unix().to_string());
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let overview = alice.page("/").await;
    assert!(overview.contains("The database went back in time"), "{overview}");
    app.advance(8 * 24 * 3600);
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(!alice.page("/").await.contains("The database went back in time"));
}

#[tokio::test]
async fn a_database_that_only_goes_on_is_left_alone() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let mut tokens = tokens;
    for _ in 0..20 {
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        app.storage().settle_audit().await.unwrap();
        assert!(!app.look_back().await);
        app.advance(60);
    }
    assert_eq!(app.storage().went_back_at(), None);
}
