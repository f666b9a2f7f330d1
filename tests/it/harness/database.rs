//! A database per test: an SQLite file in a folder of its own, or a schema in the PostgreSQL that
//! `TEST_DATABASE_URL` names.

use std::path::PathBuf;

use portcullis::oauth::secret::random_bytes;
use sqlx::{AssertSqlSafe, Connection};

pub(crate) struct Database {
    pub url: String,
    /// The folder of the SQLite file; also where other files of the test go.
    pub folder: PathBuf,
    schema: Option<(String, String)>,
}

/// A lock on a database.
pub(crate) struct Locked(sqlx::AnyConnection);

impl Locked {
    pub(crate) async fn release(mut self) {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

impl Database {
    pub(crate) async fn new() -> Self {
        let name = format!("test_{:032x}", u128::from_be_bytes(random_bytes::<16>()));
        let folder = std::env::temp_dir().join(format!("portcullis_{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
            let url = format!("sqlite://{}/portcullis.db", folder.display());
            return Self { url, folder, schema: None };
        };
        portcullis::storage::install_drivers();
        let mut connection = sqlx::AnyConnection::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        let joiner = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joiner}options=-c%20search_path%3D{name}");
        Self { url, folder, schema: Some((server, name)) }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.schema.is_some()
    }

    /// One number from the database, asked past the server.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        self.number_of(sql).await
    }

    /// The same with a text that is put together.
    pub(crate) async fn number_of(&self, sql: &str) -> i64 {
        portcullis::storage::install_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let sql = AssertSqlSafe(sql.to_owned());
        let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }

    /// One text from the database, asked past the server.
    pub(crate) async fn text(&self, sql: &'static str) -> String {
        portcullis::storage::install_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let text = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        text
    }

    /// Keeps everybody else from writing.
    pub(crate) async fn lock(&self) -> Locked {
        self.lock_by(if self.is_postgres() {
            "BEGIN; LOCK TABLE installation IN EXCLUSIVE MODE"
        } else {
            "BEGIN IMMEDIATE"
        })
        .await
    }

    /// Keeps everybody else on PostgreSQL away from all grants.
    pub(crate) async fn lock_grants(&self) -> Locked {
        self.lock_by("BEGIN; LOCK TABLE grants IN ACCESS EXCLUSIVE MODE").await
    }

    /// Keeps everybody else on PostgreSQL away from a table.
    pub(crate) async fn lock_table(&self, table: &str) -> Locked {
        self.lock_by(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await
    }

    /// Keeps everybody else from writing, and on PostgreSQL from reading this table.
    pub(crate) async fn lock_for_all(&self, table: &str) -> Locked {
        if self.is_postgres() { self.lock_table(table).await } else { self.lock().await }
    }

    /// The schema of this test on PostgreSQL.
    pub(crate) fn schema_name(&self) -> &str {
        self.schema.as_ref().map_or("", |(_, schema)| schema)
    }

    async fn lock_by(&self, sql: &str) -> Locked {
        portcullis::storage::install_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        Locked(connection)
    }

    /// Runs a statement past the server.
    pub(crate) async fn execute(&self, sql: &str) {
        portcullis::storage::install_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Everything a thief of the database gets, as bytes.
    pub(crate) async fn dump(&self) -> Vec<u8> {
        match &self.schema {
            None => ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"]
                .iter()
                .filter_map(|file| std::fs::read(self.folder.join(file)).ok())
                .flatten()
                .collect(),
            Some(_) => self.dump_postgres().await,
        }
    }

    async fn dump_postgres(&self) -> Vec<u8> {
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let mut dump = Vec::new();
        for table in [
            "installation",
            "signing_keys",
            "certificates",
            "acme_secrets",
            "clients",
            "consents",
            "logins",
            "upstream_sessions",
            "grants",
            "authorization_codes",
            "refresh_tokens",
            "replay_guard",
            "audit_events",
            "client_reviews",
            "people",
            "people_words",
            "web_sessions",
            "remembered_consents",
            "logins_awaiting_approval",
            "notifications",
            "notification_targets",
            "counters",
            "usage_keys",
            "usage_hours",
            "usage_days",
            "connections",
            "connection_attempts",
            "token_revocations",
        ] {
            let rows: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(format!("SELECT CAST(t AS TEXT) FROM {table} t")))
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
            dump.extend(rows.join("\n").into_bytes());
        }
        dump
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        // Schemas go with the throw-away server of the run.
    }
}
