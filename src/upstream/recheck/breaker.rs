//! How the provider has answered of late, and leaving it alone while it is in trouble.

use std::time::Duration;

use crate::clock::Timestamp;
use parking_lot::{Mutex, MutexGuard};

/// Leaves a provider in trouble alone: after each failure twice as long, so that people do not wait
/// for its silence and it is not buried in questions when it comes back.
#[derive(Default)]
pub(in crate::upstream) struct Breaker {
    failing: Mutex<Option<Failing>>,
    seen: Mutex<Health>,
}

/// How the provider has answered since the start.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// It is left alone for a moment after failures.
    pub paused: bool,
    /// Its last usable answer.
    pub last_success: Option<Timestamp>,
    /// Its last failure, and what it was.
    pub last_error: Option<(Timestamp, String)>,
    /// Its last login brought no refresh token.
    pub without_refresh: bool,
}

#[derive(Clone, Copy)]
struct Failing {
    until: Timestamp,
    pause: Duration,
}

impl Breaker {
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);

    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        // A pause that is longer than it was made is one of before the clock went back.
        self.state()
            .is_some_and(|failing| now < failing.until && failing.until.since(now) <= failing.pause)
    }

    /// How the provider has answered.
    pub(in crate::upstream) fn health(&self, now: Timestamp) -> Health {
        Health { paused: self.is_open(now), ..self.seen().clone() }
    }

    /// Notes a usable answer that is no re-check: discovery, a login.
    pub(in crate::upstream) fn succeeded(&self, now: Timestamp) {
        self.seen().last_success = Some(now);
    }

    /// Notes whether a login brought a refresh token.
    pub(in crate::upstream) fn login(&self, now: Timestamp, without_refresh: bool) {
        self.answered(now);
        self.seen().without_refresh = without_refresh;
    }

    /// Notes a failure that does not pause anything.
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

    pub(super) fn answered(&self, now: Timestamp) {
        *self.state() = None;
        self.succeeded(now);
    }

    fn state(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock()
    }
}
