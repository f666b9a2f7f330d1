//! Persistent state: one concrete `Storage` over SQLite or PostgreSQL, with one method per atomic
//! protocol step.
//!
//! A method begins a transaction with `Storage::begin`, ends it before it returns, and never waits for
//! the network in between. Whatever may happen only once (redeeming a code, rotating a token) is a
//! conditional `UPDATE` whose row count decides. The database holds only hashes and sealed texts; the key
//! that seals them is stored outside of it.
//!
//! Each entity has a file or a folder here. Below them, `database` knows SQL and the two engines, and
//! nothing of OAuth. Beside the entities, `audit` has the transaction that records audit events,
//! `revocation` ends things, `single_statements` has the steps that are one statement on PostgreSQL,
//! `rollback` handles a database that lacks what happened since, and
//! `change_notices` tells other processes that grants have ended.

mod audit;
mod authorization_codes;
mod certificates;
mod change_notices;
mod client_reviews;
mod clients;
mod clock_guard;
mod connected_clients;
mod connections;
mod consents;
mod counted;
mod database;
mod grants;
mod logins;
mod logout_notices;
mod mcp_tasks;
mod name_search;
mod notifications;
mod overview;
mod people;
mod refresh_tokens;
mod refused_people;
mod replay_guard;
mod replica_reports;
mod retention;
mod revocation;
mod rollback;
mod scope_challenges;
mod signing_keys;
mod single_statements;
mod upstream_sessions;
mod usage;
mod web_sessions;

use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::{Any, AnyPool};
use tokio::sync::{Mutex, watch};

pub use audit::{AuditFilter, AuditLine, ChainBroken, ChainHead, SETTLED_AT_ONCE, Verified};
pub use authorization_codes::{CodeExchange, GrantTerms, NewCode, Redeemed, RedeemedGrant};
pub use certificates::{CertificateText, ChallengeAnswer, StoredCertificate};
pub use client_reviews::{
    ApprovalPattern, ClientDecided, ClientDecision, ClientReview, LoginAwaitingApproval,
    NewApprovalPattern, NewLoginAwaitingApproval, ReviewDecision, ReviewState, Waiting,
    WaitingPerson,
};
pub use clients::{
    ClientActivity, ClientEdit, ClientEdited, ClientFilter, ClientKind, ClientNote, ClientOrder,
    ClientPage, ClientRow, KeptClient, Registered, StoredClient, UNUSED_AFTER,
};
pub use connected_clients::{Approved, ConnectedClient};
pub use connections::{
    AttemptClaim, AttemptComer, AttemptRequest, Begun, CANNOT_BE_OPENED, Connection,
    ConnectionFilter, ConnectionRow, ConnectionState, DueRevocation, NewAttempt, NewConnection,
    PutConnection, RenewedConnection, ServiceTokens, Settled, TakenAttempt,
};
pub use consents::NewRemembered;
pub use counted::Ending;
pub use database::{
    BackupError, COUNTED, DATABASE_CONNECTIONS, DatabaseServer, Denied, Engine, FEWEST_CONNECTIONS,
    KeyProof, OpenError, Ready, Room, StorageError, examine, install_drivers,
};
pub use grants::{GrantFilter, GrantRow, GrantState, LiveGrant};
pub use logins::{
    Approval, ApprovedPage, Claimed, Comer, Decided, LoginQuota, NewLogin, OtherBrowser,
    PendingLogin,
};
pub use logout_notices::{LogoutNotice, LogoutSubject};
pub use mcp_tasks::TaskMaker;
pub use name_search::NameSearch;
pub use notifications::{DueNotification, LeasedNotification, Occurrence, TargetReport};
pub use overview::Overview;
pub use people::{PersonFilter, PersonRow, ProviderSession, WebSessionRow};
pub use refresh_tokens::{FoundRefreshToken, RefreshExchange, Rotated, Rotation};
pub use refused_people::{NewRefusal, RefusedAt, RefusedFilter, RefusedPerson};
pub use replay_guard::AssertionUse;
pub use replica_reports::ReplicaReport;
pub use retention::Retention;
pub use revocation::{Counted, Ended, Selection};
pub use signing_keys::{RetiredKey, StoredKey};
pub use upstream_sessions::{
    Lease, Person, Renewed, SessionUpdate, UpstreamSession, UpstreamTokens, session_id,
};
pub use usage::{
    CallCounts, CallOutcome, CalledName, ServerUse, UsageFilter, UsageHour, UsageKey, UsageRange,
    UsageRetention, UsageRow, UsageSlot, UsageSort, UsageStep,
};
pub use web_sessions::{NewSignIn, Realm, WebSession};

