//! Watches what lasts and is worth a notification: an outage of the identity provider, and what ends soon. Looked
//! at only while somebody is notified of it.

use std::time::Duration;

use parking_lot::Mutex;

use super::App;
use crate::clock::Timestamp;
use crate::config::NotifyEvent;
use crate::signing::KeyState;
use crate::storage::StorageError;
use crate::telemetry::audit::Actor;

/// A failure is recent for so long: 1 minute. Afterwards the provider counts as back, if it answers.
const LATELY: Duration = Duration::from_mins(1);
/// Interval between two looks at the provider while it fails: 5 s.
const PROBE: Duration = Duration::from_secs(5);
/// Failed looks in a row that make an outage: 2. One may be a lost packet.
const FAILED_PROBES: u32 = 2;
/// Looks in a row that find the circuit breaker open, although discovery answers: 6, half a minute.
const PAUSED_LOOKS: u32 = 6;
/// Interval between two looks at what ends: 1 hour.
const ENDS: Duration = Duration::from_hours(1);
/// Age at which a signing key should be rotated: 1 year.
const YEAR: Duration = Duration::from_hours(24 * 365);
const DAY: Duration = Duration::from_hours(24);

/// What this process saw last.
#[derive(Default)]
pub(super) struct Watched(Mutex<LastSeen>);

#[derive(Default)]
struct LastSeen {
    provider_at: Option<Timestamp>,
    failed_probes: u32,
    paused_looks: u32,
    ends_at: Option<Timestamp>,
}

/// Returns whether it is time to look again. A time in the future is that of a clock that was set back.
fn is_time(last: &mut Option<Timestamp>, now: Timestamp, interval: Duration) -> bool {
    let waits = last.is_some_and(|at| at <= now && now.since(at) < interval);
    if !waits {
        *last = Some(now);
    }
    !waits
}

impl App {
    /// Looks at the provider and at what ends, if it is time.
    pub(super) async fn watch_conditions(&self) -> Result<(), StorageError> {
        let now = self.now();
        let watched = &self.0.shared.notifying.watched.0;
        if self.notifies_of(NotifyEvent::ProviderDown)
            && is_time(&mut watched.lock().provider_at, now, PROBE)
        {
            self.watch_provider(now).await?;
        }
        if is_time(&mut watched.lock().ends_at, now, ENDS) {
            let targets = &self.config().notify;
            let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
            self.storage().forget_targets(&names).await?;
            if self.notifies_of(NotifyEvent::EndsSoon) {
                self.watch_ends(now).await?;
            }
        }
        Ok(())
    }

    /// Records an outage of the provider, and its end. Sends a request only after something failed.
    async fn watch_provider(&self, now: Timestamp) -> Result<(), StorageError> {
        let (storage, health) = (self.storage(), self.upstream().health());
        let recent = |(at, _): &&(Timestamp, String)| *at <= now && now.since(*at) < LATELY;
        let failure = health.last_error.as_ref().filter(recent).map(|(_, reason)| reason.clone());
        let down_since = storage.provider_down_since().await?;
        match (down_since, failure) {
            (None, None) => {
                self.count_looks(|seen| (seen.failed_probes, seen.paused_looks) = (0, 0));
            }
            (None, Some(reason)) => {
                let probed = self.upstream().answers().await;
                let is_down = self.count_looks(|seen| {
                    seen.failed_probes = if probed.is_err() { seen.failed_probes + 1 } else { 0 };
                    seen.paused_looks = if health.paused { seen.paused_looks + 1 } else { 0 };
                    seen.failed_probes >= FAILED_PROBES || seen.paused_looks >= PAUSED_LOOKS
                });
                if is_down {
                    let reason = probed.err().unwrap_or(reason);
                    let event = self.event("provider_down", Actor::Server).with("reason", reason);
                    storage.provider_went_down(now, event).await?;
                }
            }
            (Some(since), None) if self.upstream().answers().await.is_ok() => {
                let minutes = now.since(since).as_secs().div_ceil(60);
                let reason =
                    format!("after {minutes} minute{}", if minutes == 1 { "" } else { "s" });
                let event = self.event("provider_back", Actor::Server).with("reason", reason);
                storage.provider_came_back(since, event).await?;
            }
            (Some(_), _) => {}
        }
        Ok(())
    }

    fn count_looks<T>(&self, count: impl FnOnce(&mut LastSeen) -> T) -> T {
        count(&mut self.0.shared.notifying.watched.0.lock())
    }

    /// Records what ends within 30 days, within 7 days, and what has ended: each once.
    async fn watch_ends(&self, now: Timestamp) -> Result<(), StorageError> {
        for key in self.keys().describe().iter().filter(|key| key.state == KeyState::Current) {
            let ends_at = key.created_at.plus(YEAR);
            let days = now.since(key.created_at).as_secs() / DAY.as_secs();
            let reason =
                format!("the {} signing key is {days} days old: rotate it after a year", key.alg);
            self.note_end(key.alg, ends_at, reason).await?;
        }
        // A certificate that is renewed in time is no news.
        if let Some((_, ends_at)) = self.certificates().expires_at()
            && self.certificates().is_overdue(now)
        {
            let days = ends_at.since(now).as_secs() / DAY.as_secs();
            let when = if ends_at > now {
                format!("expires in {days} days")
            } else {
                "has expired".to_owned()
            };
            let reason = format!("the certificate of the listeners {when}: see [tls]");
            self.note_end("certificate", ends_at, reason).await?;
        }
        let upstream = &self.config().upstream;
        if let Some(ends_at) = upstream.client_secret_expires {
            let days = ends_at.since(now).as_secs() / DAY.as_secs();
            let when =
                if ends_at > now { format!("ends in {days} days") } else { "has ended".to_owned() };
            let reason =
                format!("the client secret at {} {when}: make a new one there", upstream.name);
            self.note_end("client_secret", ends_at, reason).await?;
        }
        Ok(())
    }

    async fn note_end(
        &self,
        thing: &str,
        ends_at: Timestamp,
        reason: String,
    ) -> Result<(), StorageError> {
        let now = self.now();
        let level = match ends_at.since(now) {
            _ if ends_at <= now => 3,
            left if left <= DAY * 7 => 2,
            left if left <= DAY * 30 => 1,
            _ => return Ok(()),
        };
        let event = self
            .event("ends_soon", Actor::Server)
            .with("what", thing)
            .with("ends_at", ends_at.unix())
            .with("reason", reason);
        self.storage().note_end(thing, ends_at, level, event).await
    }
}
