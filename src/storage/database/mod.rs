//! The database: its connections, transactions, schema and health. It knows SQL, and nothing of what the
//! tables mean; that is the business of the modules above.
//!
//! Each engine has a room of its own, [`sqlite`] and [`postgres`], and nothing outside of this folder
//! looks into them. Imports point downwards: `open` and `attach` use everything, the engines use
//! `errors`, `secret_key` and `health`, and no two files import each other.

mod arguments;
mod attach;
mod driver;
mod errors;
mod health;
mod migrate;
mod open;
mod postgres;
mod secret_key;
pub(crate) mod select;
mod sqlite;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row as _};
use tokio::time::Instant;

pub(crate) use errors::is_lock_timeout;
pub use errors::{Denied, OpenError, StorageError};
pub use health::Ready;
pub(crate) use migrate::{migrations, migrations_and};
pub use open::install_drivers;
pub use postgres::examine::{DatabaseServer, examine};
pub(crate) use postgres::notify::{NoticeHandler, Notifications, notify, notify_of_connections};
pub(crate) use postgres::pools::ConnectionCheck;
pub use postgres::pools::{DATABASE_CONNECTIONS, FEWEST_CONNECTIONS};
pub(crate) use postgres::retry::Attempts;
pub use secret_key::KeyProof;
pub(crate) use secret_key::opens_known_text;
pub use select::COUNTED;
pub use sqlite::backup::BackupError;
pub(crate) use sqlite::backup::MARK as BACKUP_MARK;
pub use sqlite::size_limit::Room;
pub(crate) use sqlite::size_limit::Use;
pub(crate) use transaction::SqlTransaction;

use crate::clock::Timestamp;
use crate::telemetry::metrics::Metrics;

/// Longest wait for a connection or a lock: 5 seconds. After it, the request fails with "try again".
const BUSY: Duration = Duration::from_secs(5);

/// The database engine. Both run the same SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One process, one file.
    Sqlite,
    /// One server, shared by several replicas.
    Postgres,
}

impl Engine {
    /// Returns its name in the conventions of OpenTelemetry.
    pub const fn system(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgresql",
        }
    }
}

/// An open database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    /// On SQLite, connections of sqlx's own driver for slow work. On PostgreSQL, the pool for
    /// transactions.
    pool: AnyPool,
    backend: Backend,
    readiness: Arc<health::Readiness>,
    metrics: Metrics,
    /// Whether this is a command attached to the database of a server; see [`attach`].
    attached: bool,
}

/// What only one of the engines needs.
#[derive(Clone)]
enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::pools::Pools),
}

/// What a transaction is for: it decides whether a full database or a full disk refuses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WritePolicy {
    /// Anything else. A full database and a full disk refuse it.
    Ordinary,
    /// It frees space. A full database does not refuse it; a full disk does.
    Cleanup,
    /// It ends grants. Neither refuses it.
    Revocation,
}

impl Database {
    fn new(pool: AnyPool, backend: Backend, metrics: Metrics, attached: bool) -> Self {
        Self { pool, backend, readiness: Arc::default(), metrics, attached }
    }

    pub(crate) fn engine(&self) -> Engine {
        match self.backend {
            Backend::Sqlite(_) => Engine::Sqlite,
            Backend::Postgres(_) => Engine::Postgres,
        }
    }

    fn sqlite(&self) -> Option<&sqlite::Sqlite> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Some(sqlite),
            Backend::Postgres(_) => None,
        }
    }

    fn postgres(&self) -> Option<&postgres::pools::Pools> {
        match &self.backend {
            Backend::Sqlite(_) => None,
            Backend::Postgres(pools) => Some(pools),
        }
    }

    /// Returns the pool for slow reads, such as lists of administrators.
    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Returns the metrics of this process.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns whether this is a command attached to the database of a server.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Returns how many callers wait for SQLite's writer; 0 on PostgreSQL.
    pub(crate) fn writer_waiting(&self) -> usize {
        self.sqlite().map_or(0, |sqlite| sqlite.writer.waiting())
    }

    /// Returns how many pooled connections are in use, and how many are idle.
    pub(crate) fn pool_connections(&self) -> (u32, u32) {
        let (others, idle) = self.postgres().map_or((0, 0), postgres::pools::Pools::count);
        let idle = u32::try_from(self.pool.num_idle() + idle).unwrap_or(u32::MAX);
        ((self.pool.size() + others).saturating_sub(idle), idle)
    }

    /// Begins a transaction. On SQLite it waits for its turn: there is one writer, and callers that queue
    /// behind each other share a commit.
    pub(crate) async fn begin(&self, policy: WritePolicy) -> Result<SqlTransaction, StorageError> {
        match policy {
            WritePolicy::Revocation => self.use_reserve_if_needed(),
            WritePolicy::Ordinary | WritePolicy::Cleanup => self.refuse_on_reserve()?,
        }
        self.refuse_gone()?;
        let asked = Instant::now();
        let mut transaction = match &self.backend {
            Backend::Sqlite(sqlite) => SqlTransaction::Sqlite(sqlite.writer.begin().await?),
            Backend::Postgres(_) => SqlTransaction::Postgres(self.transaction().await?),
        };
        self.metrics.step_waited(asked);
        if policy != WritePolicy::Ordinary {
            transaction.use_reserve().await?;
        }
        Ok(transaction)
    }

    /// Closes all connections. A server's SQLite also checkpoints the WAL into the database file.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
        match &self.backend {
            Backend::Postgres(pools) => pools.close().await,
            Backend::Sqlite(sqlite) => {
                if let Some(readers) = &sqlite.readers {
                    readers.close().await;
                }
                sqlite.writer.close(!self.attached).await;
            }
        }
    }
}

/// Reads a column. The type at the call decides how.
pub(crate) fn column<'r, T>(row: &'r AnyRow, name: &'static str) -> Result<T, StorageError>
where
    T: sqlx::Decode<'r, Any> + sqlx::Type<Any>,
{
    Ok(row.try_get(name)?)
}

/// Reads a column of Unix seconds.
pub(crate) fn moment(row: &AnyRow, name: &'static str) -> Result<Timestamp, StorageError> {
    Ok(Timestamp::from_unix(column(row, name)?))
}

/// Reads a nullable column of Unix seconds.
pub(crate) fn moment_if_any(
    row: &AnyRow,
    name: &'static str,
) -> Result<Option<Timestamp>, StorageError> {
    Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_unix))
}
