//! Audit events that change nothing and that anybody can cause: refused requests, pages with a
//! reference. They are stored soon after, so many a minute and no more: a flood must not fill the
//! database or hold up anybody who waits. The log has every one of them.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::App;
use crate::storage::SETTLED_AT_ONCE;
use crate::telemetry::audit::{Actor, AuditEvent};

/// Waiting to be stored; what does not fit is in the log only.
const QUEUE: usize = 1000;
/// Stored within a minute.
const A_MINUTE: usize = 300;
/// Stored in one step.
const BATCH: usize = 100;
/// How long lines wait to be chained.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) struct Notes {
    sender: mpsc::Sender<AuditEvent>,
    receiver: Mutex<mpsc::Receiver<AuditEvent>>,
}

impl Default for Notes {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

/// How many were stored within the present minute.
#[derive(Default)]
struct Budget {
    minute: i64,
    stored: usize,
    left_out: usize,
}

impl App {
    /// Tells of something that changed nothing: to the log at once, to the audit trail soon and within
    /// bounds. Costs the caller nothing.
    pub fn note(&self, event: AuditEvent) {
        self.tell(&event);
        if self.0.shared.notes.sender.try_send(event).is_err() {
            self.metrics().audit_failed(1);
        }
    }

    /// Stores notes and chains the audit trail until `stop` is ready; then what still waits, and ends.
    pub async fn keep_audit_trail(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut receiver = self.0.shared.notes.receiver.lock().await;
        let mut budget = Budget::default();
        let mut settled = Instant::now();
        loop {
            let mut notes = Vec::new();
            let more = receiver.recv_many(&mut notes, BATCH);
            let stopped = tokio::select! {
                _ = tokio::time::timeout_at(settled + SETTLE, more) => false,
                () = &mut stop => true,
            };
            self.store_notes(notes, &mut budget).await;
            if stopped {
                break;
            }
            if settled.elapsed() >= SETTLE {
                settled = Instant::now();
                self.settle_audit_trail(SETTLED_AT_ONCE).await;
            }
        }
        let mut notes = Vec::new();
        while let Ok(note) = receiver.try_recv() {
            notes.push(note);
        }
        self.store_notes(notes, &mut budget).await;
        budget.minute = -1; // over: what was left out is told now
        self.store_notes(Vec::new(), &mut budget).await;
        self.settle_audit_trail(1).await;
    }

    /// Chains the lines that are stored by now, until there are fewer than `worth_it` at once: while
    /// many write there is always another one, and it is cheapest in company.
    async fn settle_audit_trail(&self, worth_it: u64) {
        loop {
            match self.storage().settle_audit().await {
                Ok(settled) if settled < worth_it => return,
                Ok(_) => {}
                Err(cause) => {
                    tracing::warn!(%cause, "the audit trail is not chained yet; it is tried again");
                    return;
                }
            }
        }
    }

    async fn store_notes(&self, notes: Vec<AuditEvent>, budget: &mut Budget) {
        let minute = self.now().unix() / 60;
        let mut stored: Vec<AuditEvent> = Vec::new();
        if minute != budget.minute {
            if budget.left_out > 0 {
                let event = self.event("audit_left_out", Actor::Server);
                stored.push(event.with("events", budget.left_out));
            }
            *budget = Budget { minute, ..Budget::default() };
        }
        let room = A_MINUTE.saturating_sub(budget.stored);
        let beyond = notes.len().saturating_sub(room);
        budget.left_out += beyond;
        self.metrics().audit_failed(beyond);
        let notes = notes.into_iter().take(room);
        budget.stored += notes.len();
        stored.extend(notes);
        if stored.is_empty() {
            return;
        }
        if let Err(cause) = self.storage().note(&stored).await {
            self.metrics().audit_failed(stored.len());
            tracing::warn!(%cause, "audit events are in the log only");
        }
    }
}
