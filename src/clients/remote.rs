//! A small cache of documents that strangers publish. One fetch at a time per URL, limited in number and
//! rate; an error is never cached as a value (threats CI-05 and CI-06).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::budget::{FetchBudget, FetchCause};
use crate::clock::{Clock, Timestamp};
use crate::http_client::guarded::{FetchError, GuardedClient, LONGEST_FETCH};
use crate::oauth::web_url::WebUrl;

/// Most URLs in the cache. Beyond that the least recently used is evicted.
const MAX_ENTRIES: usize = 500;
/// Most callers that wait for the fetch of one URL.
const MAX_WAITING: usize = 1024;
/// 8 seconds: longest wait for another caller's fetch of the same URL.
const PATIENCE: Duration = Duration::from_secs(8);
/// 10 seconds: back-off after a failed fetch of a URL. It doubles with each further failure …
const FIRST_COOLDOWN: Duration = Duration::from_secs(10);
/// … up to 5 minutes.
const LONGEST_COOLDOWN: Duration = Duration::from_mins(5);
/// A fetch without any response fails after exactly this time, or, if it took longer, after
/// [`LONGEST_FETCH`]. Otherwise the duration would tell a stranger which internal names exist.
const SILENCE: Duration = Duration::from_secs(2);

/// A value read from a URL.
#[derive(Clone, Debug)]
pub(super) struct RemoteValue<T> {
    pub(super) value: T,
    /// When it was fetched.
    pub(super) seen_at: Timestamp,
    fresh_until: Timestamp,
}

/// Why nothing could be read now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// The body was read, but it is invalid.
    #[error("{0}")]
    Refused(String),
    /// A limit on fetches is reached.
    #[error("too many documents are being fetched")]
    Busy,
}

impl Trouble {
    /// Returns whether the publisher itself has given a final response, so that its earlier document no
    /// longer counts. An outage, an error page or a broken connection is not final; nor is a non-public
    /// address, which must look to strangers like a host that does not exist.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Fetch(FetchError::TooLarge) => true,
            Self::Fetch(FetchError::Status(status)) => matches!(status, 301..=308 | 404 | 410),
            Self::Busy | Self::Fetch(_) => false,
        }
    }

    /// Returns whether no server responded.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.is_silence())
    }
}

/// A failed fetch, and the last good value.
#[derive(Debug)]
pub(super) struct Failed<T> {
    pub(super) trouble: Trouble,
    pub(super) last: Option<RemoteValue<T>>,
}

struct Entry<T> {
    known: Option<RemoteValue<T>>,
    trouble: Option<Trouble>,
    failures: u32,
    /// End of the back-off after a failure.
    again_at: Timestamp,
    /// Held by the caller that fetches.
    flight: Arc<tokio::sync::Mutex<()>>,
    used: u64,
}

struct Entries<T> {
    by_url: HashMap<String, Entry<T>>,
    uses: u64,
}

/// Limits of one cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Largest body, in bytes.
    pub(super) body: usize,
    /// Shortest caching time, whatever the response headers say …
    pub(super) floor: Duration,
    /// … the longest …
    pub(super) ceiling: Duration,
    /// … and the one used if the headers say nothing.
    pub(super) usual: Duration,
}

/// A cache for one kind of document. Cheap to clone.
pub(super) struct Remote<T>(Arc<RemoteParts<T>>);

struct RemoteParts<T> {
    http: GuardedClient,
    clock: Clock,
    budget: Arc<FetchBudget>,
    bounds: Bounds,
    entries: Mutex<Entries<T>>,
}

impl<T> Clone for Remote<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

enum Look<T> {
    Fresh(RemoteValue<T>),
    CoolingDown(Failed<T>),
    Fetch(Arc<tokio::sync::Mutex<()>>),
}

