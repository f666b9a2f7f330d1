//! The health of the targets behind the gateway. Calls note how they ended; `target_checks.rs` connects to
//! each target from time to time. Every process knows what it saw itself.
//!
//! A target that cannot be reached is left out for a second, and twice as long after each further failure, up
//! to a minute. When that time is over, one call tries it. The gateway uses this only where a resource has
//! several targets; a single one is always tried.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex as Lock;
use url::Url;

use super::App;
use crate::clock::Timestamp;
use crate::config::{ResourceConfig, TargetTag};
use crate::http_client::Backends;
use crate::telemetry::metrics::{TargetCounters, TargetFailure, TargetUp};

/// Longest time that a target is left out after a failure.
const LONGEST_PAUSE: i64 = 60;
/// A target is left out after so many calls in a row that it did not begin to answer in time. One slow tool
/// must not take away a target that answers everything else.
const TIMEOUTS: u32 = 3;

/// Whether a target can be reached, as far as calls and checks have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Neither a call nor a check has reached it since the start.
    Unknown,
    /// The last call or check succeeded, at this time.
    Up(Timestamp),
    /// The last call or check failed.
    Down {
        /// The first failure after the last success, or since it fails in another way: with a connection or
        /// without.
        since: Timestamp,
        /// The class of the last failure.
        failure: TargetFailure,
    },
}

/// What was seen of one target. All its numbers are Unix seconds, 0: never.
pub struct TargetSeen {
    resource: String,
    /// Its origin, for the log and metrics. A path may hold a key.
    label: String,
    counters: TargetCounters,
    answered_at: AtomicI64,
    failing_since: AtomicI64,
    /// The class of the last failure.
    failure: AtomicU8,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Calls leave it out until then.
    out_until: AtomicI64,
    /// How often it was left out since the last success.
    outs: AtomicU32,
}

impl TargetSeen {
    fn new(resource: &str, label: String, counters: TargetCounters) -> Self {
        Self {
            resource: resource.to_owned(),
            label,
            counters,
            answered_at: AtomicI64::new(0),
            failing_since: AtomicI64::new(0),
            failure: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicI64::new(0),
            outs: AtomicU32::new(0),
        }
    }

    /// Notes that the target answered a call.
    pub fn answered(&self, now: Timestamp) {
        // Written once a second only, because all cores share it.
        if self.answered_at.load(Ordering::Relaxed) != now.unix() {
            self.answered_at.store(now.unix(), Ordering::Relaxed);
        }
        if self.failing_since.load(Ordering::Relaxed) != 0 {
            self.recover();
        }
    }

    #[cold]
    fn recover(&self) {
        let was_failing = self.failing_since.swap(0, Ordering::Relaxed) != 0;
        let failure = TargetFailure::at(self.failure.load(Ordering::Relaxed));
        if was_failing && failure != TargetFailure::Status {
            let (resource, server) = (&self.resource, &self.label);
            tracing::info!(resource, server, "the target of an MCP server works again");
        }
        self.failures.store(0, Ordering::Relaxed);
        self.outs.store(0, Ordering::Relaxed);
        self.out_until.store(0, Ordering::Relaxed);
    }

    /// Notes that a call failed. `cause` is for the log.
    pub fn failed(&self, failure: TargetFailure, cause: &str, now: Timestamp) {
        self.counters.failed(failure);
        self.note(failure, cause, now);
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let is_out = failure.is_of_the_connection()
            || (failure == TargetFailure::Timeout && in_a_row >= TIMEOUTS);
        if is_out {
            self.leave_out(now);
        }
    }

    /// Notes that a check could not connect.
    pub(super) fn unreachable(&self, failure: TargetFailure, cause: &str, now: Timestamp) {
        // The pauses of a target that fails already are those of its calls.
        if self.note(failure, cause, now) {
            self.leave_out(now);
        }
    }

