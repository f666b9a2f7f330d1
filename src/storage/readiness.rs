//! Whether the database can serve: it is there, answers and takes writes. Asked by `/ready`, which anybody
//! may call as often as they like: it is found out every few seconds at most, by one for all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Storage, StorageError};
use crate::clock::Timestamp;

/// An answer is good for this long.
const FRESH: Duration = Duration::from_secs(5);
/// Longest wait for an answer: probes are impatient.
const PATIENCE: Duration = Duration::from_secs(2);
/// Name of the row that is written.
const ROW: &str = "last_ready";

/// What `/ready` says of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It answers and takes writes.
    Yes,
    /// It cannot be read.
    Unavailable,
    /// It can be read and not written: the disk is full or broken, somebody holds a lock.
    ReadOnly,
    /// The file was moved or deleted: what is written now is lost at the next start.
    FileGone,
}

/// The last answer, and what it takes to know the file again.
#[derive(Default)]
pub(super) struct Readiness {
    last: Mutex<Option<(Timestamp, Ready)>>,
    file: Option<File>,
}

struct File {
    path: PathBuf,
    place: Option<(u64, u64)>,
}

impl Readiness {
    pub(super) fn of(file: Option<&Path>) -> Arc<Self> {
        let file = file.map(|path| File { path: path.to_owned(), place: place(path) });
        Arc::new(Self { last: Mutex::default(), file })
    }

    fn file_is_there(&self) -> bool {
        self.file.as_ref().is_none_or(|file| place(&file.path) == file.place)
    }
}

/// Which file this is, whatever its name.
fn place(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Some((found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    Some((0, u64::from(found.is_file())))
}

impl Storage {
    /// Whether the database can serve now.
    pub async fn ready(&self, now: Timestamp) -> Ready {
        let mut last = self.readiness.last.lock().await;
        if let Some((asked_at, ready)) = *last
            && now >= asked_at
            && now.since(asked_at) < FRESH
        {
            return ready;
        }
        let ready = self.find_out(now).await;
        if last.map(|(_, before)| before) != Some(ready) && ready != Ready::Yes {
            tracing::error!(?ready, "the database cannot serve");
        }
        *last = Some((now, ready));
        ready
    }

    async fn find_out(&self, now: Timestamp) -> Ready {
        if !self.readiness.file_is_there() {
            return Ready::FileGone;
        }
        let read = tokio::time::timeout(PATIENCE, self.registered_clients()).await;
        if !matches!(read, Ok(Ok(_))) {
            return Ready::Unavailable;
        }
        match tokio::time::timeout(PATIENCE, self.write_a_row(now)).await {
            // Too much to do is not broken: taking this process out would give the others more.
            Ok(Ok(()) | Err(StorageError::Busy)) => Ready::Yes,
            Ok(Err(_)) | Err(_) => Ready::ReadOnly,
        }
    }

    async fn write_a_row(&self, now: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(ROW)
        .bind(now.unix().to_string())
        .execute(&mut *step)
        .await?;
        step.commit().await
    }
}
