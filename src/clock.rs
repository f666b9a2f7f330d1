//! The clock. This is the only module that reads the system time; other code gets the time passed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the clocks of replicas may differ: a minute. So a record that another replica has just stored or
/// signed may be dated up to this far in the future.
pub const REPLICAS_APART: Duration = Duration::from_mins(1);

/// A moment in whole seconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `seconds` after the Unix epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// Returns the time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment `duration` later, in whole seconds.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` earlier, in whole seconds.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// The source of time: the system, or a clock that tests move.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's wall clock.
    #[default]
    System,
    /// A clock for tests, which moves only when it is told to.
    Manual(ManualClock),
}

impl Clock {
    /// Returns the current time in whole seconds.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.unix_millis() / 1000)
    }

    /// Nanoseconds of the system's clock since the Unix epoch, whatever a test's clock shows: for traces, in
    /// which only real time means anything.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn real_nanos() -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the Unix epoch; used to order ids, never to decide expiry.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn unix_millis(&self) -> i64 {
        match self {
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
            }
            Self::Manual(clock) => clock.now().unix().saturating_mul(1000),
        }
    }
}

/// A clock that tests move. Clones share the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Creates a clock that shows `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.unix())))
    }

    /// Returns the time that the clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves the clock by `seconds`, backwards if negative.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::at(Timestamp::from_unix(1_000));
        let shared = Clock::Manual(clock.clone());

        clock.advance(60);

        assert_eq!(shared.now(), Timestamp::from_unix(1_060));
    }

    #[test]
    fn time_before_a_moment_is_no_time_since_it() {
        let later = Timestamp::from_unix(10);

        assert_eq!(Timestamp::from_unix(5).since(later), Duration::ZERO);
    }
}
