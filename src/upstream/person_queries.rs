//! Limits for concurrent queries at the identity provider. Sign-ins and re-checks have separate limits,
//! because strangers can cause a flood of sign-ins and must not delay people who are signed in.
//!
//! Waiting for a permit is our own limit and says nothing about the provider. It therefore neither counts as
//! an outage nor opens the circuit breaker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Upstream, UpstreamInner};

/// Longest wait of a re-check for a permit. Together with the wait for the provider (at most 7 s) it must end
/// before clients give up, after 10 s.
pub(super) const RECHECK_WAIT: Duration = Duration::from_secs(2);

/// Limits for concurrent queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonQueries {
    /// Maximum number of sign-ins whose callback is being handled at the same time.
    pub sign_ins: usize,
    /// Maximum number of concurrent re-checks.
    pub rechecks: usize,
}

/// The semaphores of the two limits.
pub(super) struct QuerySemaphores {
    number: PersonQueries,
    sign_ins: Arc<Semaphore>,
    rechecks: Arc<Semaphore>,
}

/// Permit for one query; dropping it releases the permit.
#[derive(Debug)]
pub struct QueryPermit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// No permit became free in time. Nothing was sent to the provider.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("as many sign-ins as may be are being finished; the identity provider was not asked")]
pub struct NoPermit;

impl QuerySemaphores {
    pub(super) fn new(number: PersonQueries) -> Self {
        let semaphores = |number| Arc::new(Semaphore::new(number));
        Self {
            number,
            sign_ins: semaphores(number.sign_ins),
            rechecks: semaphores(number.rechecks),
        }
    }

    /// Returns the same semaphores if the limits are unchanged, otherwise new ones.
    pub(super) fn with(self: &Arc<Self>, number: PersonQueries) -> Arc<Self> {
        if self.number == number { Arc::clone(self) } else { Arc::new(Self::new(number)) }
    }
}

async fn wait_for(semaphores: &Arc<Semaphore>, at_most: Duration) -> Option<QueryPermit> {
    let permit = tokio::time::timeout(at_most, Arc::clone(semaphores).acquire_owned()).await;
    Some(QueryPermit(permit.ok()?.ok()?))
}

impl Upstream {
    /// Acquires a permit for a sign-in, waiting at most for the configured timeout. Call it before anything
    /// is consumed.
    pub async fn permit_for_sign_in(&self) -> Result<QueryPermit, NoPermit> {
        let inner = &self.0;
        let permit = wait_for(&inner.semaphores.sign_ins, inner.config.timeout).await;
        permit.ok_or_else(|| {
            inner.storage.metrics().limited("upstream_sign_ins");
            NoPermit
        })
    }
}

impl UpstreamInner {
    /// Acquires a permit for a re-check; `None` if none became free within `RECHECK_WAIT`.
    pub(super) async fn permit_for_recheck(&self) -> Option<QueryPermit> {
        let permit = wait_for(&self.semaphores.rechecks, RECHECK_WAIT).await;
        if permit.is_none() {
            self.storage.metrics().limited("upstream_requests");
            tracing::warn!("as many people as may be are being asked about; this one was not");
        }
        permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_given_back_and_sign_ins_take_none_of_re_checks() {
        let semaphores = Arc::new(QuerySemaphores::new(PersonQueries { sign_ins: 1, rechecks: 1 }));
        let soon = Duration::from_millis(10);
        let taken = wait_for(&semaphores.sign_ins, soon).await;
        assert!(taken.is_some());
        assert!(wait_for(&semaphores.sign_ins, soon).await.is_none());
        assert!(wait_for(&semaphores.rechecks, soon).await.is_some());
        drop(taken);
        assert!(wait_for(&semaphores.sign_ins, soon).await.is_some());
        assert!(Arc::ptr_eq(
            &semaphores,
            &semaphores.with(PersonQueries { sign_ins: 1, rechecks: 1 })
        ));
        assert!(!Arc::ptr_eq(
            &semaphores,
            &semaphores.with(PersonQueries { sign_ins: 2, rechecks: 1 })
        ));
    }
}
