//! SQLite: one process, one file, one writer.
//!
//! # What is here
//!
//! Two kinds of connections reach the file:
//!
//! - The transactions and reads of almost every request use [`connection`]: rusqlite on the calling
//!   thread, behind sqlx's `Any` interface. sqlx's own SQLite driver hands each statement to a thread of
//!   the connection and its result back, which takes longer than the statement itself; without these
//!   switches a refresh costs half as much. [`group_commit`] is the one writer, [`read_pool`] holds the
//!   readers, and [`pragmas`] has the settings of both.
//! - Slow work uses a pool of sqlx's own driver, off the threads that serve requests: migrations, lists
//!   of administrators, [`backup`].
//!
//! Around them: `group_commit/checkpoint.rs` runs checkpoints in the background, [`size_limit`] limits
//! the file, [`file_watch`] notices when the file disappears, and [`disk_reserve`] keeps space for
//! revocations on a full disk.
//!
//! # What the driver implements, and why versions are pinned
//!
//! A driver for `Any` implements `AnyConnectionBackend` (in [`connection`]: run a statement, return rows,
//! close) and the traits that sqlx requires of a `Database` (in `driver/sqlx_types.rs`, mostly types of
//! which no value exists). Both are in `sqlx-core`, outside of what sqlx promises to keep within a version,
//! so `Cargo.toml` pins `sqlx` and `sqlx-core` exactly, and an update of sqlx is a task of its own:
//! compile, then run the tests of this folder. rusqlite and sqlx must bundle the same SQLite
//! (`libsqlite3-sys`); cargo refuses two of them.
//!
//! # Falling back to sqlx's own driver
//!
//! [`connection::options`] is the only constructor of fast connections. If its body becomes that of
//! [`connection::sqlx_options`], everything runs on sqlx's own driver: slower, and without the check for
//! NUL in texts. One thing to solve first: a caller that is cancelled during `BEGIN IMMEDIATE` leaves that
//! statement running on sqlx's thread, so the next transaction fails once, before the writer connects
//! again (`a_caller_may_go_away_at_any_moment`). The debug build does so if the environment has `TEST_SQLX_SQLITE`, and
//! `scripts/test-sqlx-sqlite` runs the tests of storage that way.

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
