//! What must survive: one concrete `Storage`, one method per atomic protocol step.
//!
//! A transaction starts with `Storage::begin`, ends in the same method and never waits for the
//! network. What may happen only once is settled by a conditional `UPDATE` whose row count decides.
//! Only hashes and sealed texts are stored; the key that seals is not in the database.

mod address;
mod audit;
mod authorization_codes;
mod backup;
mod beside;
mod browse;
mod client_assertions;
mod clients;
mod connections;
mod console;
mod counted;
mod crowds;
mod decisions;
mod driver;
mod errors;
mod files;
mod forgotten;
mod grants;
mod installation;
mod last_time;
mod listing;
mod logins;
mod mcp_tasks;
mod migrate;
mod notices;
mod open;
mod patience;
mod pending;
mod people;
mod people_words;
mod pooling;
mod pools;
mod probe;
mod readers;
mod readiness;
mod refresh_tokens;
mod remembered;
mod replica_reports;
mod replicas;
mod reserve;
mod rights;
mod session_settings;
mod sign_outs;
mod signing_keys;
mod size;
mod standings;
mod step_ups;
mod stored;
mod sweep;
mod upstream_sessions;
mod used_once;
mod went_back;
mod writer;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row, Transaction};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub use audit::{AuditFilter, AuditLine, ChainBroken, ChainHead, SETTLED_AT_ONCE, Verified};
pub use authorization_codes::{GrantTerms, NewCode, Redeemed, RedeemedGrant};
pub use backup::BackupError;
pub use browse::{
    ClientFilter, ClientRow, GrantFilter, GrantRow, Overview, PersonFilter, PersonRow, Selection,
};
pub use client_assertions::ProofUse;
pub use clients::{ClientKind, KeptClient, Registered, StoredClient};
pub use connections::{Approved, Connection};
pub use console::{NewSignIn, Realm, SignedIn};
pub use counted::{Counted, Ended, Ending};
pub use decisions::{ClientDecided, Verdict};
pub use errors::{ShutOut, StorageError};
pub use grants::{GrantState, LiveGrant};
pub use installation::KeyProof;
pub use logins::{
    Approval, ApprovedPage, Claimed, Comer, Decided, LoginQuota, NewLogin, OtherBrowser,
    PendingLogin,
};
pub use mcp_tasks::TaskMaker;
pub use notices::{Notice, Whom};
pub use open::{OpenError, install_drivers};
pub use people::{PagesSession, ProviderSession};
pub use pools::{DATABASE_CONNECTIONS, FEWEST_CONNECTIONS};
pub use readiness::Ready;
pub use refresh_tokens::{FoundRefreshToken, Rotated, Rotation};
pub use remembered::NewRemembered;
pub use replica_reports::ReplicaReport;
pub use signing_keys::{RetiredKey, StoredKey};
pub use size::Room;
pub use standings::{Admission, Held, NewHeld, Standing, Waiting};
pub use sweep::Retention;
pub use upstream_sessions::{
    Lease, Person, Renewed, SessionUpdate, UpstreamSession, UpstreamTokens, session_id,
};

use size::Use;

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
    writer: Option<writer::Writer>,
    /// On SQLite, the look-ups of almost every request have connections of their own.
    readers: Option<readers::Readers>,
    /// On PostgreSQL, what is not a step has connections of its own.
    pools: Option<pools::Pools>,
    grants_ended: watch::Sender<u64>,
    recent_grants: Arc<grants::RecentGrants>,
    /// When the use of a client was last noted.
    clients_used: Arc<quick_cache::sync::Cache<String, crate::clock::Timestamp>>,
    /// With PostgreSQL there may be others.
    replicas: Option<replicas::Replicas>,
    remembered_overview: Arc<Mutex<Option<browse::RememberedOverview>>>,
    readiness: Arc<readiness::Readiness>,
    audit_size: Arc<audit::AuditSize>,
    /// What the audit trail takes of anonymous callers, and of each person.
    lines: Arc<audit::LineBudget>,
    last_time: Arc<last_time::LastTime>,
    /// What was seen of the database, to notice when it goes back in time.
    watch: Arc<went_back::Watch>,
    /// In place of the database's own clock, in tests.
    database_clock: Arc<std::sync::OnceLock<crate::clock::Clock>>,
    metrics: Metrics,
    /// Whether this process works beside the one that serves; see [`beside`].
    beside: bool,
    /// The files of an SQLite database that is served.
    watched: Option<Arc<files::Watched>>,
    /// Room on the disk, beside that.
    reserve: Option<Arc<reserve::Reserve>>,
    _only_process: Option<Arc<File>>,
}