    /// Notes a failure, and logs it if it is another than before. Returns whether it is the first one.
    fn note(&self, failure: TargetFailure, cause: &str, now: Timestamp) -> bool {
        let before = self.failure.swap(failure as u8, Ordering::Relaxed);
        let is_first = self
            .failing_since
            .compare_exchange(0, now.unix(), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        let is_unreachable = failure.is_of_the_connection();
        if TargetFailure::at(before).is_of_the_connection() != is_unreachable {
            self.failing_since.store(now.unix(), Ordering::Relaxed); // it fails in another way
        }
        // An error status is one answer of a server that works otherwise; `gateway_calls` counts them.
        if (is_first || before != failure as u8) && failure != TargetFailure::Status {
            let (resource, server, class) = (&self.resource, &self.label, failure.word());
            let hint = hint(failure);
            tracing::warn!(
                resource,
                server,
                class,
                cause,
                "the target of an MCP server fails{hint}"
            );
        }
        is_first
    }

    /// Leaves the target out for the next pause, unless it is left out already.
    fn leave_out(&self, now: Timestamp) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        if is_before(now, until) {
            return false;
        }
        let outs = self.outs.load(Ordering::Relaxed);
        let pause = LONGEST_PAUSE.min(1 << outs.min(6));
        let next = now.unix() + pause;
        let first =
            self.out_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            self.outs.store(outs + 1, Ordering::Relaxed);
        }
        first.is_ok()
    }

    /// Whether a call that may go to any target may go to this one. When the time of a target that was left
    /// out is over, one call may, and the next only after another pause, unless the first one succeeds.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.out_until.load(Ordering::Relaxed) == 0 || self.leave_out(now)
    }

    /// Whether the last call or check failed.
    pub fn is_failing(&self) -> bool {
        self.failing_since.load(Ordering::Relaxed) != 0
    }

    /// Whether it has failed for at least this long.
    pub fn has_failed_for(&self, time: Duration, now: Timestamp) -> bool {
        let since = self.failing_since.load(Ordering::Relaxed);
        since != 0 && now.since(Timestamp::from_unix(since)) >= time
    }

    /// Notes that a check could connect. That ends failures of the connection. Whether a target answers again
    /// in time, only calls can show.
    pub(super) fn connected(&self, now: Timestamp) {
        let failure = TargetFailure::at(self.failure.load(Ordering::Relaxed));
        if !self.is_failing() || failure.is_of_the_connection() {
            self.answered(now);
        }
    }

    /// Whether the last failure was one of the connection, and nothing has succeeded since.
    pub(super) fn is_unreachable(&self) -> bool {
        let failure = TargetFailure::at(self.failure.load(Ordering::Relaxed));
        self.is_failing() && failure.is_of_the_connection()
    }

    /// Returns what is known of the target.
    pub fn state(&self) -> TargetState {
        let since = self.failing_since.load(Ordering::Relaxed);
        if since != 0 {
            let failure = TargetFailure::at(self.failure.load(Ordering::Relaxed));
            return TargetState::Down { since: Timestamp::from_unix(since), failure };
        }
        match self.answered_at.load(Ordering::Relaxed) {
            0 => TargetState::Unknown,
            at => TargetState::Up(Timestamp::from_unix(at)),
        }
    }
}

/// Whether `until` is still to come. A time that is further away than any pause comes from a clock that was
/// set back since.
const fn is_before(now: Timestamp, until: i64) -> bool {
    let left = until - now.unix();
    0 < left && left <= LONGEST_PAUSE
}

/// What an administrator can do, where the class says it.
const fn hint(failure: TargetFailure) -> &'static str {
    match failure {
        TargetFailure::Certificate => {
            ": its certificate is not trusted; name the authority in ca, or the host as the certificate does"
        }
        TargetFailure::ClientCertificate => {
            ": it does not accept our certificate; see client_cert and client_key"
        }
        _ => "",
    }
}

/// The targets that the gateway has fronted since the start, by resource and URL. A few for each
/// configuration; the checks remove those that are no longer configured.
#[derive(Default)]
pub(super) struct Targets(Lock<HashMap<(String, Url), Arc<TargetSeen>>>);

impl Targets {
    pub(super) fn keep(&self, is_configured: impl Fn(&str, &Url) -> bool) {
        self.0.lock().retain(|(resource, url), _| is_configured(resource, url));
    }
}

impl App {
    /// Returns what was seen of a target. All configurations of this process share it.
    pub fn target_seen(&self, resource: &ResourceConfig, target: &Url) -> Arc<TargetSeen> {
        let mut targets = self.0.shared.targets.0.lock();
        let key = (resource.id.clone(), target.clone());
        let seen = targets.entry(key).or_insert_with(|| {
            let label = label(target, &resource.targets);
            let path = resource.path.as_deref().unwrap_or_default();
            let counters = self.metrics().target(path, &label);
            Arc::new(TargetSeen::new(&resource.id, label, counters))
        });
        Arc::clone(seen)
    }

    /// Returns the state of each target, for metrics.
    pub fn targets_up(&self) -> Vec<TargetUp> {
        let fronted = self.config().resources.iter().filter(|resource| resource.is_fronted());
        let of = |resource: &ResourceConfig| {
            let path = resource.path.clone().unwrap_or_default();
            let up = |target: &Url| {
                let seen = self.target_seen(resource, target);
                let (path, target) = (path.clone(), seen.label.clone());
                TargetUp { path, target, up: !seen.is_failing() }
            };
            resource.targets.iter().map(up).collect::<Vec<_>>()
        };
        fronted.flat_map(of).collect()
    }

