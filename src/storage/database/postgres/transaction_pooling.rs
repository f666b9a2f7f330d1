//! Detects a transaction pool between us and PostgreSQL, which gives one session to several clients.
//!
//! PgBouncer does so with `pool_mode` `transaction` or `statement`. The settings of one connection then
//! apply to others, a statement prepared on one session is executed on another, and notifications of
//! ended grants get lost.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor, Row};

use super::session_settings;
use crate::storage::database::OpenError;

/// Number of attempts: one is not enough, because other clients may take the session in between.
const LOOKS: usize = 3;
/// Sent as a simple query: it prepares no statement.
const SESSION: &str = "SELECT pg_backend_pid()::text AS session";

/// Fails behind a transaction pool: there, two connections that are open at once share a session, or one has
/// several. `connection` has its settings.
pub(crate) async fn refuse_transaction_pooling(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), OpenError> {
    // A server without a free connection is reported elsewhere.
    let Ok(mut other) = options.connect().await else { return Ok(()) };
    session_settings::migrate(&mut other).await?;
    let mut ours: Option<String> = None;
    for _ in 0..LOOKS {
        let (now, others) = (session(connection).await?, session(&mut other).await?);
        // In a busy pool, it is ours that changes.
        if now == others || ours.is_some_and(|before| before != now) {
            return Err(OpenError::TransactionPooling);
        }
        ours = Some(now);
    }
    other.close().await?;
    Ok(())
}

async fn session(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(SESSION)).await?.try_get("session")
}
