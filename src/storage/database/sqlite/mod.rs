//! SQLite: one process, one file, one writer.

pub(crate) mod backup;
pub(crate) mod connection;
pub(crate) mod disk_reserve;
pub(crate) mod file_watch;
pub(crate) mod group_commit;
pub(crate) mod pragmas;
pub(crate) mod read_pool;
pub(crate) mod size_limit;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// What an open SQLite database has beside its pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sqlite {
    pub(super) path: PathBuf,
    /// The one writer. Transactions share its commits; see [`group_commit`].
    pub(super) writer: group_commit::Writer,
    /// Connections for the reads that almost every request makes; `None` in a command.
    pub(super) readers: Option<read_pool::Readers>,
    /// The database files, watched for disappearance; `None` in a command.
    pub(super) files: Option<Arc<file_watch::DatabaseFiles>>,
    /// Disk space that is kept free for revocations; `None` in a command.
    pub(super) reserve: Option<Arc<disk_reserve::Reserve>>,
    /// The lock that keeps other servers away, released when the last clone is dropped.
    pub(super) _only_process: Option<Arc<File>>,
}
