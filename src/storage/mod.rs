//! Persistent state: one concrete `Storage` over SQLite or PostgreSQL, with one method per atomic
//! protocol step.
//!
//! A method begins a transaction with `Storage::begin`, ends it before it returns, and never waits for
//! the network in between. Whatever may happen only once (redeeming a code, rotating a token) is a
//! conditional `UPDATE` whose row count decides. The database holds only hashes and sealed texts; the key
//! that seals them is stored outside of it.

mod audit;
mod authorization_codes;
mod backup;
mod client_reviews;
mod clients;
mod clock_guard;
mod connected_clients;
mod consents;
mod counted;
mod database;
mod grants;
mod logins;
mod logout_notices;
mod mcp_tasks;
mod overview;
mod people;
mod refresh_tokens;
mod replay_guard;
mod replica_reports;
mod retention;
mod revocation;
mod rollback_detection;
mod scope_challenges;
mod signing_keys;
mod stored;
mod upstream_sessions;
mod web_sessions;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub use audit::{AuditFilter, AuditLine, ChainBroken, ChainHead, SETTLED_AT_ONCE, Verified};
pub use authorization_codes::{GrantTerms, NewCode, Redeemed, RedeemedGrant};
pub use backup::BackupError;
pub use client_reviews::{
    ClientDecided, ClientReview, LoginAwaitingApproval, NewLoginAwaitingApproval, ReviewDecision,
    ReviewState, Waiting,
};
pub use clients::{ClientFilter, ClientKind, ClientRow, KeptClient, Registered, StoredClient};
pub use connected_clients::{Approved, ConnectedClient};
pub use consents::NewRemembered;
pub use counted::{Counted, Ended, Ending};
pub use database::errors::{Denied, StorageError};
pub use database::health::Ready;
pub use database::open::{OpenError, install_drivers};
pub use database::postgres::pools::{DATABASE_CONNECTIONS, FEWEST_CONNECTIONS};
pub use database::secret_key::KeyProof;
pub use database::sqlite::size_limit::Room;
pub use grants::{GrantFilter, GrantRow, GrantState, LiveGrant, Selection};
pub use logins::{
    Approval, ApprovedPage, Claimed, Comer, Decided, LoginQuota, NewLogin, OtherBrowser,
    PendingLogin,
};
pub use logout_notices::{LogoutNotice, LogoutSubject};
pub use mcp_tasks::TaskMaker;
pub use overview::Overview;
pub use people::{PersonFilter, PersonRow, ProviderSession, WebSessionRow};
pub use refresh_tokens::{FoundRefreshToken, Rotated, Rotation};
pub use replay_guard::AssertionUse;
pub use replica_reports::ReplicaReport;
pub use retention::Retention;
pub use signing_keys::{RetiredKey, StoredKey};
pub use upstream_sessions::{
    Lease, Person, Renewed, SessionUpdate, UpstreamSession, UpstreamTokens, session_id,
};

pub use web_sessions::{NewSignIn, Realm, WebSession};

use database::postgres::{notify, pools, timeouts};
use database::sqlite::size_limit::Use;
use database::sqlite::{disk_reserve, file_watch, group_commit, read_pool, size_limit};
use database::{attach, health, select};

use crate::oauth::sealed::{Purpose, Sealer};
use crate::telemetry::audit::AuditEvent;
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

/// The database, and the key that seals its confidential columns. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    pool: AnyPool,
    engine: Engine,
    sealer: Sealer,
    /// SQLite only: the one writer. Transactions share its commits; see [`group_commit`].
    writer: Option<group_commit::Writer>,
    /// SQLite only: connections for the reads that almost every request makes.
    readers: Option<read_pool::Readers>,
    /// PostgreSQL only: connections for reads outside of transactions, and for `/ready`.
    pools: Option<pools::Pools>,
    grants_ended: watch::Sender<u64>,
    recent_grants: Arc<grants::RecentGrants>,
    /// When the last use of each client was written, so that not every request writes it.
    clients_used: Arc<quick_cache::sync::Cache<String, crate::clock::Timestamp>>,
    /// PostgreSQL only: notifications to and from other replicas.
    replicas: Option<notify::Replicas>,
    remembered_overview: Arc<Mutex<Option<overview::RememberedOverview>>>,
    readiness: Arc<health::Readiness>,
    audit_size: Arc<audit::AuditSize>,
    /// Limits how many audit lines anonymous callers, and each person, may cause.
    lines: Arc<audit::LineBudget>,
    last_time: Arc<clock_guard::ClockGuard>,
    /// What was last seen of the database, to detect that it was rolled back (restored, failed over).
    watch: Arc<rollback_detection::Watch>,
    /// Replaces the database's own clock in tests.
    database_clock: Arc<std::sync::OnceLock<crate::clock::Clock>>,
    metrics: Metrics,
    /// Whether this is a command attached to the database of a server; see [`attach`].
    attached: bool,
    /// SQLite, opened by a server: the database files, watched for disappearance.
    watched: Option<Arc<file_watch::DatabaseFiles>>,
    /// SQLite, opened by a server: disk space that is kept free for revocations.
    reserve: Option<Arc<disk_reserve::Reserve>>,
    _only_process: Option<Arc<File>>,
}

