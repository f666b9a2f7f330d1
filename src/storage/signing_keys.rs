//! Signing keys, stored sealed, and their rotation.

use zeroize::Zeroizing;

use super::{Storage, StorageError, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::oauth::sealed::Purpose;
use crate::telemetry::audit::AuditEvent;

/// Most retired keys in a list: 20.
const REMEMBERED: i64 = 20;

/// A signing key as stored.
pub struct StoredKey {
    /// The `kid`: the JWK thumbprint.
    pub kid: String,
    /// `ES256`, `RS256` or `EdDSA`.
    pub alg: String,
    /// Counts up from 1 for each algorithm.
    pub generation: i64,
    /// PKCS#8, DER.
    pub private_key: Zeroizing<Vec<u8>>,
    pub created_at: Timestamp,
    /// When it may start to sign. Of several that may, the one with the highest generation signs.
    pub signs_from: Timestamp,
    /// When none of its tokens can be valid any more; `None` while it has no successor.
    pub retires_at: Option<Timestamp>,
}

/// A key that is no longer published. Its private key has been erased.
#[derive(Clone, Debug)]
pub struct RetiredKey {
    pub kid: String,
    /// `ES256`, `RS256` or `EdDSA`.
    pub alg: String,
    /// Counts up from 1 for each algorithm.
    pub generation: i64,
    pub created_at: Timestamp,
    pub retired_at: Timestamp,
}

impl Storage {
    /// Loads all signing keys that are not retired, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<StoredKey>, StorageError> {
        let keys = sqlx::query(
            "SELECT kid, alg, generation, private_key, created_at, signs_from, retires_at
             FROM signing_keys WHERE retired_at IS NULL ORDER BY alg, generation",
        );
        let rows = self.database.read_rows(keys).await?;
        rows.iter()
            .map(|row| {
                let kid: String = column(row, "kid")?;
                let sealed: String = column(row, "private_key")?;
                let context = format!("signing_keys.private_key/{kid}");
                Ok(StoredKey {
                    private_key: self.sealer.open(Purpose::Storage, &context, &sealed)?,
                    alg: column(row, "alg")?,
                    generation: column(row, "generation")?,
                    created_at: moment(row, "created_at")?,
                    signs_from: moment(row, "signs_from")?,
                    retires_at: moment_if_any(row, "retires_at")?,
                    kid,
                })
            })
            .collect()
    }

    /// Loads retired keys, the last one first.
    pub async fn retired_keys(&self) -> Result<Vec<RetiredKey>, StorageError> {
        let rows = sqlx::query(
            "SELECT kid, alg, generation, created_at, retired_at FROM signing_keys
             WHERE retired_at IS NOT NULL ORDER BY retired_at DESC, generation DESC LIMIT $1",
        )
        .bind(REMEMBERED)
        .fetch_all(self.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(RetiredKey {
                    kid: column(row, "kid")?,
                    alg: column(row, "alg")?,
                    generation: column(row, "generation")?,
                    created_at: moment(row, "created_at")?,
                    retired_at: moment(row, "retired_at")?,
                })
            })
            .collect()
    }

    /// Stores a key unless its algorithm and generation exist already. Of two processes that start at the
    /// same time, one generates the key and both use it.
    pub async fn add_signing_key(&self, key: &StoredKey) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        self.insert_key(&mut step, key).await?;
        step.commit().await
    }

    /// In one transaction, stores the next key of each algorithm and sets until when the earlier ones are
    /// needed. Returns `false`, without any change, when another rotation was first: of concurrent ones,
    /// one succeeds.
    pub async fn rotate_signing_keys(
        &self,
        next: &[StoredKey],
        former_retire_at: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        for key in next {
            if !self.insert_key(&mut step, key).await? {
                return Ok(false);
            }
            sqlx::query(
                "UPDATE signing_keys SET retires_at = $3
                 WHERE alg = $1 AND generation < $2 AND retires_at IS NULL",
            )
            .bind(&key.alg)
            .bind(key.generation)
            .bind(former_retire_at.unix())
            .execute(&mut *step)
            .await?;
            let event = event.clone().again("key_added");
            let event = event.with("kid", key.kid.as_str()).with("alg", key.alg.as_str());
            let event = event.with("generation", key.generation);
            step.record(event.with("signs_from", key.signs_from.unix())).await?;
        }
        step.commit().await?;
        Ok(true)
    }

    /// Retires the keys that are due and erases their private keys. Returns their number. Of replicas
    /// that do this at the same time, one records each key.
    pub async fn retire_signing_keys(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin().await?;
        let due = sqlx::query(
            "SELECT kid, alg, generation FROM signing_keys
             WHERE retired_at IS NULL AND retires_at <= $1 ORDER BY alg, generation",
        )
        .bind(now.unix())
        .fetch_all(&mut *step)
        .await?;
        let mut retired = 0;
        for row in &due {
            let kid: String = column(row, "kid")?;
            let gone = sqlx::query(
                "UPDATE signing_keys SET retired_at = $2, private_key = ''
                 WHERE kid = $1 AND retired_at IS NULL",
            )
            .bind(&kid)
            .bind(now.unix())
            .execute(&mut *step)
            .await?
            .rows_affected();
            if gone == 1 {
                retired += 1;
                let event = event.clone().again("key_retired").with("kid", kid);
                let event = event.with("alg", column::<String>(row, "alg")?);
                let generation: i64 = column(row, "generation")?;
                step.record(event.with("generation", generation)).await?;
            }
        }
        step.commit().await?;
        Ok(retired)
    }

    /// Inserts a key. Returns `false` when its algorithm and generation existed.
    async fn insert_key(
        &self,
        step: &mut super::Transaction,
        key: &StoredKey,
    ) -> Result<bool, StorageError> {
        let sealed = self.seal("signing_keys.private_key", &key.kid, &key.private_key);
        let added = sqlx::query(
            "INSERT INTO signing_keys (kid, alg, generation, private_key, created_at, signs_from)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (alg, generation) DO NOTHING",
        )
        .bind(&key.kid)
        .bind(&key.alg)
        .bind(key.generation)
        .bind(sealed)
        .bind(key.created_at.unix())
        .bind(key.signs_from.unix())
        .execute(&mut **step)
        .await?;
        Ok(added.rows_affected() == 1)
    }
}
