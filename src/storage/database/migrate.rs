//! Schema migrations: checks whether the schema is the one of this program, and updates it on PostgreSQL.
//!
//! A statement that changes a table waits for all readers, and later readers queue behind it. So on
//! PostgreSQL each such wait is short and is retried, and the log names the session that is in the way.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AnyPool, ConnectOptions as _, Connection as _, Executor, Row, SqlSafeStr};
use tokio::time::{Instant, sleep};

use super::OpenError;
use super::errors;
use super::postgres::{privileges, product, session_settings, transaction_pooling};

/// Lock timeout of each attempt: 3 seconds. Longer would block other sessions behind it.
const LOCK: &str = "SET lock_timeout = '3s'";
/// Pause before the next attempt: 2 seconds, in which the sessions that queued behind the lock proceed.
const PAUSE: Duration = Duration::from_secs(2);
/// Waits of less than a second are not logged.
const SILENT: Duration = Duration::from_secs(1);
/// After 30 seconds the log names the blocking sessions again.
const REPEATED: Duration = Duration::from_secs(30);

const APPLIED: &str =
    "SELECT version, CAST(CASE WHEN success THEN 1 ELSE 0 END AS BIGINT) AS whole,
                              checksum, description
                       FROM _sqlx_migrations ORDER BY version";
const WAITED_FOR: &str =
    "SELECT a.pid::bigint AS pid, COALESCE(a.application_name, '') AS application,
            COALESCE(a.state, '') AS state, left(COALESCE(a.query, ''), 200) AS query,
            COALESCE((SELECT COALESCE(l.relation::regclass::text, l.locktype) FROM pg_locks l
                      WHERE l.pid = $1 AND NOT l.granted LIMIT 1), '') AS lock
     FROM pg_stat_activity a WHERE a.pid = ANY(pg_blocking_pids($1)) ORDER BY a.pid";

/// The migrations, compiled in. A change of the schema is a new file; an existing file is never edited
/// after a release.
pub(crate) fn migrations() -> Migrator {
    Migrator::with_migrations(vec![migration(
        1,
        "schema",
        include_str!("../../../migrations/0001_schema.sql"),
    )])
}

/// Returns the migrations of a later version, which has one more. For tests of updates.
pub(crate) fn migrations_and(sql: &'static str) -> Migrator {
    let mut all: Vec<Migration> = migrations().iter().cloned().collect();
    all.push(migration(9_000, "of a test", sql));
    Migrator::with_migrations(all)
}

/// Makes a migration from its number, name and SQL.
fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
}

/// A migration that the database has recorded.
struct Applied {
    version: i64,
    /// Whether it was completed.
    whole: bool,
    checksum: Vec<u8>,
    description: String,
}

/// Description of the first migration of the development versions before the first release.
const BEFORE_THE_FIRST_RELEASE: &str = "the main flow";

/// The state of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
    /// There is no schema yet.
    None,
    /// Migrations are missing. The number is the newest one that was applied.
    Older(i64),
    /// All migrations of this program have been applied.
    Complete,
}

/// Compares the applied migrations with those of this program. A schema of another version is an error:
/// it is left unchanged.
fn compare(applied: &[Applied], migrator: &Migrator) -> Result<Schema, OpenError> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    let Some(found) = applied.iter().map(|applied| applied.version).max() else {
        return Ok(Schema::None);
    };
    let ours = |applied: &Applied| {
        let known = migrator.iter().find(|migration| migration.version == applied.version);
        known.is_some_and(|known| known.checksum.as_ref() == applied.checksum.as_slice())
    };
    if applied.iter().any(|applied| applied.description == BEFORE_THE_FIRST_RELEASE) {
        return Err(OpenError::EarlierDevelopment);
    }
    if !applied.iter().any(ours) {
        let tables = vec!["_sqlx_migrations".to_owned()];
        return Err(OpenError::OtherApplication(tables));
    }
    let odd = |whose, version, hint| OpenError::OtherSchema { whose, found: version, known, hint };
    if let Some(half) = applied.iter().find(|applied| !applied.whole) {
        let hint = "its last migration did not finish: restore a backup of before";
        return Err(odd("a half-updated", half.version, hint));
    }
    if found > known {
        let hint = "use that version, or restore a backup of before it was installed";
        return Err(odd("a newer", found, hint));
    }
    if let Some(changed) = applied.iter().find(|applied| !ours(applied)) {
        let hint = "that migration is another one here: use the version that made the database";
        return Err(odd("another", changed.version, hint));
    }
    let versions: BTreeSet<i64> = applied.iter().map(|applied| applied.version).collect();
    let complete = migrator.iter().all(|migration| versions.contains(&migration.version));
    Ok(if complete { Schema::Complete } else { Schema::Older(found) })
}