/// An atomic transaction. Dropped without [`Self::commit`], it changes nothing.
pub(crate) struct Transaction {
    work: TransactionKind,
    /// Events that are logged and counted once the transaction is durable.
    events: Vec<AuditEvent>,
    metrics: Metrics,
    /// Makes the MAC of each audit line.
    sealer: Sealer,
    lines: Arc<audit::LineBudget>,
    /// Receives the id of the last audit line after the commit. The number is the generation in which the
    /// transaction began: a line from before the database was checked is ignored.
    watch: Option<(Arc<rollback_detection::Watch>, u64)>,
    /// The id of the last audit line stored here, of those that stay until the oldest lines are trimmed.
    last_line: Option<String>,
}

pub(crate) enum TransactionKind {
    /// A savepoint in a transaction that other callers share; see [`group_commit`].
    Sqlite(group_commit::Step),
    /// A transaction of its own.
    Postgres(sqlx::Transaction<'static, Any>),
}

impl Transaction {
    /// Lets the transaction write beyond `limits.database_size`, because it turned out to end grants.
    async fn use_reserve(&mut self) -> Result<(), StorageError> {
        match &mut self.work {
            TransactionKind::Sqlite(step) => step.use_reserve().await,
            TransactionKind::Postgres(_) => Ok(()),
        }
    }

    /// Commits. Only after it returns may anybody learn of the outcome.
    async fn commit(self) -> Result<(), StorageError> {
        match self.work {
            TransactionKind::Sqlite(step) => step.commit().await?,
            TransactionKind::Postgres(transaction) => {
                let begun = Instant::now();
                transaction.commit().await?;
                self.metrics.committed(None, begun);
            }
        }
        if let (Some((watch, generation)), Some(id)) = (self.watch, self.last_line) {
            watch.committed(generation, id);
        }
        for event in &self.events {
            self.metrics.event(event.event);
            event.log();
        }
        Ok(())
    }
}

impl std::ops::Deref for Transaction {
    type Target = sqlx::AnyConnection;
    fn deref(&self) -> &Self::Target {
        match &self.work {
            TransactionKind::Sqlite(step) => step,
            TransactionKind::Postgres(transaction) => transaction,
        }
    }
}

impl std::ops::DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.work {
            TransactionKind::Sqlite(step) => step,
            TransactionKind::Postgres(transaction) => transaction,
        }
    }
}

/// Wakes the open streams when dropped, even if the commit panics or its result is unknown.
struct NotifyOnDrop<'a>(&'a Storage);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake_streams();
    }
}

impl Storage {
    /// Returns the engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Returns the metrics of this process. They live here because everything that measures has the
    /// storage.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns how many callers wait for SQLite's writer; 0 on PostgreSQL.
    pub fn writer_waiting(&self) -> usize {
        self.writer.as_ref().map_or(0, group_commit::Writer::waiting)
    }

    /// Returns how many pooled connections are in use, and how many are idle.
    pub fn pool_connections(&self) -> (u32, u32) {
        let (beside, idle) = self.pools.as_ref().map_or((0, 0), pools::Pools::count);
        let idle = u32::try_from(self.pool.num_idle() + idle).unwrap_or(u32::MAX);
        ((self.pool.size() + beside).saturating_sub(idle), idle)
    }

    /// Returns the number of clients that registered themselves. The quota uses this counter.
    pub async fn registered_clients(&self) -> Result<i64, StorageError> {
        let count = sqlx::query("SELECT value FROM counters WHERE name = 'clients'");
        let row = self.read_row(count).await?;
        row.as_ref().map_or(Ok(0), |row| column(row, "value"))
    }

    /// Returns a receiver that wakes whenever grants may have ended, here or in a replica. The value
    /// itself has no meaning.
    pub fn grants_ended(&self) -> watch::Receiver<u64> {
        self.grants_ended.subscribe()
    }

    /// Closes all connections. A server's SQLite also checkpoints the WAL into the database file.
    pub async fn close(&self) {
        self.pool.close().await;
        self.watch.close().await;
        if let Some(pools) = &self.pools {
            pools.close().await;
        }
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        if let Some(writer) = &self.writer {
            writer.close(!self.attached).await;
        }
    }