use audit::{SeenLines, Transaction};
use change_notices::ReplicaNotices;
use database::{
    Attempts, ConnectionCheck, Database, Notifications, Use, WritePolicy, column, migrations,
    migrations_and, moment, moment_if_any, opens_known_text, select,
};

use crate::clock::{Clock, Timestamp};
use crate::oauth::scope::ScopeSet;
use crate::oauth::sealed::{Purpose, Sealer};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;

type SqlQuery<'q> = Query<'q, Any, AnyArguments>;

/// The database, the key that seals its confidential columns, and what this process remembers of its
/// content. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    database: Database,
    sealer: Sealer,
    grants_ended: watch::Sender<u64>,
    connections_changed: watch::Sender<u64>,
    /// PostgreSQL, opened by a server: notifications to and from other replicas.
    notifications: Option<Notifications>,
    recent_grants: Arc<grants::RecentGrants>,
    /// When the last use of each client was written, so that not every request writes it.
    clients_used: Arc<quick_cache::sync::Cache<String, Timestamp>>,
    /// When the last use of each connection was written.
    connections_used: Arc<connections::RecentUses>,
    remembered_overview: Arc<Mutex<Option<overview::RememberedOverview>>>,
    audit_size: Arc<audit::AuditSize>,
    /// Limits how many audit lines anonymous callers, and each person, may cause.
    lines: Arc<audit::LineBudget>,
    last_time: Arc<clock_guard::ClockGuard>,
    /// Who is notified of what happens.
    hub: Arc<notifications::NotificationHub>,
    /// What was last seen of the database, to detect that it was rolled back (restored, failed over).
    watch: Arc<rollback::Watch>,
    /// Replaces the database's own clock in tests.
    database_clock: Arc<std::sync::OnceLock<Clock>>,
}

impl Storage {
    /// Opens the database at `url`, brings its schema up to date, and proves the secret key.
    ///
    /// `secret_key` is the configured key. Without one, SQLite keeps a generated key next to the
    /// database (`<file>.key`, mode 0600).
    pub async fn open(url: &str, secret_key: Option<&[u8]>) -> Result<Self, OpenError> {
        Self::open_with(url, secret_key, DATABASE_CONNECTIONS).await
    }

    /// The same as [`Self::open`], with at most `connections` connections to PostgreSQL. SQLite ignores
    /// the number.
    pub async fn open_with(
        url: &str,
        secret_key: Option<&[u8]>,
        connections: u32,
    ) -> Result<Self, OpenError> {
        Self::open_migrated(url, secret_key, connections, &migrations()).await
    }

    /// The same as [`Self::open`], as a later version with one more migration does it. For tests of
    /// updates.
    #[doc(hidden)]
    pub async fn open_with_migration(
        url: &str,
        secret_key: Option<&[u8]>,
        sql: &'static str,
    ) -> Result<Self, OpenError> {
        let migrator = migrations_and(sql);
        Self::open_migrated(url, secret_key, DATABASE_CONNECTIONS, &migrator).await
    }

