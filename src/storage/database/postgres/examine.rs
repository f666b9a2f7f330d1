//! Looks at a PostgreSQL server without changing anything, for `portcullis check`.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::{address, product, session_settings, transaction_pooling};
use crate::storage::database::OpenError;

/// Longest time of the whole examination: 5 seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `portcullis check` tells of a PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseServer {
    /// What it calls itself, such as `PostgreSQL 15.13`.
    pub name: String,
    /// Why it may not work.
    pub doubt: Option<&'static str>,
}

/// Connects to the server at `url`, and looks whether it is one that works. Returns `None` for SQLite, which
/// has no server.
pub async fn examine(url: &str) -> Result<Option<DatabaseServer>, OpenError> {
    if !url.starts_with("postgres") {
        return Ok(None);
    }
    let silent = || {
        let told = format!("no answer within {} seconds", PATIENCE.as_secs());
        sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, told))
    };
    timeout(PATIENCE, look(url)).await.unwrap_or_else(|_| Err(silent().into())).map(Some)
}

async fn look(url: &str) -> Result<DatabaseServer, OpenError> {
    let options = address::options(url)?;
    let mut connection = options.connect().await?;
    let set = session_settings::migrate(&mut connection).await;
    // First, because another server may not know a setting.
    let server = product::refuse_other_server(&mut connection).await?;
    set?;
    transaction_pooling::refuse_transaction_pooling(&mut connection, &options).await?;
    connection.close().await?;
    Ok(DatabaseServer { name: server.name, doubt: server.doubt })
}
