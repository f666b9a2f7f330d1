//! Tokens that wait to be revoked at their services: those of connections that were removed or that another
//! account replaced, and those of sign-ins whose last grant has ended (`sessions.rs`).
//!
//! They are queued in the transaction of the change, so that a service that is down delays the revocation and
//! never the change itself.

use std::time::Duration;

use sqlx::any::AnyRow;

use super::{ServiceTokens, row_id};
use crate::clock::Timestamp;
use crate::storage::{Storage, StorageError, Transaction, column, moment};

/// How long a replica has for one attempt: 2 minutes, longer than any attempt takes.
const LEASE: Duration = Duration::from_mins(2);
/// How long it is tried: 24 hours.
const TRIED_FOR: Duration = Duration::from_hours(24);
/// A time further in the future than this was stored with a wrong clock, and counts as past: 2 days.
const NONSENSE: Duration = Duration::from_hours(48);
/// Most entries that are taken at once: 20.
const AT_ONCE: i64 = 20;

const TOKENS: &str = "token_revocations.tokens";

/// Tokens to revoke. This process has them for two minutes.
#[derive(Clone, Debug)]
pub struct DueRevocation {
    pub id: String,
    /// The service's name in the configuration; empty: the identity provider of the sign-in.
    pub connection: String,
    /// Identifies client and token endpoint of the service; for the identity provider its issuer.
    pub provider_key: String,
    pub tokens: ServiceTokens,
    /// Whether the person has connected the same service again, or has signed in again, since. Some services
    /// end all tokens of a person and a client with one of them.
    pub is_replaced: bool,
    /// Earlier attempts.
    pub attempts: u32,
    /// When they were queued.
    pub created_at: Timestamp,
    leased_until: Timestamp,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The tokens are revoked, or nothing can revoke them.
    Done,
    /// The next attempt comes then.
    Again(Timestamp),
}

/// What the sealed tokens of a row are bound to. A service's name has no space.
fn bound_to(id: &str, connection: &str, provider_key: &str) -> String {
    format!("{id} {connection} {provider_key}")
}

impl Storage {
    /// Queues tokens for revocation, in the caller's transaction. The service is given by its name, empty for
    /// the identity provider, and by its provider key. `owner` is our `sub`, or the upstream session; empty, if
    /// nothing that the person connects now can have to do with these tokens.
    pub(super) async fn queue_revocation(
        &self,
        step: &mut Transaction,
        (connection, provider_key): (&str, &str),
        owner: &str,
        tokens: &ServiceTokens,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        if tokens.access_token.is_empty() && tokens.refresh_token.is_none() {
            return Ok(());
        }
        let id = row_id(now);
        let sealed = self.seal_json(TOKENS, &bound_to(&id, connection, provider_key), tokens)?;
        sqlx::query(
            "INSERT INTO token_revocations
                 (id, connection, provider_key, tokens, due_at, attempts, leased_until, created_at,
                  owner)
             VALUES ($1, $2, $3, $4, $5, 0, 0, $5, $6)",
        )
        .bind(id)
        .bind(connection)
        .bind(provider_key)
        .bind(sealed)
        .bind(now.unix())
        .bind(owner)
        .execute(&mut **step)
        .await?;
        Ok(())
    }

    /// Takes the entries that are due, at most 20, for one attempt each. `sessions_too` says whether tokens of
    /// the identity provider are revoked; otherwise they are dropped.
    pub async fn take_revocations(
        &self,
        sessions_too: bool,
        now: Timestamp,
    ) -> Result<Vec<DueRevocation>, StorageError> {
        self.settle_ended_sessions(sessions_too, now).await?;
        let due = sqlx::query(
            "SELECT id, connection FROM token_revocations
             WHERE tokens <> '' AND (due_at <= $1 OR due_at > $2)
               AND (leased_until <= $1 OR leased_until > $2)
             ORDER BY due_at, id LIMIT $3",
        )
        .bind(now.unix())
        .bind(now.plus(NONSENSE).unix())
        .bind(AT_ONCE);
        let due = self.read_all(due).await?;
        let mut taken = Vec::new();
        if due.is_empty() {
            return Ok(taken);
        }
        let mut step = self.begin_cleanup().await?;
        for row in &due {
            let (id, connection): (String, String) =
                (column(row, "id")?, column(row, "connection")?);
            if connection.is_empty() && !sessions_too {
                remove(&mut step, &id).await?;
            } else if let Some(row) = lease(&mut step, &id, now).await? {
                match self.read_due(&row, id.clone(), now.plus(LEASE))? {
                    Some(mut due) => {
                        due.is_replaced = is_replaced(&mut step, &row, &connection, now).await?;
                        taken.push(due);
                    }
                    // Moved, copied or changed in the database: whose tokens they are is not known.
                    None => remove(&mut step, &id).await?,
                }
            }
        }
        step.commit().await?;
        Ok(taken)
    }

