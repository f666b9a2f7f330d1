//! How much the identity provider is asked at once. Sign-ins and re-checks have places of their own: a flood of
//! sign-ins, which strangers can cause, delays nobody who is in.
//!
//! Waiting for a place is our own doing. It says nothing about the provider, so it is neither an outage nor a
//! reason to leave the provider alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Inner, Upstream};

/// Longest wait of a re-check: with the wait for the provider it must end before clients give up, after ten
/// seconds.
pub(super) const RECHECK_WAIT: Duration = Duration::from_secs(2);

/// How much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonQueries {
    /// Sign-ins that are being finished.
    pub sign_ins: usize,
    /// People who are asked about again.
    pub rechecks: usize,
}

/// The places.
pub(super) struct Places {
    number: PersonQueries,
    sign_ins: Arc<Semaphore>,
    rechecks: Arc<Semaphore>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct QueryPermit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// All places are taken, and none was given back in time. Nothing was sent to the provider.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("as many sign-ins as may be are being finished; the identity provider was not asked")]
pub struct NoPlace;

impl Places {
    pub(super) fn new(number: PersonQueries) -> Self {
        let places = |number| Arc::new(Semaphore::new(number));
        Self { number, sign_ins: places(number.sign_ins), rechecks: places(number.rechecks) }
    }

    /// The same places, where the number is the same.
    pub(super) fn with(self: &Arc<Self>, number: PersonQueries) -> Arc<Self> {
        if self.number == number { Arc::clone(self) } else { Arc::new(Self::new(number)) }
    }
}

async fn wait_for(places: &Arc<Semaphore>, at_most: Duration) -> Option<QueryPermit> {
    let place = tokio::time::timeout(at_most, Arc::clone(places).acquire_owned()).await;
    Some(QueryPermit(place.ok()?.ok()?))
}

impl Upstream {
    /// A place to finish a sign-in with, to be had before anything is used up.
    pub async fn place_for_sign_in(&self) -> Result<QueryPermit, NoPlace> {
        let inner = &self.0;
        let place = wait_for(&inner.places.sign_ins, inner.config.timeout).await;
        place.ok_or_else(|| {
            inner.storage.metrics().limited("upstream_sign_ins");
            NoPlace
        })
    }
}

impl Inner {
    /// A place to ask about somebody again.
    pub(super) async fn place_for_recheck(&self) -> Option<QueryPermit> {
        let place = wait_for(&self.places.rechecks, RECHECK_WAIT).await;
        if place.is_none() {
            self.storage.metrics().limited("upstream_requests");
            tracing::warn!("as many people as may be are being asked about; this one was not");
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_given_back_and_sign_ins_take_none_of_re_checks() {
        let places = Arc::new(Places::new(PersonQueries { sign_ins: 1, rechecks: 1 }));
        let soon = Duration::from_millis(10);
        let taken = wait_for(&places.sign_ins, soon).await;
        assert!(taken.is_some());
        assert!(wait_for(&places.sign_ins, soon).await.is_none());
        assert!(wait_for(&places.rechecks, soon).await.is_some());
        drop(taken);
        assert!(wait_for(&places.sign_ins, soon).await.is_some());
        assert!(Arc::ptr_eq(&places, &places.with(PersonQueries { sign_ins: 1, rechecks: 1 })));
        assert!(!Arc::ptr_eq(&places, &places.with(PersonQueries { sign_ins: 2, rechecks: 1 })));
    }
}
