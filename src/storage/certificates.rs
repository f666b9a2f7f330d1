//! The certificate of the listeners from an ACME server: its text, who orders the next one, and the answers to
//! challenges. Whatever is secret is sealed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{Storage, StorageError, Transaction, column, moment};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

/// Duration of the lease for an order: 5 minutes. An order takes seconds, and is given up after 4 minutes.
const LEASE: Duration = Duration::from_mins(5);
/// Longest pause after failures: a day. A later time was written with a wrong clock.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);
/// A certificate is deleted this long after its end: 30 days.
const KEPT: Duration = Duration::from_hours(24 * 30);
/// Most answers to challenges that are loaded: 200, more than a certificate has names.
const MOST_ANSWERS: i64 = 200;

/// A certificate and its key, as PEM.
#[derive(Serialize, Deserialize)]
pub struct CertificateText {
    /// The chain, its own certificate first.
    pub chain: String,
    /// The private key.
    pub key: String,
}

impl Drop for CertificateText {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The answer to a TLS-ALPN-01 challenge (RFC 8737).
#[derive(Clone, Serialize, Deserialize)]
pub struct ChallengeAnswer {
    /// The name that is validated.
    pub domain: String,
    /// The certificate that answers, as PEM.
    pub chain: String,
    /// Its key, as PEM. It proves nothing after the validation.
    pub key: String,
}

/// The state of a certificate and of its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// One more with each renewal; 0: there is none yet.
    pub version: i64,
    /// No further attempt before that.
    pub next_at: Timestamp,
    /// Failed attempts in a row.
    pub failures: u32,
}

impl Storage {
    /// Loads the state of a certificate; `None` if it was never ordered.
    pub async fn certificate(&self, name: &str) -> Result<Option<StoredCertificate>, StorageError> {
        let found =
            sqlx::query("SELECT version, next_at, failures FROM certificates WHERE name = $1")
                .bind(name);
        let Some(row) = self.read_one(found).await? else { return Ok(None) };
        let failures: i64 = column(&row, "failures")?;
        Ok(Some(StoredCertificate {
            version: column(&row, "version")?,
            next_at: moment(&row, "next_at")?,
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
        }))
    }

    /// Loads a certificate with its key, and its version.
    pub async fn certificate_text(
        &self,
        name: &str,
    ) -> Result<Option<(CertificateText, i64)>, StorageError> {
        let found = sqlx::query(
            "SELECT content, version FROM certificates WHERE name = $1 AND content IS NOT NULL",
        )
        .bind(name);
        let Some(row) = self.read_one(found).await? else { return Ok(None) };
        let sealed: String = column(&row, "content")?;
        let text = self.open_json("certificates.content", name, &sealed)?;
        Ok(Some((text, column(&row, "version")?)))
    }

    /// Takes the lease for ordering a certificate, unless another replica has it, or it is too early for another
    /// attempt, or the certificate has another version by now. Returns when the lease ends.
    pub async fn lease_certificate(
        &self,
        name: &str,
        version: i64,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let until = now.plus(LEASE);
        // A lease or a pause that ends far in the future was written with a wrong clock.
        let taken = sqlx::query(
            "INSERT INTO certificates
                 (name, version, expires_at, leased_until, next_at, failures)
             VALUES ($1, 0, 0, $2, 0, 0)
             ON CONFLICT (name) DO UPDATE SET leased_until = $2
             WHERE (certificates.leased_until < $3 OR certificates.leased_until > $4)
               AND (certificates.next_at <= $3 OR certificates.next_at > $5)
               AND certificates.version = $6",
        )
        .bind(name)
        .bind(until.unix())
        .bind(now.unix())
        .bind(until.plus(LEASE).unix())
        .bind(now.plus(LONGEST_PAUSE).unix())
        .bind(version)
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok((taken.rows_affected() == 1).then_some(until))
    }