    /// Reads an entry; `None` if it cannot be opened.
    fn read_due(
        &self,
        row: &AnyRow,
        id: String,
        leased_until: Timestamp,
    ) -> Result<Option<DueRevocation>, StorageError> {
        let (connection, provider_key): (String, String) =
            (column(row, "connection")?, column(row, "provider_key")?);
        let sealed: String = column(row, "tokens")?;
        let opened = self.open_json(TOKENS, &bound_to(&id, &connection, &provider_key), &sealed);
        let Ok(tokens) = opened else { return Ok(None) };
        let attempts: i64 = column(row, "attempts")?;
        Ok(Some(DueRevocation {
            id,
            connection,
            provider_key,
            tokens,
            is_replaced: false,
            attempts: u32::try_from(attempts.saturating_sub(1)).unwrap_or_default(),
            created_at: moment(row, "created_at")?,
            leased_until,
        }))
    }

    /// Records what became of an attempt. Returns whether the entry is given up, because it has been tried for
    /// 24 hours.
    pub async fn settle_revocation(
        &self,
        due: &DueRevocation,
        settled: Settled,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let given_up = settled != Settled::Done && now.since(due.created_at) >= TRIED_FOR;
        let mut step = self.begin_cleanup().await?;
        let change = match settled {
            Settled::Again(at) if !given_up => sqlx::query(
                "UPDATE token_revocations SET due_at = $3, leased_until = 0
                 WHERE id = $1 AND leased_until = $2",
            )
            .bind(&due.id)
            .bind(due.leased_until.unix())
            .bind(at.unix()),
            Settled::Again(_) | Settled::Done => {
                sqlx::query("DELETE FROM token_revocations WHERE id = $1 AND leased_until = $2")
                    .bind(&due.id)
                    .bind(due.leased_until.unix())
            }
        };
        let changed = change.execute(&mut *step).await?.rows_affected();
        step.commit().await?;
        Ok(given_up && changed == 1)
    }

    /// Ends all leases when a server on SQLite starts: the process that had them no longer exists.
    pub(in crate::storage) async fn free_connection_leases(&self) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("UPDATE token_revocations SET leased_until = 0 WHERE leased_until > 0")
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "UPDATE connections SET lease_owner = NULL, lease_until = NULL
             WHERE lease_owner IS NOT NULL",
        )
        .execute(&mut *step)
        .await?;
        step.commit().await
    }
}

/// Takes an entry for one attempt. `None`: another process has it.
async fn lease(
    step: &mut Transaction,
    id: &str,
    now: Timestamp,
) -> Result<Option<AnyRow>, StorageError> {
    let taken = sqlx::query(
        "UPDATE token_revocations SET leased_until = $3, attempts = attempts + 1
         WHERE id = $1 AND (due_at <= $2 OR due_at > $4) AND (leased_until <= $2 OR leased_until > $4)
         RETURNING connection, provider_key, owner, tokens, attempts, created_at",
    )
    .bind(id)
    .bind(now.unix())
    .bind(now.plus(LEASE).unix())
    .bind(now.plus(NONSENSE).unix());
    Ok(taken.fetch_optional(&mut **step).await?)
}

/// Returns whether the owner of an entry has such tokens again.
async fn is_replaced(
    step: &mut Transaction,
    row: &AnyRow,
    connection: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let owner: String = column(row, "owner")?;
    let again = if connection.is_empty() {
        sqlx::query(
            "SELECT id FROM grants WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > $2
             UNION ALL
             SELECT id FROM authorization_codes
             WHERE session_id = $1 AND redeemed_at IS NULL AND expires_at > $2
             LIMIT 1",
        )
        .bind(owner)
        .bind(now.unix())
    } else {
        sqlx::query(
            "SELECT id FROM connections WHERE subject = $1 AND name = $2 AND state = 'active'",
        )
        .bind(owner)
        .bind(connection)
    };
    Ok(again.fetch_optional(&mut **step).await?.is_some())
}

async fn remove(step: &mut Transaction, id: &str) -> Result<(), StorageError> {
    sqlx::query("DELETE FROM token_revocations WHERE id = $1")
        .bind(id)
        .execute(&mut **step)
        .await?;
    Ok(())
}
