//! Rate limits and concurrency limits, counted in memory (threats DS-01, DS-02). Callers are counted by
//! address where the address is known, and by grant or person where these are proven: hosted clients share
//! addresses, and must not use up each other's limits.

mod by_client;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::RateLimits;
use crate::telemetry::metrics::Metrics;

use by_client::ByClient;
pub use by_client::{PermitRefused, RequestPermit};

/// If a limiter has more keys than this at a sweep, it drops all of them, including those over their limit.
/// This bounds memory; it does not limit how many callers there may be.
const MOST_KEYS: usize = 200_000;

/// An action that is limited by the caller's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedAction {
    /// The consent page.
    Authorize,
    /// The decision on the consent page.
    Consent,
    /// A step of a sign-in to `/account` or the admin pages.
    SignIn,
    /// The pages `/account` and `/waiting`.
    Pages,
    /// A request to the token endpoint, whatever its outcome.
    Token,
    /// A failed request to the token endpoint.
    TokenFailure,
    /// A failed sign-in to the admin pages.
    AdminSignInFailure,
    Registration,
    /// A request for metadata or keys.
    Discovery,
}

impl LimitedAction {
    pub const KINDS: usize = Self::Discovery as usize + 1;

    /// Returns the key of this action's limit in `[limits]`.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Authorize => "authorize_per_minute",
            Self::Consent => "consent_per_minute",
            Self::SignIn => "sign_ins_per_minute",
            Self::Pages => "pages_per_minute",
            Self::Token => "token_per_minute",
            Self::TokenFailure => "token_failures_per_minute",
            Self::AdminSignInFailure => "admin_sign_in_failures",
            Self::Registration => "registrations_per_hour",
            Self::Discovery => "discovery_per_minute",
        }
    }
}

/// The caller exceeded a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// When to try again: value for `Retry-After`, in seconds, rounded up.
    pub retry_after: u64,
}

/// All limits that live in memory. Cheap to clone.
#[derive(Clone)]
pub struct Rates(Arc<RatesState>);

struct RatesState {
    on: bool,
    limits: RateLimits,
    metrics: Metrics,
    authorize: Limiter<IpAddr>,
    consent: Limiter<IpAddr>,
    sign_in: Limiter<IpAddr>,
    pages: Limiter<IpAddr>,
    token: Limiter<IpAddr>,
    token_failure: Limiter<IpAddr>,
    admin_failure: Limiter<IpAddr>,
    registration: Limiter<IpAddr>,
    discovery: Limiter<IpAddr>,
    refresh: Limiter<String>,
    connections: ConcurrencyLimiter<IpAddr>,
    requests: ByClient,
    streams: ByClient,
}

impl Rates {
    /// Creates the limits as configured. `on` is `limits.request_rates`; if `false`, rates are not limited,
    /// but concurrency still is.
    pub fn new(limits: &RateLimits, on: bool, clock: &Clock, metrics: Metrics) -> Self {
        const MINUTE: Duration = Duration::from_mins(1);
        let per_minute = |most| Limiter::new(most, most, MINUTE, clock);
        let hour = Duration::from_hours(1);
        Self(Arc::new(RatesState {
            on,
            limits: *limits,
            metrics,
            authorize: per_minute(limits.authorize_per_minute),
            consent: per_minute(limits.consent_per_minute),
            sign_in: per_minute(limits.sign_ins_per_minute),
            pages: per_minute(limits.pages_per_minute),
            token: per_minute(limits.token_per_minute),
            token_failure: per_minute(limits.token_failures_per_minute),
            admin_failure: Limiter::new(
                limits.admin_sign_in_failures,
                limits.admin_sign_in_failures,
                Duration::from_mins(15),
                clock,
            ),
            registration: Limiter::new(
                limits.registrations_per_hour,
                limits.registrations_at_once,
                hour,
                clock,
            ),
            discovery: per_minute(limits.discovery_per_minute),
            refresh: Limiter::new(
                limits.refreshes_per_minute,
                limits.refreshes_per_minute,
                MINUTE,
                clock,
            ),
            connections: ConcurrencyLimiter::new(limits.connections_per_address),
            requests: ByClient::new(limits.requests_per_person, limits.requests_per_client),
            streams: ByClient::new(limits.streams_per_person, limits.streams_per_client),
        }))
    }

    /// Returns these limits with other numbers. Permits in use stay counted. Request counts are kept only if
    /// the numbers have not changed.
    #[must_use]
    pub fn with(&self, limits: &RateLimits, on: bool, clock: &Clock) -> Self {
        let now = &self.0;
        if now.limits == *limits && now.on == on {
            return self.clone();
        }
        let new = Self::new(limits, on, clock, now.metrics.clone());
        let Some(inner) = Arc::into_inner(new.0) else { return self.clone() }; // never: it has one owner
        Self(Arc::new(RatesState {
            connections: now.connections.with(limits.connections_per_address),
            requests: now.requests.with(limits.requests_per_person, limits.requests_per_client),
            streams: now.streams.with(limits.streams_per_person, limits.streams_per_client),
            ..inner
        }))
    }

