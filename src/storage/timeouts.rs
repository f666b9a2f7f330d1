//! How long a replica waits for PostgreSQL, and PostgreSQL for a replica.
//!
//! A lock that somebody holds for ever must not hold up requests for ever; and a replica that was paused
//! in the middle of a step (a frozen machine, a network that is gone) must not be that somebody. What
//! takes longer fails, changes nothing, and is answered with "try again". SQLite has waits of its own
//! (`writer`).
//!
//! The bounds themselves are among the settings of each session ([`super::session_settings`]).
//! `idle_in_transaction_session_timeout` is longer than any pause of a live process: a step computes for
//! milliseconds between its statements.

use std::time::Duration;

use sqlx::{AnyConnection, Executor};

use super::{Engine, StorageError, Transaction};

/// `statement_timeout`, for those who wait where PostgreSQL cannot be heard any more ([`super::driver`]).
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// No bound on the statements of a transaction.
pub(super) const NO_STATEMENT_TIMEOUT: &str = "SET LOCAL statement_timeout = 0";

/// Shortens a wait for look-ups: a request has several, and all of them together wait no longer than a step.
pub(super) async fn limit_read(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql("SET lock_timeout = '2s'")).await.map(drop)
}

/// Shortens it for `/ready`, whose wait ends with an answer.
pub(super) async fn limit_probe(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql("SET lock_timeout = '800ms'")).await.map(drop)
}

/// Takes the bound on statements away from a step that goes through whole tables.
pub(super) async fn disable_statement_timeout(
    step: &mut Transaction,
    engine: Engine,
) -> Result<(), StorageError> {
    if engine == Engine::Postgres {
        sqlx::query(NO_STATEMENT_TIMEOUT).execute(&mut **step).await?;
    }
    Ok(())
}
