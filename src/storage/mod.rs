//! What must survive: one concrete `Storage`, one method per atomic protocol step.
//!
//! A transaction starts with `Storage::begin`, ends in the same method and never waits for the
//! network. What may happen only once is settled by a conditional `UPDATE` whose row count decides.
//! Only hashes and sealed texts are stored; the key that seals is not in the database.

mod address;
mod attach;
mod audit;
mod authorization_codes;
mod backup;
mod browse;
mod client_assertions;
mod client_reviews;
mod clients;
mod clock_guard;
mod connected_clients;
mod consents;
mod console;
mod counted;
mod crowds;
mod disk_reserve;
mod driver;
mod errors;
mod file_watch;
mod forgotten;
mod grants;
mod group_commit;
mod health;
mod logins;
mod logout_notices;
mod mcp_tasks;
mod migrate;
mod open;
mod pending;
mod people;
mod people_words;
mod pooling;
mod pools;
mod probe;
mod read_pool;
mod refresh_tokens;
mod replica_reports;
mod replicas;
mod retention;
mod review_decisions;
mod rights;
mod rollback_detection;
mod scope_challenges;
mod secret_key;
mod select;
mod session_settings;
mod sign_outs;
mod signing_keys;
mod size_limit;
mod stored;
mod timeouts;
mod upstream_sessions;
mod used_once;

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
pub use browse::{
    ClientFilter, ClientRow, GrantFilter, GrantRow, Overview, PersonFilter, PersonRow, Selection,
};
pub use client_assertions::AssertionUse;
pub use client_reviews::{
    ClientReview, LoginAwaitingApproval, NewLoginAwaitingApproval, ReviewState, Waiting,
};
pub use clients::{ClientKind, KeptClient, Registered, StoredClient};
pub use connected_clients::{Approved, ConnectedClient};
pub use consents::NewRemembered;
pub use console::{NewSignIn, Realm, WebSession};
pub use counted::{Counted, Ended, Ending};
pub use errors::{Denied, StorageError};
pub use grants::{GrantState, LiveGrant};
pub use health::Ready;
pub use logins::{
    Approval, ApprovedPage, Claimed, Comer, Decided, LoginQuota, NewLogin, OtherBrowser,
    PendingLogin,
};
pub use logout_notices::{LogoutNotice, LogoutSubject};
pub use mcp_tasks::TaskMaker;
pub use open::{OpenError, install_drivers};
pub use people::{ProviderSession, WebSessionRow};
pub use pools::{DATABASE_CONNECTIONS, FEWEST_CONNECTIONS};
pub use refresh_tokens::{FoundRefreshToken, Rotated, Rotation};
pub use replica_reports::ReplicaReport;
pub use retention::Retention;
pub use review_decisions::{ClientDecided, ReviewDecision};
pub use secret_key::KeyProof;
pub use signing_keys::{RetiredKey, StoredKey};
pub use size_limit::Room;
pub use upstream_sessions::{
    Lease, Person, Renewed, SessionUpdate, UpstreamSession, UpstreamTokens, session_id,
};

use size_limit::Use;

use crate::oauth::sealed::{Purpose, Sealer};
use crate::telemetry::audit::AuditEvent;
use crate::telemetry::metrics::Metrics;

/// Longest wait for a connection or a lock before the caller hears "try again".
const BUSY: Duration = Duration::from_secs(5);

/// Which engine serves; the SQL is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One process, one file.
    Sqlite,
    /// Replicas share it.
    Postgres,
}

/// The database, and the key that seals what rests in it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    pool: AnyPool,
    engine: Engine,
    sealer: Sealer,
    /// SQLite has one writer, which many steps share.
    writer: Option<group_commit::Writer>,
    /// On SQLite, the look-ups of almost every request have connections of their own.
    readers: Option<read_pool::Readers>,
    /// On PostgreSQL, what is not a step has connections of its own.
    pools: Option<pools::Pools>,
    grants_ended: watch::Sender<u64>,
    recent_grants: Arc<grants::RecentGrants>,
    /// When the use of a client was last noted.
    clients_used: Arc<quick_cache::sync::Cache<String, crate::clock::Timestamp>>,
    /// With PostgreSQL there may be others.
    replicas: Option<replicas::Replicas>,
    remembered_overview: Arc<Mutex<Option<browse::RememberedOverview>>>,
    readiness: Arc<health::Readiness>,
    audit_size: Arc<audit::AuditSize>,
    /// What the audit trail takes of anonymous callers, and of each person.
    lines: Arc<audit::LineBudget>,
    last_time: Arc<clock_guard::ClockGuard>,
    /// What was seen of the database, to notice when it goes back in time.
    watch: Arc<rollback_detection::Watch>,
    /// In place of the database's own clock, in tests.
    database_clock: Arc<std::sync::OnceLock<crate::clock::Clock>>,
    metrics: Metrics,
    /// Whether this process works beside the one that serves; see [`attach`].
    attached: bool,
    /// The files of an SQLite database that is served.
    watched: Option<Arc<file_watch::DatabaseFiles>>,
    /// Room on the disk, beside that.
    reserve: Option<Arc<disk_reserve::Reserve>>,
    _only_process: Option<Arc<File>>,
}