    /// Counts a request from `address`. A caller whose address is unknown is not limited.
    pub fn check(&self, what: LimitedAction, address: Option<IpAddr>) -> Result<(), RateLimited> {
        let inner = &self.0;
        let Some(address) = address.filter(|_| inner.on) else { return Ok(()) };
        let limiter = match what {
            LimitedAction::Authorize => &inner.authorize,
            LimitedAction::Consent => &inner.consent,
            LimitedAction::SignIn => &inner.sign_in,
            LimitedAction::Pages => &inner.pages,
            LimitedAction::Token => &inner.token,
            LimitedAction::TokenFailure => &inner.token_failure,
            LimitedAction::AdminSignInFailure => &inner.admin_failure,
            LimitedAction::Registration => &inner.registration,
            LimitedAction::Discovery => &inner.discovery,
        };
        limiter
            .check(&customer_prefix(address))
            .inspect_err(|_| inner.metrics.limited(what.limit()))
    }

    /// Counts a refresh of a grant. Call it only after the refresh token was verified.
    pub fn refreshed(&self, grant_id: &str) -> Result<(), RateLimited> {
        if !self.0.on {
            return Ok(());
        }
        let checked = self.0.refresh.check(&grant_id.to_owned());
        checked.inspect_err(|_| self.0.metrics.limited("refreshes_per_minute"))
    }

    /// Takes a permit for a connection from `address`; `None` if the address has reached its limit.
    pub fn connection(&self, address: IpAddr) -> Option<ConcurrencyPermit<IpAddr>> {
        let permit = self.0.connections.enter(customer_prefix(address));
        self.or_limited(permit, "connections_per_address")
    }

    /// Takes a permit for a gateway request of this person through this client.
    pub fn request(&self, subject: &str, client_id: &str) -> Result<RequestPermit, PermitRefused> {
        let permit = self.0.requests.enter(subject, client_id);
        self.permit_or_limited(permit, ["requests_per_person", "requests_per_client"])
    }

    /// Takes a permit for an event stream of this person through this client.
    pub fn stream(&self, subject: &str, client_id: &str) -> Result<RequestPermit, PermitRefused> {
        let permit = self.0.streams.enter(subject, client_id);
        self.permit_or_limited(permit, ["streams_per_person", "streams_per_client"])
    }

    fn permit_or_limited(
        &self,
        permit: Result<RequestPermit, PermitRefused>,
        [person, client]: [&str; 2],
    ) -> Result<RequestPermit, PermitRefused> {
        permit.inspect_err(|refused| {
            self.0.metrics.limited(match refused {
                PermitRefused::Person => person,
                PermitRefused::Client => client,
            });
        })
    }

    fn or_limited<T>(&self, permit: Option<T>, limit: &str) -> Option<T> {
        if permit.is_none() {
            self.0.metrics.limited(limit);
        }
        permit
    }

    /// Drops keys whose limits have recovered completely.
    pub fn sweep(&self) {
        let inner = &self.0;
        for limiter in [
            &inner.authorize,
            &inner.consent,
            &inner.sign_in,
            &inner.pages,
            &inner.token,
            &inner.token_failure,
            &inner.admin_failure,
            &inner.registration,
            &inner.discovery,
        ] {
            limiter.sweep();
        }
        inner.refresh.sweep();
    }
}

/// Replaces an address of an IPv6 translator (RFC 6052 §2.1) by the IPv4 address in it; otherwise everybody
/// behind the translator would count as one /64.
fn untranslated(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
            }
            _ => v6.into(),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Returns the network of one customer: the whole address in IPv4, the /64 in IPv6, where one customer has
/// 2⁶⁴ addresses.
pub fn customer_prefix(address: IpAddr) -> IpAddr {
    match untranslated(address) {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Returns the network prefix of a site (/24 or /48): a caller with many addresses often has all of these.
pub fn site_prefix(address: IpAddr) -> String {
    match untranslated(address) {
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
    }
}

type Governor<K> = RateLimiter<K, HashMapStateStore<K>, RateClock, NoOpMiddleware<Duration>>;

struct Limiter<K: Hash + Eq + Clone> {
    governor: Mutex<Arc<Governor<K>>>,
    quota: Quota,
    clock: RateClock,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(most: NonZeroU32, at_once: NonZeroU32, within: Duration, clock: &Clock) -> Self {
        let quota = Quota::with_period(within / most.get())
            .unwrap_or_else(|| Quota::per_second(most)) // never used: the period is not zero
            .allow_burst(at_once);
        let clock = RateClock::new(clock);
        let governor = Mutex::new(Arc::new(RateLimiter::hashmap_with_clock(quota, clock.clone())));
        Self { governor, quota, clock }
    }

    fn check(&self, key: &K) -> Result<(), RateLimited> {
        let governor = Arc::clone(&self.governor.lock());
        governor.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            RateLimited { retry_after: wait.as_secs() + u64::from(wait.subsec_nanos() > 0) }
        })
    }

    fn sweep(&self) {
        let mut governor = self.governor.lock();
        governor.retain_recent();
        if governor.len() > MOST_KEYS {
            *governor = Arc::new(RateLimiter::hashmap_with_clock(self.quota, self.clock.clone()));
        } else {
            governor.shrink_to_fit();
        }
    }
}