    /// Returns the HTTP clients for the targets of a resource.
    pub fn backends(&self, resource: &ResourceConfig) -> Option<Backends> {
        let mut known = self.0.backends.iter();
        let found = known.find(|(settings, _)| *settings == resource.connection);
        found.map(|(_, backends)| backends.clone())
    }
}

/// Returns the label of a target in the log and in metrics: its origin. If another target of the resource has
/// the same origin, a part of the tag follows.
fn label(target: &Url, all: &[Url]) -> String {
    let origin = target.origin().ascii_serialization();
    let is_alone = all.iter().all(|other| other == target || other.origin() != target.origin());
    if is_alone { origin } else { format!("{origin}#{}", TargetTag::of(target).short()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn seen() -> TargetSeen {
        let counters = Metrics::new().target("/mcp", "http://inner:9000");
        TargetSeen::new("https://mcp.example.com/mcp", "http://inner:9000".to_owned(), counters)
    }

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn down(since: i64, failure: TargetFailure) -> TargetState {
        TargetState::Down { since: at(since), failure }
    }

    #[test]
    fn the_last_call_decides_and_the_first_failure_is_remembered() {
        let seen = seen();
        assert_eq!(seen.state(), TargetState::Unknown);
        seen.answered(at(100));
        assert_eq!(seen.state(), TargetState::Up(at(100)));
        seen.failed(TargetFailure::Status, "500", at(100));
        assert_eq!(seen.state(), down(100, TargetFailure::Status));
        seen.failed(TargetFailure::Refused, "refused", at(130));
        assert_eq!(seen.state(), down(130, TargetFailure::Refused), "it fails in another way");
        seen.failed(TargetFailure::ConnectTimeout, "late", at(150));
        assert_eq!(seen.state(), down(130, TargetFailure::ConnectTimeout));
        assert!(!seen.has_failed_for(Duration::from_secs(21), at(150)));
        assert!(seen.has_failed_for(Duration::from_secs(20), at(150)));
        seen.answered(at(160));
        assert_eq!(seen.state(), TargetState::Up(at(160)));
    }

    #[test]
    fn a_target_that_cannot_be_reached_is_left_out_for_a_growing_time_with_one_trial_after_each() {
        let seen = seen();
        let mut now = 1000;
        seen.failed(TargetFailure::Refused, "refused", at(now));
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(!seen.admits(at(now)), "left out for {pause} s");
            seen.failed(TargetFailure::Refused, "refused", at(now)); // of a call under way: counts once
            assert!(!seen.admits(at(now + pause - 1)), "{pause}");
            now += pause;
            assert!(seen.admits(at(now)), "one call tries after {pause} s");
        }
        seen.answered(at(now));
        assert!(seen.admits(at(now)) && seen.admits(at(now)));
        seen.failed(TargetFailure::Refused, "refused", at(now));
        assert!(seen.admits(at(now + 1)), "the pauses begin again");
        assert!(
            seen.admits(at(now - 100_000)),
            "a clock that was set back leaves nothing out for long"
        );
    }

    #[test]
    fn a_slow_tool_alone_leaves_nothing_out_and_a_check_does_not_end_what_only_calls_show() {
        let seen = seen();
        for _ in 0..2 {
            seen.failed(TargetFailure::Timeout, "timeout", at(10));
            seen.failed(TargetFailure::Timeout, "timeout", at(10));
            assert!(seen.admits(at(10)));
            seen.answered(at(10));
        }
        for _ in 0..3 {
            seen.failed(TargetFailure::Timeout, "timeout", at(10));
        }
        assert!(!seen.admits(at(10)));
        seen.connected(at(10));
        assert_eq!(seen.state(), down(10, TargetFailure::Timeout));
        for _ in 0..9 {
            seen.answered(at(20));
            seen.failed(TargetFailure::Status, "500", at(20));
        }
        assert!(seen.admits(at(20)), "an error is an answer");
        seen.failed(TargetFailure::Certificate, "untrusted", at(20));
        seen.connected(at(21));
        assert_eq!(seen.state(), TargetState::Up(at(21)));
    }

    #[test]
    fn a_label_has_no_path_and_no_two_targets_have_one() {
        let url = |text: &str| Url::parse(text).unwrap();
        let one = url("https://a.example:8443/mcp/key-canary");
        assert_eq!(label(&one, std::slice::from_ref(&one)), "https://a.example:8443");
        let all = [one.clone(), url("https://a.example:8443/other")];
        let labels = all.clone().map(|target| label(&target, &all));
        assert_ne!(labels[0], labels[1]);
        assert!(labels.iter().all(|label| !label.contains("canary")), "{labels:?}");
    }
}
