//! SQLite: one process, one file, one writer.

pub(crate) mod disk_reserve;
pub(crate) mod file_watch;
pub(crate) mod group_commit;
pub(crate) mod read_pool;
pub(crate) mod size_limit;
