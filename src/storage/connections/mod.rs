//! Connections: further services that people connected, with the person's tokens of each.
//!
//! A connection is one row for each person and service. Its tokens are sealed and bound to the row, the
//! person and the service, so that a row that was moved or copied in the database cannot be opened; it counts
//! as broken (threat UT-08). `attempts.rs` has connections that are being made in a browser, `put.rs` stores
//! and removes connections, `lease.rs` has the refresh of their tokens, and `revocations.rs` the queue of
//! tokens to revoke at their services.

mod attempts;
mod lease;
mod list;
mod put;
mod remove_many;
mod revocations;
mod sessions;
mod used;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

pub use attempts::{AttemptClaim, AttemptComer, AttemptRequest, Begun, NewAttempt, TakenAttempt};
pub use lease::RenewedConnection;
pub use list::{ConnectionFilter, ConnectionRow};
pub use put::{NewConnection, PutConnection};
pub use revocations::{DueRevocation, Settled};
pub(super) use sessions::{BREAK_CONNECTIONS, MARK_SESSIONS, MARK_SESSIONS_OF_GRANTS};
#[cfg(test)]
pub(super) use sessions::{REMOVE_SESSION, SESSIONS_TO_REMOVE};
pub(super) use used::RecentUses;

use super::database::Engine;
use super::{Storage, StorageError, Transaction, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::oauth::secret::random_bytes;

/// Reason of a connection whose row cannot be opened: it was moved, copied or changed in the database.
pub const CANNOT_BE_OPENED: &str = "its tokens cannot be opened";

/// A person's tokens of a service. They are sent to that service and to the MCP servers that the
/// configuration names. Stored sealed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokens {
    pub access_token: String,
    /// Refresh token, if the service issued one.
    #[serde(default)]
    pub refresh_token: Option<String>,
    /// The type that the service stated, such as `Bearer`; empty: none.
    #[serde(default)]
    pub token_type: String,
}

impl fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceTokens")
    }
}

/// Whether a connection can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Active,
    /// The person has to connect the service again.
    Broken {
        /// Why, in English, without secrets.
        reason: String,
    },
}

/// A service that a person connected.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Row id. It stays the same when the person connects the service again.
    pub id: String,
    /// The person, by our `sub`.
    pub subject: String,
    /// The service's name in the configuration.
    pub name: String,
    /// Identifies client and token endpoint. If the configuration has another one now, the tokens are of no
    /// use.
    pub provider_key: String,
    /// The person's name at the service, for people to read.
    pub account_label: Option<String>,
    /// The scopes that the service granted.
    pub scopes: BTreeSet<String>,
    /// The tokens; empty if the row cannot be opened.
    pub tokens: ServiceTokens,
    /// End of the access token; `None`: it does not expire.
    pub access_until: Option<Timestamp>,
    /// Grows with every change of the tokens.
    pub version: i64,
    pub state: ConnectionState,
    /// When the person connected this account.
    pub created_at: Timestamp,
    /// When a token was last used, to the minute; `None`: never.
    pub used_at: Option<Timestamp>,
}

impl Connection {
    pub fn is_active(&self) -> bool {
        self.state == ConnectionState::Active
    }
}

/// What the sealed tokens of a row are bound to. A service's name has no space.
fn bound_to(id: &str, name: &str, provider_key: &str, subject: &str) -> String {
    format!("{id} {name} {provider_key} {subject}")
}

const TOKENS: &str = "connections.tokens";
const ACCOUNT_LABEL: &str = "connections.account_label";

