//! Keeps disk space for revocations: a file next to the SQLite database, which is deleted when the disk
//! is full and a grant must end. Until there is space again, only revocations are written.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::file_watch;
use crate::storage::database::{Database, StorageError};

/// Size of the reserve: 4 MiB, enough for thousands of revocations on a full disk.
const SIZE: usize = 4 << 20;
/// The disk counts as full if this much cannot be written: 256 KiB.
const LITTLE: usize = 256 << 10;

/// The reserve file and its state.
pub(crate) struct Reserve {
    path: PathBuf,
    /// The file exists.
    kept: AtomicBool,
    /// The disk was full at the last check.
    needed: AtomicBool,
    /// The file was deleted, and there is no space yet to create it again.
    spent: AtomicBool,
}

impl Reserve {
    pub(crate) fn beside(database: &Path) -> Self {
        let path = file_watch::beside(database, ".reserve");
        // May exist from an earlier start. A new one is created at the first check, so that the start
        // does not wait.
        let whole = std::fs::metadata(&path).is_ok_and(|file| file.len() == SIZE as u64);
        let (needed, spent) = Default::default();
        Self { path, kept: AtomicBool::new(whole), needed, spent }
    }

    /// Creates the file if there is space for it.
    fn make(&self) {
        match write(&self.path, SIZE) {
            Ok(()) => {
                self.kept.store(true, Ordering::SeqCst);
                if self.spent.swap(false, Ordering::SeqCst) {
                    tracing::warn!("the disk has room again: everything is written as before");
                }
            }
            Err(cause) => {
                let _ = std::fs::remove_file(&self.path);
                if !is_full(&cause) {
                    self.spent.store(false, Ordering::SeqCst); // otherwise writes would be refused for ever
                    tracing::warn!(%cause, "no room can be kept for a full disk");
                }
            }
        }
    }

    /// Checks whether the disk is full, if nothing can be written. Creates the file if it is missing.
    fn look(&self, writes: bool) {
        if writes {
            self.needed.store(false, Ordering::SeqCst);
        } else if self.kept.load(Ordering::SeqCst) {
            let trial = self.path.with_added_extension("trial");
            let full = write(&trial, LITTLE).is_err_and(|cause| is_full(&cause));
            let _ = std::fs::remove_file(&trial);
            self.needed.store(full, Ordering::SeqCst);
        }
        if !self.kept.load(Ordering::SeqCst) {
            self.make();
        }
    }

    /// Deletes the file if the disk is full.
    fn use_if_needed(&self) {
        if self.needed.load(Ordering::SeqCst) && self.kept.swap(false, Ordering::SeqCst) {
            self.spent.store(true, Ordering::SeqCst);
            match std::fs::remove_file(&self.path) {
                Ok(()) => tracing::error!(
                    "the disk is full: the reserve is given up, and what is left is for ending grants alone"
                ),
                Err(cause) => tracing::error!(%cause, "the reserve cannot be given up"),
            }
        }
    }
}

/// Writes real bytes, because a sparse file would reserve nothing.
fn write(path: &Path, size: usize) -> Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&vec![0x5a; size])?;
    file.sync_all()
}

fn is_full(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl Database {
    /// Checks the disk, and creates the reserve if it does not exist. `writes` says whether the database
    /// could be written.
    pub(crate) async fn look_at_reserve(&self, writes: bool) {
        let Some(reserve) = self.reserve().cloned() else { return };
        let looked = tokio::task::spawn_blocking(move || reserve.look(writes));
        if let Err(cause) = looked.await {
            tracing::error!(%cause, "the room on the disk is unknown");
        }
    }

    /// Fails while the remaining disk space is for revocations only.
    pub(crate) fn refuse_on_reserve(&self) -> std::result::Result<(), StorageError> {
        if self.reserve().is_some_and(|reserve| reserve.spent.load(Ordering::SeqCst)) {
            let full = "the disk is full, and what is left is for ending grants";
            return Err(StorageError::Unavailable(sqlx::Error::Protocol(full.to_owned())));
        }
        Ok(())
    }

    pub(crate) fn use_reserve_if_needed(&self) {
        if let Some(reserve) = self.reserve() {
            reserve.use_if_needed();
        }
    }

    fn reserve(&self) -> Option<&Arc<Reserve>> {
        self.sqlite()?.reserve.as_ref()
    }
}
