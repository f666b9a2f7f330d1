//! Watches the files of an SQLite database. If a server has used a database at this path and its file is
//! missing, no new one is created. If a file is deleted or replaced under a running server, the server
//! stops writing, because nobody would ever read that data.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::AnyPool;
use sqlx::error::DatabaseError;

use crate::storage::database::secret_key::key_check_value;
use crate::storage::database::{Database, OpenError, StorageError};

/// First line of the `.lock` file once a server has used the database. The next line identifies that
/// database.
const SERVED: &str = "a server has used the database beside this file\n";

/// The files watched while the server runs.
pub(crate) struct DatabaseFiles {
    /// Each file, with its identity at the start.
    files: Vec<(PathBuf, Identity)>,
    gone: AtomicBool,
}

/// Device and inode: the identity of a file, independent of its name.
type Identity = (u64, u64);

pub(crate) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(OsStr::new(ending));
    PathBuf::from(path)
}

/// Fails if a database was used here before and is missing now.
pub(crate) fn refuse_lost(database: &Path) -> Result<(), OpenError> {
    let mark = beside(database, ".lock");
    let empty = std::fs::metadata(database).map_or(true, |file| file.len() == 0);
    let served = std::fs::read_to_string(&mark).is_ok_and(|text| text.starts_with(SERVED));
    if empty && served {
        return Err(OpenError::Lost { database: database.to_owned(), mark });
    }
    Ok(())
}

/// Fails if this is not the database that was used here before. A backup of that one counts as the same.
pub(crate) async fn refuse_other(database: &Path, pool: &AnyPool) -> Result<(), OpenError> {
    let mark = beside(database, ".lock");
    let text = std::fs::read_to_string(&mark).unwrap_or_default();
    // Earlier versions did not write which database it was.
    let known = text.strip_prefix(SERVED).map(str::trim).filter(|known| !known.is_empty());
    match known {
        Some(known) if which(pool).await?.as_deref() != Some(known) => {
            Err(OpenError::Other { database: database.to_owned(), mark })
        }
        _ => Ok(()),
    }
}

/// Returns the identity of a database, which its backups share: a hash of the proof of its key, which is
/// made once.
async fn which(pool: &AnyPool) -> Result<Option<String>, OpenError> {
    match key_check_value(pool).await {
        Ok(known) => Ok(known.map(|known| {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, known.as_bytes());
            URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
        })),
        Err(sqlx::Error::Database(_)) => Ok(None), // the table does not exist
        Err(cause) => Err(cause.into()),
    }
}

/// Records that a server uses this database, so that later starts notice if it is missing or another one.
pub(crate) async fn mark_served(database: &Path, pool: &AnyPool) -> Result<(), OpenError> {
    let mark = beside(database, ".lock");
    let ours = format!("{SERVED}{}\n", which(pool).await?.unwrap_or_default());
    let noted = std::fs::read_to_string(&mark).and_then(|text| {
        if text == ours {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).truncate(true).open(&mark)?;
        file.write_all(ours.as_bytes())?;
        file.sync_all()
    });
    noted.map_err(|cause| OpenError::File { path: mark, cause })
}

/// Converts an error at the start into one that tells the administrator what is wrong.
pub(crate) fn why(database: &Path, error: sqlx::Error) -> OpenError {
    match error.as_database_error().map(<dyn DatabaseError>::message) {
        Some(said) if said.contains("readonly") || said.contains("unable to open") => {
            let cause = std::io::Error::other(said.to_owned());
            OpenError::File { path: database.to_owned(), cause }
        }
        Some(said) if said.contains("malformed") || said.contains("not a database") => {
            OpenError::Damaged(said.to_owned())
        }
        _ => error.into(),
    }
}

impl DatabaseFiles {
    pub(crate) fn new(database: &Path) -> Self {
        let files = [database.to_owned(), beside(database, "-wal")];
        let files = files.into_iter().filter_map(|path| {
            let identity = identity(&path)?;
            Some((path, identity))
        });
        Self { files: files.collect(), gone: AtomicBool::new(false) }
    }

    /// Checks the files, and logs each change once.
    pub(crate) fn look(&self) {
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

    pub(crate) fn are_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

impl Database {
    /// Checks whether the files are still there. Returns whether one is gone.
    pub(crate) fn look_at_files(&self) -> bool {
        let Some(files) = self.files() else { return false };
        files.look();
        files.are_gone()
    }

    /// Fails if a file is gone: data written to a deleted file is lost when this process ends.
    pub(crate) fn refuse_gone(&self) -> Result<(), StorageError> {
        let gone = self.files().is_some_and(DatabaseFiles::are_gone);
        if gone { Err(StorageError::Gone) } else { Ok(()) }
    }

    fn files(&self) -> Option<&DatabaseFiles> {
        self.sqlite()?.files.as_deref()
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