    /// Begins a transaction. On SQLite it waits for its turn: there is one writer, and callers that queue
    /// behind each other share a commit.
    async fn begin(&self) -> Result<Transaction, StorageError> {
        self.refuse_on_reserve()?;
        let mut step = self.begin_without_marker().await?;
        if self.attached {
            attach::bump_change_marker(&mut step).await?;
        }
        Ok(step)
    }

    /// Begins a transaction that ends grants. Neither a full database nor a full disk refuses it.
    async fn begin_revocation(&self) -> Result<Transaction, StorageError> {
        self.use_reserve_if_needed();
        self.begin_beyond_the_limit().await
    }

    /// Begins a transaction that frees space. A full database does not refuse it; a full disk does.
    async fn begin_cleanup(&self) -> Result<Transaction, StorageError> {
        self.refuse_on_reserve()?;
        self.begin_beyond_the_limit().await
    }

    async fn begin_beyond_the_limit(&self) -> Result<Transaction, StorageError> {
        let mut step = self.begin_without_marker().await?;
        step.use_reserve().await?;
        if self.attached {
            attach::bump_change_marker(&mut step).await?;
        }
        Ok(step)
    }

    async fn begin_without_marker(&self) -> Result<Transaction, StorageError> {
        self.refuse_gone()?;
        let asked = Instant::now();
        let work = match &self.writer {
            Some(writer) => TransactionKind::Sqlite(writer.begin().await?),
            None => TransactionKind::Postgres(self.transaction(&self.pool).await?),
        };
        self.metrics.step_waited(asked);
        let metrics = self.metrics.clone();
        let (sealer, lines) = (self.sealer.clone(), Arc::clone(&self.lines));
        let watch = Some((Arc::clone(&self.watch), self.watch.generation()));
        Ok(Transaction { work, events: Vec::new(), metrics, sealer, lines, watch, last_line: None })
    }

    /// Wakes everything in this process that waits for the end of a grant, so that it checks again.
    pub fn wake_streams(&self) {
        self.grants_ended.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Commits a transaction that ends grants, and notifies everything that must check them again: this
    /// process directly, every replica through the commit itself. A task of its own does both, so that it
    /// also happens when the caller goes away. This process is notified even if the commit fails, because
    /// a failed commit may still have reached the database.
    async fn commit_and_notify(&self, mut step: Transaction) -> Result<(), StorageError> {
        let storage = self.clone();
        let told = tokio::spawn(async move {
            if storage.engine == Engine::Postgres {
                notify::tell(&mut step, storage.replicas.as_ref()).await?;
            }
            let _told = NotifyOnDrop(&storage);
            step.commit().await
        });
        told.await.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Seals a value for one column of one row. It opens nowhere else.
    fn seal(&self, column: &str, row: &str, plaintext: &[u8]) -> String {
        self.sealer.seal(Purpose::Storage, &format!("{column}/{row}"), plaintext)
    }

    fn seal_json<T: serde::Serialize>(
        &self,
        column: &str,
        row: &str,
        value: &T,
    ) -> Result<String, StorageError> {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(value)?);
        Ok(self.seal(column, row, &json))
    }

    fn open_json<T: serde::de::DeserializeOwned>(
        &self,
        column: &str,
        row: &str,
        sealed: &str,
    ) -> Result<T, StorageError> {
        let opened = self.sealer.open(Purpose::Storage, &format!("{column}/{row}"), sealed)?;
        Ok(serde_json::from_slice(&opened)?)
    }
}

/// Reads a column. The type at the call decides how.
fn column<'r, T>(row: &'r AnyRow, name: &'static str) -> Result<T, StorageError>
where
    T: sqlx::Decode<'r, Any> + sqlx::Type<Any>,
{
    Ok(row.try_get(name)?)
}

/// Reads a column of Unix seconds.
fn moment(row: &AnyRow, name: &'static str) -> Result<crate::clock::Timestamp, StorageError> {
    Ok(crate::clock::Timestamp::from_unix(column(row, name)?))
}

/// Reads a nullable column of Unix seconds.
fn moment_if_any(
    row: &AnyRow,
    name: &'static str,
) -> Result<Option<crate::clock::Timestamp>, StorageError> {
    Ok(column::<Option<i64>>(row, name)?.map(crate::clock::Timestamp::from_unix))
}

/// Reads a column of space-separated scopes.
fn scopes(row: &AnyRow, name: &'static str) -> Result<crate::oauth::scope::ScopeSet, StorageError> {
    crate::oauth::scope::ScopeSet::parse(&column::<String>(row, name)?)
        .map_err(|refused| StorageError::Corrupt(format!("{name}: {refused}")))
}
