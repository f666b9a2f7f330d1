//! Opens the database: files, pragmas, migrations, the lock that keeps SQLite to one process, the secret
//! key.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, Connection, SqlSafeStr};
use tokio::sync::watch;

use crate::oauth::sealed::Sealer;
use crate::storage::database::errors::told;
use crate::storage::database::postgres::notify::Replicas;
use crate::storage::database::postgres::pools::{DATABASE_CONNECTIONS, Pools};
use crate::storage::database::postgres::server::Server;
use crate::storage::database::postgres::{address, privileges};
use crate::storage::database::sqlite::disk_reserve::Reserve;
use crate::storage::database::sqlite::file_watch;
use crate::storage::database::sqlite::group_commit::Writer;
use crate::storage::database::sqlite::read_pool::Readers;
use crate::storage::database::{driver, migrate};
use crate::storage::rollback_detection::{Tools, Watch};
use crate::storage::{BUSY, Engine, Storage, StorageError};
use crate::telemetry::metrics::Metrics;

/// Before 3.51.3, SQLite could reset a WAL under a reader and corrupt the database.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// How long a transaction waits, counted from when it asked, while another process holds SQLite's write
/// lock: 2 seconds.
const LOCKED: Duration = Duration::from_secs(2);

/// Why the database could not be opened. The text is for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither one of SQLite nor one of PostgreSQL.
    #[error("database_url must begin with sqlite:// or postgres://")]
    Address,
    /// The file or its folder cannot be used.
    #[error(
        "the database file {path} cannot be used: {cause}. The server must be able to read and write it, and to make files in its folder: is the path right, who owns it, is it mounted read-only?"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// Another process has locked the database.
    #[error(
        "another Portcullis is using {0}. SQLite serves one process; stop the other one, or use PostgreSQL for several"
    )]
    InUse(PathBuf),
    /// A restored backup lies next to the WAL of another database.
    #[error(
        "the database file is a restored backup, and {0} is the log of the one before it. Move that file and the -shm beside it away: they belong together"
    )]
    ForeignLog(PathBuf),
    /// The bundled SQLite has a bug that can corrupt the database.
    #[error("SQLite {0} is too old; 3.51.3 or newer is needed")]
    SqliteTooOld(String),
    /// A server has used a database at this path, and now there is none.
    #[error(
        "the database {database} is missing or empty, and a server has used it before ({mark} says so). Is its volume mounted, was it moved? Put it back or restore a backup; to begin with an empty one, delete {mark} too"
    )]
    Lost {
        /// The path of the database.
        database: PathBuf,
        /// The file that proves the earlier use.
        mark: PathBuf,
    },
    /// A server has served another database at this path.
    #[error(
        "the database {database} is not the one that was served here before ({mark} remembers that one by its key proof). Is the right volume mounted, was a file of another installation put here? Put the right one back; a backup of it is welcome. If this one is meant, delete {mark}"
    )]
    Other {
        /// The path of the database.
        database: PathBuf,
        /// The file that identifies the earlier database.
        mark: PathBuf,
    },
    /// The file is damaged.
    #[error("the database is damaged ({0}); restore it from a backup")]
    Damaged(String),
    /// The schema could not be migrated.
    #[error("the database schema could not be brought up to date: {}", failed_migration(.0))]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The database belongs to another application.
    #[error(
        "the database has tables of another application ({}); give Portcullis a database or a schema of its own. Nothing was made", .0.join(", ")
    )]
    OtherApplication(Vec<String>),
    /// The database's encoding is not UTF-8, so it cannot store every text.
    #[error("the database has the encoding {0}; make it with ENCODING 'UTF8'")]
    Encoding(String),
    /// The role lacks privileges that are needed.
    #[error(
        "the role in database_url lacks privileges: {}. Grant them (docs/operations.md, the role), or let the role own the tables", .0.join(", ")
    )]
    Rights(Vec<String>),
    /// A transaction pool between us and PostgreSQL gives one session to several clients.
    #[error(
        "the database is reached through a pool of transactions or statements (PgBouncer with pool_mode = transaction?), in which sessions are not kept apart: set pool_mode = session for this database, or let database_url lead to PostgreSQL itself"
    )]
    TransactionPooling,
    /// The database was written with another secret key.
    #[error(
        "the secret key does not fit this database. Start with the key it was made with (secret_key, or the .key file beside the database); with another key nobody's session and no signing key can be read"
    )]
    WrongSecretKey,
    /// The database exists, but its secret key is missing.
    #[error(
        "the database exists, but its secret key {0} is missing. Put the key file back (or set secret_key); a new key could read neither sessions nor signing keys"
    )]
    SecretKeyMissing(PathBuf),
    /// A command found no database to attach to.
    #[error(
        "there is no database at {0}; is this the right --config, and the right folder? `portcullis serve` makes it"
    )]
    NoDatabase(PathBuf),
    /// The database exists, but no server has initialized it.
    #[error("no Portcullis has served this database yet; start `portcullis serve` on it once")]
    NeverServed,
    /// The schema is not the one that this program knows.
    #[error(
        "the database has the schema of {whose} Portcullis ({found}, this one knows {known}); {hint}"
    )]
    OtherSchema {
        /// `an older` or `a newer`.
        whose: &'static str,
        /// The newest migration that the database has.
        found: i64,
        /// The newest migration that this program knows.
        known: i64,
        /// The way to resolve it.
        hint: &'static str,
    },
    /// The database was made before there was a release.
    #[error(
        "a development version of Portcullis before 0.2 made this database, and it cannot be updated. Move it away and start again with an empty one, or keep using the version that made it"
    )]
    EarlierDevelopment,
    /// Any other error of the database.
    #[error("the database cannot be reached: {}{}", told(.0), hint(.0))]
    Database(#[from] sqlx::Error),
    /// A transaction that is part of opening failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
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
        let mut all: Vec<Migration> = migrations().iter().cloned().collect();
        all.push(migration(9_000, "of a test", sql));
        let migrator = Migrator::with_migrations(all);
        Self::open_migrated(url, secret_key, DATABASE_CONNECTIONS, &migrator).await
    }

    async fn open_migrated(
        url: &str,
        secret_key: Option<&[u8]>,
        connections: u32,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        install_drivers();
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::open_sqlite(url, secret_key, migrator).await,
            Some("postgres" | "postgresql") => {
                Self::open_postgres(url, secret_key, connections, migrator).await
            }
            _ => Err(OpenError::Address),
        }
    }

    async fn open_sqlite(
        url: &str,
        secret_key: Option<&[u8]>,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        let path = sqlite_path(url);
        file_watch::refuse_lost(&path)?;
        create_private(&path).map_err(|cause| OpenError::File { path: path.clone(), cause })?;
        let lock = lock_for_this_process(&path)?;
        crate::storage::backup::refuse_foreign_log(&path)?;
        let here = driver::at(&path, BUSY)?;
        // A direct connection: a pool would retry opening a damaged file for a while.
        let mut first = crate::storage::database::sqlite::group_commit::connect(&here)
            .await
            .map_err(|error| file_watch::why(&path, error))?;
        check_whole(&mut first, &path).await?;
        let options: AnyConnectOptions = format!("sqlite://{}", path.display()).parse()?;
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(BUSY)
            .test_before_acquire(false) // a local file cannot drop a connection
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| {
                Box::pin(crate::storage::database::sqlite::group_commit::set_up(connection))
            })
            .connect_with(options)
            .await?;
        check_version(&pool).await?;
        migrate::refuse_other_file(&pool, migrator).await?;
        file_watch::refuse_other(&path, &pool).await?;
        migrator.run(&pool).await?;
        first.close().await?;
        let readers = Readers::new(here.clone());
        let metrics = Metrics::new();
        let writer = Writer::open(here, LOCKED, metrics.clone()).await?;
        let beside = Some((path.as_path(), Arc::new(lock)));
        let sqlite = Some((writer, readers));
        let mut storage =
            Self::finish(pool, sqlite, secret_key, beside, metrics, Arc::default()).await?;
        storage.free_leases().await?;
        file_watch::mark_served(&path, &storage.pool).await?;
        storage.watched = Some(Arc::new(file_watch::DatabaseFiles::new(&path)));
        storage.reserve = Some(Arc::new(Reserve::beside(&path)));
        Ok(storage)
    }

    async fn open_postgres(
        url: &str,
        secret_key: Option<&[u8]>,
        connections: u32,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        let options = address::options(url)?;
        // On a connection of its own, without a statement timeout: migrating large tables takes long.
        migrate::bring_up_to_date(&options, migrator).await?;
        let watch = Arc::<Watch>::default();
        let server = Server::new(options.clone());
        let (pool, pools) = Pools::open(Arc::clone(&server), connections, &watch).await?;
        privileges::refuse_missing(&pool).await?;
        let mut storage = Self::finish(pool, None, secret_key, None, Metrics::new(), watch).await?;
        storage.pools = Some(pools);
        storage.watch.equip(Tools {
            pool: AnyPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(BUSY)
                .idle_timeout(Duration::from_secs(10))
                .after_connect(|connection, _| {
                    Box::pin(crate::storage::database::postgres::session_settings::serve(
                        connection,
                    ))
                })
                .connect_lazy_with(server.options()?),
            sealer: storage.sealer.clone(),
            metrics: storage.metrics.clone(),
            lines: Arc::clone(&storage.lines),
        });
        storage.warn_of_unsafe_settings().await?;
        let (ended, metrics) = (storage.grants_ended.clone(), storage.metrics.clone());
        storage.replicas = Some(Replicas::listen(options, ended, metrics, &storage.watch).await?);
        Ok(storage)
    }

    async fn finish(
        pool: AnyPool,
        sqlite: Option<(Writer, Readers)>,
        secret_key: Option<&[u8]>,
        beside: Option<(&Path, Arc<File>)>,
        metrics: Metrics,
        watch: Arc<Watch>,
    ) -> Result<Self, OpenError> {
        let (path, only_process) = beside.unzip();
        let (writer, readers) = sqlite.unzip();
        let secret_key =
            crate::storage::database::secret_key::secret_key(&pool, secret_key, path).await?;
        let storage = Self {
            pool,
            engine: if writer.is_some() { Engine::Sqlite } else { Engine::Postgres },
            sealer: Sealer::new(&secret_key),
            writer,
            readers,
            pools: None,
            grants_ended: watch::Sender::new(0),
            recent_grants: Arc::new(crate::storage::grants::RecentGrants::new()),
            clients_used: Arc::new(quick_cache::sync::Cache::new(
                crate::storage::clients::REMEMBERED,
            )),
            replicas: None,
            remembered_overview: Arc::default(),
            readiness: Arc::default(),
            audit_size: Arc::default(),
            lines: Arc::default(),
            last_time: Arc::default(),
            watch,
            database_clock: Arc::default(),
            metrics,
            attached: false,
            watched: None,
            reserve: None,
            _only_process: only_process,
        };
        storage.prove_secret_key().await?;
        storage.adopt_audit_trail().await?;
        storage.last_time().await?;
        Ok(storage)
    }

    /// Returns the sealer under the secret key, for cookies and pages.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }
}

