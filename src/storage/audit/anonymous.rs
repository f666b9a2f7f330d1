//! How many lines of the trail anonymous callers can cause in a minute: a flood of them must not keep the
//! clean-up busy. The log has the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::telemetry::audit::AuditEvent;

/// Lines a minute, of each process: more than a hundred sign-ins begin in a second.
const A_MINUTE: u32 = 6_000;
const MINUTE_MILLIS: i64 = 60_000;

/// The lines of the present minute.
#[derive(Default)]
pub(in crate::storage) struct AnonymousLines(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    minute: i64,
    stored: u32,
    left_out: u64,
}

impl AnonymousLines {
    /// Whether the line of this event may be stored; if so, it counts.
    pub(super) fn allows(&self, event: &AuditEvent) -> bool {
        let mut counted = self.lock();
        let minute = event.at.div_euclid(MINUTE_MILLIS);
        if counted.minute != minute {
            (counted.minute, counted.stored) = (minute, 0);
        }
        if counted.stored >= A_MINUTE {
            counted.left_out += 1;
            return false;
        }
        counted.stored += 1;
        true
    }

    pub(super) fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.lock().left_out)
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::telemetry::audit::Actor;

    #[test]
    fn a_minute_has_room_for_so_many_and_what_is_beyond_is_counted() {
        let hand = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let clock = Clock::Manual(hand.clone());
        let event = || AuditEvent::new("consent_denied", Actor::Person, &clock);
        let lines = AnonymousLines::default();
        assert!((0..A_MINUTE).all(|_| lines.allows(&event())));
        assert!((0..7).all(|_| !lines.allows(&event())));
        assert_eq!((lines.take_left_out(), lines.take_left_out()), (7, 0));
        hand.advance(60);
        assert!(lines.allows(&event()));
    }
}
