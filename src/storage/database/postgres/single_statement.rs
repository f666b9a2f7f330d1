//! Runs a statement that is a transaction of its own: one round trip, without BEGIN and COMMIT.

use sqlx::Any;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use tokio::time::Instant;

use crate::storage::database::errors::code;
use crate::storage::database::{BUSY, Database, StorageError};

/// SQLSTATE of a division by zero, by which a statement takes back what it has done.
const DIVISION_BY_ZERO: &str = "22012";

impl Database {
    /// Runs the statement on a connection for transactions. Returns its first row once what it did is durable;
    /// `None` if it returned no row, or took back what it did.
    pub(crate) async fn run_single(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Option<AnyRow>, StorageError> {
        let asked = Instant::now();
        let mut connection = self.connection(self.pool(), BUSY).await?;
        self.metrics().step_waited(asked);
        let begun = Instant::now();
        // All rows: PostgreSQL sends them before it commits, and their end after that.
        let rows = match query.fetch_all(&mut *connection).await {
            Ok(rows) => rows,
            Err(cause) if code(&cause).as_deref() == Some(DIVISION_BY_ZERO) => return Ok(None),
            Err(cause) => return Err(cause.into()),
        };
        self.metrics().committed(None, begun);
        Ok(rows.into_iter().next())
    }
}
