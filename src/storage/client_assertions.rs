//! Assertions of clients: each proves once.

use super::{Storage, StorageError};
use crate::oauth::client::assertion::Proof;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofUse {
    /// It counts.
    First,
    /// It counted before.
    Replayed,
}

impl Storage {
    /// Uses a proof up; of concurrent uses, one is the `First`.
    pub async fn use_proof(&self, proof: &Proof) -> Result<ProofUse, StorageError> {
        let mut step = self.begin().await?;
        let written = sqlx::query(
            "INSERT INTO client_assertions (id, expires_at) VALUES ($1, $2)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&proof.id)
        .bind(proof.forget_at.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(if written.rows_affected() == 1 { ProofUse::First } else { ProofUse::Replayed })
    }
}
