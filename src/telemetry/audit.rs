//! Audit events: what happened, to whom, by whom. They contain ids and reasons, never secrets, names or
//! network addresses.
//!
//! An event that accompanies a change is stored in the transaction that makes the change
//! (`storage/audit.rs`). Events are also written to the log, with the target `portcullis::audit`.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value};

use super::log_throttle::LogQuota;
use crate::clock::Clock;
use crate::oauth::secret::random_bytes;

/// Limit for the log lines of anonymous events: 6,000 a minute, because anybody can cause them.
static ANONYMOUS: LogQuota = LogQuota::a_minute(6_000);

/// The names of all events, roughly in the order of a client's connection; `docs/operations/audit.md` explains
/// each.
pub const EVENTS: &[&str] = &[
    "client_registered",
    "client_created",
    "client_changed",
    "client_secret_rotated",
    "client_deleted",
    "client_assertion_replayed",
    "client_waits",
    "client_approved",
    "client_approved_by_pattern",
    "client_refused",
    "client_trusted",
    "client_untrusted",
    "client_decision_lapsed",
    "client_blocked",
    "client_unblocked",
    "approval_pattern_added",
    "approval_pattern_removed",
    "page_shown",
    "consent_shown",
    "consent_approved",
    "consent_remembered",
    "consent_denied",
    "login_from_other_browser",
    "login_begun_again",
    "login_refused_by_provider",
    "login_failed",
    "login_untrusted",
    "login_held",
    "wait_cancelled",
    "access_denied",
    "person_is_blocked",
    "code_issued",
    "code_redeemed",
    "code_replayed",
    "refresh_rotated",
    "refresh_grace_replayed",
    "refresh_reused",
    "access_lost",
    "tool_refused",
    "step_up_refused",
    "grant_revoked",
    "grants_revoked",
    "upstream_refused",
    "upstream_identity_changed",
    "upstream_session_expired",
    "upstream_logout",
    "connection_made",
    "connection_scopes_changed",
    "connection_account_changed",
    "connection_broken",
    "connection_removed",
    "connection_refused",
    "upstream_token_exchanged",
    "upstream_token_refused",
    "person_blocked",
    "person_unblocked",
    "person_signed_out",
    "console_signed_in",
    "console_signed_out",
    "console_refused",
    "key_added",
    "key_retired",
    "certificate_obtained",
    "certificate_failed",
    "clock_accepted",
    "configuration_loaded",
    "configuration_reloaded",
    "configuration_refused",
    "provider_down",
    "provider_back",
    "ends_soon",
    "notification_tested",
    "notification_given_up",
    "audit_exported",
    "usage_exported",
    "audit_left_out",
    "audit_trimmed",
    "audit_line_refused",
    "backup_made",
    "backup_restored",
    "database_went_back",
];

/// Events by which something was refused: to a person, or to a client that may be an attacker's.
pub const REFUSALS: &[&str] = &[
    "access_denied",
    "access_lost",
    "client_assertion_replayed",
    "code_replayed",
    "connection_refused",
    "console_refused",
    "login_failed",
    "login_from_other_browser",
    "login_refused_by_provider",
    "login_untrusted",
    "person_is_blocked",
    "refresh_reused",
    "step_up_refused",
    "tool_refused",
    "upstream_identity_changed",
    "upstream_refused",
    "upstream_token_refused",
];