    async fn open_migrated(
        url: &str,
        secret_key: Option<&[u8]>,
        connections: u32,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        let watch = Arc::<rollback::Watch>::default();
        let check = Arc::clone(&watch) as Arc<dyn ConnectionCheck>;
        let database = Database::open(url, connections, check, migrator).await?;
        let sealer = Sealer::new(&database.secret_key(secret_key).await?);
        let mut storage = Self::new(database, sealer, watch);
        storage.database.prove_secret_key(&storage.sealer).await?;
        storage.adopt_audit_trail().await?;
        storage.last_time().await?;
        match storage.engine() {
            Engine::Sqlite => {
                storage.free_leases().await?;
                storage.free_connection_leases().await?;
                storage.free_notifications().await?;
                storage.database.watch_files().await?;
            }
            Engine::Postgres => {
                storage.settle_rollbacks_early()?;
                storage.database.warn_of_unsafe_settings().await?;
                let notices = ReplicaNotices {
                    grants_ended: storage.grants_ended.clone(),
                    connections_changed: storage.connections_changed.clone(),
                    seen: Arc::clone(&storage.watch),
                };
                storage.notifications = storage.database.listen(Arc::new(notices)).await?;
            }
        }
        Ok(storage)
    }

    /// Opens the database at `url` for the few transactions of a command, whether or not a server is
    /// running on it. It makes neither a database nor a schema nor a key, and fails where one is missing.
    pub async fn attach(url: &str, secret_key: Option<&[u8]>) -> Result<Self, OpenError> {
        let database = Database::attach(url).await?;
        let proof = database.key_check_value().await?.ok_or(OpenError::NeverServed)?;
        let sealer = Sealer::new(&database.secret_key(secret_key).await?);
        if !opens_known_text(&sealer, &proof) {
            return Err(OpenError::WrongSecretKey);
        }
        Ok(Self::new(database, sealer, Arc::default()))
    }

    fn new(database: Database, sealer: Sealer, watch: Arc<rollback::Watch>) -> Self {
        Self {
            database,
            sealer,
            grants_ended: watch::Sender::new(0),
            connections_changed: watch::Sender::new(0),
            notifications: None,
            recent_grants: Arc::new(grants::RecentGrants::new()),
            clients_used: Arc::new(quick_cache::sync::Cache::new(clients::REMEMBERED)),
            connections_used: Arc::default(),
            remembered_overview: Arc::default(),
            audit_size: Arc::default(),
            lines: Arc::default(),
            last_time: Arc::default(),
            hub: Arc::default(),
            watch,
            database_clock: Arc::default(),
        }
    }

