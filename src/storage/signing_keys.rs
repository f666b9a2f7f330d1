//! Signing keys at rest, sealed.

use zeroize::Zeroizing;

use super::{Storage, StorageError, column, moment};
use crate::clock::Timestamp;
use crate::oauth::sealed::Purpose;

/// A signing key as stored.
pub struct StoredKey {
    /// Key id: the JWK thumbprint.
    pub kid: String,
    /// `ES256`, `RS256` or `EdDSA`.
    pub alg: String,
    /// 1, 2, 3 …; the highest of an algorithm signs.
    pub generation: i64,
    /// PKCS#8, DER.
    pub private_key: Zeroizing<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Storage {
    /// All signing keys, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<StoredKey>, StorageError> {
        let rows = sqlx::query(
            "SELECT kid, alg, generation, private_key, created_at FROM signing_keys
             ORDER BY alg, generation",
        )
        .fetch_all(&self.pool)
        .await?;
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
                    kid,
                })
            })
            .collect()
    }

    /// Stores a key unless that algorithm and generation is taken: of two processes that start at
    /// once, one makes the key and both use it.
    pub async fn add_signing_key(&self, key: &StoredKey) -> Result<(), StorageError> {
        let sealed = self.seal("signing_keys.private_key", &key.kid, &key.private_key);
        let mut step = self.begin().await?;
        sqlx::query(
            "INSERT INTO signing_keys (kid, alg, generation, private_key, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (alg, generation) DO NOTHING",
        )
        .bind(&key.kid)
        .bind(&key.alg)
        .bind(key.generation)
        .bind(sealed)
        .bind(key.created_at.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await
    }
}