    /// Stores a certificate, and ends the lease. Deletes the answers to challenges, and certificates that
    /// expired long ago. Returns `false`, and stores nothing, if another replica has taken the lease over.
    pub async fn store_certificate(
        &self,
        (name, lease): (&str, Timestamp),
        text: &CertificateText,
        expires_at: Timestamp,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let sealed = self.seal_json("certificates.content", name, text)?;
        let mut step = self.begin_cleanup().await?;
        let stored = sqlx::query(
            "UPDATE certificates SET content = $3, version = version + 1, expires_at = $4,
                    leased_until = 0, next_at = 0, failures = 0
             WHERE name = $1 AND leased_until = $2",
        )
        .bind(name)
        .bind(lease.unix())
        .bind(sealed)
        .bind(expires_at.unix())
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if stored {
            sqlx::query("DELETE FROM acme_secrets WHERE expires_at IS NOT NULL")
                .execute(&mut *step)
                .await?;
            sqlx::query("DELETE FROM certificates WHERE expires_at > 0 AND expires_at < $1")
                .bind(now.minus(KEPT).unix())
                .execute(&mut *step)
                .await?;
            step.record(event).await?;
        }
        step.commit().await?;
        Ok(stored)
    }

    /// Records that an order failed, and ends the lease. No replica tries again before `next_at`.
    pub async fn certificate_failed(
        &self,
        (name, lease): (&str, Timestamp),
        next_at: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        let ended = sqlx::query(
            "UPDATE certificates SET leased_until = 0, next_at = $3, failures = failures + 1
             WHERE name = $1 AND leased_until = $2",
        )
        .bind(name)
        .bind(lease.unix())
        .bind(next_at.unix())
        .execute(&mut *step)
        .await?;
        if ended.rows_affected() == 1 {
            step.record(event).await?;
        }
        step.commit().await
    }

    /// Loads the account at an ACME server. `id` is a hash of its directory, its contact and what it is bound to.
    pub async fn acme_account<T: serde::de::DeserializeOwned>(
        &self,
        id: &str,
    ) -> Result<Option<T>, StorageError> {
        let name = format!("account/{id}");
        let found =
            sqlx::query("SELECT content FROM acme_secrets WHERE name = $1").bind(name.as_str());
        let Some(row) = self.read_one(found).await? else { return Ok(None) };
        let sealed: String = column(&row, "content")?;
        self.open_json("acme_secrets.content", &name, &sealed).map(Some)
    }

    /// Stores the account at an ACME server.
    pub async fn store_acme_account<T: Serialize>(
        &self,
        id: &str,
        account: &T,
    ) -> Result<(), StorageError> {
        let name = format!("account/{id}");
        let sealed = self.seal_json("acme_secrets.content", &name, account)?;
        let mut step = self.begin_cleanup().await?;
        store_secret(&mut step, &name, &sealed, None).await?;
        step.commit().await
    }

    /// Stores answers to challenges, each by a hash of its name. Deletes those that have expired.
    pub async fn store_challenges(
        &self,
        answers: &[(String, ChallengeAnswer)],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("DELETE FROM acme_secrets WHERE expires_at < $1")
            .bind(now.unix())
            .execute(&mut *step)
            .await?;
        for (id, answer) in answers {
            let name = format!("challenge/{id}");
            let sealed = self.seal_json("acme_secrets.content", &name, answer)?;
            store_secret(&mut step, &name, &sealed, Some(expires_at)).await?;
        }
        step.commit().await
    }

    /// Loads the answers to challenges that have not expired.
    pub async fn challenges(&self, now: Timestamp) -> Result<Vec<ChallengeAnswer>, StorageError> {
        let found = sqlx::query(
            "SELECT name, content FROM acme_secrets WHERE expires_at >= $1 ORDER BY name LIMIT $2",
        )
        .bind(now.unix())
        .bind(MOST_ANSWERS);
        let rows = self.read_all(found).await?;
        let answer = |row: &sqlx::any::AnyRow| {
            let (name, sealed): (String, String) = (column(row, "name")?, column(row, "content")?);
            self.open_json("acme_secrets.content", &name, &sealed)
        };
        rows.iter().map(answer).collect()
    }
}

async fn store_secret(
    step: &mut Transaction,
    name: &str,
    sealed: &str,
    expires_at: Option<Timestamp>,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO acme_secrets (name, content, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET content = $2, expires_at = $3",
    )
    .bind(name)
    .bind(sealed)
    .bind(expires_at.map(Timestamp::unix))
    .execute(&mut **step)
    .await?;
    Ok(())
}
