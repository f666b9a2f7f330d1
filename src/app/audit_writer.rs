//! Writes audit events that accompany no change and that anybody can cause: refused requests, and error pages
//! with a reference. They are queued and stored soon after, at a limited rate, so that a flood neither fills
//! the database nor delays a request. Events without a person share one budget, and each person has a budget
//! of their own: so a flood of either kind displaces no events of others. Dropped events are counted.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex as Lock, MutexGuard};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::{App, together};
use crate::storage::SETTLED_AT_ONCE;
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::LogThrottle;

/// Most events that wait to be stored. The queue lasts for some minutes of database outage.
const QUEUE: usize = 4096;
/// Most events without a person that are stored per minute. Anybody can cause them.
const OF_NOBODY: usize = 300;
/// Most events of one person that are stored per minute, so that nobody displaces the events of others.
const OF_A_PERSON: usize = 60;
/// Most events of all people together that are stored per minute.
const OF_PEOPLE: usize = 3000;
/// Most events that are stored in one transaction.
const BATCH: usize = 100;
/// Interval between two runs that add stored lines to the hash chain.
const SETTLE: Duration = Duration::from_secs(1);

static NOT_STORED: LogThrottle = LogThrottle::new();
static NOT_CHAINED: LogThrottle = LogThrottle::a_minute();
static NOT_CUT_BACK: LogThrottle = LogThrottle::a_minute();

pub(super) struct AuditWriter {
    sender: mpsc::Sender<AuditEvent>,
    receiver: Mutex<mpsc::Receiver<AuditEvent>>,
    budget: Lock<Budget>,
}

impl Default for AuditWriter {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: Mutex::new(receiver), budget: Lock::default() }
    }
}

/// The budgets of the current minute.
#[derive(Default)]
struct Budget {
    minute: i64,
    of_nobody: usize,
    of_people: usize,
    of_a_person: HashMap<String, usize>,
    /// Events dropped since the last `audit_left_out`.
    left_out: usize,
}

impl Budget {
    /// Returns whether the budgets allow this event; if so, counts it.
    fn takes(&mut self, event: &AuditEvent, minute: i64) -> bool {
        if self.minute != minute {
            *self = Self { minute, left_out: self.left_out, ..Self::default() };
        }
        let takes = match &event.subject {
            None => take(&mut self.of_nobody, OF_NOBODY),
            Some(subject) => {
                let known = self.of_a_person.get_mut(subject);
                let of_this_one = match known {
                    Some(of_this_one) => of_this_one,
                    None => self.of_a_person.entry(subject.clone()).or_default(),
                };
                *of_this_one < OF_A_PERSON
                    && take(&mut self.of_people, OF_PEOPLE)
                    && take(of_this_one, OF_A_PERSON)
            }
        };
        if !takes {
            self.left_out += 1;
        }
        takes
    }
}

/// Takes one unit of a budget, if one is left.
fn take(taken: &mut usize, most: usize) -> bool {
    let room = *taken < most;
    *taken += usize::from(room);
    room
}

impl App {
    /// Logs an event that accompanies no change, and queues it for the audit trail if the budgets allow.
    /// Never waits.
    pub fn record_soon(&self, event: AuditEvent) {
        self.log_event(&event);
        let mut budget = self.budget();
        if !budget.takes(&event, self.now().unix() / 60) {
            self.metrics().audit_failed(1);
        } else if self.0.shared.notes.sender.try_send(event).is_err() {
            budget.left_out += 1;
            self.metrics().audit_failed(1);
        }
    }

    /// Returns the number of queued events that are not stored yet.
    pub fn audit_events_waiting(&self) -> usize {
        let queue = &self.0.shared.notes.sender;
        queue.max_capacity() - queue.capacity()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.shared.notes.budget.lock()
    }

