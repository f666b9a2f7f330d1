//! What the gateway last saw of the MCP servers behind it. Every process sees its own calls only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex as Lock;

use super::App;
use crate::clock::Timestamp;

/// Whether an MCP server can be reached, as far as calls have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// No call has reached the gateway since the start.
    Unknown,
    /// The last call was answered.
    Up(Timestamp),
    /// The last call failed.
    Down(Timestamp),
}

/// When an MCP server last answered, and when a call last failed there.
#[derive(Debug, Default)]
pub struct TargetSeen {
    /// Unix seconds; 0: never.
    answered_at: AtomicI64,
    failed_at: AtomicI64,
}

impl TargetSeen {
    /// Notes the end of a call.
    pub fn note(&self, answered: bool, now: Timestamp) {
        let (noted, other) = if answered {
            (&self.answered_at, &self.failed_at)
        } else {
            (&self.failed_at, &self.answered_at)
        };
        // Written once a second only, because all cores share it.
        if noted.load(Ordering::Relaxed) != now.unix() {
            noted.store(now.unix(), Ordering::Relaxed);
        }
        // The later call counts, also within one second.
        if other.load(Ordering::Relaxed) >= now.unix() {
            other.store(now.unix() - 1, Ordering::Relaxed);
        }
    }

    /// Returns what is known of the MCP server.
    pub fn state(&self) -> TargetState {
        let answered = self.answered_at.load(Ordering::Relaxed);
        let failed = self.failed_at.load(Ordering::Relaxed);
        match answered.max(failed) {
            0 => TargetState::Unknown,
            _ if failed > answered => TargetState::Down(Timestamp::from_unix(failed)),
            _ => TargetState::Up(Timestamp::from_unix(answered)),
        }
    }
}

/// The MCP servers that the gateway has fronted since the start, by resource. A few for each configuration.
#[derive(Default)]
pub(super) struct Targets(Lock<HashMap<String, Arc<TargetSeen>>>);

impl App {
    /// Returns what was seen of an MCP server. All configurations of this process share it.
    pub fn target_seen(&self, resource: &str) -> Arc<TargetSeen> {
        let mut targets = self.0.shared.targets.0.lock();
        Arc::clone(targets.entry(resource.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_decides() {
        let at = Timestamp::from_unix;
        let seen = TargetSeen::default();
        assert_eq!(seen.state(), TargetState::Unknown);
        seen.note(true, at(100));
        assert_eq!(seen.state(), TargetState::Up(at(100)));
        seen.note(false, at(100));
        assert_eq!(seen.state(), TargetState::Down(at(100)));
        seen.note(true, at(100));
        assert_eq!(seen.state(), TargetState::Up(at(100)));
        seen.note(false, at(200));
        assert_eq!(seen.state(), TargetState::Down(at(200)));
    }
}
