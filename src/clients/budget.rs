//! Limits on fetches that strangers cause: in total, per host, and per address (threat CI-06).
//!
//! A part of each limit is reserved for URLs that were valid before, so that made-up URLs cannot displace
//! the clients that people use.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::clock::{Clock, Timestamp};
use crate::rate_limits::{customer_prefix, site_prefix};
use crate::telemetry::metrics::Metrics;

/// The cause of a fetch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FetchCause {
    /// The address of the request, if it belongs to one customer.
    pub(super) address: Option<IpAddr>,
    /// The URL was valid before, or an administrator configured it.
    pub(super) is_known: bool,
}

/// The limits in numbers, as configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimits {
    /// Maximum number of concurrent fetches.
    pub(super) at_once: usize,
    /// Maximum number of fetches per host and minute.
    pub(super) per_host: u32,
    /// Maximum number of fetches per client address and minute.
    pub(super) per_address: u32,
}

/// The limits on fetches, shared by all caches.
pub(super) struct FetchBudget {
    limits: FetchLimits,
    metrics: Metrics,
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// A lock per host: it allows one fetch of an unknown URL at a time.
    hosts_in_flight: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    hosts: Mutex<Minutes<String>>,
    addresses: Mutex<Minutes<IpAddr>>,
    /// Fetches of URLs that were never valid, by the requester's site prefix and the host.
    shares: Mutex<Minutes<(String, String)>>,
}

/// A permit for one fetch, released when dropped.
pub(super) struct FetchPermit {
    _all: OwnedSemaphorePermit,
    _strangers: Option<(OwnedMutexGuard<()>, OwnedSemaphorePermit)>,
}

impl FetchBudget {
    /// 2 seconds: longest wait for a permit.
    const QUEUE: Duration = Duration::from_secs(2);
    /// Most hosts fetched from within a minute for unknown URLs. For URLs that were valid before, twice as
    /// many.
    const HOSTS: usize = 500;
    /// Most addresses (and most pairs of site prefix and host) remembered within a minute. Bounds memory.
    const ADDRESSES: usize = 10_000;

    pub(super) fn new(limits: FetchLimits, metrics: Metrics) -> Self {
        Self {
            limits,
            metrics,
            all: Arc::new(Semaphore::new(limits.at_once)),
            strangers: Arc::new(Semaphore::new(Self::of_strangers(limits.at_once))),
            hosts_in_flight: Mutex::default(),
            hosts: Mutex::default(),
            addresses: Mutex::default(),
            shares: Mutex::default(),
        }
    }

    /// Returns how many of the concurrent fetches unknown URLs may take: all except a quarter.
    const fn of_strangers(at_once: usize) -> usize {
        at_once - at_once.div_ceil(4)
    }

    /// Counts a fetch from `host` and returns whether this minute's limit allows it. A requester without a
    /// known address is not limited here. For URLs that were never valid, one site prefix gets at most a
    /// quarter of the host's limit, so that made-up URLs cannot lock everybody else out of that host.
    pub(super) fn admits_asker(&self, asker: FetchCause, host: &str, now: Timestamp) -> bool {
        let Some(address) = asker.address else { return true };
        let mut addresses = self.addresses.lock();
        let network = customer_prefix(address);
        if !addresses.has_room_for(&network, Self::ADDRESSES, now) {
            // This bounds memory, not callers: the other limits hold back so many addresses at once.
            addresses.0.clear();
        }
        let mut fits = addresses.count(network, self.limits.per_address, now);
        if fits && !asker.is_known {
            let mut shares = self.shares.lock();
            let share = (site_prefix(address), host.to_owned());
            if !shares.has_room_for(&share, Self::ADDRESSES, now) {
                shares.0.clear(); // as above
            }
            fits = shares.count(share, (self.limits.per_host / 4).max(1), now);
        }
        self.limited_unless(fits)
    }

    /// Returns a permit for a fetch from `host`, after waiting for at most [`Self::QUEUE`]. `None` if a
    /// limit is reached.
    pub(super) async fn enter(
        &self,
        host: &str,
        is_known: bool,
        clock: &Clock,
    ) -> Option<FetchPermit> {
        let permit = tokio::time::timeout(Self::QUEUE, self.permit(host, is_known)).await;
        let Ok(Some(permit)) = permit else {
            self.limited_unless(false);
            return None;
        };
        // A fifth of the host's limit is reserved for URLs that were valid before.
        let all = self.limits.per_host;
        let most = if is_known { all } else { all - all.div_ceil(5) };
        let room = if is_known { 2 * Self::HOSTS } else { Self::HOSTS };
        let (mut hosts, host, now) = (self.hosts.lock(), host.to_owned(), clock.now());
        let fits = hosts.has_room_for(&host, room, now) && hosts.count(host, most, now);
        self.limited_unless(fits).then_some(permit)
    }

    fn limited_unless(&self, fits: bool) -> bool {
        if !fits {
            self.metrics.limited("client_fetches");
        }
        fits
    }

    async fn permit(&self, host: &str, is_known: bool) -> Option<FetchPermit> {
        let strangers = if is_known {
            None
        } else {
            let alone = self.host_in_flight(host).lock_owned().await;
            Some((alone, Arc::clone(&self.strangers).acquire_owned().await.ok()?))
        };
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(FetchPermit { _all: all, _strangers: strangers })
    }

