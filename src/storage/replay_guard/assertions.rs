//! Replay protection for client assertions (RFC 7523): each is accepted once.

use crate::clock::Timestamp;
use crate::oauth::client::assertion::Proof;
use crate::storage::{Storage, StorageError, Transaction, Use};

/// Whether an assertion is used for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionUse {
    First,
    /// It was used before, or may have been.
    Replayed,
}

impl Storage {
    /// Uses up a client's assertion; of concurrent uses, one is the `First`. Anybody can register a
    /// client that signs assertions, so when the database fills up, space is reserved for clients that
    /// have a live grant.
    pub async fn consume_assertion(
        &self,
        proof: &Proof,
        client_id: &str,
        now: Timestamp,
    ) -> Result<AssertionUse, StorageError> {
        let mut step = self.begin().await?;
        if !step.has_room(Use::Newcomers).await? && !is_in_use(&mut step, client_id, now).await? {
            step.refuse_without_room(Use::Newcomers).await?;
        }
        let written = sqlx::query(
            "INSERT INTO replay_guard (purpose, id, expires_at) SELECT 'client_assertion', $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
               AND NOT EXISTS (SELECT 1 FROM counters WHERE name = $4 AND value >= $5)
             ON CONFLICT (purpose, id) DO NOTHING",
        )
        .bind(&proof.id)
        .bind(proof.forget_at.unix())
        .bind(super::ASSERTIONS)
        .bind(super::ASSERTIONS_ISSUED)
        .bind(proof.issued_after.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(if written.rows_affected() == 1 { AssertionUse::First } else { AssertionUse::Replayed })
    }
}

async fn is_in_use(
    step: &mut Transaction,
    client_id: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let grant: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM grants WHERE client_id = $1 AND revoked_at IS NULL AND expires_at > $2 LIMIT 1",
    )
    .bind(client_id)
    .bind(now.unix())
    .fetch_optional(&mut **step)
    .await?;
    Ok(grant.is_some())
}
