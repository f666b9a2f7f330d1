//! `/ready` reads as the gateway and the token endpoint read, and rights are looked at by name.

use portcullis::storage::Storage;
use serde_json::json;

use crate::harness::TestApp;

const TABLES: &[&str] = &[
    "grants",
    "upstream_sessions",
    "clients",
    "client_reviews",
    "people",
    "refresh_tokens",
    "authorization_codes",
    "audit_events",
    "counters",
];

#[tokio::test]
async fn ready_says_no_while_a_table_that_requests_need_is_locked() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    for table in TABLES {
        let lock = app.database.lock_table(table).await;
        app.advance(5);
        let ready = app.http.get(&app.at("/ready")).await;
        assert_eq!(ready.assert_status(503).json()["database"], "unavailable", "{table}");
        lock.release().await;
        app.advance(5);
        app.http.get(&app.at("/ready")).await.assert_status(200);
    }
}

#[tokio::test]
async fn a_lock_that_no_request_waits_for_does_not_take_a_replica_away() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let lock = app.database.lock().await;
    app.advance(5);

    app.http.get(&app.at("/ready")).await.assert_status(200);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_status(200);

    lock.release().await;
}

/// A role of a test that has everything but this; its URL.
async fn role_without(app: &TestApp, privilege: &str, table: &str) -> String {
    let name = format!("less_{:x}", u128::from_be_bytes(portcullis::oauth::secret::random_bytes()));
    let schema = app.database.schema_name();
    for statement in [
        format!("CREATE ROLE {name} LOGIN"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {name}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {name}"),
        format!("REVOKE {privilege} ON {schema}.{table} FROM {name}"),
    ] {
        app.database.execute(&statement).await;
    }
    app.database.url.replace("portcullis@", &format!("{name}@"))
}

const LACKING: &[(&str, &str)] = &[
    ("SELECT", "people"),
    ("UPDATE", "people"),
    ("INSERT", "refresh_tokens"),
    ("DELETE", "refresh_tokens"),
    ("INSERT", "audit_events"),
    ("UPDATE", "grants"),
    ("SELECT", "installation"),
    ("DELETE", "replay_guard"),
];

#[tokio::test]
async fn a_start_without_a_right_names_it() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let config = app.config();
    let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes());
    for (privilege, table) in LACKING {
        let url = role_without(&app, privilege, table).await;
        let said = Storage::open(&url, key).await.err().map(|cause| cause.to_string());
        let said = said.unwrap_or_default();
        assert!(said.contains(&format!("lacks privileges: {privilege} on {table}.")), "{said}");
    }
}

#[tokio::test]
async fn ready_says_no_when_a_right_is_taken_away() {
    let mut app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let url = role_without(&app, "TRUNCATE", "people").await;
    let role = url.split("//").nth(1).unwrap().split('@').next().unwrap().to_owned();
    let before = app.database.url.clone();
    app.change_config(&before, &url);
    // A role that may not create tables starts on a complete schema.
    app.restart().await;
    app.http.get(&app.at("/ready")).await.assert_status(200);
    for (privilege, table) in LACKING {
        app.database.execute(&format!("REVOKE {privilege} ON {table} FROM {role}")).await;
        app.advance(5);
        let ready = app.http.get(&app.at("/ready")).await;
        assert_eq!(ready.assert_status(503).json()["database"], "rights are missing");
        app.database.execute(&format!("GRANT {privilege} ON {table} TO {role}")).await;
        app.advance(5);
        app.http.get(&app.at("/ready")).await.assert_status(200);
    }
}
