//! Opens the database of a running server for a command, for a few transactions.
//!
//! A server on SQLite must be the only one, because it keeps in memory which streams are open and which
//! grants were live a moment ago. A command keeps no such state. It takes part in SQLite's own locking
//! (write lock at the start, a wait of some seconds), changes no schema and makes no key.

use std::fs::OpenOptions;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

use super::migrate::{Schema, migrations, schema_of};
use super::open::{check_version, install_drivers, sqlite_path};
use super::postgres::pools::Pools;
use super::postgres::server::Server;
use super::postgres::{address, session_settings};
use super::sqlite::group_commit::Writer;
use super::sqlite::{Sqlite, backup, connection, pragmas};
use super::{BUSY, Backend, Database, OpenError};
use crate::telemetry::metrics::Metrics;

/// Longest wait for SQLite's write lock: 20 seconds, because a server commits in batches and may hold the
/// lock for long.
const PATIENT: Duration = Duration::from_secs(20);

impl Database {
    /// Opens the database at `url`, whether or not a server is running on it. It makes neither a database
    /// nor a schema, and fails where one is missing.
    pub(crate) async fn attach(url: &str) -> Result<Self, OpenError> {
        install_drivers();
        let metrics = Metrics::new(); // a command exposes no metrics
        let (pool, backend) = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => {
                let path = sqlite_path(url);
                if !path.exists() {
                    return Err(OpenError::NoDatabase(path));
                }
                let usable = OpenOptions::new().read(true).write(true).open(&path);
                usable.map_err(|cause| OpenError::File { path: path.clone(), cause })?;
                backup::refuse_foreign_log(&path)?;
                let pool = small_pool()
                    .after_connect(|connection, _| Box::pin(pragmas::set_up(connection)))
                    .connect_with(connection::sqlx_options(&path)?)
                    .await?;
                check_version(&pool).await?;
                let options = connection::options(&path, PATIENT)?;
                let sqlite = Sqlite {
                    writer: Writer::open(options, PATIENT, metrics.clone()).await?,
                    readers: None, // a command reads little
                    files: None,
                    reserve: None,
                    path,
                    _only_process: None,
                };
                (pool, Backend::Sqlite(sqlite))
            }
            Some("postgres" | "postgresql") => {
                let bound = small_pool()
                    .after_connect(|connection, _| Box::pin(session_settings::serve(connection)));
                let server = Server::new(address::options(url)?, metrics.clone());
                let pool = bound.connect_with(server.options()?).await?;
                let pools = Pools::of_one(&pool, server);
                (pool, Backend::Postgres(pools))
            }
            _ => return Err(OpenError::Address),
        };
        refuse_other_schema(&pool).await?;
        Ok(Self::new(pool, backend, metrics, true))
    }
}

/// Makes a pool for a command, which ends soon. Connections have no maximum age: otherwise sqlx's
/// maintenance task, which closes old connections, can keep the process from ending for hours when a
/// connection is returned at the wrong moment (sqlx 0.9, `spawn_maintenance_tasks`).
fn small_pool() -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(2).acquire_timeout(BUSY);
    options.idle_timeout(None).max_lifetime(None)
}

/// Fails unless the schema is the one that this program knows: a command migrates nothing.
async fn refuse_other_schema(pool: &AnyPool) -> Result<(), OpenError> {
    let migrator = migrations();
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    match schema_of(pool, &migrator).await? {
        Schema::Complete => Ok(()),
        Schema::None => Err(OpenError::NeverServed),
        Schema::Older(found) => Err(OpenError::OtherSchema {
            whose: "an older",
            found,
            known,
            hint: "start this version's `portcullis serve` once, which brings it up to date",
        }),
    }
}
