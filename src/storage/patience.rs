//! How long a replica waits for PostgreSQL, and PostgreSQL for a replica.
//!
//! A lock that somebody holds for ever must not hold up requests for ever; and a replica that was paused
//! in the middle of a step (a frozen machine, a network that is gone) must not be that somebody. What
//! takes longer fails, changes nothing, and is answered with "try again". SQLite has waits of its own
//! (`writer`).

use std::time::Duration;

use sqlx::{AnyConnection, Executor};

use super::{Engine, Step, StorageError};

/// `idle_in_transaction_session_timeout` is longer than any pause of a live process: a step computes for
/// milliseconds between its statements.
const BOUNDS: &str = "SET lock_timeout = '4s'; SET statement_timeout = '10s';
                      SET idle_in_transaction_session_timeout = '5s'";
/// `statement_timeout`, for those who wait where PostgreSQL cannot be heard any more ([`super::driver`]).
pub(super) const STATEMENT: Duration = Duration::from_secs(10);
/// No bound on the statements of a transaction.
pub(super) const NO_BOUND: &str = "SET LOCAL statement_timeout = 0";

/// Sets the bounds on a connection of the pool.
pub(super) async fn bound(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(BOUNDS)).await.map(drop)
}

/// Takes the bound on statements away from a step that goes through whole tables.
pub(super) async fn take_your_time(step: &mut Step, engine: Engine) -> Result<(), StorageError> {
    if engine == Engine::Postgres {
        sqlx::query(NO_BOUND).execute(&mut **step).await?;
    }
    Ok(())
}