/// Returns the state of an open database's schema. The table of migrations may be missing.
pub(crate) async fn schema_of(pool: &AnyPool, migrator: &Migrator) -> Result<Schema, OpenError> {
    let rows = match sqlx::query(APPLIED).fetch_all(pool).await {
        Ok(rows) => rows,
        Err(sqlx::Error::Database(cause)) if is_no_such_table(&*cause) => return Ok(Schema::None),
        Err(cause) => return Err(cause.into()),
    };
    let read = |row: &sqlx::any::AnyRow| -> Result<Applied, sqlx::Error> {
        let whole: i64 = row.try_get("whole")?;
        let (version, checksum) = (row.try_get("version")?, row.try_get("checksum")?);
        let description = row.try_get("description")?;
        Ok(Applied { version, whole: whole != 0, checksum, description })
    };
    compare(&rows.iter().map(read).collect::<Result<Vec<_>, _>>()?, migrator)
}

fn is_no_such_table(cause: &dyn sqlx::error::DatabaseError) -> bool {
    cause.code().as_deref() == Some("42P01") || cause.message().contains("no such table")
}

/// Rejects an SQLite file whose schema has another version, or which has tables of another application.
pub(crate) async fn refuse_other_file(
    pool: &AnyPool,
    migrator: &Migrator,
) -> Result<(), OpenError> {
    if schema_of(pool, migrator).await? != Schema::None {
        return Ok(());
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> '_sqlx_migrations'
         ORDER BY name LIMIT 20",
    )
    .fetch_all(pool)
    .await?;
    if tables.is_empty() { Ok(()) } else { Err(OpenError::OtherApplication(tables)) }
}

/// Migrates PostgreSQL's schema, however long other sessions block it.
pub(crate) async fn bring_up_to_date(
    options: &PgConnectOptions,
    migrator: &Migrator,
) -> Result<(), OpenError> {
    let mut connection = options.connect().await?;
    // First of all, so that the settings of the role do not apply.
    let set = session_settings::migrate(&mut connection).await;
    // Another server may not know a setting.
    let server = product::refuse_other_server(&mut connection).await?;
    set?;
    if let Some(doubt) = server.doubt {
        tracing::warn!(server = server.name, doubt, "the database is not PostgreSQL");
    }
    transaction_pooling::refuse_transaction_pooling(&mut connection, options).await?;
    refuse_other_encoding(&mut connection).await?;
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut connection)
        .await?;
    let schema = if exists {
        let rows = sqlx::query(APPLIED).fetch_all(&mut connection).await?;
        let read = |row: &PgRow| -> Result<Applied, sqlx::Error> {
            let whole: i64 = row.try_get("whole")?;
            let (version, checksum) = (row.try_get("version")?, row.try_get("checksum")?);
            let description = row.try_get("description")?;
            Ok(Applied { version, whole: whole != 0, checksum, description })
        };
        compare(&rows.iter().map(read).collect::<Result<Vec<_>, _>>()?, migrator)?
    } else {
        Schema::None
    };
    if schema == Schema::None {
        refuse_tables_of_others(&mut connection).await?;
    }
    // If the schema is complete, a role that may not create tables suffices.
    if schema != Schema::Complete {
        connection.execute(sqlx::raw_sql(LOCK)).await?;
        run_patiently(&mut connection, options, migrator).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Applies the missing migrations, and retries while other sessions hold their locks.
async fn run_patiently(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    migrator: &Migrator,
) -> Result<(), OpenError> {
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
    let mut waits = Waits::default();
    loop {
        let ended = {
            let run = migrator.run(&mut *connection);
            tokio::select! {
                ended = run => ended,
                never = watch(pid, options, &mut waits) => match never {},
            }
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(cause) if is_lock_timeout(&cause) => sleep(PAUSE).await,
            Err(cause) => return Err(cause.into()),
        }
    }
}

fn is_lock_timeout(cause: &MigrateError) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = cause else {
        return false;
    };
    errors::is_lock_timeout(cause)
}

