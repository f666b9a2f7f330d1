//! Timeouts between a replica and PostgreSQL, in both directions.
//!
//! A lock that is never released must not block requests for ever. Conversely, a replica that was paused
//! inside a transaction (a frozen machine, a lost network) must not hold its locks for ever. A
//! transaction that exceeds a timeout fails, changes nothing, and the client is told to try again. SQLite
//! has waits of its own ([`super::super::sqlite::group_commit`]).
//!
//! The timeouts themselves are settings of each session ([`super::session_settings`]).
//! `idle_in_transaction_session_timeout` is longer than any pause of a live process: between two
//! statements, a transaction computes for milliseconds.

use std::time::Duration;

use sqlx::{AnyConnection, Executor};

/// The `statement_timeout` of a session, for code that must give up by itself when PostgreSQL cannot be
/// reached any more ([`super::timeout_connection`]).
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Switches off `statement_timeout` for the rest of a transaction.
pub(crate) const NO_STATEMENT_TIMEOUT: &str = "SET LOCAL statement_timeout = 0";

/// Sets a lock timeout of 2 seconds for a read connection: a request reads several times, and all its
/// reads together should wait no longer than a transaction.
pub(crate) async fn limit_read(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql("SET lock_timeout = '2s'")).await.map(drop)
}

/// Sets a lock timeout of 800 ms for the connection of `/ready`, which has to respond quickly.
pub(crate) async fn limit_probe(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql("SET lock_timeout = '800ms'")).await.map(drop)
}