    fn host_in_flight(&self, host: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut hosts = self.hosts_in_flight.lock();
        if let Some(known) = hosts.get(host).and_then(Weak::upgrade) {
            return known;
        }
        hosts.retain(|_, held| held.strong_count() > 0);
        let new = Arc::default();
        hosts.insert(host.to_owned(), Arc::downgrade(&new));
        new
    }
}

/// Counters per key. The minute of each begins at its first fetch.
struct Minutes<K>(HashMap<K, BudgetMinute>);

struct BudgetMinute {
    since: Timestamp,
    fetches: u32,
}

impl BudgetMinute {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.since) >= Duration::from_mins(1) || now < self.since
    }
}

impl<K> Default for Minutes<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Minutes<K> {
    fn has_room_for(&mut self, key: &K, most: usize, now: Timestamp) -> bool {
        if self.0.len() >= most && !self.0.contains_key(key) {
            self.0.retain(|_, minute| !minute.is_over(now));
        }
        self.0.len() < most || self.0.contains_key(key)
    }

    /// Counts one more fetch, unless the limit is reached.
    fn count(&mut self, key: K, most: u32, now: Timestamp) -> bool {
        let minute = self.0.entry(key).or_insert(BudgetMinute { since: now, fetches: 0 });
        if minute.is_over(now) {
            *minute = BudgetMinute { since: now, fetches: 0 };
        }
        let fits = minute.fetches < most;
        minute.fetches += u32::from(fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::ManualClock;

    fn budget() -> FetchBudget {
        FetchBudget::new(FetchLimits { at_once: 16, per_host: 10, per_address: 10 }, Metrics::new())
    }

    fn asker(address: &str) -> FetchCause {
        FetchCause { address: Some(address.parse().unwrap()), is_known: false }
    }

    #[test]
    fn ci_06_an_address_makes_us_fetch_ten_times_a_minute_and_an_ipv6_customer_is_one() {
        let budget = budget();
        let at = Timestamp::from_unix;
        for n in 0..10 {
            assert!(budget.admits_asker(
                asker(&format!("2001:db8:1:2::{n}")),
                &format!("{n}.example"),
                at(n)
            ));
        }
        assert!(!budget.admits_asker(asker("2001:db8:1:2:ffff::"), "a.example", at(59)));
        assert!(
            budget.admits_asker(asker("2001:db8:1:3::1"), "a.example", at(59)),
            "another customer"
        );
        assert!(
            budget.admits_asker(FetchCause::default(), "a.example", at(59)),
            "nobody in particular"
        );
        assert!(budget.admits_asker(asker("2001:db8:1:2:ffff::"), "a.example", at(60)));
    }

    #[test]
    fn ci_06_made_up_urls_from_one_part_of_the_network_keep_nobody_from_a_host() {
        let budget = budget();
        let now = Timestamp::from_unix(0);
        let from = |last: u32| asker(&format!("2001:db8:1:{last}::1"));
        let admitted = (0..50).filter(|last| budget.admits_asker(from(*last), "a.example", now));
        assert_eq!(admitted.count(), 2, "of ten");
        let known = FetchCause { is_known: true, ..from(51) };
        assert!(budget.admits_asker(known, "a.example", now), "it was good before");
        assert!(budget.admits_asker(from(52), "b.example", now), "another host");
        assert!(budget.admits_asker(asker("2001:db8:2::1"), "a.example", now), "somebody else");
    }

    #[test]
    fn ci_06_addresses_are_bounded_in_number_whatever_they_are() {
        let budget = budget();
        let now = Timestamp::from_unix(0);
        for n in 0..25_000_u32 {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + (n << 8)); // each in its own site prefix
            let asker = FetchCause { address: Some(address.into()), is_known: false };
            assert!(budget.admits_asker(asker, "a.example", now));
        }
        assert!(budget.addresses.lock().0.len() <= FetchBudget::ADDRESSES);
        assert!(budget.shares.lock().0.len() <= FetchBudget::ADDRESSES);
    }

    /// Returns a permit that is available without waiting.
    fn enter(budget: &FetchBudget, host: &str, is_known: bool) -> Option<FetchPermit> {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(0)));
        budget.enter(host, is_known, &clock).now_or_never().flatten()
    }

    #[tokio::test]
    async fn ci_06_places_are_kept_for_what_was_good_before() {
        let budget = budget();
        let mut permits = Vec::new();
        for n in 0..12 {
            permits.push(enter(&budget, &format!("{n}.example"), false).unwrap());
        }
        assert!(enter(&budget, "more.example", false).is_none());
        for _ in 12..16 {
            permits.push(enter(&budget, "good.example", true).unwrap());
        }
        assert!(enter(&budget, "good.example", true).is_none());
        drop(permits.pop());
        assert!(enter(&budget, "good.example", true).is_some());
    }

    #[tokio::test]
    async fn ci_06_made_up_urls_are_fetched_one_at_a_time_and_use_up_no_host() {
        let budget = budget();
        let first = enter(&budget, "a.example", false).unwrap();
        assert!(enter(&budget, "a.example", false).is_none(), "one at a time");
        assert!(enter(&budget, "a.example", true).is_some());
        drop(first);
        let permits = std::iter::repeat_with(|| enter(&budget, "a.example", false));
        assert!(permits.take_while(Option::is_some).count() < 8);
        assert!(enter(&budget, "a.example", true).is_some());
    }
}
