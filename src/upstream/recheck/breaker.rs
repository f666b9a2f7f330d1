//! Circuit breaker for the identity provider, and the provider's health as observed since the start.

use std::time::Duration;

use crate::clock::Timestamp;
use parking_lot::{Mutex, MutexGuard};

/// Circuit breaker with exponential back-off: the pause doubles after each failure. During a pause people do
/// not wait for timeouts, and a recovering provider does not receive all questions at once.
#[derive(Default)]
pub(in crate::upstream) struct Breaker {
    failing: Mutex<Option<Failing>>,
    seen: Mutex<Health>,
}

/// The provider's health as observed since the start.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The circuit breaker is open after failures: no re-checks are sent.
    pub paused: bool,
    /// Time of the last usable response.
    pub last_success: Option<Timestamp>,
    /// Time and reason of the last failure.
    pub last_error: Option<(Timestamp, String)>,
    /// The last login brought no refresh token.
    pub without_refresh: bool,
}

#[derive(Clone, Copy)]
struct Failing {
    until: Timestamp,
    pause: Duration,
}

impl Breaker {
    /// Pause after the first failure: 1 s.
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    /// Longest pause, 1 minute: a longer one would delay re-checks after the provider has recovered.
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);

    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        // After the system clock was set back, a pause can seem longer than it was set. Such a pause is
        // ignored.
        self.state()
            .is_some_and(|failing| now < failing.until && failing.until.since(now) <= failing.pause)
    }

    /// Returns the provider's health at `now`.
    pub(in crate::upstream) fn health(&self, now: Timestamp) -> Health {
        Health { paused: self.is_open(now), ..self.seen().clone() }
    }

    /// Records a usable response to something other than a re-check, such as discovery. Does not close the
    /// breaker.
    pub(in crate::upstream) fn succeeded(&self, now: Timestamp) {
        self.seen().last_success = Some(now);
    }

    /// Records a login, and whether it brought a refresh token. Closes the breaker. Returns whether the
    /// provider had failed before.
    pub(in crate::upstream) fn login(&self, now: Timestamp, without_refresh: bool) -> bool {
        self.seen().without_refresh = without_refresh;
        self.answered(now)
    }

    /// Records a failure without opening the breaker.
    pub(in crate::upstream) fn troubled(&self, now: Timestamp, reason: &str) {
        self.seen().last_error = Some((now, reason.to_owned()));
    }

    fn seen(&self) -> MutexGuard<'_, Health> {
        self.seen.lock()
    }

    pub(super) fn failed(&self, now: Timestamp, reason: &str) {
        self.troubled(now, reason);
        let mut state = self.state();
        let pause = state.map_or(Self::FIRST_PAUSE, |failing| failing.pause * 2);
        let pause = pause.min(Self::LONGEST_PAUSE);
        *state = Some(Failing { until: now.plus(pause), pause });
    }

    /// Records a definite response, and closes the breaker. Returns whether the provider had failed
    /// before.
    pub(super) fn answered(&self, now: Timestamp) -> bool {
        self.succeeded(now);
        self.state().take().is_some()
    }

    fn state(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock()
    }
}
