//! The connection pools of a replica on PostgreSQL, one for each kind of work.
//!
//! While one transaction holds a row, all others that need it wait, each on a connection of its own,
//! until none is left. Therefore reads have a few connections of their own, and `/ready` has one:
//! requests that only read are still served, and a replica whose connections are all in use is reported
//! as busy, not as down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Transaction};
use tokio::time::{Instant, timeout};

use super::retry;
use super::server::{Server, ServerRefusal};
use super::{session_settings, timeouts};
use crate::storage::database::{BUSY, Database, StorageError};
use crate::telemetry::metrics::RetryCause;

/// Default number of connections of a replica, in all pools together: 16.
pub const DATABASE_CONNECTIONS: u32 = 16;
/// Fewest connections that suffice: one listens for notifications, one is for `/ready`, one checks
/// whether the database was rolled back, one is for reads and one for transactions.
pub const FEWEST_CONNECTIONS: u32 = 5;
/// Longest wait of a read for a connection while all are in use: 2 seconds, because a request reads
/// several times.
const READ_WAIT: Duration = Duration::from_secs(2);
/// A transaction that cannot begin because its connection was lost gets another one during the first second,
/// so that it waits little longer than [`BUSY`].
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// Pause before the next attempt when the server grants no further connection: 50 ms.
const AGAIN: Duration = Duration::from_millis(50);

/// Checks each new connection before its first use.
pub(crate) trait ConnectionCheck: Send + Sync {
    /// Fails if the connection may not be used. The pool then tries again.
    fn admit(
        self: Arc<Self>,
        connection: &mut AnyConnection,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>>;
}

/// The pools other than the one for transactions.
#[derive(Clone)]
pub(crate) struct Pools {
    /// For reads of requests and of background tasks.
    reads: AnyPool,
    /// For `/ready` alone.
    probe: AnyPool,
    server: Arc<Server>,
}

impl Pools {
    /// Opens the pool for transactions, and the others. `connections` is the total; one of them is left
    /// for the listener, and one for the check whether the database was rolled back.
    pub(crate) async fn open(
        server: Arc<Server>,
        connections: u32,
        check: &Arc<dyn ConnectionCheck>,
    ) -> Result<(AnyPool, Self), sqlx::Error> {
        let (reads, steps) = shares(connections);
        let of_steps = pool(steps, Work::Step, check).connect_with(server.options()?).await?;
        let reads = pool(reads, Work::Read, check).connect_with(server.options()?).await?;
        let probe = pool(1, Work::Probe, check).connect_with(server.options()?).await?;
        Ok((of_steps, Self { reads, probe, server }))
    }

    /// Returns the server, for connections outside of the pools.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Uses one pool for everything: a command reads little.
    pub(crate) fn of_one(pool: &AnyPool, server: Arc<Server>) -> Self {
        Self { reads: pool.clone(), probe: pool.clone(), server }
    }

    /// Returns how many connections are open, and how many of them are idle.
    pub(crate) fn count(&self) -> (u32, usize) {
        let all = [&self.reads, &self.probe];
        (all.iter().map(|pool| pool.size()).sum(), all.iter().map(|pool| pool.num_idle()).sum())
    }

    pub(crate) async fn close(&self) {
        self.reads.close().await;
        self.probe.close().await;
    }
}

/// Divides `connections` into those for reads and those for transactions. Half of them are for reads: most
/// steps are one statement, and a request reads up to three times before it.
fn shares(connections: u32) -> (u32, u32) {
    let rest = connections.max(FEWEST_CONNECTIONS) - 3;
    let reads = (rest / 2).max(1);
    (reads, rest - reads)
}

/// The kind of work that a pool is for.
#[derive(Clone, Copy)]
enum Work {
    Step,
    Read,
    Probe,
}

fn pool(connections: u32, work: Work, check: &Arc<dyn ConnectionCheck>) -> AnyPoolOptions {
    let check = Arc::clone(check);
    AnyPoolOptions::new()
        .max_connections(connections)
        // Kept open, so that each kind of work has one even if other clients use up the server's limit.
        .min_connections(1)
        .acquire_timeout(BUSY)
        .max_lifetime(Duration::from_mins(30))
        .after_connect(move |connection, _| {
            let check = Arc::clone(&check);
            Box::pin(async move {
                session_settings::serve(connection).await?;
                check.admit(connection).await?;
                match work {
                    Work::Step => Ok(()),
                    Work::Read => timeouts::limit_read(connection).await,
                    Work::Probe => timeouts::limit_probe(connection).await,
                }
            })
        })
}

impl Database {
    /// Makes a pool of one connection to the same server, without [`ConnectionCheck`], for what has to
    /// happen before any pooled connection may be used. `None` on SQLite.
    pub(crate) fn unchecked_pool(&self) -> Result<Option<AnyPool>, sqlx::Error> {
        let Some(pools) = self.postgres() else { return Ok(None) };
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY)
            .idle_timeout(Duration::from_secs(10))
            .after_connect(|connection, _| Box::pin(session_settings::serve(connection)));
        Ok(Some(pool.connect_lazy_with(pools.server.options()?)))
    }

