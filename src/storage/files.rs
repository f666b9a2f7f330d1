//! The files of an SQLite database, as an administrator sees them: one that is missing where a server has
//! served before is lost, and no new one is made in its place; one that is taken away or replaced under a
//! running server takes no more writes, which nobody would ever read again.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::error::DatabaseError;

use super::{OpenError, Storage, StorageError};

/// What stands in the file beside the database once a server has served it.
const SERVED: &[u8] = b"a server has used the database beside this file\n";

/// What is watched while the server runs.
pub(super) struct Watched {
    /// Each file, and which one it was at the start.
    files: Vec<(PathBuf, Identity)>,
    gone: AtomicBool,
}

/// Which file it is, whatever its name.
type Identity = (u64, u64);

pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(OsStr::new(ending));
    PathBuf::from(path)
}

/// Refuses to begin anew where there was a database.
pub(super) fn refuse_lost(database: &Path) -> Result<(), OpenError> {
    let mark = beside(database, ".lock");
    let empty = std::fs::metadata(database).map_or(true, |file| file.len() == 0);
    let served = std::fs::read(&mark).is_ok_and(|text| text == SERVED);
    if empty && served {
        return Err(OpenError::Lost { database: database.to_owned(), mark });
    }
    Ok(())
}

/// Notes that from now on this database would be missed.
pub(super) fn mark_served(database: &Path) -> Result<(), OpenError> {
    let mark = beside(database, ".lock");
    let noted = std::fs::read(&mark).and_then(|text| {
        if text == SERVED {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).truncate(true).open(&mark)?;
        file.write_all(SERVED)?;
        file.sync_all()
    });
    noted.map_err(|cause| OpenError::File { path: mark, cause })
}

/// What an administrator has to hear of an error at the start.
pub(super) fn why(error: sqlx::Error) -> OpenError {
    match error.as_database_error().map(<dyn DatabaseError>::message) {
        Some(said) if said.contains("malformed") || said.contains("not a database") => {
            OpenError::Damaged(said.to_owned())
        }
        _ => error.into(),
    }
}

impl Watched {
    pub(super) fn new(database: &Path) -> Self {
        let files = [database.to_owned(), beside(database, "-wal")];
        let files = files.into_iter().filter_map(|path| {
            let identity = identity(&path)?;
            Some((path, identity))
        });
        Self { files: files.collect(), gone: AtomicBool::new(false) }
    }

    /// Looks again, and says so once when something has changed.
    pub(super) fn look(&self) {
        let missing = self.files.iter().find(|(path, known)| identity(path) != Some(*known));
        let gone = missing.is_some();
        if self.gone.swap(gone, Ordering::SeqCst) == gone {
            return;
        }
        if let Some((path, _)) = missing {
            let path = path.display();
            tracing::error!(
                %path,
                "a file of the database was deleted or replaced under this server: nothing is written any more. Put it back, or stop the server and restore a backup"
            );
        } else {
            tracing::warn!("the files of the database are back: writing goes on");
        }
    }

    pub(super) fn are_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

impl Storage {
    /// What is written into a file without a name is lost with this process.
    pub(super) fn refuse_gone(&self) -> Result<(), StorageError> {
        let gone = self.watched.as_ref().is_some_and(|watched| watched.are_gone());
        if gone { Err(StorageError::Gone) } else { Ok(()) }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    path.exists().then_some((0, 0))
}