impl Storage {
    /// Loads a person's connection of a service; `None`: the person has not connected it, or is blocked. A
    /// row whose tokens cannot be opened is [`ConnectionState::Broken`].
    pub async fn connection(
        &self,
        subject: &str,
        name: &str,
    ) -> Result<Option<Connection>, StorageError> {
        let found = sqlx::query(
            "SELECT id, subject, name, provider_key, account_label, scopes, tokens, access_until,
                    version, state, reason, created_at, used_at
             FROM connections WHERE subject = $1 AND name = $2
               AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = connections.subject)",
        )
        .bind(subject)
        .bind(name);
        let row = self.read_one(found).await?;
        row.as_ref().map(|row| self.read_connection(row)).transpose()
    }

    /// Loads all connections of a person, by name. Empty for a blocked person.
    pub async fn connections_of(&self, subject: &str) -> Result<Vec<Connection>, StorageError> {
        let found = sqlx::query(
            "SELECT id, subject, name, provider_key, account_label, scopes, tokens, access_until,
                    version, state, reason, created_at, used_at
             FROM connections WHERE subject = $1
               AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = connections.subject)
             ORDER BY name LIMIT 1000",
        )
        .bind(subject);
        let rows = self.read_all(found).await?;
        rows.iter().map(|row| self.read_connection(row)).collect()
    }

    fn read_connection(&self, row: &AnyRow) -> Result<Connection, StorageError> {
        let (id, subject): (String, String) = (column(row, "id")?, column(row, "subject")?);
        let (name, provider_key): (String, String) =
            (column(row, "name")?, column(row, "provider_key")?);
        let bound = bound_to(&id, &name, &provider_key, &subject);
        let tokens = self.open_json(TOKENS, &bound, &column::<String>(row, "tokens")?);
        let until: i64 = column(row, "access_until")?;
        Ok(Connection {
            account_label: self.account_label(row, &bound)?,
            scopes: words(&column::<String>(row, "scopes")?),
            access_until: (until != 0).then(|| Timestamp::from_unix(until)),
            version: column(row, "version")?,
            state: state(row, tokens.is_ok())?,
            tokens: tokens.unwrap_or_default(),
            created_at: moment(row, "created_at")?,
            used_at: moment_if_any(row, "used_at")?,
            id,
            subject,
            name,
            provider_key,
        })
    }

    /// Opens the label of the account; `None` if there is none, or if the row was moved or copied.
    fn account_label(&self, row: &AnyRow, bound: &str) -> Result<Option<String>, StorageError> {
        let sealed: Option<String> = column(row, "account_label")?;
        Ok(sealed.and_then(|sealed| self.open_json(ACCOUNT_LABEL, bound, &sealed).ok()))
    }

    /// Commits a change of connections, and notifies everything that remembers them: this process directly,
    /// every replica through the commit itself. A task of its own does both, as in
    /// [`Self::commit_and_notify`].
    async fn commit_connections(&self, mut step: Transaction) -> Result<(), StorageError> {
        let storage = self.clone();
        let committed = tokio::spawn(async move {
            if storage.engine() == Engine::Postgres {
                step.notify_of_connections(storage.notifications.as_ref()).await?;
            }
            let _notified = NotifiesOnDrop(&storage);
            step.commit().await
        });
        committed.await.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)))
    }
}

/// Notifies what remembers connections when dropped, even if the commit panics or its result is unknown.
struct NotifiesOnDrop<'a>(&'a Storage);

impl Drop for NotifiesOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake_connections();
    }
}

/// Returns a new row id: like [`new_id`](crate::oauth::secret::new_id), with the time of `now`.
fn row_id(now: Timestamp) -> String {
    let random = u128::from_be_bytes(random_bytes::<16>()) >> 48;
    format!("{:012x}{random:020x}", now.unix().saturating_mul(1000).max(0))
}

/// Reads state and reason of a row whose tokens could be `opened`.
fn state(row: &AnyRow, opened: bool) -> Result<ConnectionState, StorageError> {
    let reason: Option<String> = column(row, "reason")?;
    Ok(if !opened {
        ConnectionState::Broken { reason: CANNOT_BE_OPENED.to_owned() }
    } else if column::<String>(row, "state")? == "active" {
        ConnectionState::Active
    } else {
        ConnectionState::Broken { reason: reason.unwrap_or_default() }
    })
}

/// Splits a column of space-separated scopes.
fn words(text: &str) -> BTreeSet<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Joins scopes for a column, sorted.
fn joined(scopes: &BTreeSet<String>) -> String {
    scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the column's value for the end of an access token; 0: it does not expire.
fn until(end: Option<Timestamp>) -> i64 {
    end.map_or(0, Timestamp::unix)
}
