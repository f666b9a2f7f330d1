//! Ensures one re-check per session at a time: a mutex within this process, a lease in the database between
//! processes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Recheck;
use super::goal::Goal;
use crate::storage::{Lease, StorageError, UpstreamSession};
use crate::upstream::UpstreamInner;
use crate::upstream::person_queries::RECHECK_WAIT;

/// A lease lasts 15 s unless it is extended. After a crash nobody can re-check the session before the lease
/// has expired, so it must be shorter than the grace period of providers that rotate refresh tokens (Okta:
/// 30 s). It must be longer than the clocks of replicas differ.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// The holder extends the lease every 4 s, so that two extensions in a row may fail.
const LEASE_EXTENDED_EVERY: Duration = Duration::from_secs(4);

/// Outcome of waiting for the process that holds the lease.
#[expect(clippy::large_enum_variant, reason = "it lives for one step")]
pub(super) enum Waited {
    Answered(Recheck),
    /// The holder released the lease or crashed. We hold it now and re-check the session as loaded just now.
    TakenOver(Box<UpstreamSession>),
}

/// Extends a lease in the background until it is dropped.
pub(super) struct LeaseKept(tokio::task::JoinHandle<()>);

impl Drop for LeaseKept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The sessions that this process re-checks now.
#[derive(Default)]
pub(in crate::upstream) struct InFlight(Mutex<HashMap<String, Weak<Asking>>>);

impl InFlight {
    pub(super) async fn of(&self, session_id: &str) -> Arc<Asking> {
        let mut all = self.0.lock().await;
        if let Some(asking) = all.get(session_id).and_then(Weak::upgrade) {
            return asking;
        }
        all.retain(|_, asking| asking.strong_count() > 0);
        let asking = Arc::new(Asking::default());
        all.insert(session_id.to_owned(), Arc::downgrade(&asking));
        asking
    }
}

/// Serializes the re-checks of one session and records whether a request has been sent.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) alone: Mutex<()>,
    /// When the pending request to the provider was sent; `None`: no request is pending.
    sent: watch::Sender<Option<Instant>>,
}

impl Asking {
    /// Records that a request to the provider is sent now. Dropping the returned value clears the record.
    pub(super) fn begins(self: &Arc<Self>) -> PendingQuery {
        let since = Instant::now();
        self.sent.send_replace(Some(since));
        PendingQuery(Arc::clone(self), since)
    }

    /// Waits until the provider has been silent for `silence` and returns `true`. The time counts from now,
    /// or from when the request is sent if that is later (an earlier request may still be pending). Returns
    /// `false` if no request is sent within `RECHECK_WAIT`: then the delay is ours, not the provider's.
    pub(super) async fn is_silent_for(&self, silence: Duration) -> bool {
        let (mut sent, now) = (self.sent.subscribe(), Instant::now());
        let since = tokio::time::timeout(RECHECK_WAIT, sent.wait_for(Option::is_some)).await;
        let since = since.ok().and_then(Result::ok).and_then(|since| *since);
        let Some(since) = since else { return false };
        tokio::time::sleep_until(since.max(now) + silence).await;
        true
    }
}

/// A pending request, and when it was sent.
pub(super) struct PendingQuery(Arc<Asking>, Instant);

impl Drop for PendingQuery {
    fn drop(&mut self) {
        // A later request may have been sent meanwhile; its record stays.
        self.0.sent.send_if_modified(|sent| {
            let is_ours = *sent == Some(self.1);
            if is_ours {
                *sent = None;
            }
            is_ours
        });
    }
}

impl UpstreamInner {
    /// Waits up to 5 s for the result of the process that holds the lease, and takes the lease over when that
    /// process is gone.
    pub(super) async fn wait_for_the_other_asker(
        &self,
        session: &UpstreamSession,
        goal: Goal,
        owner: &str,
    ) -> Result<Waited, StorageError> {
        // 50 steps of 100 ms are 5 s, within the 7 s that a caller waits at most.
        const STEP: Duration = Duration::from_millis(100);
        const STEPS: u32 = 50;
        for step in 1..=STEPS {
            tokio::time::sleep(STEP).await;
            let Some(known) = self.storage.upstream_session(&session.id).await? else {
                return Ok(Waited::Answered(Recheck::Ended));
            };
            if let Some(settled) = self.settled(&known, goal) {
                return Ok(Waited::Answered(settled));
            }
            if step % 5 == 0 {
                let now = self.clock.now();
                if self.storage.lease_session(&known, owner, now, LEASE).await? == Lease::Won {
                    return Ok(Waited::TakenOver(Box::new(known)));
                }
            }
        }
        let reason = "another process is asking and has no answer yet";
        Ok(Waited::Answered(self.use_last_answer(session, reason)))
    }

    /// Starts extending the lease in the background, for as long as the returned value lives.
    pub(super) fn keep_lease(&self, session_id: &str, owner: &str) -> LeaseKept {
        let (storage, clock) = (self.storage.clone(), self.clock.clone());
        let (session_id, owner) = (session_id.to_owned(), owner.to_owned());
        LeaseKept(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASE_EXTENDED_EVERY).await;
                let until = clock.now().plus(LEASE);
                match storage.extend_lease(&session_id, &owner, until).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(cause) => tracing::warn!(session_id, %cause, "a lease is not extended"),
                }
            }
        }))
    }
}
