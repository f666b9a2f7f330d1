//! Backups: copies the database while a server is running, and invalidates what a restored copy would
//! bring back.
//!
//! An old state of the database lacks what happened since: a refresh token that was rotated looks unused,
//! a revoked grant looks live, an ended session goes on. Nobody can tell which ones, so each backup
//! carries a mark, and the first server that opens a database with that mark ends them all. People sign
//! in again, once. Decisions about clients and people, the keys and the audit trail stay.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::revocation::{self, Scope};
use super::{OpenError, Storage, StorageError, Transaction, replay_guard, rollback_detection};
use crate::clock::Timestamp;
use crate::oauth::secret::random_text;
use crate::telemetry::audit::AuditEvent;

/// Name of the mark's row in the table `installation`. Its value is the time of the backup.
const MARK: &str = "backup_taken_at";
const BECAUSE: &str = "the database was restored from a backup";
/// Lifetime of a consent page less the second in which the server starts. All pages shown before the
/// start expire within it, while a page shown now expires later and is valid.
const CONSENT_PAGE: Duration = Duration::from_secs(10 * 60 - 1);

/// The `lock_timeout` in the list of session settings, in seconds.
const LOCK_TIMEOUT_SECONDS: u64 = 4;

/// Why there is no backup. No partial file remains.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file with this name exists.
    #[error("{0} exists already, and a backup overwrites nothing; choose another name")]
    Exists(PathBuf),
    /// The file or its folder cannot be used.
    #[error("{path} cannot be written: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: Error,
    },
    /// The copy is damaged.
    #[error("the copy is damaged ({0}); is the database itself?")]
    Damaged(String),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Storage {
    /// Copies the SQLite database, as it is at one moment, into a new file with mode 0600. Returns its
    /// size in bytes. Servers continue to read and write. The file gets its name only once it is complete
    /// and on the disk.
    pub async fn back_up(&self, to: &Path, now: Timestamp) -> Result<u64, BackupError> {
        let failed = |cause: Error| match cause.kind() {
            ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
            _ => BackupError::File { path: to.to_owned(), cause },
        };
        let to = std::path::absolute(to).map_err(failed)?;
        if to.try_exists().map_err(failed)? {
            return Err(BackupError::Exists(to));
        }
        let mut partial = to.clone().into_os_string();
        partial.push(format!(".partial-{}", random_text()));
        let partial = PathBuf::from(partial);
        new_private(&partial).map_err(failed)?;
        let copied = match self.copy_into(&partial, now).await {
            // Unlike a rename, a hard link does not replace a file that got this name meanwhile.
            Ok(()) => finish(&partial, &to).map_err(failed),
            Err(error) => Err(error),
        };
        let removed = std::fs::remove_file(&partial).map_err(failed);
        let size = copied?;
        removed?;
        Ok(size)
    }

    async fn copy_into(&self, file: &Path, now: Timestamp) -> Result<(), BackupError> {
        let name = file.to_str().ok_or_else(|| {
            let cause = Error::new(ErrorKind::InvalidFilename, "the name is not UTF-8");
            BackupError::File { path: file.to_owned(), cause }
        })?;
        let mut connection = self.pool.acquire().await.map_err(StorageError::from)?.detach();
        let copied = async {
            sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await?;
            sqlx::query("ATTACH $1 AS backup").bind(name).execute(&mut connection).await?;
            sqlx::query(
                "INSERT INTO backup.installation (name, value) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET value = $2",
            )
            .bind(MARK)
            .bind(now.unix().to_string())
            .execute(&mut connection)
            .await?;
            let check = sqlx::query_scalar::<_, String>("PRAGMA backup.quick_check(1)");
            check.fetch_one(&mut connection).await
        };
        let verdict = copied.await;
        sqlx::Connection::close(connection).await.map_err(StorageError::from)?;
        match verdict.map_err(StorageError::from)? {
            verdict if verdict == "ok" => Ok(()),
            verdict => Err(BackupError::Damaged(verdict)),
        }
    }

    /// Ends everything in a restored database that may have ended, or been used up, since its backup was
    /// made, and records `event`. Returns the time of the backup; `None` if the database is not a
    /// restored one.
    pub async fn settle_restored(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mut waited = 0;
        loop {
            match self.try_to_settle_restored(now, event.clone()).await {
                Err(StorageError::Unavailable(cause)) if is_lock_timeout(&cause) => {
                    waited += LOCK_TIMEOUT_SECONDS;
                    tracing::warn!(
                        waited,
                        "another replica ends everything in the restored database, which takes long where there are many grants; this one waits for it"
                    );
                }
                settled => return settled,
            }
        }
    }

    async fn try_to_settle_restored(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mark =
            sqlx::query_scalar::<_, String>("SELECT value FROM installation WHERE name = $1");
        let Some(taken_at) = mark.bind(MARK).fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        let taken_at = Timestamp::from_unix(taken_at.parse().unwrap_or_default());
        let mut step = self.begin().await?;
        super::timeouts::disable_statement_timeout(&mut step, self.engine).await?;
        let removed = sqlx::query("DELETE FROM installation WHERE name = $1").bind(MARK);
        if removed.execute(&mut *step).await?.rows_affected() == 0 {
            return Ok(None); // another replica has just done it
        }
        tracing::info!("the database is a restored backup: everything in it is ended");
        let ended = end_everything(&mut step, now, BECAUSE).await?;
        rollback_detection::count_as_settled(&mut step).await?;
        step.record(event.with("taken_at", taken_at.unix()).with("ended", ended)).await?;
        self.commit_and_notify(step).await?;
        Ok(Some(taken_at))
    }
}

/// Returns whether a lock timeout of PostgreSQL ended the wait (SQLSTATE 55P03, `lock_not_available`).
fn is_lock_timeout(cause: &sqlx::Error) -> bool {
    cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("55P03")
}

/// Ends all grants, everything that could become one, and every session. Returns the number of grants.
pub(super) async fn end_everything(
    step: &mut Transaction,
    now: Timestamp,
    because: &str,
) -> Result<u64, StorageError> {
    // Uses since the backup are not recorded in it, so everything issued until now counts as used.
    replay_guard::mark(step, replay_guard::ASSERTIONS_ISSUED, now).await?;
    replay_guard::mark(step, replay_guard::CONSENTS, now.plus(CONSENT_PAGE)).await?;
    Ok(revocation::end(step, Scope::Everything, because, now).await?.grants)
}

/// Fails if a restored file lies next to the WAL of the earlier database: SQLite would apply that WAL to
/// it. Bytes 18 and 19 of the file tell: a backup is not in WAL mode, while a database that has been
/// served is.
pub(super) fn refuse_foreign_log(database: &Path) -> Result<(), OpenError> {
    let mut header = [0; 20];
    let read = File::open(database).and_then(|mut file| file.read_exact(&mut header));
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    let holds_something = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if read.is_ok() && header[18..] == [1, 1] && holds_something {
        return Err(OpenError::ForeignLog(log));
    }
    Ok(())
}

fn new_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Gives the copy its name once it is on the disk. Returns its size in bytes.
fn finish(partial: &Path, to: &Path) -> std::io::Result<u64> {
    let file = OpenOptions::new().write(true).open(partial)?;
    file.sync_all()?;
    std::fs::hard_link(partial, to)?;
    if let Some(folder) = to.parent().filter(|_| cfg!(unix)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(file.metadata()?.len())
}
