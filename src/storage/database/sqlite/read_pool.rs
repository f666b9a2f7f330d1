//! SQLite's read pool: connections for the reads that almost every request makes.
//!
//! Such a read takes some microseconds, less than handing it to another thread would, so it runs on the
//! calling thread ([`super::connection`]). A local file cannot drop a connection, so idle ones are not
//! tested. A connection returns to the pool after a successful read and is closed after a failed one.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::pragmas::connect;
use crate::storage::database::{BUSY, Database, StorageError};

/// Most connections in the pool: 8.
const READERS: u32 = 8;

/// The read pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readers(Arc<ReaderPool>);

struct ReaderPool {
    options: AnyConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

/// A connection for one read. If it is dropped without [`Self::release`], it is closed, because its state
/// is unknown.
struct Reader<'a> {
    readers: &'a ReaderPool,
    connection: AnyConnection,
    _permit: SemaphorePermit<'a>,
}

impl Readers {
    /// Makes an empty pool. Connections are opened when they are needed.
    pub(crate) fn new(options: AnyConnectOptions) -> Self {
        let (permits, idle) = (Semaphore::new(READERS as usize), Mutex::default());
        Self(Arc::new(ReaderPool { options, permits, idle }))
    }

    async fn take(&self) -> Result<Reader<'_>, sqlx::Error> {
        let readers = &*self.0;
        let permit = tokio::time::timeout(BUSY, readers.permits.acquire());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let waiting = readers.idle().pop();
        let connection = match waiting {
            Some(connection) => connection,
            None => connect(&readers.options).await?,
        };
        Ok(Reader { readers, connection, _permit: permit })
    }

    /// Closes the connections. Every later read fails.
    pub(crate) async fn close(&self) {
        // Waits for running reads first: a WAL that is being read cannot be checkpointed completely.
        let all = self.0.permits.acquire_many(READERS);
        let _ = tokio::time::timeout(BUSY, all).await;
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle());
        for connection in idle {
            if let Err(cause) = connection.close().await {
                tracing::debug!(%cause, "a connection was not closed");
            }
        }
    }
}

impl ReaderPool {
    fn idle(&self) -> MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock()
    }
}

impl Reader<'_> {
    fn release(self) {
        if !self.readers.permits.is_closed() {
            self.readers.idle().push(self.connection);
        }
    }
}

impl Database {
    fn readers(&self) -> Option<&Readers> {
        self.sqlite()?.readers.as_ref()
    }

    /// Reads one row, outside of any transaction.
    pub(crate) async fn read_one(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Option<AnyRow>, StorageError> {
        let Some(readers) = self.readers() else {
            return self.read_row(query).await;
        };
        let mut reader = readers.take().await?;
        let row = query.fetch_optional(&mut reader.connection).await?;
        reader.release();
        Ok(row)
    }

    /// Reads all rows of a query, outside of any transaction. The query itself must limit their number.
    pub(crate) async fn read_all(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let Some(readers) = self.readers() else {
            return self.read_rows(query).await;
        };
        let mut reader = readers.take().await?;
        let rows = query.fetch_all(&mut reader.connection).await?;
        reader.release();
        Ok(rows)
    }
}
