//! Audit events: what happened, to whom, by whom. Ids and reasons, never secrets, names or addresses.
//!
//! An event that belongs to a change is stored in the very step that makes the change
//! (`storage/audit.rs`); every event is also one log line with the target `portcullis::audit`.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value};

use super::log_throttle::LogQuota;
use crate::clock::Clock;
use crate::oauth::secret::random_bytes;

/// Log lines of events that anybody can cause.
static ANONYMOUS: LogQuota = LogQuota::a_minute(6_000);

/// Every event there is, in the order of a connection's life; `docs/operations.md` explains each.
pub const EVENTS: &[&str] = &[
    "client_registered",
    "client_created",
    "client_changed",
    "client_deleted",
    "client_assertion_replayed",
    "client_waits",
    "client_approved",
    "client_refused",
    "client_trusted",
    "client_untrusted",
    "client_decision_lapsed",
    "client_blocked",
    "client_unblocked",
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
    "person_blocked",
    "person_unblocked",
    "person_signed_out",
    "console_signed_in",
    "console_signed_out",
    "console_refused",
    "key_added",
    "key_retired",
    "clock_accepted",
    "configuration_loaded",
    "configuration_reloaded",
    "configuration_refused",
    "audit_exported",
    "audit_left_out",
    "audit_trimmed",
    "audit_line_refused",
    "backup_made",
    "backup_restored",
    "database_went_back",
];

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client, at an endpoint for clients.
    Client,
    /// A person in a browser.
    Person,
    /// An administrator, by our `sub`.
    Admin(String),
    /// The identity provider.
    Provider,
    /// The server itself.
    Server,
    /// Somebody at a shell of this machine.
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

/// Something that happened.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// Sorts by time, and within this process by order.
    pub id: String,
    /// Unix milliseconds.
    pub at: i64,
    /// What happened; documented in `docs/operations.md`.
    pub event: &'static str,
    /// Who did it.
    pub actor: Actor,
    /// The client concerned.
    pub client_id: Option<String>,
    /// The person concerned, by our `sub`.
    pub subject: Option<String>,
    /// The MCP server concerned.
    pub resource: Option<String>,
    /// The grant concerned.
    pub grant_id: Option<String>,
    /// The number that a page showed.
    pub reference: Option<String>,
    /// Everything else.
    pub detail: Map<String, Value>,
    /// One of a flood: the trail would fill the database.
    pub log_only: bool,
}

fn new_event_id(at: i64) -> String {
    static ORDER: AtomicU32 = AtomicU32::new(0);
    let order = ORDER.fetch_add(1, Ordering::Relaxed);
    let random = u64::from_be_bytes(random_bytes::<8>()) >> 16;
    format!("{at:012x}{order:08x}{random:012x}")
}

impl AuditEvent {
    /// An event that happens now.
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
        }
    }

    /// The same under another name: what came of it is known only inside a step.
    #[must_use]
    pub fn named(mut self, event: &'static str) -> Self {
        self.event = event;
        self
    }

    /// Another event about the same, right after this one.
    #[must_use]
    pub fn again(mut self, event: &'static str) -> Self {
        self.id = new_event_id(self.at);
        self.event = event;
        self
    }

    /// The client concerned.
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

    /// The MCP server concerned.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// The grant concerned.
    #[must_use]
    pub fn grant(mut self, id: &str) -> Self {
        self.grant_id = Some(id.to_owned());
        self
    }

    /// The number that a page showed.
    #[must_use]
    pub fn reference(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    /// Anything else worth knowing.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// Whether it names neither a person nor a grant, and a client or a person in a browser caused it:
    /// anybody can do that any number of times.
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_none()
            && self.grant_id.is_none()
            && matches!(self.actor, Actor::Client | Actor::Person)
    }

    /// The line for log collectors. Of those that anybody can cause, so many a minute.
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
    fn events_of_one_moment_keep_their_order() {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(1_800_000_000)));

        let ids: Vec<String> =
            (0..100).map(|_| AuditEvent::new("test", Actor::Server, &clock).id).collect();

        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
