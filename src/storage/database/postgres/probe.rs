//! Checks for `/ready` whether PostgreSQL serves requests, by reading what the gateway and the token
//! endpoint read.
//!
//! It uses a connection of its own, so that it does not wait behind callers: a replica whose connections
//! are all in use is busy, and removing it would leave more work to the others.

use tokio::time::timeout;

use super::privileges;
use crate::clock::Timestamp;
use crate::storage::database::health::{PATIENCE, READY_ROW};
use crate::storage::database::{Database, Ready, Room, StorageError, errors};

/// Reads each table that a request needs, by its key. This notices a lock on the whole table, and a
/// missing table.
const READ: &str = "SELECT (SELECT COUNT(*) FROM grants WHERE id = $1)
    + (SELECT COUNT(*) FROM upstream_sessions WHERE id = $1)
    + (SELECT COUNT(*) FROM clients WHERE id = $1)
    + (SELECT COUNT(*) FROM client_reviews WHERE client_id = $1)
    + (SELECT COUNT(*) FROM people WHERE subject = $1)
    + (SELECT COUNT(*) FROM refresh_tokens WHERE id = $1)
    + (SELECT COUNT(*) FROM authorization_codes WHERE id = $1)
    + (SELECT COUNT(*) FROM audit_events WHERE id = $1)
    + (SELECT COUNT(*) FROM counters WHERE name = $1) AS found";

/// The result of the probe.
enum Probed {
    /// No connection was free for it, because others are at work.
    Busy,
    Rights(Vec<String>),
    CannotRead(StorageError),
    CannotWrite(StorageError),
    Serves,
}

impl Database {
    pub(crate) async fn probe_postgres(&self, now: Timestamp) -> Ready {
        match timeout(PATIENCE, self.probe_all(now)).await {
            Ok(Probed::Serves | Probed::Busy) => Ready::Yes(Room::Enough),
            Ok(Probed::Rights(missing)) => {
                let missing = missing.join(", ");
                tracing::error!(missing, "the role of the database lacks privileges");
                Ready::RightsMissing
            }
            Ok(Probed::CannotRead(cause)) => {
                tracing::debug!(%cause, "the database cannot be read");
                Ready::Unavailable
            }
            Ok(Probed::CannotWrite(cause)) => {
                tracing::debug!(%cause, "the database cannot be written");
                Ready::ReadOnly
            }
            Err(_) if self.goes_on_with_fewer() => Ready::Yes(Room::Enough),
            Err(_) => Ready::Unavailable,
        }
    }

    async fn probe_all(&self, now: Timestamp) -> Probed {
        let mut connection = match self.connection(self.probe(), PATIENCE).await {
            Ok(connection) => connection,
            Err(StorageError::NoConnection(_)) => return Probed::Busy,
            Err(cause) => return Probed::CannotRead(cause),
        };
        let read = sqlx::query(READ).bind("-").fetch_one(&mut *connection).await;
        match read {
            Err(cause) if !errors::is_missing_right(&cause) => {
                return Probed::CannotRead(cause.into());
            }
            _ => {}
        }
        match privileges::missing(&mut connection).await {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => return Probed::Rights(missing),
            Err(cause) => return Probed::CannotRead(cause.into()),
        }
        let written = sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(READY_ROW)
        .bind(now.unix().to_string())
        .execute(&mut *connection)
        .await;
        match written {
            Ok(_) => Probed::Serves,
            // Another session has locked this row or table, which no request needs.
            Err(cause) if errors::is_lock_timeout(&cause) => Probed::Serves,
            Err(cause) => Probed::CannotWrite(cause.into()),
        }
    }
}
