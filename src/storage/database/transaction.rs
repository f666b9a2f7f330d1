//! Transactions of either engine.

use sqlx::{Any, AnyConnection};
use tokio::time::Instant;

use super::StorageError;
use super::postgres::timeouts::NO_STATEMENT_TIMEOUT;
use super::sqlite::group_commit;
use super::sqlite::size_limit::{Room, Use};
use crate::telemetry::metrics::Metrics;

/// An atomic transaction. Dropped without [`Self::commit`], it changes nothing.
pub(crate) enum SqlTransaction {
    /// A savepoint in a transaction that other callers share; see [`group_commit`].
    Sqlite(group_commit::Step),
    /// A transaction of its own.
    Postgres(sqlx::Transaction<'static, Any>),
}

impl SqlTransaction {
    /// Lets the transaction write beyond `limits.database_size`, because it turned out to end grants.
    pub(crate) async fn use_reserve(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(step) => step.use_reserve().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Fails if the remaining space is reserved for other uses.
    pub(crate) async fn refuse_without_room(&mut self, what: Use) -> Result<(), StorageError> {
        if what < Use::People && !self.has_room(what).await? {
            return Err(StorageError::Full(what.as_str()));
        }
        Ok(())
    }

    /// Returns whether there is space for this use.
    pub(crate) async fn has_room(&mut self, what: Use) -> Result<bool, StorageError> {
        match self {
            Self::Sqlite(step) => step.is_filled_less_than(what.share()).await,
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Returns for which uses there is space now.
    pub(crate) async fn room(&mut self) -> Result<Room, StorageError> {
        match self {
            Self::Sqlite(step) => {
                let pages = step.pages().await?;
                Ok(pages.map_or(Room::Enough, |(used, most)| Room::of(used, most)))
            }
            Self::Postgres(_) => Ok(Room::Enough),
        }
    }

    /// Switches off PostgreSQL's statement timeout for a transaction that goes through whole tables.
    pub(crate) async fn disable_statement_timeout(&mut self) -> Result<(), StorageError> {
        if let Self::Postgres(transaction) = self {
            sqlx::query(NO_STATEMENT_TIMEOUT).execute(&mut **transaction).await?;
        }
        Ok(())
    }

    /// Commits. Only after it returns may anybody learn of the outcome.
    pub(crate) async fn commit(self, metrics: &Metrics) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(step) => step.commit().await, // the writer measures the commit that it shares
            Self::Postgres(transaction) => {
                let begun = Instant::now();
                transaction.commit().await?;
                metrics.committed(None, begun);
                Ok(())
            }
        }
    }
}

impl std::ops::Deref for SqlTransaction {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        match self {
            Self::Sqlite(step) => step,
            Self::Postgres(transaction) => transaction,
        }
    }
}

impl std::ops::DerefMut for SqlTransaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        match self {
            Self::Sqlite(step) => step,
            Self::Postgres(transaction) => transaction,
        }
    }
}
