//! Opens the database of a server: files, pragmas, migrations, and the lock that keeps SQLite to one
//! process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection};

use super::postgres::pools::{ConnectionCheck, Pools};
use super::postgres::server::Server;
use super::postgres::{address, privileges};
use super::sqlite::disk_reserve::Reserve;
use super::sqlite::file_watch::{self, DatabaseFiles};
use super::sqlite::group_commit::Writer;
use super::sqlite::read_pool::Readers;
use super::sqlite::{Sqlite, backup, connection, pragmas};
use super::{BUSY, Backend, Database, OpenError, driver, migrate};
use crate::telemetry::metrics::Metrics;
use sqlx::migrate::Migrator;

/// Before 3.51.3, SQLite could reset a WAL under a reader and corrupt the database.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// How long a transaction waits, counted from when it asked, while another process holds SQLite's write
/// lock: 2 seconds.
const LOCKED: Duration = Duration::from_secs(2);

impl Database {
    /// Opens the database at `url` for a server, and brings its schema up to date. On PostgreSQL it opens
    /// at most `connections` connections, and `check` sees each of them before its first use. SQLite
    /// ignores both.
    pub(crate) async fn open(
        url: &str,
        connections: u32,
        check: Arc<dyn ConnectionCheck>,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        install_drivers();
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::open_sqlite(sqlite_path(url), migrator).await,
            Some("postgres" | "postgresql") => {
                Self::open_postgres(url, connections, check, migrator).await
            }
            _ => Err(OpenError::Address),
        }
    }

    async fn open_sqlite(path: PathBuf, migrator: &Migrator) -> Result<Self, OpenError> {
        file_watch::refuse_lost(&path)?;
        create_private(&path).map_err(|cause| OpenError::File { path: path.clone(), cause })?;
        let lock = lock_for_this_process(&path)?;
        backup::refuse_foreign_log(&path)?;
        let options = connection::options(&path, BUSY)?;
        // A direct connection: a pool would retry opening a damaged file for a while.
        let mut first =
            pragmas::connect(&options).await.map_err(|error| file_watch::why(&path, error))?;
        check_whole(&mut first, &path).await?;
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(BUSY)
            .test_before_acquire(false) // a local file cannot drop a connection
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| Box::pin(pragmas::set_up(connection)))
            .connect_with(connection::sqlx_options(&path)?)
            .await?;
        check_version(&pool).await?;
        migrate::refuse_other_file(&pool, migrator).await?;
        file_watch::refuse_other(&path, &pool).await?;
        migrator.run(&pool).await?;
        first.close().await?;
        let metrics = Metrics::new();
        let sqlite = Sqlite {
            readers: Some(Readers::new(options.clone())),
            writer: Writer::open(options, LOCKED, metrics.clone()).await?,
            files: None,
            reserve: None,
            path,
            _only_process: Some(Arc::new(lock)),
        };
        Ok(Self::new(pool, Backend::Sqlite(sqlite), metrics, false))
    }

    async fn open_postgres(
        url: &str,
        connections: u32,
        check: Arc<dyn ConnectionCheck>,
        migrator: &Migrator,
    ) -> Result<Self, OpenError> {
        let options = address::options(url)?;
        // On a connection of its own, without a statement timeout: migrating large tables takes long.
        migrate::bring_up_to_date(&options, migrator).await?;
        let metrics = Metrics::new();
        let server = Server::new(options, metrics.clone());
        let (pool, pools) = Pools::open(server, connections, &check).await?;
        privileges::refuse_missing(&pool).await?;
        Ok(Self::new(pool, Backend::Postgres(pools), metrics, false))
    }

    /// Records that a server uses this SQLite database, begins to watch its files, and prepares its
    /// reserve of disk space. Only once the secret key is proved: a start that fails must leave no trace.
    pub(crate) async fn watch_files(&mut self) -> Result<(), OpenError> {
        let Backend::Sqlite(sqlite) = &mut self.backend else { return Ok(()) };
        file_watch::mark_served(&sqlite.path, &self.pool).await?;
        sqlite.files = Some(Arc::new(DatabaseFiles::new(&sqlite.path)));
        sqlite.reserve = Some(Arc::new(Reserve::beside(&sqlite.path)));
        Ok(())
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