/// An atomic step: all of it, or nothing when it is dropped without [`Self::commit`].
struct Transaction {
    work: TransactionKind,
    /// Told to the log once the step is durable.
    events: Vec<AuditEvent>,
    metrics: Metrics,
    /// For the MAC of each line of the audit trail.
    sealer: Sealer,
    lines: Arc<audit::LineBudget>,
    /// Learns of the last line that was stored, unless that was begun before the database was settled.
    watch: Option<(Arc<rollback_detection::Watch>, u64)>,
    /// The last line that was stored of those that stay until the oldest lines go.
    last_line: Option<String>,
}

enum TransactionKind {
    /// Shares its transaction with the steps of others; see [`group_commit`].
    Sqlite(group_commit::Step),
    /// A transaction of its own.
    Postgres(sqlx::Transaction<'static, Any>),
}

impl Transaction {
    /// Lets the step write beyond `limits.database_size`: it turned out that it ends grants.
    async fn use_reserve(&mut self) -> Result<(), StorageError> {
        match &mut self.work {
            TransactionKind::Sqlite(step) => step.use_reserve().await,
            TransactionKind::Postgres(_) => Ok(()),
        }
    }

    /// Makes the step durable; only then may anybody be told.
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

/// Tells of ended grants when it goes, however that comes about.
struct NotifyOnDrop<'a>(&'a Storage);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake_streams();
    }
}

impl Storage {
    /// Which engine serves.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The numbers of this process: whoever has the database has them.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Callers that wait for the writer.
    pub fn writer_waiting(&self) -> usize {
        self.writer.as_ref().map_or(0, group_commit::Writer::waiting)
    }

    /// Connections of the pool: in use, and idle.
    pub fn pool_connections(&self) -> (u32, u32) {
        let (beside, idle) = self.pools.as_ref().map_or((0, 0), pools::Pools::count);
        let idle = u32::try_from(self.pool.num_idle() + idle).unwrap_or(u32::MAX);
        ((self.pool.size() + beside).saturating_sub(idle), idle)
    }

    /// How many clients have registered themselves, as the quota counts them.
    pub async fn registered_clients(&self) -> Result<i64, StorageError> {
        let count = sqlx::query("SELECT value FROM counters WHERE name = 'clients'");
        let row = self.read_row(count).await?;
        row.as_ref().map_or(Ok(0), |row| column(row, "value"))
    }

    /// Wakes whenever grants may have ended, here or in a replica; the number means nothing.
    pub fn grants_ended(&self) -> watch::Receiver<u64> {
        self.grants_ended.subscribe()
    }

    /// Closes all connections; SQLite folds its log into the file.
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

    /// Begins an atomic step. On SQLite it waits for its turn: there is one writer, and steps that
    /// wait behind each other share a commit.
    async fn begin(&self) -> Result<Transaction, StorageError> {
        self.refuse_on_reserve()?;
        let mut step = self.begin_without_marker().await?;
        if self.attached {
            attach::bump_change_marker(&mut step).await?;
        }
        Ok(step)
    }

    /// Begins an atomic step that ends grants: neither a full database nor a full disk refuses it.
    async fn begin_revocation(&self) -> Result<Transaction, StorageError> {
        self.use_reserve_if_needed();
        self.begin_beyond_the_limit().await
    }

    /// Begins an atomic step that makes room: a full database does not refuse it.
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

    /// Wakes whoever waits for the end of a grant, in this process, to look again.
    pub fn wake_streams(&self) {
        self.grants_ended.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes a step durable by which grants end, and tells whoever must look again: here, and by the
    /// commit itself in every replica. It is told even if the caller goes away in the middle, and even
    /// if it is unknown whether the commit was the last thing that the database could still do.
    async fn commit_and_notify(&self, mut step: Transaction) -> Result<(), StorageError> {
        let storage = self.clone();
        let told = tokio::spawn(async move {
            if storage.engine == Engine::Postgres {
                replicas::tell(&mut step, storage.replicas.as_ref()).await?;
            }
            let _told = NotifyOnDrop(&storage);
            step.commit().await
        });
        told.await.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Seals a column so that it opens only in its own row.
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

/// Reads a column; the type at the call decides how.
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

/// Reads a column of scopes.
fn scopes(row: &AnyRow, name: &'static str) -> Result<crate::oauth::scope::ScopeSet, StorageError> {
    crate::oauth::scope::ScopeSet::parse(&column::<String>(row, name)?)
        .map_err(|refused| StorageError::Corrupt(format!("{name}: {refused}")))
}
