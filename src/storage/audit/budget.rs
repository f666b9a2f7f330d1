//! Limits how many audit lines callers can cause. Anonymous callers have a limit per minute, because a
//! flood of their lines must not keep trimming busy. Each person has a limit per hour, because the oldest
//! lines go when the trail is full, and nobody may push out the traces of others. Lines beyond a limit
//! are only logged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::telemetry::audit::{Actor, AuditEvent};
use parking_lot::{Mutex, MutexGuard};

/// Lines of anonymous callers per minute and process: 6000. Enough for a hundred logins that begin each
/// second.
const OF_NOBODY: u32 = 6_000;
const MINUTE_MILLIS: i64 = 60_000;
/// Lines of one person per hour and process: 2000. Enough for forty connections that refresh every two
/// minutes.
const OF_A_PERSON: u32 = 2_000;
const HOUR_MILLIS: i64 = 3_600_000;
/// Most people counted at a time, to bound memory. Beyond it, all counts restart.
const PEOPLE: usize = 200_000;
/// Events that people and their clients can cause any number of times. Events that end something are not
/// among them, so they are always stored.
const FREQUENT: &[&str] = &[
    "access_denied",
    "code_issued",
    "code_redeemed",
    "consent_remembered",
    "console_refused",
    "console_signed_in",
    "login_held",
    "person_is_blocked",
    "refresh_grace_replayed",
    "refresh_rotated",
    "step_up_refused",
    "tool_refused",
    "wait_cancelled",
];

/// Counts the lines of the current minute and hour.
pub(crate) struct LineBudget {
    /// `false` in load tests, in which few people cause many lines.
    counts_people: AtomicBool,
    counted: Mutex<LinesOfPeriod>,
}

#[derive(Default)]
struct LinesOfPeriod {
    minute: i64,
    of_nobody: u32,
    hour: i64,
    of_people: HashMap<String, u32>,
    left_out: u64,
}

impl Default for LineBudget {
    fn default() -> Self {
        Self { counts_people: AtomicBool::new(true), counted: Mutex::default() }
    }
}

impl LineBudget {
    /// Returns whether the line of this event may be stored, and counts it.
    pub(super) fn allows(&self, event: &AuditEvent) -> bool {
        let allows = if event.is_anonymous() {
            self.lock().takes_of_nobody(event.at)
        } else {
            match &event.subject {
                Some(subject) if self.counts(event) => {
                    self.lock().takes_of_a_person(subject, event.at)
                }
                _ => true,
            }
        };
        if !allows {
            self.lock().left_out += 1;
        }
        allows
    }

    /// Takes back that the line of this event was counted, because the event has not happened.
    pub(super) fn give_back(&self, event: &AuditEvent) {
        let mut counted = self.lock();
        if event.is_anonymous() {
            counted.of_nobody = counted.of_nobody.saturating_sub(1);
        } else if let Some(subject) = event.subject.as_ref().filter(|_| self.counts(event))
            && let Some(lines) = counted.of_people.get_mut(subject)
        {
            *lines = lines.saturating_sub(1);
        }
    }

    fn counts(&self, event: &AuditEvent) -> bool {
        matches!(event.actor, Actor::Client | Actor::Person)
            && FREQUENT.contains(&event.event)
            && self.counts_people.load(Ordering::Relaxed)
    }

    pub(super) fn count_people(&self, counts: bool) {
        self.counts_people.store(counts, Ordering::Relaxed);
    }

    pub(super) fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.lock().left_out)
    }

    fn lock(&self) -> MutexGuard<'_, LinesOfPeriod> {
        self.counted.lock()
    }
}

impl LinesOfPeriod {
    fn takes_of_nobody(&mut self, at: i64) -> bool {
        let minute = at.div_euclid(MINUTE_MILLIS);
        if self.minute != minute {
            (self.minute, self.of_nobody) = (minute, 0);
        }
        let takes = self.of_nobody < OF_NOBODY;
        self.of_nobody += u32::from(takes);
        takes
    }

    fn takes_of_a_person(&mut self, subject: &str, at: i64) -> bool {
        let hour = at.div_euclid(HOUR_MILLIS);
        if self.hour != hour || self.of_people.len() >= PEOPLE {
            (self.hour, self.of_people) = (hour, HashMap::new());
        }
        let Some(lines) = self.of_people.get_mut(subject) else {
            self.of_people.insert(subject.to_owned(), 1);
            return true;
        };
        let takes = *lines < OF_A_PERSON;
        *lines += u32::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::telemetry::audit::EVENTS;

    #[test]
    fn a_minute_has_room_for_so_many_and_what_is_beyond_is_counted() {
        let hand = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let clock = Clock::Manual(hand.clone());
        let event = || AuditEvent::new("consent_denied", Actor::Person, &clock);
        let lines = LineBudget::default();
        assert!((0..OF_NOBODY).all(|_| lines.allows(&event())));
        assert!((0..7).all(|_| !lines.allows(&event())));
        assert_eq!((lines.take_left_out(), lines.take_left_out()), (7, 0));
        hand.advance(60);
        assert!(lines.allows(&event()));
        assert!((1..OF_NOBODY).all(|_| lines.allows(&event())));
        lines.give_back(&event());
        assert!(lines.allows(&event()) && !lines.allows(&event()));
    }

    #[test]
    fn a_person_who_refreshes_without_a_pause_leaves_the_trail_to_others() {
        let hand = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let clock = Clock::Manual(hand.clone());
        let event =
            |name, subject: &str| AuditEvent::new(name, Actor::Client, &clock).subject(subject);
        let lines = LineBudget::default();
        let stored = (0..5000).filter(|_| lines.allows(&event("refresh_rotated", "loud"))).count();
        assert_eq!((stored, lines.take_left_out()), (2000, 3000));
        assert!(lines.allows(&event("refresh_rotated", "other")));
        lines.give_back(&event("refresh_rotated", "loud"));
        assert!(lines.allows(&event("refresh_rotated", "loud")));
        assert!(!lines.allows(&event("refresh_rotated", "loud")));
        for end in ["refresh_reused", "grant_revoked", "access_lost"] {
            assert!(lines.allows(&event(end, "loud")), "{end}");
        }
        let admin = AuditEvent::new("tool_refused", Actor::Admin("loud".to_owned()), &clock);
        assert!(lines.allows(&admin.subject("loud")), "administrators' acts are never left out");
        hand.advance(3600);
        assert!(lines.allows(&event("refresh_rotated", "loud")));
        assert!(FREQUENT.iter().all(|event| EVENTS.contains(event)));
    }
}
