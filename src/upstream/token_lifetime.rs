//! When an access token has to be renewed.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;

/// A token is renewed when less than 60 s are left, so that it is still good when the service reads it. Some
/// providers issue tokens for a minute: there it is half of the lifetime.
const LEAST_LEFT: Duration = Duration::from_mins(1);

/// How long the tokens of each service live, as it last said. A token's row tells only its end.
#[derive(Default)]
pub struct LearnedLifetimes(Mutex<BTreeMap<String, Duration>>);

impl LearnedLifetimes {
    /// Remembers the lifetime that a token of this service had.
    pub fn learn(&self, service: &str, lifetime: Option<Duration>) {
        if let Some(lifetime) = lifetime {
            self.0.lock().insert(service.to_owned(), lifetime);
        }
    }

    /// Returns whether a token of this service that ends at `until` is good for one more call. `None`: it
    /// does not end.
    pub fn is_fresh(&self, service: &str, until: Option<Timestamp>, now: Timestamp) -> bool {
        let Some(until) = until else { return true };
        now.plus(self.least_left(service)) < until
    }

    fn least_left(&self, service: &str) -> Duration {
        let known = self.0.lock().get(service).copied();
        known.map_or(LEAST_LEFT, |lifetime| LEAST_LEFT.min(lifetime / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_a_minute_before_its_end_or_at_half_of_a_short_life() {
        let lifetimes = LearnedLifetimes::default();
        let (now, at) = (Timestamp::from_unix(1000), Timestamp::from_unix);
        let fresh = |until: Option<i64>| lifetimes.is_fresh("calendar", until.map(at), now);
        assert!(fresh(None));
        assert!(fresh(Some(1061)));
        assert!(!fresh(Some(1060)));
        lifetimes.learn("calendar", Some(Duration::from_hours(1)));
        assert!(!fresh(Some(1060)));
        lifetimes.learn("calendar", Some(Duration::from_mins(1)));
        assert!(fresh(Some(1031)));
        assert!(!fresh(Some(1030)));
        lifetimes.learn("calendar", None);
        assert!(fresh(Some(1031)), "an answer that names none changes nothing");
        assert!(!lifetimes.is_fresh("other", Some(at(1031)), now));
    }
}
