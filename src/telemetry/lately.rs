//! Reports whether a counter has risen recently: a problem is reported for some minutes after it was noticed,
//! and not for ever.

use std::time::Duration;

use crate::clock::Timestamp;
use parking_lot::Mutex;

/// How long a rise counts as recent.
const LATELY: Duration = Duration::from_mins(5);

/// The last known count, and when its latest rise was noticed.
#[derive(Default)]
pub(super) struct Lately(Mutex<(u64, Option<Timestamp>)>);

impl Lately {
    /// Returns whether `count` has risen recently, and stores it.
    pub(super) fn has_risen(&self, count: u64, now: Timestamp) -> bool {
        let mut known = self.0.lock();
        if count > known.0 {
            *known = (count, Some(now));
        }
        known.1.is_some_and(|at| now < at || now.since(at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_risen_lately_for_five_minutes_after_somebody_noticed() {
        let at = |seconds: i64| Timestamp::from_unix(1_800_000_000 + seconds);
        let lately = Lately::default();
        assert!(!lately.has_risen(0, at(0)));
        assert!(lately.has_risen(2, at(1000)));
        assert!(lately.has_risen(2, at(1299)));
        assert!(lately.has_risen(2, at(900)), "a clock that was set back makes nothing forgotten");
        assert!(!lately.has_risen(2, at(1300)));
        assert!(lately.has_risen(3, at(1400)));
    }
}
