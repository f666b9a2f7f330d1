//! Assertions of clients: each proves once.

use super::{Storage, StorageError, forgotten};
use crate::oauth::client::assertion::Proof;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofUse {
    /// It counts.
    First,
    /// It counted before, or may have.
    Replayed,
}

impl Storage {
    /// Uses a proof up; of concurrent uses, one is the `First`.
    pub async fn use_proof(&self, proof: &Proof) -> Result<ProofUse, StorageError> {
        let mut step = self.begin().await?;
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
        Ok(if written.rows_affected() == 1 { ProofUse::First } else { ProofUse::Replayed })
    }
}
