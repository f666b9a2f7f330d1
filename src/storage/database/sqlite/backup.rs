//! Backups: copies the database while a server is running.
//!
//! Each copy carries a mark. The first server that opens a database with that mark ends everything that
//! may have ended since.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::oauth::secret::random_text;
use crate::storage::database::{Database, OpenError, StorageError};

/// Name of the mark's row in the table `installation`. Its value is the time of the backup.
pub(crate) const MARK: &str = "backup_taken_at";

/// Why there is no backup. No partial file remains.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file with this name exists.
    #[error("{0} exists already, and a backup overwrites nothing; choose another name")]
    Exists(PathBuf),
    /// The file or its folder cannot be used.
    #[error("{path} cannot be written: {cause}")]
    File {
        path: PathBuf,
        /// The error of the operating system.
        cause: Error,
    },
    #[error("the copy is damaged ({0}); is the database itself?")]
    Damaged(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Database {
    /// Copies the SQLite database, as it is at one moment, into a new file with mode 0600. Returns its
    /// size in bytes. Servers continue to read and write. The file gets its name only once it is complete
    /// and on the disk.
    pub(crate) async fn back_up(&self, to: &Path, now: Timestamp) -> Result<u64, BackupError> {
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
}

/// Fails if a restored file lies next to the WAL of the earlier database: SQLite would apply that WAL to
/// it. Bytes 18 and 19 of the file tell: a backup is not in WAL mode, while a database that has been
/// served is.
pub(crate) fn refuse_foreign_log(database: &Path) -> Result<(), OpenError> {
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
