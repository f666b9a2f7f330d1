//! P10: the limiter against a naive model. A limit of `most` in a window with a burst of `at_once` is a
//! bucket: full with `at_once`, one more every `window / most`. So no window, wherever it begins, sees more
//! than `at_once` and what trickled in meanwhile, and over a long time no more than the limit passes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::config::RateLimits;
use portcullis::rate_limits::{LimitedAction, Rates};
use portcullis::telemetry::metrics::Metrics;
use proptest::prelude::*;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

fn limits(most: u32, at_once: u32) -> RateLimits {
    let number = |number| NonZeroU32::new(number).unwrap();
    RateLimits {
        authorize_per_minute: number(most),
        consent_per_minute: number(most),
        sign_ins_per_minute: number(most),
        pages_per_minute: number(most),
        token_per_minute: number(most),
        token_failures_per_minute: number(most),
        admin_sign_in_failures: number(most),
        registrations_per_hour: number(most),
        registrations_at_once: number(at_once),
        discovery_per_minute: number(most),
        refreshes_per_minute: number(most),
        connections_per_address: most,
        requests_per_person: most,
        requests_per_client: most,
        streams_per_person: most,
        streams_per_client: most,
    }
}

/// A bucket of nanoseconds: an admission costs one period, and time fills it up again.
struct Bucket {
    period: i64,
    most: i64,
    left: i64,
    at: i64,
}

impl Bucket {
    fn new(most: u32, at_once: u32, window: i64, now: i64) -> Self {
        let period = window * 1_000_000_000 / i64::from(most);
        let full = period * i64::from(at_once);
        Self { period, most: full, left: full, at: now }
    }

    /// Whether one passes; else seconds to wait, rounded up.
    fn take(&mut self, now: i64) -> Result<(), u64> {
        let gone = (now - self.at).saturating_mul(1_000_000_000);
        self.left = self.left.saturating_add(gone).min(self.most);
        self.at = now;
        if self.left >= self.period {
            self.left -= self.period;
            return Ok(());
        }
        let missing = self.period - self.left;
        Err(u64::try_from((missing + 999_999_999) / 1_000_000_000).unwrap())
    }
}

fn steps() -> impl Strategy<Value = Vec<(i64, usize)>> {
    let wait = prop_oneof![
        6 => Just(0_i64),
        3 => 1..5_i64,
        2 => 5..90_i64,
        1 => prop::sample::select(vec![59_i64, 60, 61, 3599, 3600, 3601, 100_000]),
    ];
    prop::collection::vec((wait, 0..3_usize), 1..120)
}

fn addresses() -> [IpAddr; 3] {
    [
        Ipv4Addr::new(203, 0, 113, 7).into(),
        Ipv4Addr::new(198, 51, 100, 7).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1).into(),
    ]
}

/// No window holds more than the burst and what trickled in, and `sweep` changes nothing.
fn check(
    most: u32,
    at_once: u32,
    window: i64,
    steps: &[(i64, usize)],
    ask: impl Fn(&Rates, usize) -> Result<(), u64>,
) -> Result<(), TestCaseError> {
    let hand = ManualClock::at(Timestamp::from_unix(crate::harness::START));
    let rates =
        Rates::new(&limits(most, at_once), true, &Clock::Manual(hand.clone()), Metrics::new());
    let mut buckets = BTreeMap::new();
    let mut admitted: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for (number, (wait, who)) in steps.iter().enumerate() {
        hand.advance(*wait);
        if number % 7 == 3 {
            rates.sweep();
        }
        let now = hand.now().unix();
        let bucket = buckets.entry(*who).or_insert_with(|| Bucket::new(most, at_once, window, now));
        let answer = ask(&rates, *who);
        prop_assert_eq!(answer, bucket.take(now), "step {} of {:?}", number, steps);
        if answer.is_ok() {
            admitted.entry(*who).or_default().push(now);
        }
    }
    for times in admitted.values() {
        for (first, from) in times.iter().enumerate() {
            for (last, to) in times.iter().enumerate().skip(first) {
                let trickled = (to - from) * i64::from(most) / window;
                let passed = i64::try_from(last - first + 1).unwrap();
                prop_assert!(passed <= i64::from(at_once) + trickled + 1, "{:?}", times);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p10_no_window_admits_more_than_the_limit(most in 1..40_u32, at_once in 1..40_u32, steps in steps()) {
        let ask = |what| move |rates: &Rates, who: usize| {
            rates.check(what, Some(addresses()[who])).map_err(|often| often.retry_after)
        };
        for what in [LimitedAction::Authorize, LimitedAction::Consent, LimitedAction::SignIn, LimitedAction::Pages, LimitedAction::Token, LimitedAction::TokenFailure, LimitedAction::Discovery] {
            check(most, most, MINUTE, &steps, ask(what))?;
        }
        check(most, at_once, HOUR, &steps, ask(LimitedAction::Registration))?;
        check(most, most, MINUTE, &steps, |rates, who| {
            rates.refreshed(&format!("grant {who}")).map_err(|often| often.retry_after)
        })?;
    }

    #[test]
    fn p10_nobody_has_more_places_at_once_than_the_limit(most in 0..5_u32, steps in prop::collection::vec((any::<bool>(), 0..3_usize), 0..60)) {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(crate::harness::START)));
        let rates = Rates::new(&limits(most.max(1), 1), true, &clock, Metrics::new());
        let mut held: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for (enters, who) in steps {
            let places = held.entry(who).or_default();
            if enters {
                let place = rates.connection(addresses()[who]);
                prop_assert_eq!(place.is_some(), places.len() < most.max(1) as usize);
                places.extend(place);
            } else {
                places.pop();
            }
        }
    }
}