/// Describes a failed migration, with its number.
fn failed_migration(cause: &MigrateError) -> String {
    match cause {
        MigrateError::Execute(cause) => told(cause).to_string(),
        MigrateError::ExecuteMigration(cause, version) => {
            format!("migration {version}: {}", told(cause))
        }
        other => other.to_string(),
    }
}

/// Returns a hint for the administrator, where there is one.
fn hint(cause: &sqlx::Error) -> String {
    match crate::storage::database::postgres::server::reason(cause) {
        Some(reason) => format!(". {reason}"),
        None => String::new(),
    }
}

/// Registers the database drivers with sqlx, once per process, before anything is opened.
pub fn install_drivers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let drivers = &[sqlx::postgres::any::DRIVER, sqlx::sqlite::any::DRIVER, driver::DRIVER];
        if let Err(cause) = sqlx::any::install_drivers(drivers) {
            tracing::error!(cause, "the database drivers could not be installed");
        }
    });
}

/// The migrations, compiled in. A change of the schema is a new file; an existing file is never edited
/// after a release.
pub(crate) fn migrations() -> Migrator {
    Migrator::with_migrations(vec![migration(
        1,
        "schema",
        include_str!("../../../migrations/0001_schema.sql"),
    )])
}

/// Makes a migration from its number, name and SQL.
pub(crate) fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
}

pub(crate) fn sqlite_path(url: &str) -> PathBuf {
    let rest = url.trim_start_matches("sqlite:");
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    PathBuf::from(rest.split('?').next().unwrap_or(rest))
}

/// Creates the file with mode 0600. SQLite gives its WAL files the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Locks the database for this process: a second one would not see the caches and streams of the first.
fn lock_for_this_process(database: &Path) -> Result<File, OpenError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |cause| OpenError::File { path: path.clone(), cause };
    create_private(&path).map_err(failed)?;
    let file = File::open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(database.to_owned())),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

pub(crate) async fn check_version(pool: &AnyPool) -> Result<(), OpenError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(pool).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) < OLDEST_SQLITE {
        return Err(OpenError::SqliteTooOld(version));
    }
    Ok(())
}

/// Checks the whole file, on a connection that is closed afterwards: one that stays open would keep the
/// pages that it has read in its cache.
async fn check_whole(connection: &mut AnyConnection, path: &Path) -> Result<(), OpenError> {
    let verdict = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await;
    let verdict: String = verdict.map_err(|error| file_watch::why(path, error))?;
    if verdict != "ok" {
        return Err(OpenError::Damaged(verdict));
    }
    Ok(())
}