    /// Returns the pool for reads.
    pub(crate) fn pool_of_reads(&self) -> &AnyPool {
        self.postgres().map_or(&self.pool, |pools| &pools.reads)
    }

    /// Returns the pool of `/ready`.
    pub(crate) fn probe(&self) -> &AnyPool {
        self.postgres().map_or(&self.pool, |pools| &pools.probe)
    }

    /// Begins a transaction.
    pub(crate) async fn transaction(&self) -> Result<Transaction<'static, Any>, StorageError> {
        let asked = Instant::now();
        loop {
            let connection = self.connection(&self.pool, BUSY).await?;
            let cause = match Transaction::begin(connection, None).await {
                Ok(transaction) => return Ok(transaction),
                Err(cause) => cause,
            };
            // Nothing was sent yet, so another connection serves as well.
            if !retry::is_lost(&cause) || asked.elapsed() > BEGIN_AGAIN {
                return Err(cause.into());
            }
            self.metrics.retried(RetryCause::Connection);
        }
    }

    /// Waits for a connection for a read.
    pub(crate) async fn read_connection(&self) -> Result<PoolConnection<Any>, StorageError> {
        self.connection(self.pool_of_reads(), READ_WAIT).await
    }

    /// Waits for a connection of `pool`: up to `longest` while all are in use, and up to five seconds
    /// while the server is unreachable. If the server grants no further connection, waits for an open one
    /// to be returned.
    pub(crate) async fn connection(
        &self,
        pool: &AnyPool,
        longest: Duration,
    ) -> Result<PoolConnection<Any>, StorageError> {
        let until = Instant::now() + BUSY;
        loop {
            let cause = match timeout(longest, pool.acquire()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(cause)) => cause,
                // An unreachable server may soon be back.
                Err(_) if Instant::now() < until && !self.is_busy(pool) => continue,
                Err(_) => sqlx::Error::PoolTimedOut,
            };
            let refusal = self.refusal();
            let others = pool.size() + self.pool.size() > 0;
            if refusal == Some(ServerRefusal::Full) && others && Instant::now() < until {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            return Err(match (refusal, &cause) {
                (Some(ServerRefusal::Full), _) if others => StorageError::NoConnection(pool.size()),
                (None, sqlx::Error::PoolTimedOut) if self.all_in_use(pool) => {
                    StorageError::NoConnection(pool.size())
                }
                (Some(ServerRefusal::Down(told)), sqlx::Error::PoolTimedOut) => {
                    StorageError::Unavailable(sqlx::Error::Io(std::io::Error::other(told)))
                }
                _ => cause.into(),
            });
        }
    }

    fn is_busy(&self, pool: &AnyPool) -> bool {
        self.all_in_use(pool) && !matches!(self.refusal(), Some(ServerRefusal::Down(_)))
    }

    fn refusal(&self) -> Option<ServerRefusal> {
        self.postgres().and_then(|pools| pools.server.refusal())
    }

    /// Returns whether PostgreSQL has just refused a further connection while this process has others.
    pub(crate) fn goes_on_with_fewer(&self) -> bool {
        self.refusal() == Some(ServerRefusal::Full) && self.pool.size() > 0
    }

    fn all_in_use(&self, pool: &AnyPool) -> bool {
        self.postgres().is_some() && pool.size() >= pool.options().get_max_connections()
    }

    /// Reads one row, outside of any transaction.
    pub(crate) async fn read_row(
        &self,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<Option<AnyRow>, StorageError> {
        let mut connection = self.read_connection().await?;
        Ok(query.fetch_optional(&mut *connection).await?)
    }

    /// Reads rows, outside of any transaction.
    pub(crate) async fn read_rows(
        &self,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let mut connection = self.read_connection().await?;
        Ok(query.fetch_all(&mut *connection).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_has_a_connection_of_its_own() {
        for (connections, expected) in
            [(1, (1, 1)), (5, (1, 1)), (6, (1, 2)), (11, (4, 4)), (16, (6, 7)), (100, (48, 49))]
        {
            assert_eq!(shares(connections), expected, "{connections}");
        }
    }
}