/// A monotonic clock, or the manual clock of tests.
#[derive(Clone)]
enum RateClock {
    Monotonic(Instant),
    Manual(Clock),
}

impl RateClock {
    fn new(clock: &Clock) -> Self {
        match clock {
            Clock::System => Self::Monotonic(Instant::now()),
            Clock::Manual(_) => Self::Manual(clock.clone()),
        }
    }
}

impl governor::clock::Clock for RateClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        match self {
            Self::Monotonic(start) => start.elapsed(),
            Self::Manual(clock) => {
                Duration::from_millis(u64::try_from(clock.unix_millis()).unwrap_or(0))
            }
        }
    }
}

/// Limits how many permits each key may hold at a time.
struct ConcurrencyLimiter<K> {
    most: u32,
    counts: Arc<Mutex<HashMap<K, u32>>>,
}

/// A permit of a concurrency limit. Dropping it releases it.
pub struct ConcurrencyPermit<K: Hash + Eq> {
    key: K,
    counts: Arc<Mutex<HashMap<K, u32>>>,
}

impl<K: Hash + Eq + Clone> ConcurrencyLimiter<K> {
    fn new(most: u32) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// The same permits in use, with another limit.
    fn with(&self, most: u32) -> Self {
        Self { most, counts: Arc::clone(&self.counts) }
    }

    fn enter(&self, key: K) -> Option<ConcurrencyPermit<K>> {
        let mut counts = self.counts.lock();
        let count = counts.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(ConcurrencyPermit { key, counts: Arc::clone(&self.counts) })
    }
}

impl<K: Hash + Eq> Drop for ConcurrencyPermit<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn a_limit_holds_at_its_number_and_frees_up_with_time() {
        let hand = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let three = NonZeroU32::new(3).unwrap();
        let minute = Duration::from_mins(1);
        let limiter = Limiter::new(three, three, minute, &Clock::Manual(hand.clone()));
        for _ in 0..3 {
            assert_eq!(limiter.check(&1), Ok(()));
        }
        assert_eq!(limiter.check(&1), Err(RateLimited { retry_after: 20 }));
        assert_eq!(limiter.check(&2), Ok(()), "somebody else is not touched");
        hand.advance(20);
        assert_eq!(limiter.check(&1), Ok(()));
        assert!(limiter.check(&1).is_err());
        limiter.sweep();
        assert!(limiter.check(&1).is_err(), "clean-up forgets nobody who is being held back");
    }

    #[test]
    fn a_jump_of_the_systems_clock_moves_no_limit() {
        assert!(matches!(RateClock::new(&Clock::System), RateClock::Monotonic(_)));
    }

    #[test]
    fn permits_are_given_back() {
        let at_once = ConcurrencyLimiter::new(2);
        let (one, two) = (at_once.enter("a"), at_once.enter("a"));
        assert!(one.is_some() && two.is_some() && at_once.enter("a").is_none());
        assert!(at_once.enter("b").is_some());
        drop(one);
        assert!(at_once.enter("a").is_some());
        drop(two);
        assert!(at_once.counts.lock().is_empty());
    }

    #[test]
    fn connections_of_one_address_hold_at_their_number() {
        let text = "public_url = \"http://127.0.0.1:8000\"\n[upstream]\nprovider = \"oidc\"\n\
                    issuer = \"http://127.0.0.1:1\"\nclient_id = \"x\"\nclient_secret = \"x\"\n\
                    [[resource]]\nid = \"https://a.example/mcp\"\nscopes = [\"a\"]\n";
        let file = Some((std::path::Path::new("x.toml"), text.to_owned()));
        let config = crate::config::Config::load(file, &std::collections::BTreeMap::new());
        let limits = config.unwrap_or_else(|problems| panic!("{problems}")).config.limits.rates;
        let rates = Rates::new(&limits, true, &Clock::System, Metrics::new());
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let mut permits: Vec<_> = (0..100).map(|last| rates.connection(address(last))).collect();
        assert!(permits.iter().all(Option::is_some));
        assert!(rates.connection(address(100)).is_none(), "the same network");
        assert!(rates.connection([203, 0, 113, 7].into()).is_some(), "somebody else");
        permits.pop();
        assert!(rates.connection(address(100)).is_some());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let one: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let two: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(customer_prefix(one), customer_prefix(two));
        assert_ne!(customer_prefix(one), customer_prefix(other));
        for same in ["::ffff:203.0.113.7", "64:ff9b::203.0.113.7"] {
            let same: IpAddr = same.parse().unwrap();
            assert_eq!(customer_prefix(same), "203.0.113.7".parse::<IpAddr>().unwrap());
            assert_eq!(site_prefix(same), "203.0.113.0/24");
        }
    }
}
