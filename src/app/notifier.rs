//! Delivers notifications: takes queued messages, looks up names, sends them, and tries again later what failed.
//!
//! A message that fails is tried again after 10 seconds, then after three times as long each time, up to an hour,
//! and is given up after 12 hours. Targets do not wait for each other.

use std::str::FromStr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::{App, conditions};
use crate::clock::Timestamp;
use crate::config::{NotifyEvent, NotifyTarget};
use crate::notifications::{DeliveryFailed, Notification, Party, Subject, Undelivered};
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::secret::{new_id, random_bytes};
use crate::storage::{DueNotification, LeasedNotification, Occurrence, StorageError, TargetReport};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::NotifyOutcome;

/// Interval between two looks at the queue: 2 s. What this process queues is delivered at once.
const LOOK: Duration = Duration::from_secs(2);
/// Pause after the first failed attempt: 10 s. Each further one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause: 1 hour.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// How long a message is tried: 12 hours, long enough for a night and short enough to be news.
const GIVE_UP: Duration = Duration::from_hours(12);

static NOT_READ: LogThrottle = LogThrottle::a_minute();
static NOT_DELIVERED: LogThrottle = LogThrottle::new();

/// State that all generations of the application share.
#[derive(Default)]
pub(super) struct NotifierState {
    /// Lets one round at a time run in this process.
    round: Mutex<()>,
    pub(super) watched: conditions::Watched,
}

