//! One asker per session: a lock in this process, a lease in the database across processes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Recheck;
use crate::storage::{Lease, StorageError, UpstreamSession};
use crate::upstream::Inner;
use crate::upstream::person_queries::RECHECK_WAIT;

/// The right to ask lasts this long without being extended. After a crash nobody can ask before it has
/// run out: shorter than the grace of providers that rotate (Okta: 30 s), and long enough for clocks of
/// replicas that differ.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Whoever asks extends its right this often.
const LEASE_EXTENDED_EVERY: Duration = Duration::from_secs(4);

/// What came of waiting for another process.
#[expect(clippy::large_enum_variant, reason = "it lives for one step")]
pub(super) enum Waited {
    Answered(Recheck),
    /// It gave up or is gone: now it is ours to ask, about the session as it is.
    TakenOver(Box<UpstreamSession>),
}

/// Extends a lease until it is dropped.
pub(super) struct LeaseKept(tokio::task::JoinHandle<()>);

impl Drop for LeaseKept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sessions that are being asked about in this process.
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

/// One question at a time about a session, and whether it has gone out.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) alone: Mutex<()>,
    /// Since when the provider has been asked and has not answered.
    sent: watch::Sender<Option<Instant>>,
}

impl Asking {
    /// Notes that the provider is asked from now on, until this is dropped.
    pub(super) fn begins(self: &Arc<Self>) -> Sent {
        let since = Instant::now();
        self.sent.send_replace(Some(since));
        Sent(Arc::clone(self), since)
    }

    /// Returns when the provider has been silent for so long, counted from now or from when the question goes out
    /// (a question of before may still be on its way): `true`; or when the question has not even gone out
    /// in the time that it may wait for that: `false`, and the provider has nothing to do with it.
    pub(super) async fn is_silent_for(&self, patience: Duration) -> bool {
        let (mut sent, now) = (self.sent.subscribe(), Instant::now());
        let since = tokio::time::timeout(RECHECK_WAIT, sent.wait_for(Option::is_some)).await;
        let since = since.ok().and_then(Result::ok).and_then(|since| *since);
        let Some(since) = since else { return false };
        tokio::time::sleep_until(since.max(now) + patience).await;
        true
    }
}

/// A question that has gone out, and when.
pub(super) struct Sent(Arc<Asking>, Instant);

impl Drop for Sent {
    fn drop(&mut self) {
        // A later one may have gone out meanwhile.
        self.0.sent.send_if_modified(|sent| {
            let is_ours = *sent == Some(self.1);
            if is_ours {
                *sent = None;
            }
            is_ours
        });
    }
}

impl Inner {
    /// Another process is asking: wait for its answer, a little, and ask in its place when it is gone.
    pub(super) async fn wait_for_the_other_asker(
        &self,
        session: &UpstreamSession,
        owner: &str,
    ) -> Result<Waited, StorageError> {
        const STEP: Duration = Duration::from_millis(100);
        const STEPS: u32 = 50;
        for step in 1..=STEPS {
            tokio::time::sleep(STEP).await;
            let Some(known) = self.storage.upstream_session(&session.id).await? else {
                return Ok(Waited::Answered(Recheck::Ended));
            };
            if let Some(settled) = self.settled(&known) {
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

    /// Extends the lease for as long as the answer is held.
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
