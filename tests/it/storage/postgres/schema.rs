//! Bringing the schema up to date beside others, and schemas that are not ours to change.

use std::time::Duration;

use portcullis::storage::Storage;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::TestApp;
use crate::harness::database::Database;
use crate::harness::logs;

const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";

/// A migration of a later version.
const LATER: &str = "ALTER TABLE people ADD COLUMN later TEXT";

async fn said(database: &Database) -> String {
    match Storage::open(&database.url, Some(KEY)).await {
        Ok(_) => panic!("it was opened"),
        Err(cause) => cause.to_string(),
    }
}

async fn named(database: &Database, application: &str) -> sqlx::AnyConnection {
    let url = format!("{}&application_name={application}", database.url);
    sqlx::AnyConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn a_migration_behind_a_long_reader_names_it_and_lets_everybody_else_through() {
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    logs::install();
    Storage::open(&database.url, Some(KEY)).await.unwrap().close().await;
    let application = format!("dump_{}", database.schema_name());
    let mut reader = named(&database, &application).await;
    sqlx::raw_sql("BEGIN; SELECT COUNT(*) FROM people").execute(&mut reader).await.unwrap();

    let opening = Storage::open_with_migration(&database.url, Some(KEY), LATER);
    let others = async {
        // Twice: it asked, gave up for a while, and asked again.
        for _ in 0..2 {
            let waits =
                "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = 'people'::regclass";
            while database.number(waits).await == 0 {}
            // Whoever reads now waits behind the migration, and not for as long as it does.
            database.number("SELECT COUNT(*) FROM people").await;
            while database.number(waits).await > 0 {}
        }
        while !logs::all().contains(&application) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut reader).await.unwrap();
    };
    let (opened, ()) = tokio::join!(opening, others);

    opened.unwrap().close().await;
    let log = logs::all();
    let line = log.lines().find(|line| line.contains(&application)).unwrap();
    assert!(line.contains("waits for another session") && line.contains("people"), "{line}");
    assert!(line.contains("pid="), "{line}");
}

#[tokio::test]
async fn waiting_for_the_migrations_of_another_start_is_told() {
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    logs::install();
    let application = format!("other_{}", database.schema_name());
    let mut holder = named(&database, &application).await;
    let number = migration_lock(&database).await;
    let take = AssertSqlSafe(format!("SELECT pg_advisory_lock({number})"));
    sqlx::raw_sql(take).execute(&mut holder).await.unwrap();

    let opening = Storage::open(&database.url, Some(KEY));
    let others = async {
        while !logs::all().contains(&application) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let give = AssertSqlSafe(format!("SELECT pg_advisory_unlock({number})"));
        sqlx::raw_sql(give).execute(&mut holder).await.unwrap();
    };
    let (opened, ()) = tokio::join!(opening, others);

    opened.unwrap().close().await;
    let log = logs::all();
    let line = log.lines().find(|line| line.contains(&application)).unwrap();
    assert!(line.contains("another start"), "{line}");
}

/// As sqlx counts it: a CRC-32 of the database's name.
async fn migration_lock(database: &Database) -> i64 {
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let mut crc = u32::MAX;
    for byte in name.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    0x3d32_ad9e * i64::from(!crc)
}

#[tokio::test]
async fn a_statement_timeout_of_the_role_does_not_end_migrations() {
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    Storage::open(&database.url, Some(KEY)).await.unwrap().close().await;
    // Longer than the timeout of the role.
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                      'BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END'",
        )
        .await;
    database
        .execute(
            "CREATE TRIGGER slow BEFORE INSERT ON _sqlx_migrations
                      FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let name =
        format!("hasty_{:x}", u128::from_be_bytes(portcullis::oauth::secret::random_bytes()));
    let schema = database.schema_name();
    for statement in [
        format!("CREATE ROLE {name} LOGIN SUPERUSER"),
        format!("ALTER ROLE {name} SET statement_timeout = '200ms'"),
        format!("ALTER ROLE {name} SET search_path = {schema}"),
    ] {
        database.execute(&statement).await;
    }
    let url = database.url.replace("portcullis@", &format!("{name}@"));

    Storage::open_with_migration(&url, Some(KEY), LATER).await.unwrap().close().await;

    database.execute(&format!("DROP OWNED BY {name}")).await;
    database.execute(&format!("DROP ROLE {name}")).await;
}

#[tokio::test]
async fn tables_of_another_application_are_refused_before_ours_are_made() {
    for (others, named) in [
        ("CREATE TABLE people (id BIGINT)", "people"),
        ("CREATE TABLE clients (id BIGINT)", "clients"),
        ("CREATE TABLE replay_guard (id BIGINT)", "replay_guard"),
        (
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                 installed_on TEXT NOT NULL DEFAULT '', success BOOLEAN NOT NULL,
                 checksum TEXT NOT NULL DEFAULT '', execution_time BIGINT NOT NULL DEFAULT 0)",
            "_sqlx_migrations",
        ),
    ] {
        let database = Database::new().await;
        if !database.is_postgres() {
            std::fs::write(database.folder.join("portcullis.db"), []).unwrap();
        }
        if named == "_sqlx_migrations" {
            if !database.is_postgres() {
                continue;
            }
            database
                .execute(
                    &others.replace("checksum TEXT NOT NULL DEFAULT ''", "checksum BYTEA NOT NULL"),
                )
                .await;
            database
                .execute(
                    "INSERT INTO _sqlx_migrations (version, description, success, checksum)
                              VALUES (1, 'theirs', TRUE, 'x')",
                )
                .await;
        } else {
            database.execute(others).await;
        }

        let said = said(&database).await;

        assert!(said.contains("tables of another application") && said.contains(named), "{said}");
        let tables = if database.is_postgres() {
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema()"
        } else {
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'"
        };
        assert_eq!(database.number(tables).await, 1, "{named}: nothing was made");
    }
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_in_words_at_start_and_in_commands() {
    for (change, says) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
            "has the schema of a newer Portcullis (9999",
        ),
        ("UPDATE _sqlx_migrations SET success = (1 = 0) WHERE version = 1", "did not finish"),
        (
            "UPDATE _sqlx_migrations SET description = 'the main flow' WHERE version = 1",
            "a development version of Portcullis from before the first release created this database",
        ),
    ] {
        let mut app = TestApp::start_on_the_real_clock().await;
        std::fs::write(app.database.folder.join("portcullis.toml"), app.config_text()).unwrap();
        app.stop().await;
        app.database.execute(change).await;

        let started = said(&app.database).await;

        assert!(started.contains(says), "{started}");
        let folder = app.database.folder.clone();
        let ran = tokio::task::spawn_blocking(move || {
            crate::harness::process::run(&folder, &["clock", "show"], &[])
        });
        let ran = ran.await.unwrap();
        assert!(!ran.status.success());
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let database = Database::new().await;
    if !database.is_postgres() {
        return;
    }
    let name =
        format!("latin_{:x}", u128::from_be_bytes(portcullis::oauth::secret::random_bytes()));
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    database.execute(&create).await;
    let url = database.url.replace("/postgres?", &format!("/{name}?"));

    let said = Storage::open(&url, Some(KEY)).await.err().unwrap().to_string();

    assert!(said.contains("encoding LATIN1") && said.contains("UTF8"), "{said}");
    database.execute(&format!("DROP DATABASE {name}")).await;
}
