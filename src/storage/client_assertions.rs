//! Assertions of clients: each proves once.

use super::{Storage, StorageError, Transaction, Use, forgotten};
use crate::clock::Timestamp;
use crate::oauth::client::assertion::Proof;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionUse {
    /// It counts.
    First,
    /// It counted before, or may have.
    Replayed,
}

impl Storage {
    /// Uses a proof of a client up; of concurrent uses, one is the `First`. Anybody can register a client
    /// that signs: where the database fills up, the room is kept for those that somebody has signed in for.
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
            "INSERT INTO client_assertions (id, expires_at) SELECT $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
               AND NOT EXISTS (SELECT 1 FROM counters WHERE name = $4 AND value >= $5)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&proof.id)
        .bind(proof.forget_at.unix())
        .bind(forgotten::ASSERTIONS)
        .bind(forgotten::ASSERTIONS_ISSUED)
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