/// Why a message was not sent by an administrator's test.
#[derive(Debug, thiserror::Error)]
pub enum TestFailed {
    /// No target has this name.
    #[error("no target of notifications has this name")]
    Unknown,
    #[error(transparent)]
    Undelivered(#[from] DeliveryFailed),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl App {
    /// Returns whether somebody is notified of this. Reads the configuration only.
    pub fn notifies_of(&self, event: NotifyEvent) -> bool {
        self.config().notify.iter().any(|target| target.events.contains(event))
    }

    /// Delivers queued notifications, for ever.
    pub async fn keep_notifying(&self) {
        panic_point!("notifications");
        loop {
            self.notify_round().await;
            let queued = self.storage().notification_queued();
            let _ = tokio::time::timeout(LOOK, queued).await;
        }
    }

    /// Delivers what is due now, once. Returns the number of delivered messages.
    pub async fn notify_round(&self) -> usize {
        let app = self.current();
        let _alone = app.0.shared.notifying.round.lock().await;
        if app.config().notify.is_empty() {
            return 0;
        }
        let looked = async {
            app.watch_conditions().await?;
            app.storage().due_notifications(app.now()).await
        };
        let due = match looked.await {
            Ok(due) => due,
            Err(cause) => {
                if let Some(left_out) = NOT_READ.admit() {
                    tracing::warn!(%cause, left_out, "notifications are not looked at; it is tried again");
                }
                return 0;
            }
        };
        let targets = app.config().notify.iter();
        join_all(targets.map(|target| app.deliver_due(target, &due))).await.into_iter().sum()
    }

    /// Delivers what is due at one target, in order, up to the first failure.
    async fn deliver_due(&self, target: &NotifyTarget, due: &[DueNotification]) -> usize {
        let mut delivered = 0;
        for due in due.iter().filter(|due| due.target == target.name) {
            match self.deliver_one(target, due).await {
                Ok(Some(true)) => delivered += 1,
                Ok(None) => {} // another replica has it
                Ok(Some(false)) => break,
                Err(cause) => {
                    if let Some(left_out) = NOT_READ.admit() {
                        let target = &target.name;
                        tracing::warn!(%cause, left_out, target, "a notification waits for the database");
                    }
                    break;
                }
            }
        }
        delivered
    }

    /// Takes a message and tries to deliver it. Returns whether it was delivered; `None` if another replica
    /// has it.
    async fn deliver_one(
        &self,
        target: &NotifyTarget,
        due: &DueNotification,
    ) -> Result<Option<bool>, StorageError> {
        let (storage, now) = (self.storage(), self.now());
        let Some(leased) = storage.lease_notification(due, target.interval, now).await? else {
            return Ok(None);
        };
        let message = self.message_of(&leased).await;
        let sent = self.0.messenger.deliver(target, &message, now).await;
        // Time passed meanwhile.
        let (now, metrics) = (self.now(), self.metrics());
        let failed = match sent {
            Ok(()) => {
                metrics.notified(NotifyOutcome::Delivered, 1);
                tracing::debug!(
                    target = target.name,
                    event = leased.event,
                    "a notification was delivered"
                );
                storage.notification_delivered(&leased, now).await?;
                return Ok(Some(true));
            }
            Err(failed) => failed,
        };
        metrics.notified(NotifyOutcome::Failed, 1);
        self.after_failure(&leased, &failed, now).await?;
        Ok(Some(false))
    }

    /// Decides whether a failed message is tried again.
    async fn after_failure(
        &self,
        leased: &LeasedNotification,
        failed: &Undelivered,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let (storage, target) = (self.storage(), leased.target.as_str());
        let reason = failed.reason.to_string();
        if let Some(left_out) = NOT_DELIVERED.admit() {
            let attempts = leased.attempts;
            tracing::warn!(target, attempts, reason, left_out, "a notification was not delivered");
        }
        let wanted = failed.retry_after.unwrap_or_default().min(LONGEST_PAUSE);
        let again_at = now.plus(pause_after(leased.attempts).max(wanted));
        if again_at.since(leased.created_at) <= GIVE_UP {
            return storage.notification_failed(leased, &reason, again_at, now).await;
        }
        self.metrics().notified(NotifyOutcome::GivenUp, 1);
        tracing::error!(target, event = leased.event, reason, "a notification is given up");
        let event = self
            .event("notification_given_up", Actor::Server)
            .with("target", target)
            .with("about", leased.event.as_str())
            .with("occurrences", leased.occurrences)
            .with("attempts", leased.attempts);
        storage.notification_given_up(leased, &reason, now, event).await
    }

    /// Sends a test message to a target at once, past the queue. `event` says who asked for it.
    pub async fn send_test(&self, name: &str, event: AuditEvent) -> Result<(), TestFailed> {
        let target = self.config().notify.iter().find(|target| target.name == name);
        let target = target.ok_or(TestFailed::Unknown)?;
        let now = self.now();
        let message = self.test_message();
        let sent = self.0.messenger.deliver(target, &message, now).await;
        let reason = sent.as_ref().err().map(|failed| failed.reason.to_string());
        let event = event.with("target", name).with("delivered", sent.is_ok());
        let kind = NotifyEvent::Test.as_str();
        let outcome = reason.as_deref().map_or(Ok(()), Err);
        self.storage().note_test(name, kind, outcome, now, event).await?;
        Ok(sent.map_err(|failed| failed.reason)?)
    }

    /// Sends a test message, and stores nothing: for the command line.
    pub async fn try_target(&self, target: &NotifyTarget) -> Result<(), DeliveryFailed> {
        let message = self.test_message();
        let sent = self.0.messenger.deliver(target, &message, self.now()).await;
        sent.map_err(|failed| failed.reason)
    }

    /// Connects to a target and sends no message.
    pub async fn knock_at_target(&self, target: &NotifyTarget) -> Result<(), DeliveryFailed> {
        self.0.messenger.knock(target).await
    }

    /// Returns what became of the messages to each target, in the order of the configuration.
    pub async fn target_reports(&self) -> Result<Vec<(&NotifyTarget, TargetReport)>, StorageError> {
        let mut reports = Vec::new();
        for target in &self.config().notify {
            reports.push((target, self.storage().target_report(&target.name).await?));
        }
        Ok(reports)
    }

    fn test_message(&self) -> Notification {
        Notification {
            id: new_id(self.clock()),
            event: NotifyEvent::Test,
            created_at: self.now(),
            occurrences: 1,
            subjects: Vec::new(),
            dropped: 0,
            link: self.admin_link("/notifications"),
            issuer: self.issuer().to_owned(),
        }
    }

    async fn message_of(&self, leased: &LeasedNotification) -> Notification {
        // A kind that only a later version knows.
        let event = NotifyEvent::from_str(&leased.event).unwrap_or(NotifyEvent::Test);
        let mut subjects = Vec::new();
        for occurrence in &leased.content {
            subjects.push(self.subject_of(occurrence).await);
        }
        Notification {
            id: leased.id.clone(),
            event,
            created_at: leased.created_at,
            occurrences: leased.occurrences,
            subjects,
            dropped: leased.dropped,
            link: self.link_for(event, leased),
            issuer: self.issuer().to_owned(),
        }
    }

    /// Looks up the names of an occurrence. A name that cannot be read now is left out.
    async fn subject_of(&self, occurrence: &Occurrence) -> Subject {
        let storage = self.storage();
        let client = match &occurrence.client_id {
            Some(id) => {
                let row = storage.client_details(id).await.ok().flatten();
                let metadata =
                    row.and_then(|row| ClientMetadata::from_stored_json(&row.metadata).ok());
                let name = metadata.as_ref().and_then(|metadata| metadata.client_name.as_deref());
                Some(Party::new(id, DisplayName::of(name).text.as_deref()))
            }
            None => None,
        };
        let person = match (&occurrence.subject, &occurrence.person_name) {
            (Some(subject), Some(name)) => Some(Party::new(subject, Some(name))),
            (Some(subject), None) => {
                let row = storage.person_row(subject).await.ok().flatten();
                let person = row.and_then(|row| row.person);
                let name = person.and_then(|person| person.name.or(person.email));
                Some(Party::new(subject, name.as_deref()))
            }
            (None, _) => None,
        };
        let named = |id: &String| {
            let name = self.resource(id).and_then(|resource| resource.name.as_deref());
            Party::new(id, name)
        };
        Subject {
            at: Timestamp::from_unix(occurrence.at),
            client,
            person,
            server: occurrence.resource.as_ref().map(named),
            reference: occurrence.reference.clone(),
            reason: occurrence.reason.clone(),
        }
    }

    /// Returns the admin page that helps: about the one thing that happened, or the list.
    fn link_for(&self, event: NotifyEvent, leased: &LeasedNotification) -> Option<String> {
        let one = leased.content.first().filter(|_| leased.occurrences == 1);
        let query = |path: &str, name: &str, value: &str| {
            let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            format!("{path}?{name}={value}")
        };
        let path = match event {
            NotifyEvent::ClientWaits => match one.and_then(|one| one.client_id.as_deref()) {
                Some(id) => query("/client", "id", id),
                None => query("/clients", "standing", "waiting"),
            },
            NotifyEvent::PersonRefused => match one.and_then(|one| one.reference.as_deref()) {
                Some(reference) => query("/audit", "ref", reference),
                None => query("/audit", "event", "access_denied"),
            },
            NotifyEvent::TokenReused => match one.and_then(|one| one.subject.as_deref()) {
                Some(subject) => query("/person", "sub", subject),
                None => query("/audit", "event", "refresh_reused"),
            },
            NotifyEvent::EndsSoon => "/keys".to_owned(),
            NotifyEvent::Test => "/notifications".to_owned(),
            NotifyEvent::ProviderDown
            | NotifyEvent::ProviderBack
            | NotifyEvent::ConfigurationRefused => String::new(),
        };
        self.admin_link(&path)
    }

    fn admin_link(&self, path: &str) -> Option<String> {
        self.config().admin.as_ref().map(|admin| admin.url.join(path))
    }
}

/// Returns the pause after so many attempts, up to a fifth longer: targets that failed together are not tried
/// together.
fn pause_after(attempts: u32) -> Duration {
    let factor = 3_u32.saturating_pow(attempts.saturating_sub(1).min(10));
    let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    let jitter = u32::from(random_bytes::<1>()[0]);
    pause + pause / 5 * jitter / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_a_fifth_at_most() {
        for (attempts, least) in [(1, 10), (2, 30), (3, 90), (4, 270), (5, 810), (6, 2430)] {
            let pause = pause_after(attempts).as_secs();
            assert!((least..=least + least / 5 + 1).contains(&pause), "{attempts}: {pause}");
        }
        for attempts in [7, 20, u32::MAX] {
            let pause = pause_after(attempts);
            assert!(pause >= LONGEST_PAUSE && pause <= LONGEST_PAUSE * 6 / 5, "{pause:?}");
        }
    }
}