impl<T: Clone + Send + 'static> Remote<T> {
    pub(super) fn new(
        http: GuardedClient,
        clock: Clock,
        budget: Arc<FetchBudget>,
        bounds: Bounds,
    ) -> Self {
        let entries = Mutex::new(Entries { by_url: HashMap::new(), uses: 0 });
        Self(Arc::new(RemoteParts { http, clock, budget, bounds, entries }))
    }

    /// Returns the value at `url`: from the cache if it is fresh and was fetched no earlier than
    /// `not_before`, otherwise fetched and parsed by `parse`. Of concurrent callers only one fetches. The
    /// fetch continues if that caller goes away.
    pub(super) async fn get(
        &self,
        url: &WebUrl,
        asker: FetchCause,
        not_before: Option<Timestamp>,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + 'static,
    ) -> Result<RemoteValue<T>, Failed<T>> {
        let flight = match self.look(url, not_before) {
            Look::Fresh(known) => return Ok(known),
            Look::CoolingDown(failed) => return Err(failed),
            Look::Fetch(flight) => flight,
        };
        // The entry holds one reference, and so does each caller that fetches or waits.
        if Arc::strong_count(&flight) > 1 + MAX_WAITING {
            return Err(self.busy(url));
        }
        let Ok(turn) = tokio::time::timeout(PATIENCE, flight.lock_owned()).await else {
            return Err(self.busy(url));
        };
        match self.look(url, not_before) {
            Look::Fresh(known) => Ok(known),
            Look::CoolingDown(failed) => Err(failed),
            // Only this caller's limit is charged: a caller that waits behind it retries with its own.
            Look::Fetch(_) => {
                let is_known = asker.is_known || self.knows(url);
                let asker = FetchCause { is_known, ..asker };
                if !self.0.budget.admits_asker(asker, url.host(), self.0.clock.now()) {
                    return Err(self.busy(url));
                }
                let (this, url) = (self.clone(), url.clone());
                let fetching =
                    tokio::spawn(async move { this.fetch(&url, is_known, parse, turn).await });
                fetching.await.unwrap_or(Err(Failed { trouble: Trouble::Busy, last: None }))
            }
        }
    }

    /// Returns whether a valid value was read from this URL before.
    pub(super) fn knows(&self, url: &WebUrl) -> bool {
        self.entries().by_url.get(url.as_str()).is_some_and(|entry| entry.known.is_some())
    }

    /// Returns [`Trouble::Busy`]. Nothing was fetched, so the URL gets no back-off.
    fn busy(&self, url: &WebUrl) -> Failed<T> {
        let entries = self.entries();
        let last = entries.by_url.get(url.as_str()).and_then(|entry| entry.known.clone());
        Failed { trouble: Trouble::Busy, last }
    }

    fn look(&self, url: &WebUrl, not_before: Option<Timestamp>) -> Look<T> {
        let now = self.0.clock.now();
        let mut entries = self.entries();
        entries.uses += 1;
        let used = entries.uses;
        if !entries.by_url.contains_key(url.as_str()) {
            entries.make_room();
        }
        let entry = entries.by_url.entry(url.as_str().to_owned()).or_insert_with(|| Entry {
            known: None,
            trouble: None,
            failures: 0,
            again_at: now,
            flight: Arc::default(),
            used,
        });
        entry.used = used;
        if let Some(known) = &entry.known
            && now < known.fresh_until
            && now >= known.seen_at
            && not_before.is_none_or(|not_before| known.seen_at >= not_before)
            && entry.trouble.is_none()
        {
            return Look::Fresh(known.clone());
        }
        match &entry.trouble {
            Some(trouble) if now < entry.again_at => {
                Look::CoolingDown(Failed { trouble: trouble.clone(), last: entry.known.clone() })
            }
            _ => Look::Fetch(Arc::clone(&entry.flight)),
        }
    }

    async fn fetch(
        &self,
        url: &WebUrl,
        is_known: bool,
        parse: impl Fn(&[u8]) -> Result<T, String>,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<RemoteValue<T>, Failed<T>> {
        let RemoteParts { http, clock, budget, bounds, .. } = &*self.0;
        let Some(permit) = budget.enter(url.host(), is_known, clock).await else {
            return Err(self.busy(url));
        };
        let begun = Instant::now();
        let read = match http.get_json(url, bounds.body).await {
            Ok(fetched) => parse(&fetched.body)
                .map(|value| (value, fetched.lifetime))
                .map_err(Trouble::Refused),
            Err(error) => Err(error.into()),
        };
        drop(permit);
        // Other requests for this URL wait too. URLs that were valid before are no exception, because their
        // owner can make the name resolve to an internal address at any time.
        if read.as_ref().is_err_and(Trouble::is_silence) {
            let slow = begun.elapsed() > SILENCE;
            tokio::time::sleep_until(begun + if slow { LONGEST_FETCH } else { SILENCE }).await;
        }
        let now = clock.now();
        let mut entries = self.entries();
        let Some(entry) = entries.by_url.get_mut(url.as_str()) else {
            return Err(Failed { trouble: Trouble::Busy, last: None });
        };
        match read {
            Ok((value, lifetime)) => {
                let lifetime = lifetime.unwrap_or(bounds.usual).clamp(bounds.floor, bounds.ceiling);
                let known = RemoteValue { value, seen_at: now, fresh_until: now.plus(lifetime) };
                entry.known = Some(known.clone());
                (entry.trouble, entry.failures) = (None, 0);
                Ok(known)
            }
            Err(trouble) => {
                let cooldown = FIRST_COOLDOWN * 2_u32.pow(entry.failures.min(5));
                entry.failures += 1;
                entry.again_at = now.plus(cooldown.min(LONGEST_COOLDOWN));
                entry.trouble = Some(trouble.clone());
                if trouble.is_final() {
                    entry.known = None;
                }
                Err(Failed { trouble, last: entry.known.clone() })
            }
        }
    }

    fn entries(&self) -> parking_lot::MutexGuard<'_, Entries<T>> {
        self.0.entries.lock()
    }
}

impl<T> Entries<T> {
    /// Evicts entries without a value first, then the least recently used. Never evicts an entry that is
    /// being fetched.
    fn make_room(&mut self) {
        while self.by_url.len() >= MAX_ENTRIES {
            let oldest = self
                .by_url
                .iter()
                .filter(|(_, entry)| Arc::strong_count(&entry.flight) == 1)
                .min_by_key(|(_, entry)| (entry.known.is_some(), entry.used))
                .map(|(url, _)| url.clone());
            match oldest {
                Some(url) => self.by_url.remove(&url),
                None => return, // all are being fetched: the limits on fetches bound their number
            };
        }
    }
}