/// Events of every day that would hide all others from a reader. Lists leave them out unless they are asked
/// for; downloads have them.
pub const ROUTINE: &[&str] = &[
    "code_redeemed",
    "consent_remembered",
    "refresh_grace_replayed",
    "refresh_rotated",
    "upstream_token_exchanged",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client, at an endpoint for clients.
    Client,
    /// A person in a browser.
    Person,
    /// An administrator, by our `sub`.
    Admin(String),
    Provider,
    Server,
    /// An administrator who ran a command on this machine.
    Shell,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Person => f.write_str("person"),
            Self::Admin(subject) => write!(f, "admin {subject}"),
            Self::Provider => f.write_str("provider"),
            Self::Server => f.write_str("server"),
            Self::Shell => f.write_str("shell"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// Id that sorts by time, and within one millisecond of this process by order of creation.
    pub id: String,
    /// When it happened, in Unix milliseconds.
    pub at: i64,
    /// The event's name, one of [`EVENTS`].
    pub event: &'static str,
    pub actor: Actor,
    pub client_id: Option<String>,
    /// The person concerned, by our `sub`.
    pub subject: Option<String>,
    pub resource: Option<String>,
    pub grant_id: Option<String>,
    /// The reference that a page showed to the person.
    pub reference: Option<String>,
    pub detail: Map<String, Value>,
    /// Part of a flood: only the log gets this event, because the trail would fill the database.
    pub log_only: bool,
    /// The person's name, for notifications to administrators. Neither the trail nor the log has it.
    pub person_name: Option<String>,
}

fn new_event_id(at: i64) -> String {
    static ORDER: AtomicU32 = AtomicU32::new(0);
    let order = ORDER.fetch_add(1, Ordering::Relaxed);
    let random = u64::from_be_bytes(random_bytes::<8>()) >> 16;
    format!("{at:012x}{order:08x}{random:012x}")
}

impl AuditEvent {
    /// Creates an event with the current time of `clock`.
    pub fn new(event: &'static str, actor: Actor, clock: &Clock) -> Self {
        let at = clock.unix_millis();
        Self {
            id: new_event_id(at),
            at,
            event,
            actor,
            client_id: None,
            subject: None,
            resource: None,
            grant_id: None,
            reference: None,
            detail: Map::new(),
            log_only: false,
            person_name: None,
        }
    }

    /// Renames the event, if only the transaction shows what happened.
    #[must_use]
    pub fn named(mut self, event: &'static str) -> Self {
        self.event = event;
        self
    }

    /// Creates a second event about the same subject, ordered right after this one.
    #[must_use]
    pub fn again(mut self, event: &'static str) -> Self {
        self.id = new_event_id(self.at);
        self.event = event;
        self
    }

    #[must_use]
    pub fn client(mut self, id: &str) -> Self {
        self.client_id = Some(id.to_owned());
        self
    }

    /// The person concerned, by our `sub`.
    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = Some(subject.to_owned());
        self
    }

    /// The person's name, for notifications only.
    #[must_use]
    pub fn person_name(mut self, name: Option<&str>) -> Self {
        self.person_name = name.map(str::to_owned);
        self
    }

    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    #[must_use]
    pub fn grant(mut self, id: &str) -> Self {
        self.grant_id = Some(id.to_owned());
        self
    }

    /// The reference that a page showed to the person.
    #[must_use]
    pub fn reference(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the event names neither a person nor a grant, and was caused by a client or a person in a
    /// browser: anybody can cause any number of those.
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_none()
            && self.grant_id.is_none()
            && matches!(self.actor, Actor::Client | Actor::Person)
    }

    /// Writes the event to the log. Anonymous events are limited to 6,000 lines a minute.
    pub fn log(&self) {
        debug_assert!(EVENTS.contains(&self.event), "{} is not in EVENTS", self.event);
        if self.is_anonymous() {
            match ANONYMOUS.admit() {
                None => return,
                Some(0) => {}
                Some(left_out) => tracing::warn!(
                    left_out,
                    "audit events that name nobody came too often: the log has not all of them"
                ),
            }
        }
        tracing::info!(
            target: "portcullis::audit",
            event = self.event,
            audit_id = self.id,
            actor = %self.actor,
            client_id = self.client_id,
            subject = self.subject,
            resource = self.resource,
            grant_id = self.grant_id,
            reference = self.reference,
            detail = self.detail_if_any(),
        );
    }

    fn detail_if_any(&self) -> Option<String> {
        if self.detail.is_empty() { None } else { serde_json::to_string(&self.detail).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn refusals_and_routine_events_are_events_and_not_the_same() {
        assert!(REFUSALS.iter().chain(ROUTINE).all(|event| EVENTS.contains(event)));
        assert!(!REFUSALS.iter().any(|event| ROUTINE.contains(event)));
    }

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(1_800_000_000)));

        let ids: Vec<String> =
            (0..100).map(|_| AuditEvent::new("test", Actor::Server, &clock).id).collect();

        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
