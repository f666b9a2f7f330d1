//! Servers that speak PostgreSQL's protocol and are not PostgreSQL, by what they call themselves.

use portcullis::storage::Storage;

use crate::cli::check::{check_with, finding};
use crate::harness::database::Database;
use crate::harness::{TestApp, logs};

const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";
const COCKROACH: &str = "CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/06/30)";
const YUGABYTE: &str =
    "PostgreSQL 15.12-YB-2025.2.3.0-b1 on x86_64-pc-linux-gnu, compiled by clang";

/// Lets the server call itself so, for everybody who connects with the returned URL.
async fn call_itself(database: &Database, version: &str) -> String {
    let sql =
        format!("CREATE FUNCTION version() RETURNS text LANGUAGE sql AS $$ SELECT '{version}' $$");
    database.execute(&sql).await;
    format!("{},pg_catalog", database.url)
}

#[tokio::test]
async fn a_start_on_cockroachdb_is_refused_with_what_it_lacks() {
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    let url = call_itself(&database, COCKROACH).await;
    let said = Storage::open(&url, Some(KEY)).await.err().unwrap().to_string();
    assert!(said.contains("CockroachDB") && said.contains("LISTEN"), "{said}");
    let tables =
        format!("SELECT COUNT(*) FROM pg_tables WHERE schemaname = '{}'", database.schema_name());
    assert_eq!(database.number_of(&tables).await, 0, "nothing is created");
}

#[tokio::test]
async fn a_start_on_a_server_that_nobody_has_tested_warns() {
    logs::install();
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    let url = call_itself(&database, YUGABYTE).await;
    Storage::open(&url, Some(KEY)).await.unwrap().close().await;
    assert!(logs::all().contains("YugabyteDB: nobody has tested"));
}

#[tokio::test]
async fn check_says_which_server_it_is_and_changes_nothing() {
    let app = TestApp::start_on_the_real_clock().await;
    if !app.database.is_postgres() {
        return;
    }
    let (findings, _) = check_with(&app, &app.config_text(), &[]).await;
    let found = finding(&findings, "database");
    assert_eq!(found["severity"], "ok");
    assert!(found["found"].as_str().unwrap().starts_with("PostgreSQL 1"), "{found}");

    for (version, severity) in [(COCKROACH, "failed"), (YUGABYTE, "warning")] {
        let other = Database::new().await;
        let url = call_itself(&other, version).await;
        let config = app.config_text().replace(&app.database.url, &url);
        let (findings, _) = check_with(&app, &config, &[]).await;
        assert_eq!(finding(&findings, "database")["severity"], severity, "{version}");
        let tables =
            format!("SELECT COUNT(*) FROM pg_tables WHERE schemaname = '{}'", other.schema_name());
        assert_eq!(other.number_of(&tables).await, 0);
    }
    let gone = app.config_text().replace("/postgres?", "/not_there?");
    let (findings, code) = check_with(&app, &gone, &[]).await;
    let found = finding(&findings, "database");
    assert_eq!((found["severity"].as_str(), code), (Some("failed"), 2), "{found}");
}
