//! How large an SQLite database and its log may grow. PostgreSQL has its administrator for that.

use sqlx::{AnyConnection, AssertSqlSafe};

use super::writer::Sizes;
use super::{Storage, StorageError};

impl Storage {
    /// Lets the SQLite file grow to `bytes`; beyond that, whoever writes more hears "try again", and
    /// clean-up makes room. A file that is larger already stays as it is, and may not grow. Its log is cut
    /// back to `log` bytes when all of it is in the file.
    pub async fn limit_size(&self, bytes: u64, log: u64) -> Result<(), StorageError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let page: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&self.pool).await?;
        let used: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&self.pool).await?;
        let most = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        if used > most {
            tracing::warn!("the database is larger than limits.database_size: it may not grow");
        }
        let log = i64::try_from(log).unwrap_or(i64::MAX);
        writer.limit_size(Sizes { most_pages: most, log }).await
    }
}

/// Tells a connection. SQLite forgets it with the connection.
pub(super) async fn limit(connection: &mut AnyConnection, sizes: Sizes) -> Result<(), sqlx::Error> {
    let Sizes { most_pages, log } = sizes;
    for pragma in [
        format!("PRAGMA max_page_count = {most_pages}"),
        format!("PRAGMA journal_size_limit = {log}"),
    ] {
        sqlx::query(AssertSqlSafe(pragma)).execute(&mut *connection).await?;
    }
    Ok(())
}
