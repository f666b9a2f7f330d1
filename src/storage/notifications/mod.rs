//! The queue of notifications to administrators.
//!
//! A message is queued in the transaction that records its audit event, so that neither exists without the other.
//! Events of one kind join one open message for each target, so a flood becomes one message with a count. One
//! replica takes a message (a lease, by a conditional `UPDATE`), and the message stays until it was delivered: it
//! survives a crash, and is delivered at least once.

mod conditions;
mod delivery;
mod enqueue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Storage, StorageError};
use crate::config::{NotifyEvent, NotifyEvents, NotifyTarget};
use crate::telemetry::audit::AuditEvent;

pub use delivery::{DueNotification, LeasedNotification, TargetReport};
pub(super) use enqueue::enqueue;

/// What a message says of one occurrence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// When it happened, in Unix seconds.
    pub at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The person concerned, by our `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The person's name, where only the event knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The reference that a page showed to the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// More about it: keys with mistakes, why the provider is silent, what ends when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the kind of message that an audit event causes, and what it says. `None`: most events cause none.
fn notice_of(event: &AuditEvent) -> Option<(NotifyEvent, Occurrence)> {
    let detail = |name: &str| event.detail.get(name);
    let text = |name: &str| detail(name).and_then(|value| value.as_str()).map(str::to_owned);
    let list = |name: &str| {
        let values = detail(name)?.as_array()?.iter().filter_map(|value| value.as_str());
        Some(values.collect::<Vec<_>>().join(", "))
    };
    let (kind, reason) = match event.event {
        "client_waits" => (NotifyEvent::ClientWaits, None),
        // Refused by the rules. Other refusals have a reason instead of the rules that matched.
        "access_denied" | "access_lost" if detail("rules").is_some() => {
            let asked = text("asked").map(|asked| format!("asked for {asked}"));
            (NotifyEvent::PersonRefused, asked)
        }
        "code_replayed" => (NotifyEvent::TokenReused, Some("an authorization code".to_owned())),
        "refresh_reused" => (NotifyEvent::TokenReused, Some("a refresh token".to_owned())),
        "configuration_refused" => {
            let mistakes = list("mistakes").map(|keys| format!("mistakes in {keys}"));
            let waiting = list("waiting").map(|keys| format!("a restart is needed for {keys}"));
            (NotifyEvent::ConfigurationRefused, mistakes.or(waiting))
        }
        "provider_down" => (NotifyEvent::ProviderDown, text("reason")),
        "provider_back" => (NotifyEvent::ProviderBack, text("reason")),
        "ends_soon" => (NotifyEvent::EndsSoon, text("reason")),
        _ => return None,
    };
    let occurrence = Occurrence {
        at: event.at.div_euclid(1000),
        client_id: event.client_id.clone(),
        subject: event.subject.clone(),
        person_name: event.person_name.clone(),
        resource: event.resource.clone(),
        reference: event.reference.clone(),
        reason,
    };
    Some((kind, occurrence))
}

/// A target, as far as the queue knows it.
#[derive(Clone, Debug)]
struct Subscriber {
    target: String,
    events: NotifyEvents,
    interval: Duration,
}

/// The targets of the configuration in use.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    list: Vec<Subscriber>,
    /// All kinds that somebody receives.
    wanted: NotifyEvents,
}

impl Subscribers {
    /// Returns what `event` tells, if somebody receives that.
    pub(super) fn notice(&self, event: &AuditEvent) -> Option<(NotifyEvent, Occurrence)> {
        notice_of(event).filter(|(kind, _)| self.wanted.contains(*kind))
    }
}

/// Who is notified, and a signal that something was queued.
#[derive(Debug, Default)]
pub(crate) struct NotificationHub {
    /// False while nobody is notified: then a transaction does nothing more for notifications than look here.
    any: AtomicBool,
    subscribers: RwLock<Arc<Subscribers>>,
    queued: Arc<Notify>,
}

impl NotificationHub {
    /// Returns the targets, if there are any.
    pub(super) fn subscribers(&self) -> Option<(Arc<Subscribers>, Arc<Notify>)> {
        let any = self.any.load(Ordering::Relaxed);
        any.then(|| (Arc::clone(&self.subscribers.read()), Arc::clone(&self.queued)))
    }
}

impl Storage {
    /// Queues messages for these targets from now on.
    pub fn notify_targets(&self, targets: &[NotifyTarget]) {
        let list: Vec<Subscriber> = targets
            .iter()
            .map(|target| Subscriber {
                target: target.name.clone(),
                events: target.events,
                interval: target.interval,
            })
            .collect();
        let wanted = list.iter().fold(NotifyEvents::default(), |all, one| all.union(one.events));
        let any = !list.is_empty();
        *self.hub.subscribers.write() = Arc::new(Subscribers { list, wanted });
        self.hub.any.store(any, Ordering::Relaxed);
        self.hub.queued.notify_one();
    }

    /// Completes when something was queued here since the last call, or the targets changed.
    pub async fn notification_queued(&self) {
        self.hub.queued.notified().await;
    }

    fn open_occurrences(&self, id: &str, sealed: &str) -> Result<Vec<Occurrence>, StorageError> {
        self.open_json(enqueue::CONTENT, id, sealed)
    }
}
