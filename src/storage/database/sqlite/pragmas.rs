//! The settings of every connection to an SQLite database.

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions};

/// Page cache of the writer and of each reader: up to 16 MiB (the negative value counts KiB). There are
/// few of these connections, and a page that is not cached is read from the operating system and copied.
const CACHE: &str = "PRAGMA cache_size = -16384";

/// Automatic checkpoint from 8192 WAL pages (32 MiB). A commit then copies what the background checkpoint
/// has left, and once all of it is in the database file, the WAL starts again at its beginning.
const LONG_LOG: &str = "PRAGMA wal_autocheckpoint = 8192";

/// Opens a connection with the settings of the writer and the readers.
pub(crate) async fn connect(options: &AnyConnectOptions) -> Result<AnyConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    set_up(&mut connection).await?;
    for pragma in [CACHE, LONG_LOG] {
        sqlx::query(pragma).execute(&mut connection).await?;
    }
    Ok(connection)
}

/// Sets the pragmas that every connection to the database needs.
pub(crate) async fn set_up(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in [
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL", // NORMAL loses commits at power loss
        "PRAGMA foreign_keys = ON",
        "PRAGMA trusted_schema = OFF",
        "PRAGMA temp_store = MEMORY", // savepoints need no file
        "PRAGMA journal_size_limit = 67108864",
    ] {
        sqlx::query(pragma).execute(&mut *connection).await?;
    }
    #[cfg(debug_assertions)] // lets a test prove that FULL is needed; not in release builds
    if std::env::var_os("TEST_FORGETFUL").is_some() {
        sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
    }
    Ok(())
}
