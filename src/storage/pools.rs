//! Connections to PostgreSQL, and which work waits for which.
//!
//! A row that somebody holds lets the steps that need it wait, each on a connection of its own, until none is
//! left. So look-ups have a few of their own, and `/ready` has one: who only reads is served meanwhile, and a
//! replica whose connections are all in use is busy, not down.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Transaction};
use tokio::time::{Instant, timeout};

use super::driver::{Refusal, Server};
use super::rollback_detection::Watch;
use super::{BUSY, Storage, StorageError, session_settings, timeouts};

/// Connections of a replica by default, all together.
pub const DATABASE_CONNECTIONS: u32 = 16;
/// Fewer do not suffice: one listens, one is for `/ready`, one looks whether the database went back in time, one is
/// for look-ups and one for steps.
pub const FEWEST_CONNECTIONS: u32 = 5;
/// Longest wait of a look-up for a connection while all are in use: a request has several.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Pause before a connection is asked for again where the server grants no further one.
const AGAIN: Duration = Duration::from_millis(50);

/// The pools beside the one of the steps.
#[derive(Clone)]
pub(super) struct Pools {
    /// Of look-ups, and of what is read in the background.
    look_ups: AnyPool,
    /// Of `/ready` alone.
    probe: AnyPool,
    server: Arc<Server>,
}

impl Pools {
    /// Opens the pool of the steps, and those beside it; `connections` in all, of which one is left for the
    /// listener, and one for what looks whether the database went back in time.
    pub(super) async fn open(
        server: Arc<Server>,
        connections: u32,
        watch: &Arc<Watch>,
    ) -> Result<(AnyPool, Self), sqlx::Error> {
        let (look_ups, steps) = shares(connections);
        let of_steps = pool(steps, Work::Step, watch).connect_with(server.options()?).await?;
        let look_ups = pool(look_ups, Work::LookUp, watch).connect_with(server.options()?).await?;
        let probe = pool(1, Work::Probe, watch).connect_with(server.options()?).await?;
        Ok((of_steps, Self { look_ups, probe, server }))
    }

    /// One pool for everything: a command asks little.
    pub(super) fn of_one(pool: &AnyPool, server: Arc<Server>) -> Self {
        Self { look_ups: pool.clone(), probe: pool.clone(), server }
    }

    /// Connections that are open, and how many of them are idle.
    pub(super) fn count(&self) -> (u32, usize) {
        let all = [&self.look_ups, &self.probe];
        (all.iter().map(|pool| pool.size()).sum(), all.iter().map(|pool| pool.num_idle()).sum())
    }

    pub(super) async fn close(&self) {
        self.look_ups.close().await;
        self.probe.close().await;
    }
}

/// Connections for look-ups and for steps, of so many in all.
fn shares(connections: u32) -> (u32, u32) {
    let rest = connections.max(FEWEST_CONNECTIONS) - 3;
    let look_ups = (rest / 4).max(1);
    (look_ups, rest - look_ups)
}

/// What a pool is for.
#[derive(Clone, Copy)]
enum Work {
    Step,
    LookUp,
    Probe,
}

fn pool(connections: u32, work: Work, watch: &Arc<Watch>) -> AnyPoolOptions {
    let watch = Arc::clone(watch);
    AnyPoolOptions::new()
        .max_connections(connections)
        .min_connections(1) // so that each kind of work has one where others take what they may
        .acquire_timeout(BUSY)
        .max_lifetime(Duration::from_mins(30))
        .after_connect(move |connection, _| {
            let watch = Arc::clone(&watch);
            Box::pin(async move {
                session_settings::serve(connection).await?;
                watch.admit(connection).await?;
                match work {
                    Work::Step => Ok(()),
                    Work::LookUp => timeouts::limit_read(connection).await,
                    Work::Probe => timeouts::limit_probe(connection).await,
                }
            })
        })
}

impl Storage {
    /// The pool of what only reads.
    pub(super) fn look_ups(&self) -> &AnyPool {
        self.pools.as_ref().map_or(&self.pool, |pools| &pools.look_ups)
    }

    /// The pool of `/ready`.
    pub(super) fn probe(&self) -> &AnyPool {
        self.pools.as_ref().map_or(&self.pool, |pools| &pools.probe)
    }

    /// Begins a transaction on a connection of this pool.
    pub(super) async fn transaction(
        &self,
        pool: &AnyPool,
    ) -> Result<Transaction<'static, Any>, StorageError> {
        let connection = self.connection(pool, BUSY).await?;
        Ok(Transaction::begin(connection, None).await?)
    }

    /// A connection for a look-up.
    pub(super) async fn look_up_connection(&self) -> Result<PoolConnection<Any>, StorageError> {
        self.connection(self.look_ups(), LOOK_UP).await
    }

    /// Waits for a connection of this pool: so long while others use all of them, and for five seconds while the
    /// server is away. Where it grants no further one, those that are open come back.
    pub(super) async fn connection(
        &self,
        pool: &AnyPool,
        patience: Duration,
    ) -> Result<PoolConnection<Any>, StorageError> {
        let until = Instant::now() + BUSY;
        loop {
            let cause = match timeout(patience, pool.acquire()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(cause)) => cause,
                // A server that is away may be back soon.
                Err(_) if Instant::now() < until && !self.is_busy(pool) => continue,
                Err(_) => sqlx::Error::PoolTimedOut,
            };
            let refusal = self.refusal();
            let others = pool.size() + self.pool.size() > 0;
            if refusal == Some(Refusal::Full) && others && Instant::now() < until {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            return Err(match (refusal, &cause) {
                (Some(Refusal::Full), _) if others => StorageError::NoConnection(pool.size()),
                (None, sqlx::Error::PoolTimedOut) if self.all_in_use(pool) => {
                    StorageError::NoConnection(pool.size())
                }
                (Some(Refusal::Down(told)), sqlx::Error::PoolTimedOut) => {
                    StorageError::Unavailable(sqlx::Error::Io(std::io::Error::other(told)))
                }
                _ => cause.into(),
            });
        }
    }

    fn is_busy(&self, pool: &AnyPool) -> bool {
        self.all_in_use(pool) && !matches!(self.refusal(), Some(Refusal::Down(_)))
    }

    fn refusal(&self) -> Option<Refusal> {
        self.pools.as_ref().and_then(|pools| pools.server.refusal())
    }

    /// Whether PostgreSQL has just refused a further connection, and this process has others.
    pub(super) fn goes_on_with_fewer(&self) -> bool {
        self.refusal() == Some(Refusal::Full) && self.pool.size() > 0
    }

    fn all_in_use(&self, pool: &AnyPool) -> bool {
        self.pools.is_some() && pool.size() >= pool.options().get_max_connections()
    }

    /// One row, of what is read outside of every step.
    pub(super) async fn read_row(
        &self,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<Option<AnyRow>, StorageError> {
        let mut connection = self.look_up_connection().await?;
        Ok(query.fetch_optional(&mut *connection).await?)
    }

    /// Rows, of what is read outside of every step.
    pub(super) async fn read_rows(
        &self,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let mut connection = self.look_up_connection().await?;
        Ok(query.fetch_all(&mut *connection).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_has_a_connection_of_its_own() {
        for (connections, expected) in
            [(1, (1, 1)), (5, (1, 1)), (6, (1, 2)), (11, (2, 6)), (16, (3, 10)), (100, (24, 73))]
        {
            assert_eq!(shares(connections), expected, "{connections}");
        }
    }
}