async fn connect_to_watch(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    session_settings::migrate(&mut connection).await?;
    Ok(connection)
}

/// What has been logged.
#[derive(Default)]
struct Waits {
    told: BTreeSet<i64>,
    told_at: Option<Instant>,
}

/// Logs which sessions this one waits for, until it is dropped.
async fn watch(
    pid: i32,
    options: &PgConnectOptions,
    waits: &mut Waits,
) -> std::convert::Infallible {
    let mut beside: Option<PgConnection> = None;
    loop {
        sleep(SILENT).await;
        if beside.is_none() {
            beside = connect_to_watch(options).await.ok();
        }
        let Some(connection) = &mut beside else { continue };
        let waited_for = sqlx::query(WAITED_FOR).bind(pid).fetch_all(&mut *connection).await;
        let Ok(rows) = waited_for else {
            beside = None;
            continue;
        };
        if waits.told_at.is_some_and(|at| at.elapsed() >= REPEATED) {
            waits.told.clear();
        }
        for row in &rows {
            let session = row.try_get::<i64, _>("pid").unwrap_or_default();
            if waits.told.insert(session) {
                waits.told_at = Some(Instant::now());
                let text = |name: &str| row.try_get::<String, _>(name).unwrap_or_default();
                let lock = match text("lock").as_str() {
                    "advisory" => {
                        "the lock of another start that brings the schema up to date".to_owned()
                    }
                    table => table.to_owned(),
                };
                tracing::warn!(
                    pid = session,
                    application = text("application"),
                    state = text("state"),
                    query = text("query"),
                    lock,
                    "bringing the database schema up to date waits for another session of PostgreSQL"
                );
            }
        }
    }
}

/// Fails unless the encoding is UTF-8: another one rejects some texts, or cuts them.
async fn refuse_other_encoding(connection: &mut PgConnection) -> Result<(), OpenError> {
    let encoding: String = sqlx::query_scalar("SHOW server_encoding").fetch_one(connection).await?;
    if encoding == "UTF8" { Ok(()) } else { Err(OpenError::Encoding(encoding)) }
}

/// Fails if tables with our names exist: another application may use the same names.
async fn refuse_tables_of_others(connection: &mut PgConnection) -> Result<(), OpenError> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
         ORDER BY relname",
    )
    .fetch_all(&mut *connection)
    .await?;
    let ours: Vec<String> = tables.into_iter().filter(|table| privileges::is_ours(table)).collect();
    if ours.is_empty() { Ok(()) } else { Err(OpenError::OtherApplication(ours)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(version: i64, checksum: &[u8]) -> Applied {
        let description = "schema".to_owned();
        Applied { version, whole: true, checksum: checksum.to_vec(), description }
    }

    #[test]
    fn a_schema_is_complete_older_or_refused_with_what_to_do() {
        let names = [1, 2, 4, 5, 7].map(|version| migration(version, "a change", "SELECT 1"));
        let migrator = Migrator::with_migrations(names.to_vec());
        let all = || -> Vec<Applied> {
            migrator.iter().map(|known| applied(known.version, &known.checksum)).collect()
        };
        let compare = |applied: &[Applied]| compare(applied, &migrator);
        let said = |applied: &[Applied]| compare(applied).unwrap_err().to_string();
        assert_eq!(compare(&[]).unwrap(), Schema::None);
        assert_eq!(compare(&all()).unwrap(), Schema::Complete);
        assert_eq!(compare(&all()[..3]).unwrap(), Schema::Older(4));
        let mut without = all();
        without.remove(2);
        assert!(matches!(compare(&without).unwrap(), Schema::Older(_)));

        let mut newer = all();
        newer.push(applied(9_999, &[1]));
        assert!(
            said(&newer).contains("the schema of a newer Portcullis (9999"),
            "{}",
            said(&newer)
        );
        let mut changed = all();
        changed[4].checksum = vec![1];
        assert!(said(&changed).contains("that migration is another one here"));
        let mut half = all();
        half[4].whole = false;
        assert!(said(&half).contains("did not finish"));
        let others = [applied(1, &[1])];
        assert!(said(&others).contains("another application"));
        let mut early = others;
        early[0].description = BEFORE_THE_FIRST_RELEASE.to_owned();
        assert!(said(&early).contains("before the first release"), "{}", said(&early));
    }
}
