//! Room on the disk for the day it is full: a file beside the SQLite database, given up when the disk has no
//! other room and something must end. Until there is room again, what is left is for that alone.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Storage, StorageError, file_watch};

/// Thousands of ended grants.
const SIZE: usize = 4 << 20;
/// Less room than this is none.
const LITTLE: usize = 256 << 10;

/// The file, and what has become of it.
pub(super) struct Reserve {
    path: PathBuf,
    /// It is on the disk.
    kept: AtomicBool,
    /// The disk had no other room when somebody last looked.
    needed: AtomicBool,
    /// It was given up, and there is no room yet to make it again.
    spent: AtomicBool,
}

impl Reserve {
    pub(super) fn beside(database: &Path) -> Self {
        let path = file_watch::beside(database, ".reserve");
        // Of an earlier start; a new one is made when somebody looks first, which no start waits for.
        let whole = std::fs::metadata(&path).is_ok_and(|file| file.len() == SIZE as u64);
        let (needed, spent) = Default::default();
        Self { path, kept: AtomicBool::new(whole), needed, spent }
    }

    /// Makes it, where there is room for it.
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
                    self.spent.store(false, Ordering::SeqCst); // it would be missed for ever
                    tracing::warn!(%cause, "no room can be kept for a full disk");
                }
            }
        }
    }

    /// Whether the disk has no room; to be asked when nothing can be written.
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

    /// Gives it up where there is no other room.
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

/// With bytes of its own: a file with holes would keep nothing.
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

impl Storage {
    /// Makes the reserve, where it is not there yet.
    pub async fn keep_reserve(&self) {
        self.look_at_reserve(true).await;
    }

    /// Finds out about the disk, given that the database could be written or not.
    pub(super) async fn look_at_reserve(&self, writes: bool) {
        let Some(reserve) = self.reserve.clone() else { return };
        let looked = tokio::task::spawn_blocking(move || reserve.look(writes));
        if let Err(cause) = looked.await {
            tracing::error!(%cause, "the room on the disk is unknown");
        }
    }

    /// What is left of a full disk is for what ends grants.
    pub(super) fn refuse_on_reserve(&self) -> std::result::Result<(), StorageError> {
        let spent = |reserve: &Arc<Reserve>| reserve.spent.load(Ordering::SeqCst);
        if self.reserve.as_ref().is_some_and(spent) {
            let full = "the disk is full, and what is left is for ending grants";
            return Err(StorageError::Unavailable(sqlx::Error::Protocol(full.to_owned())));
        }
        Ok(())
    }

    pub(super) fn use_reserve_if_needed(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.use_if_needed();
        }
    }
}
