//! Which clients can show their person a link (URL mode elicitation), and how each of them wants to be asked.
//!
//! Since MCP 2026-07-28 a client states it with each request. In 2025-11-25 it states it once, at `initialize`:
//! that is remembered in memory, by session. A call of a session that this process does not know, because of a
//! restart or another replica, gets the link in a text, which every client shows.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use axum::http::HeaderValue;
use parking_lot::Mutex as Lock;
use serde_json::Value;

use super::messages::method;

/// The capability, where MCP 2026-07-28 states it.
const IN_REQUEST: &str =
    "/params/_meta/io.modelcontextprotocol~1clientCapabilities/elicitation/url";
/// The capability, where MCP 2025-11-25 states it.
const AT_INITIALIZE: &str = "/params/capabilities/elicitation/url";
/// Sessions that are remembered before the older half is forgotten: 8,192, which is some 200 KiB.
const MOST: usize = 8192;

/// How a client learns that its person has to open a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkShape {
    /// By a result with `resultType` `input_required` (MCP 2026-07-28).
    InputRequired,
    /// By the error -32042 (MCP 2025-11-25).
    UrlError,
    /// By a text, for all other clients.
    Text,
}

impl LinkShape {
    /// Returns how the client that sent this request in this session wants to be asked. `session` is the sealed id,
    /// if the request has one.
    pub(super) fn of(
        session: Option<&HeaderValue>,
        message: &Value,
        sessions: &UrlSessions,
    ) -> Self {
        if message.pointer(IN_REQUEST).is_some_and(Value::is_object) {
            return Self::InputRequired;
        }
        if session.is_some_and(|session| sessions.knows(session)) {
            Self::UrlError
        } else {
            Self::Text
        }
    }
}

/// Whether this `initialize` request says that the client can show links.
pub(super) fn is_stated_at_initialize(message: &Value) -> bool {
    method(message) == Some("initialize")
        && message.pointer(AT_INITIALIZE).is_some_and(Value::is_object)
}

/// The sessions whose clients can show links, as hashes of their sealed ids. A sealed id is of no use to
/// another caller, so it is remembered without one.
#[derive(Default)]
pub(super) struct UrlSessions {
    hasher: RandomState,
    sessions: Lock<Generations>,
}

/// A session that is used moves to the younger half.
#[derive(Default)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Generations {
    fn add(&mut self, session: u64) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session);
    }
}

impl UrlSessions {
    /// Remembers a session by its sealed id.
    pub(super) fn remember(&self, session: &HeaderValue) {
        let session = self.hasher.hash_one(session.as_bytes());
        self.sessions.lock().add(session);
    }

    /// Whether a session is remembered, by its sealed id.
    fn knows(&self, session: &HeaderValue) -> bool {
        let session = self.hasher.hash_one(session.as_bytes());
        let mut sessions = self.sessions.lock();
        if sessions.young.contains(&session) {
            return true;
        }
        let is_old = sessions.old.remove(&session);
        if is_old {
            sessions.add(session);
        }
        is_old
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sealed(session: usize) -> HeaderValue {
        format!("sealed-{session}").parse().unwrap()
    }

    #[test]
    fn each_client_is_asked_in_the_way_that_it_stated() {
        let sessions = UrlSessions::default();
        sessions.remember(&sealed(1));
        let call = |capabilities: Value| {
            json!({ "id": 1, "method": "tools/call", "params": { "name": "x", "_meta": {
                "io.modelcontextprotocol/clientCapabilities": capabilities } } })
        };
        let with_url = call(json!({ "elicitation": { "url": {} } }));
        for (session, message, asking) in [
            (2, &with_url, LinkShape::InputRequired),
            (1, &with_url, LinkShape::InputRequired),
            (1, &call(json!({})), LinkShape::UrlError),
            (2, &call(json!({})), LinkShape::Text),
            (2, &call(json!({ "elicitation": {} })), LinkShape::Text),
            (2, &call(json!({ "elicitation": { "form": {} } })), LinkShape::Text),
            (2, &call(json!({ "elicitation": { "url": false } })), LinkShape::Text),
            (2, &call(json!("elicitation")), LinkShape::Text),
        ] {
            assert_eq!(
                LinkShape::of(Some(&sealed(session)), message, &sessions),
                asking,
                "{message}"
            );
        }
        assert_eq!(LinkShape::of(None, &call(json!({})), &sessions), LinkShape::Text);
    }

    #[test]
    fn the_memory_of_sessions_is_bounded_and_keeps_those_in_use() {
        let sessions = UrlSessions::default();
        for session in 0..5 * MOST {
            sessions.remember(&sealed(session));
            if session % (MOST / 2) == 0 {
                assert!(sessions.knows(&sealed(0)), "a session in use after {session} others");
            }
        }
        assert!(sessions.knows(&sealed(5 * MOST - 1)));
        assert!(!sessions.knows(&sealed(1)), "the oldest is forgotten");
        let known = sessions.sessions.lock();
        assert!(known.young.len() + known.old.len() <= 2 * MOST);
    }

    #[test]
    fn only_initialize_states_it_for_a_session() {
        let stated = |method: &str, capabilities: Value| {
            let params = json!({ "capabilities": capabilities });
            is_stated_at_initialize(&json!({ "id": 1, "method": method, "params": params }))
        };
        assert!(stated("initialize", json!({ "elicitation": { "form": {}, "url": {} } })));
        assert!(!stated("initialize", json!({ "elicitation": {} })));
        assert!(!stated("initialize", json!({ "elicitation": { "url": null } })));
        assert!(!stated("tools/call", json!({ "elicitation": { "url": {} } })));
    }
}
