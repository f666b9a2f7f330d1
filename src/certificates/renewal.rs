//! Loads the certificate that a replica obtained, and orders the next one when a third of its life is left.
//!
//! A lease in the database makes one replica order. What fails is tried again after a pause that all replicas
//! share, because ACME servers limit failures. No failure ends anything: the certificate in use stays.

use std::time::Duration;

use super::order::{CertificateOrder, OrderFailed};
use super::{Certificates, ObtainedCertificate, ReadyCertificate, name_of};
use crate::clock::Timestamp;
use crate::config::{AcmeConfig, ServedCertificate};
use crate::storage::{CertificateText, StorageError, StoredCertificate};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::metrics::CertificateOutcome;

/// An order is given up after 4 minutes, before its lease ends.
const GIVEN_UP: Duration = Duration::from_mins(4);
/// Pause after the first failure: 1 minute. Each further one is four times as long.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// Longest pause: 6 hours.
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

impl Certificates {
    /// Loads another version of the certificate, if there is one, and orders one, if it is time. Does nothing
    /// without `[tls.acme]`.
    pub async fn round(&self) -> Result<(), StorageError> {
        let Some(acme) = self.acme() else { return Ok(()) };
        let (name, source) = (name_of(acme), &self.0);
        let stored = source.storage.certificate(&name).await?;
        let version = stored.map_or(0, |stored| stored.version);
        if version > 0 && !self.has_loaded(&name, version) {
            self.load(&name).await?;
        }
        let now = source.clock.now();
        if !self.is_due(&name, now) {
            return Ok(());
        }
        let Some(lease) = source.storage.lease_certificate(&name, version, now).await? else {
            return Ok(());
        };
        tracing::info!(domains = acme.domains.join(", "), "a certificate is ordered");
        let order = CertificateOrder {
            acme,
            proxies: &source.proxies,
            storage: &source.storage,
            clock: &source.clock,
        };
        let ordered = match tokio::time::timeout(GIVEN_UP, Box::pin(order.run())).await {
            Ok(ordered) => ordered.and_then(|text| {
                let read = ServedCertificate::read(text.chain.as_bytes(), text.key.as_bytes())?;
                Ok((text, read))
            }),
            Err(_) => Err(OrderFailed::TooSlow(GIVEN_UP)),
        };
        let lease = (name.as_str(), lease);
        match ordered {
            Ok((text, read)) => self.keep(acme, lease, (text, read)).await,
            Err(failed) => self.put_off(acme, lease, stored, &failed).await,
        }
    }

    fn has_loaded(&self, name: &str, version: i64) -> bool {
        let current = self.0.obtained.current.read();
        current.as_ref().is_some_and(|current| current.name == name && current.version == version)
    }

    /// Whether there is no certificate with these names, or it is time to renew it.
    fn is_due(&self, name: &str, now: Timestamp) -> bool {
        let current = self.0.obtained.current.read();
        current
            .as_ref()
            .filter(|current| current.name == name)
            .is_none_or(|current| current.ready.certificate.renews_at() <= now)
    }

    /// Loads the certificate from the database.
    async fn load(&self, name: &str) -> Result<(), StorageError> {
        let Some((text, version)) = self.0.storage.certificate_text(name).await? else {
            return Ok(());
        };
        match ServedCertificate::read(text.chain.as_bytes(), text.key.as_bytes()) {
            Ok(read) => {
                tracing::info!(version, "the certificate from the ACME server is in use");
                self.install(name, version, read);
            }
            Err(refused) => tracing::error!(%refused, "the stored certificate cannot be used"),
        }
        Ok(())
    }

    fn install(&self, name: &str, version: i64, read: ServedCertificate) {
        let ready = ReadyCertificate::of(read);
        let obtained = ObtainedCertificate { name: name.to_owned(), version, ready };
        *self.0.obtained.current.write() = Some(obtained);
    }

    /// Stores a certificate that was issued, and uses it.
    async fn keep(
        &self,
        acme: &AcmeConfig,
        lease: (&str, Timestamp),
        (text, read): (CertificateText, ServedCertificate),
    ) -> Result<(), StorageError> {
        let storage = &self.0.storage;
        storage.metrics().certificate_ordered(CertificateOutcome::Obtained);
        let event =
            self.event("certificate_obtained", acme).with("expires_at", read.expires_at.unix());
        let now = self.0.clock.now();
        storage.store_certificate(lease, &text, read.expires_at, now, event).await?;
        self.load(lease.0).await
    }

    /// Records a failure, and when the next attempt is.
    async fn put_off(
        &self,
        acme: &AcmeConfig,
        lease: (&str, Timestamp),
        stored: Option<StoredCertificate>,
        failed: &OrderFailed,
    ) -> Result<(), StorageError> {
        let storage = &self.0.storage;
        storage.metrics().certificate_ordered(CertificateOutcome::Failed);
        let pause = pause_after(stored.map_or(0, |stored| stored.failures));
        let reason = failed.reason();
        tracing::error!(reason, again_in = ?pause, "no certificate was obtained; the one in use stays");
        let event = self.event("certificate_failed", acme).with("reason", reason);
        storage.certificate_failed(lease, self.0.clock.now().plus(pause), event).await
    }

    fn event(&self, name: &'static str, acme: &AcmeConfig) -> AuditEvent {
        AuditEvent::new(name, Actor::Server, &self.0.clock).with("domains", acme.domains.clone())
    }
}

/// Returns how long to wait after so many failures in a row and one more.
fn pause_after(failures: u32) -> Duration {
    (FIRST_PAUSE * 4_u32.saturating_pow(failures.min(8))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_six_hours() {
        let minutes: Vec<u64> =
            (0..7).map(|failures| pause_after(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 4, 16, 64, 256, 360, 360]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
