//! SQLite's readers: the connections of the look-ups that almost every request makes.
//!
//! A look-up takes some microseconds, less than handing it to another thread would: it runs on the thread
//! that asks ([`super::driver`]). A file does not hang up: a connection comes back when its look-up ended
//! well, and is closed when it did not.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{BUSY, Storage, StorageError, group_commit};

/// Connections at most.
const READERS: u32 = 8;

/// Connections that wait for a look-up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers(Arc<Inner>);

struct Inner {
    options: AnyConnectOptions,
    places: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

/// A connection for one look-up. Dropped without [`Self::release`], it is closed: nobody knows what
/// it is in the middle of.
struct Reader<'a> {
    readers: &'a Inner,
    connection: AnyConnection,
    _place: SemaphorePermit<'a>,
}

impl Readers {
    /// Readers over connections of their own, which are opened when they are needed.
    pub(super) fn new(options: AnyConnectOptions) -> Self {
        let (places, idle) = (Semaphore::new(READERS as usize), Mutex::default());
        Self(Arc::new(Inner { options, places, idle }))
    }

    async fn take(&self) -> Result<Reader<'_>, sqlx::Error> {
        let readers = &*self.0;
        let place = tokio::time::timeout(BUSY, readers.places.acquire());
        let place = place.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let waiting = readers.idle().pop();
        let connection = match waiting {
            Some(connection) => connection,
            None => group_commit::connect(&readers.options).await?,
        };
        Ok(Reader { readers, connection, _place: place })
    }

    /// Closes the connections; every later look-up is refused.
    pub(super) async fn close(&self) {
        // Look-ups under way end first: a log that is being read cannot be folded into the file.
        let all = self.0.places.acquire_many(READERS);
        let _ = tokio::time::timeout(BUSY, all).await;
        self.0.places.close();
        let idle = std::mem::take(&mut *self.0.idle());
        for connection in idle {
            if let Err(cause) = connection.close().await {
                tracing::debug!(%cause, "a connection was not closed");
            }
        }
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock()
    }
}

impl Reader<'_> {
    fn release(self) {
        if !self.readers.places.is_closed() {
            self.readers.idle().push(self.connection);
        }
    }
}

impl Storage {
    /// Looks up one row, outside of every step.
    pub(super) async fn read_one(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Option<AnyRow>, StorageError> {
        let Some(readers) = &self.readers else {
            return self.read_row(query).await;
        };
        let mut reader = readers.take().await?;
        let row = query.fetch_optional(&mut reader.connection).await?;
        reader.release();
        Ok(row)
    }

    /// Looks up rows, outside of every step: as many as the query's own bound lets through.
    pub(super) async fn read_all(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let Some(readers) = &self.readers else {
            return self.read_rows(query).await;
        };
        let mut reader = readers.take().await?;
        let rows = query.fetch_all(&mut reader.connection).await?;
        reader.release();
        Ok(rows)
    }
}