    /// Returns the sealer under the secret key, for cookies and pages.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    pub fn engine(&self) -> Engine {
        self.database.engine()
    }

    /// Returns the metrics of this process. They live here because everything that measures has the
    /// storage.
    pub fn metrics(&self) -> &Metrics {
        self.database.metrics()
    }

    /// Returns how many callers wait for SQLite's writer; 0 on PostgreSQL.
    pub fn writer_waiting(&self) -> usize {
        self.database.writer_waiting()
    }

    /// Returns how many pooled connections are in use, and how many are idle.
    pub fn pool_connections(&self) -> (u32, u32) {
        self.database.pool_connections()
    }

    /// Limits the SQLite file to `bytes`. Beyond that, writes fail with "try again" until retention frees
    /// space. A file that is larger already stays as it is and may not grow. The WAL file is truncated to
    /// `log` bytes once all of it is in the database file.
    pub async fn limit_size(&self, bytes: u64, log: u64) -> Result<(), StorageError> {
        self.database.limit_size(bytes, log).await
    }

    /// Creates the reserve of disk space if it does not exist yet.
    pub async fn keep_reserve(&self) {
        self.database.look_at_reserve(true).await;
    }

    /// Copies the SQLite database, as it is at one moment, into a new file with mode 0600. Returns its
    /// size in bytes. Servers continue to read and write.
    pub async fn back_up(&self, to: &std::path::Path, now: Timestamp) -> Result<u64, BackupError> {
        self.database.back_up(to, now).await
    }

    /// Returns a setting of PostgreSQL as it is on our connections; `None` on SQLite, and if the server
    /// does not know it.
    pub async fn server_setting(&self, name: &str) -> Result<Option<String>, StorageError> {
        self.database.server_setting(name).await
    }

    /// Returns whether the database can serve now.
    pub async fn ready(&self, now: Timestamp) -> Ready {
        if self.database.look_at_files() {
            return Ready::FileGone;
        }
        if self.clock_is_behind(now) {
            return Ready::ClockBehind;
        }
        self.database.ready(now).await
    }

    /// Returns the number of clients that registered themselves. The quota uses this counter.
    pub async fn registered_clients(&self) -> Result<i64, StorageError> {
        let count = sqlx::query(
            "SELECT CAST(SUM(value) AS BIGINT) AS value FROM counters
             WHERE name = 'clients' OR name LIKE 'clients/%'",
        );
        let row = self.read_row(count).await?;
        row.as_ref().map_or(Ok(0), |row| column(row, "value"))
    }

    /// Closes all connections. A server's SQLite also checkpoints the WAL into the database file.
    pub async fn close(&self) {
        self.database.close().await;
        self.watch.close().await;
    }

    /// Begins a transaction. On SQLite it waits for its turn: there is one writer, and callers that queue
    /// behind each other share a commit.
    async fn begin(&self) -> Result<Transaction, StorageError> {
        self.begin_under(WritePolicy::Ordinary).await
    }

    /// Begins a transaction that ends grants. Neither a full database nor a full disk refuses it.
    async fn begin_revocation(&self) -> Result<Transaction, StorageError> {
        self.begin_under(WritePolicy::Revocation).await
    }

    /// Begins a transaction that frees space. A full database does not refuse it; a full disk does.
    async fn begin_cleanup(&self) -> Result<Transaction, StorageError> {
        self.begin_under(WritePolicy::Cleanup).await
    }

    /// Begins a transaction that a full database rejects earlier than others.
    async fn begin_for(&self, what: Use) -> Result<Transaction, StorageError> {
        let mut step = self.begin().await?;
        step.refuse_without_room(what).await?;
        Ok(step)
    }

    async fn begin_under(&self, policy: WritePolicy) -> Result<Transaction, StorageError> {
        let mut span = trace::child("transaction");
        if let Some(span) = &mut span {
            span.set("db.system.name", self.engine().system());
        }
        let sql = self.database.begin(policy).await?;
        let seen = Arc::clone(&self.watch) as Arc<dyn SeenLines>;
        let seen = Some((seen, self.watch.generation()));
        let (metrics, sealer) = (self.metrics().clone(), self.sealer.clone());
        let mut step = Transaction::new(sql, metrics, sealer, Arc::clone(&self.lines), seen);
        step.show_in(span);
        step.notify_with(self.hub.subscribers());
        self.announce(&mut step).await?;
        Ok(step)
    }

    /// Returns the pool for slow reads, such as lists of administrators.
    fn pool(&self) -> &AnyPool {
        self.database.pool()
    }

    /// Reads one row, outside of any transaction, on a connection for the reads of almost every request.
    fn read_one<'q>(
        &'q self,
        query: SqlQuery<'q>,
    ) -> impl Future<Output = Result<Option<AnyRow>, StorageError>> + Send + 'q {
        self.measured("read", self.database.read_one(query))
    }

    /// Reads all rows of a query, outside of any transaction, on such a connection. The query itself must
    /// limit their number.
    fn read_all<'q>(
        &'q self,
        query: SqlQuery<'q>,
    ) -> impl Future<Output = Result<Vec<AnyRow>, StorageError>> + Send + 'q {
        self.measured("read", self.database.read_all(query))
    }

    /// Reads one row, outside of any transaction.
    fn read_row<'q>(
        &'q self,
        query: SqlQuery<'q>,
    ) -> impl Future<Output = Result<Option<AnyRow>, StorageError>> + Send + 'q {
        self.measured("read", self.database.read_row(query))
    }

    /// Runs a statement as a span of its own, if the trace of the request is recorded.
    fn measured<'q, T: Send + 'q>(
        &'q self,
        name: &'static str,
        statement: impl Future<Output = T> + Send + 'q,
    ) -> impl Future<Output = T> + Send + 'q {
        let mut span = trace::child(name);
        if let Some(span) = &mut span {
            span.set("db.system.name", self.engine().system());
        }
        async move {
            let _ends_with_it = span;
            statement.await
        }
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

/// Reads a column of space-separated scopes.
fn scopes(row: &AnyRow, name: &'static str) -> Result<ScopeSet, StorageError> {
    ScopeSet::parse(&column::<String>(row, name)?)
        .map_err(|refused| StorageError::Corrupt(format!("{name}: {refused}")))
}