/// An atomic step: all of it, or nothing when it is dropped without [`Self::commit`].
struct Step {
    work: Work,
    /// Told to the log once the step is durable.
    events: Vec<AuditEvent>,
    metrics: Metrics,
    /// For the MAC of each line of the audit trail.
    sealer: Sealer,
    lines: Arc<audit::LineBudget>,
    /// Learns of the last line that was stored, unless that was begun before the database was settled.
    watch: Option<(Arc<went_back::Watch>, u64)>,
    /// The last line that was stored of those that stay until the oldest lines go.
    last_line: Option<String>,
}

enum Work {
    /// Shares its transaction with the steps of others; see [`writer`].
    Sqlite(writer::Step),
    /// A transaction of its own.
    Postgres(Transaction<'static, Any>),
}

impl Step {
    /// Lets the step write beyond `limits.database_size`: it turned out that it ends grants.
    async fn use_reserve(&mut self) -> Result<(), StorageError> {
        match &mut self.work {
            Work::Sqlite(step) => step.use_reserve().await,
            Work::Postgres(_) => Ok(()),
        }
    }

    /// Makes the step durable; only then may anybody be told.
    async fn commit(self) -> Result<(), StorageError> {
        match self.work {
            Work::Sqlite(step) => step.commit().await?,
            Work::Postgres(transaction) => {
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

impl std::ops::Deref for Step {
    type Target = sqlx::AnyConnection;
    fn deref(&self) -> &Self::Target {
        match &self.work {
            Work::Sqlite(step) => step,
            Work::Postgres(transaction) => transaction,
        }
    }
}

impl std::ops::DerefMut for Step {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.work {
            Work::Sqlite(step) => step,
            Work::Postgres(transaction) => transaction,
        }
    }
}

/// Tells of ended grants when it goes, however that comes about.
struct Told<'a>(&'a Storage);

impl Drop for Told<'_> {
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
        self.writer.as_ref().map_or(0, writer::Writer::waiting)
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
            writer.close(!self.beside).await;
        }
    }

    /// Begins an atomic step. On SQLite it waits for its turn: there is one writer, and steps that
    /// wait behind each other share a commit.
    async fn begin(&self) -> Result<Step, StorageError> {
        self.refuse_on_reserve()?;
        let mut step = self.begin_unmarked().await?;
        if self.beside {
            beside::leave_mark(&mut step).await?;
        }
        Ok(step)
    }

    /// Begins an atomic step that ends grants: neither a full database nor a full disk refuses it.
    async fn begin_to_end(&self) -> Result<Step, StorageError> {
        self.use_reserve_if_needed();
        self.begin_beyond_the_limit().await
    }

    /// Begins an atomic step that makes room: a full database does not refuse it.
    async fn begin_to_make_room(&self) -> Result<Step, StorageError> {
        self.refuse_on_reserve()?;
        self.begin_beyond_the_limit().await
    }

    async fn begin_beyond_the_limit(&self) -> Result<Step, StorageError> {
        let mut step = self.begin_unmarked().await?;
        step.use_reserve().await?;
        if self.beside {
            beside::leave_mark(&mut step).await?;
        }
        Ok(step)
    }

    async fn begin_unmarked(&self) -> Result<Step, StorageError> {
        self.refuse_gone()?;
        let asked = Instant::now();
        let work = match &self.writer {
            Some(writer) => Work::Sqlite(writer.begin().await?),
            None => Work::Postgres(self.transaction(&self.pool).await?),
        };
        self.metrics.step_waited(asked);
        let metrics = self.metrics.clone();
        let (sealer, lines) = (self.sealer.clone(), Arc::clone(&self.lines));
        let watch = Some((Arc::clone(&self.watch), self.watch.generation()));
        Ok(Step { work, events: Vec::new(), metrics, sealer, lines, watch, last_line: None })
    }

    /// Wakes whoever waits for the end of a grant, in this process, to look again.
    pub fn wake_streams(&self) {
        self.grants_ended.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes a step durable by which grants end, and tells whoever must look again: here, and by the
    /// commit itself in every replica. It is told even if the caller goes away in the middle, and even
    /// if it is unknown whether the commit was the last thing that the database could still do.
    async fn commit_and_tell(&self, mut step: Step) -> Result<(), StorageError> {
        let storage = self.clone();
        let told = tokio::spawn(async move {
            if storage.engine == Engine::Postgres {
                replicas::tell(&mut step, storage.replicas.as_ref()).await?;
            }
            let _told = Told(&storage);
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
