//! Attaches a command-line command to the database of a running server, for a few transactions.
//!
//! A server on SQLite must be the only one, because it keeps in memory which streams are open and which
//! grants were live a moment ago. A command keeps no such state. It takes part in SQLite's own locking
//! (write lock at the start, a wait of some seconds), changes no schema and makes no key. Each of its
//! transactions also writes a change marker; servers read it every [`LOOK`], and then check again what
//! they remember.

use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use tokio::sync::watch;

use crate::oauth::sealed::Sealer;
use crate::oauth::secret::random_text;
use crate::storage::database::driver;
use crate::storage::database::migrate::{Schema, schema_of};
use crate::storage::database::open::{check_version, install_drivers, migrations, sqlite_path};
use crate::storage::database::postgres::address;
use crate::storage::database::postgres::pools::Pools;
use crate::storage::database::postgres::server::Server;
use crate::storage::database::secret_key::{key_check_value, secret_key as find_secret_key};
use crate::storage::database::sqlite::group_commit::Writer;
use crate::storage::{BUSY, Engine, OpenError, Storage, StorageError, Transaction, column};
use crate::telemetry::metrics::Metrics;

/// Name of the change marker's row in the table `installation`.
const MARK: &str = "changed_from_the_command_line";
/// Longest wait for SQLite's write lock: 20 seconds, because a server commits in batches and may hold the
/// lock for long.
const PATIENT: Duration = Duration::from_secs(20);
/// How often a server reads the change marker: every 400 ms, one row by its key. A longer interval delays
/// the effect of a revocation from the command line.
const LOOK: Duration = Duration::from_millis(400);

impl Storage {
    /// Opens the database at `url` for a few transactions, whether or not a server is running on it. It
    /// makes neither a database nor a schema nor a key, and fails where one is missing.
    pub async fn attach(url: &str, secret_key: Option<&[u8]>) -> Result<Self, OpenError> {
        install_drivers();
        let metrics = Metrics::new(); // a command exposes no metrics
        let (pool, writer, path, pools) = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => {
                let path = sqlite_path(url);
                if !path.exists() {
                    return Err(OpenError::NoDatabase(path));
                }
                let usable = OpenOptions::new().read(true).write(true).open(&path);
                usable.map_err(|cause| OpenError::File { path: path.clone(), cause })?;
                crate::storage::backup::refuse_foreign_log(&path)?;
                let options: AnyConnectOptions = format!("sqlite://{}", path.display()).parse()?;
                let pool = small_pool()
                    .after_connect(|connection, _| {
                        Box::pin(crate::storage::database::sqlite::group_commit::set_up(connection))
                    })
                    .connect_with(options)
                    .await?;
                check_version(&pool).await?;
                let writer =
                    Writer::open(driver::at(&path, PATIENT)?, PATIENT, metrics.clone()).await?;
                (pool, Some(writer), Some(path), None)
            }
            Some("postgres" | "postgresql") => {
                let bound = small_pool().after_connect(|connection, _| {
                    Box::pin(crate::storage::database::postgres::session_settings::serve(
                        connection,
                    ))
                });
                let server = Server::new(address::options(url)?);
                let pool = bound.connect_with(server.options()?).await?;
                let pools = Pools::of_one(&pool, server);
                (pool, None, None, Some(pools))
            }
            _ => return Err(OpenError::Address),
        };
        refuse_other_schema(&pool).await?;
        let known = key_check_value(&pool).await?.ok_or(OpenError::NeverServed)?;
        let secret_key = find_secret_key(&pool, secret_key, path.as_deref()).await?;
        let storage = Self {
            pool,
            engine: if writer.is_some() { Engine::Sqlite } else { Engine::Postgres },
            sealer: Sealer::new(&secret_key),
            writer,
            readers: None, // a command reads little
            pools,
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
            watch: Arc::default(),
            database_clock: Arc::default(),
            metrics,
            attached: true,
            watched: None,
            reserve: None,
            _only_process: None,
        };
        if !storage.opens_known_text(&known) {
            return Err(OpenError::WrongSecretKey);
        }
        Ok(storage)
    }

    /// Watches for changes made by commands, until it is dropped, and wakes the receivers of
    /// [`Self::grants_ended`].
    pub async fn watch_for_cli_changes(&self) {
        panic_point!("changes from the command line");
        let mut last = self.change_marker().await.ok();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(watched) = &self.watched {
                watched.look();
            }
            // A database that does not respond is reported by everything else that uses it.
            let Ok(mark) = self.change_marker().await else { continue };
            if last.as_ref() != Some(&mark) {
                self.wake_streams();
                if self.last_time().await.is_ok() {
                    last = Some(mark);
                }
            }
        }
    }

    async fn change_marker(&self) -> Result<Option<String>, StorageError> {
        let mark = sqlx::query("SELECT value FROM installation WHERE name = $1").bind(MARK);
        self.read_row(mark).await?.as_ref().map(|row| column(row, "value")).transpose()
    }
}

/// Writes the change marker in the same transaction as the change that it announces.
pub(crate) async fn bump_change_marker(step: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO installation (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = $2",
    )
    .bind(MARK)
    .bind(random_text())
    .execute(&mut **step)
    .await?;
    Ok(())
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
