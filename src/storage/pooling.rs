//! Whether something between us and PostgreSQL gives one session to several clients.
//!
//! PgBouncer can do so by the transaction or the statement. Then what a connection has set holds for others, a
//! statement that one has prepared is asked of another, and nobody is told of ended grants.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor, Row};

use super::OpenError;

/// One look is not enough: others may take the session in between.
const LOOKS: usize = 3;
/// A text that is sent in one piece: nothing is prepared for it.
const SESSION: &str = "SELECT pg_backend_pid()::text AS session";

/// Refuses a pool of transactions: there, two connections that are open at once have one session.
pub(super) async fn refuse_transaction_pooling(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), OpenError> {
    // Where there is no room for a second one, that is told elsewhere.
    let Ok(mut other) = options.connect().await else { return Ok(()) };
    super::session_settings::migrate(&mut other).await?;
    for _ in 0..LOOKS {
        if session(connection).await? == session(&mut other).await? {
            return Err(OpenError::TransactionPooling);
        }
    }
    other.close().await?;
    Ok(())
}

async fn session(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(SESSION)).await?.try_get("session")
}
