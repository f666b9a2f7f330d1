//! Audit events that accompany no change and that may happen at each call of a program: one line a period tells as
//! much as a thousand. The metrics count all of them.

use std::time::Duration;

use parking_lot::Mutex as Lock;
use quick_cache::unsync::Cache;

use super::App;
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

/// Most keys that are remembered. With more, a line may be written twice in a period.
const REMEMBERED: usize = 16 * 1024;

/// When the last event with each key was recorded.
pub(super) struct Seldom(Lock<Cache<String, Timestamp>>);

impl Default for Seldom {
    fn default() -> Self {
        Self(Lock::new(Cache::new(REMEMBERED)))
    }
}

impl Seldom {
    /// Returns whether no event with this key was recorded within `period`; if so, notes one.
    fn admits(&self, key: String, period: Duration, now: Timestamp) -> bool {
        let mut last = self.0.lock();
        let is_recent = last.get(&key).is_some_and(|last| *last <= now && now < last.plus(period));
        if !is_recent {
            last.insert(key, now);
        }
        !is_recent
    }
}

impl App {
    /// Like [`App::record_soon`], but drops the event if this process recorded one of the same name and `key`
    /// within `period`.
    pub fn record_seldom(&self, event: AuditEvent, key: &str, period: Duration) {
        let key = format!("{} {key}", event.event);
        if self.0.shared.seldom.admits(key, period, self.now()) {
            self.record_soon(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_for_each_key_however_the_clock_moves() {
        let (seldom, minute) = (Seldom::default(), Duration::from_mins(1));
        let admits =
            |key: &str, now| seldom.admits(key.to_owned(), minute, Timestamp::from_unix(now));
        assert!(admits("a", 1000));
        assert!(!admits("a", 1000));
        assert!(!admits("a", 1059));
        assert!(admits("b", 1059), "each key has a period of its own");
        assert!(admits("a", 1060));
        assert!(admits("a", 500), "the clock was set back");
        assert!(!admits("a", 501));
    }
}