    /// Stores queued events and adds stored lines to the hash chain until `stop` is ready. Then stores what
    /// is still queued, and returns. Also compares this replica with the others.
    pub async fn keep_audit_trail(&self, stop: impl Future<Output = ()>) {
        panic_point!("audit trail");
        let mut stop = std::pin::pin!(stop);
        let mut receiver = self.0.shared.notes.receiver.lock().await;
        let mut told_minute = self.now().unix() / 60;
        let (mut settled, mut reported) = (Instant::now(), Instant::now());
        loop {
            let mut notes = Vec::new();
            let more = receiver.recv_many(&mut notes, BATCH);
            let stopped = tokio::select! {
                _ = tokio::time::timeout_at(settled + SETTLE, more) => false,
                () = &mut stop => true,
            };
            self.store_notes(notes).await;
            if stopped {
                break;
            }
            let minute = self.now().unix() / 60;
            if minute != told_minute {
                told_minute = minute;
                self.tell_left_out().await;
            }
            if settled.elapsed() >= SETTLE {
                settled = Instant::now();
                // Checked before anything is added to the chain, because the database may have gone back in
                // time.
                if let Err(cause) = self.storage().look_back(self.clock()).await {
                    tracing::debug!(%cause, "what was seen of the database is not compared");
                }
                self.settle_audit_trail(SETTLED_AT_ONCE).await;
            }
            if reported.elapsed() >= together::REPORT {
                reported = Instant::now();
                if let Err(cause) = self.current().compare_with_replicas().await {
                    tracing::debug!(%cause, "this replica is not compared with the others");
                }
            }
        }
        let mut notes = Vec::new();
        while let Ok(note) = receiver.try_recv() {
            notes.push(note);
        }
        self.store_notes(notes).await;
        self.tell_left_out().await;
        self.settle_audit_trail(1).await;
        self.withdraw().await;
    }

    /// Adds the stored lines to the hash chain until a run finds fewer than `worth_it` lines. Under steady
    /// writes there are always more lines, and large runs are cheaper. Then trims the trail to its size
    /// limit.
    async fn settle_audit_trail(&self, worth_it: u64) {
        loop {
            match self.storage().settle_audit_and_tell(self.clock()).await {
                Ok(settled) if settled < worth_it => break,
                Ok(_) => {}
                Err(cause) => {
                    if let Some(left_out) = NOT_CHAINED.admit() {
                        tracing::warn!(
                            %cause,
                            left_out,
                            "the audit trail is not chained yet; it is tried again"
                        );
                    }
                    break;
                }
            }
        }
        if let Err(cause) = self.storage().trim_audit(self.clock()).await
            && let Some(left_out) = NOT_CUT_BACK.admit()
        {
            tracing::warn!(
                %cause,
                left_out,
                "the audit trail is not cut back to its size; it is tried again"
            );
        }
    }

    /// Stores events in two transactions: when the database is nearly full, it refuses events without a
    /// person earlier than those of people.
    async fn store_notes(&self, notes: Vec<AuditEvent>) {
        let (of_nobody, of_people): (Vec<_>, Vec<_>) =
            notes.into_iter().partition(AuditEvent::is_anonymous);
        for notes in [of_people, of_nobody].iter().filter(|notes| !notes.is_empty()) {
            let Err(cause) = self.storage().note(notes).await else { continue };
            self.metrics().audit_failed(notes.len());
            self.budget().left_out += notes.len();
            if let Some(left_out) = NOT_STORED.admit() {
                tracing::warn!(%cause, left_out, "audit events are in the log only");
            }
        }
    }

    /// Records in the audit trail how many events it lacks.
    async fn tell_left_out(&self) {
        let left_out = std::mem::take(&mut self.budget().left_out);
        let anonymous = usize::try_from(self.storage().take_left_out()).unwrap_or(usize::MAX);
        self.metrics().audit_failed(anonymous);
        let events = left_out.saturating_add(anonymous);
        if events == 0 {
            return;
        }
        let event = self.event("audit_left_out", Actor::Server).with("events", events);
        if let Err(cause) = self.storage().record(vec![event]).await {
            self.budget().left_out += events;
            tracing::warn!(%cause, events, "audit events are in the log only");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn nobody_pushes_out_what_others_did() {
        let event = AuditEvent::new("tool_refused", Actor::Client, &Clock::System);
        let mut budget = Budget::default();
        let mut taken = |event: &AuditEvent, times: usize, minute: i64| {
            (0..times).filter(|_| budget.takes(event, minute)).count()
        };
        assert_eq!(taken(&event, 1000, 7), OF_NOBODY);
        assert_eq!(taken(&event.clone().subject("one"), 1000, 7), OF_A_PERSON);
        assert_eq!(taken(&event.clone().subject("two"), 1, 7), 1);
        for n in 0..100 {
            taken(&event.clone().subject(&n.to_string()), OF_A_PERSON, 7);
        }
        assert_eq!(taken(&event.clone().subject("late"), 1, 7), 0, "and still there is a bound");
        assert_eq!(taken(&event.clone().subject("late"), 1, 8), 1);
    }
}
