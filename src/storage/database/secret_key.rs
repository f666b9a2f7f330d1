//! The secret key, and the proof that the database was made with it.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sqlx::AnyPool;
use zeroize::Zeroizing;

use super::{Database, OpenError, WritePolicy};

use crate::oauth::sealed::{Purpose, Sealer};
use crate::oauth::secret::random_bytes;

const CHECK: &str = "secret_key_check";
const CONTEXT: &str = "installation.value/secret_key_check";
/// A generated key has 44 characters. A shorter text than 32 was truncated and would not be secret.
const SHORTEST_KEY: usize = 32;
const KNOWN_TEXT: &[u8] = b"this is the right key";

/// How the secret key was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProof {
    /// The database is new, and now stores the proof of this key.
    FirstStart,
    /// The database was made with this key.
    Fits,
}

fn key_file(database: &Path) -> PathBuf {
    database.with_extension("key")
}

fn write_private(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(key)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Loads the stored proof of the key; `None` if no server has used the database yet.
pub(crate) async fn key_check_value(pool: &AnyPool) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM installation WHERE name = $1")
        .bind(CHECK)
        .fetch_optional(pool)
        .await
}

impl Database {
    /// Returns the configured key, or the one in the file next to the SQLite database. The first start
    /// generates that file.
    ///
    /// Fails for an existing database whose key is missing: a new key could read nothing in it.
    pub(crate) async fn secret_key(
        &self,
        configured: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if let Some(key) = configured {
            return Ok(Zeroizing::new(key.to_vec()));
        }
        let Some(sqlite) = self.sqlite() else {
            return Err(OpenError::SecretKeyMissing(PathBuf::from("secret_key")));
        };
        let path = key_file(&sqlite.path);
        match std::fs::read(&path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let trimmed = text.trim_ascii();
                if trimmed.len() < SHORTEST_KEY {
                    let cause = std::io::Error::other("the key in it is too short or cut off");
                    return Err(OpenError::File { path, cause });
                }
                return Ok(Zeroizing::new(trimmed.to_vec()));
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(OpenError::File { path, cause }),
        }
        if key_check_value(&self.pool).await?.is_some() {
            return Err(OpenError::SecretKeyMissing(path));
        }
        let key = Zeroizing::new(STANDARD.encode(random_bytes::<32>()).into_bytes());
        write_private(&path, &key).map_err(|cause| OpenError::File { path, cause })?;
        Ok(key)
    }

    /// Returns whether a server has initialized this database: whether it has a proof of its key.
    pub(crate) async fn key_check_value(&self) -> Result<Option<String>, OpenError> {
        Ok(key_check_value(&self.pool).await?)
    }

    /// Fails unless the secret key is the one with which this database was made.
    pub(crate) async fn prove_secret_key(&self, sealer: &Sealer) -> Result<KeyProof, OpenError> {
        let sealed = sealer.seal(Purpose::Storage, CONTEXT, KNOWN_TEXT);
        let mut step = self.begin(WritePolicy::Ordinary).await?;
        let written = sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        )
        .bind(CHECK)
        .bind(sealed)
        .execute(&mut *step)
        .await?;
        let stored: String = sqlx::query_scalar("SELECT value FROM installation WHERE name = $1")
            .bind(CHECK)
            .fetch_one(&mut *step)
            .await?;
        step.commit(&self.metrics).await?;
        if !opens_known_text(sealer, &stored) {
            return Err(OpenError::WrongSecretKey);
        }
        Ok(if written.rows_affected() == 1 { KeyProof::FirstStart } else { KeyProof::Fits })
    }
}

/// Returns whether the stored proof opens under this key.
pub(crate) fn opens_known_text(sealer: &Sealer, stored: &str) -> bool {
    let opened = sealer.open(Purpose::Storage, CONTEXT, stored);
    opened.is_ok_and(|text| text.as_slice() == KNOWN_TEXT)
}
