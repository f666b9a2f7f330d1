//! The metrics of this process, for `/metrics` on the admin listener.
//!
//! Label values are our own: routes as the route table writes them, paths of configured MCP servers,
//! statuses, outcomes. No label contains a caller's input, a client or a person (threat DS-12), so the number
//! of time series does not grow with the callers. A request costs one lookup of its route, and additions to
//! atomic counters.

mod calls;
mod groups;
mod outcomes;
mod process;
mod routes;
mod service_tokens;
mod snapshot;
mod targets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use strum::VariantArray as _;
use tokio::time::Instant;

pub use calls::{Calls, MCP_OPERATIONS};
pub use groups::ToolCalls;
pub use outcomes::{
    Answered, CertificateOutcome, NotifyOutcome, Passed, Rechecked, RetryCause, ServiceTokenOutcome,
};
pub use routes::{ListenerKind, RouteMetrics};
pub use service_tokens::BrokenConnections;
pub use snapshot::Snapshot;
pub use targets::{TargetCounters, TargetFailure, TargetUp};

use super::audit::EVENTS;
use super::export_signal::ExportSignal;
use super::families::{Gauges, counter, counters, gauge, one};
use super::lately::Lately;
use super::queue;
use super::tasks::TaskStates;
use crate::clock::Timestamp;
use crate::config::{self, LimitTrait};
use groups::{OutgoingMetrics, PassedMetrics, TransactionMetrics};
use routes::Routes;
use service_tokens::ServiceTokenSeries;
use snapshot::Now;
use targets::TargetSeries;

/// All metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Numbers>);

struct Numbers {
    registry: Registry,
    routes: Routes,
    events: BTreeMap<&'static str, Counter>,
    audit_failures: Counter,
    /// Lost log lines: those that the full queue refused, and those that could not be written.
    lines_lost: Vec<Counter>,
    lines_lost_lately: Lately,
    tasks: TaskStates,
    limits: BTreeMap<&'static str, Counter>,
    connections: [Gauge; 3],
    streams: Gauge,
    outgoing: OutgoingMetrics,
    passed: PassedMetrics,
    targets: TargetSeries,
    service_tokens: ServiceTokenSeries,
    telemetry_dropped: Vec<Counter>,
    transactions: TransactionMetrics,
    now: Now,
}

const DROPPED: (&str, &str) =
    ("telemetry_dropped", "Spans, metrics and log lines that no collector took, by signal");
const LIMITED: (&str, &str) = ("limited", "Refusals because of a limit, by its key");

/// Returns the names of the limits whose refusals are counted.
fn counted_limits() -> impl Iterator<Item = &'static str> {
    config::limits().filter(|limit| limit.is(LimitTrait::Counted)).map(|limit| limit.name)
}

/// Registers a counter for each of these values of a label.
fn by_name(
    r: &mut Registry,
    name_and_help: (&str, &str),
    label: &'static str,
    values: impl Iterator<Item = &'static str>,
) -> BTreeMap<&'static str, Counter> {
    let values: Vec<&'static str> = values.collect();
    let counters = counters(r, name_and_help, label, values.iter().copied());
    values.into_iter().zip(counters).collect()
}

fn connections(r: &mut Registry) -> [Gauge; 3] {
    let connections = Gauges::<1>::default();
    r.register("connections", "Open connections", connections.clone());
    [ListenerKind::Public, ListenerKind::Admin, ListenerKind::Plain]
        .map(|on| connections.get_or_create_owned(&one("listener", on.word())))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates metrics that are all zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let process = process::Process::register(&mut registry);
        let r = registry.sub_registry_with_prefix("portcullis");
        let build = vec![("version", env!("CARGO_PKG_VERSION"))];
        r.register("build", "Which program this is", Info::new(build));

        let events = ("events", "What happened, by the names of the audit trail");
        let audit_failures =
            "Audit events that only the log has: the database could not store them";
        let lost =
            "Lines of the log that were lost: there was no room, or they could not be written";
        let signals = ExportSignal::VARIANTS.iter().map(|signal| signal.word());
        Self(Arc::new(Numbers {
            routes: Routes::register(r),
            events: by_name(r, events, "event", EVENTS.iter().copied()),
            audit_failures: counter(r, "audit_failures", audit_failures),
            lines_lost: counters(r, ("log_lines_lost", lost), "why", ["full", "failed"]),
            lines_lost_lately: Lately::default(),
            tasks: TaskStates::register(r),
            limits: by_name(r, LIMITED, "limit", counted_limits()),
            connections: connections(r),
            streams: gauge(r, "streams", "Open event streams through the gateway"),
            outgoing: OutgoingMetrics::register(r),
            passed: PassedMetrics::register(r),
            targets: TargetSeries::register(r),
            service_tokens: ServiceTokenSeries::register(r),
            telemetry_dropped: counters(r, DROPPED, "signal", signals),
            transactions: TransactionMetrics::register(r),
            now: Now::register(r, process),
            registry,
        }))
    }

    /// Returns the metrics of one route. `template` is its pattern in the route table.
    pub fn route(&self, listener: ListenerKind, template: &str) -> Arc<RouteMetrics> {
        self.0.routes.of(listener, template)
    }

    pub fn event(&self, name: &str) {
        if let Some(counter) = self.0.events.get(name) {
            counter.inc();
        }
    }

    /// Counts audit events that could not be stored, so that at most the log has them.
    pub fn audit_failed(&self, events: usize) {
        self.0.audit_failures.inc_by(events as u64);
    }

    /// Counts a refusal because of a limit. `name` is its key in `[limits]`; the table of limits marks it as
    /// [`LimitTrait::Counted`].
    pub fn limited(&self, name: &str) {
        debug_assert!(self.0.limits.contains_key(name), "the limit {name} is not counted");
        if let Some(counter) = self.0.limits.get(name) {
            counter.inc();
        }
    }

    /// Counts an open connection until the returned value is dropped.
    #[must_use]
    pub fn connection(&self, listener: ListenerKind) -> OpenStream {
        OpenStream::one_more(&self.0.connections[listener as usize])
    }

    /// Counts an open event stream until the returned value is dropped.
    #[must_use]
    pub fn stream(&self) -> OpenStream {
        OpenStream::one_more(&self.0.streams)
    }

    /// Records a request to the identity provider.
    pub fn upstream(&self, outcome: Answered, took: Duration) {
        self.0.outgoing.upstream[outcome as usize].inc();
        self.0.outgoing.upstream_seconds.observe(took.as_secs_f64());
    }

    /// Records the outcome of a recheck.
    pub fn rechecked(&self, outcome: Rechecked) {
        self.0.outgoing.rechecks[outcome as usize].inc();
    }

    /// Records what became of notifications.
    pub fn notified(&self, outcome: NotifyOutcome, messages: u64) {
        self.0.outgoing.notified[outcome as usize].inc_by(messages);
    }

    /// Records an order of a certificate.
    pub fn certificate_ordered(&self, outcome: CertificateOutcome) {
        self.0.outgoing.certificates[outcome as usize].inc();
    }

    /// Returns the metrics of calls to the MCP server at this configured path.
    pub fn calls(&self, path: &str) -> Calls {
        self.0.passed.calls(path)
    }

    /// Returns the metrics of calls of tools at the MCP server at this configured path, one for each outcome.
    pub fn tool_calls(&self, path: &str, outcomes: &[&'static str]) -> ToolCalls {
        self.0.passed.tools(path, outcomes)
    }

    /// Counts telemetry that was not delivered.
    pub fn telemetry_dropped(&self, signal: ExportSignal, items: usize) {
        self.0.telemetry_dropped[signal as usize].inc_by(items as u64);
    }

    /// Returns the metrics of one target behind this configured path. `target` is its label.
    pub fn target(&self, path: &str, target: &str) -> TargetCounters {
        self.0.targets.counters(path, target)
    }

    /// Counts a call that needed a person's token of a service. `service` is the name of a configured
    /// connection, or `sign-in` for the token of the sign-in provider: never a caller's input.
    pub fn service_token(&self, service: &str, outcome: ServiceTokenOutcome) {
        self.0.service_tokens.count(service, outcome);
    }

    /// Records how long a transaction waited for the writer (SQLite) or a connection (PostgreSQL).
    pub fn step_waited(&self, since: Instant) {
        self.0.transactions.step_wait.observe(since.elapsed().as_secs_f64());
    }

    /// Records a commit, and how many transactions shared it (SQLite).
    pub fn committed(&self, steps: Option<usize>, since: Instant) {
        self.0.transactions.commit_seconds.observe(since.elapsed().as_secs_f64());
        if let Some(steps) = steps.and_then(|steps| u32::try_from(steps).ok()) {
            self.0.transactions.commit_steps.observe(f64::from(steps));
        }
    }

    /// Counts something that was repeated on PostgreSQL: a transaction, a statement outside of one, or the
    /// beginning of one.
    pub fn retried(&self, cause: RetryCause) {
        self.0.transactions.retries[cause as usize].inc();
    }

    pub(super) fn tasks(&self) -> &TaskStates {
        &self.0.tasks
    }

    /// Returns the name and state of each background task that panicked recently or is not running.
    pub fn tasks_in_trouble(&self, now: Timestamp) -> Vec<(&'static str, &'static str)> {
        self.0.tasks.in_trouble(now)
    }

    /// Whether log lines were lost recently.
    pub fn loses_lines(&self, now: Timestamp) -> bool {
        let (full, failed) = queue::lost();
        self.0.lines_lost_lately.has_risen(full + failed, now)
    }

    /// Returns all metrics as `OpenMetrics` text.
    pub fn text(&self, snapshot: &Snapshot) -> Result<String, std::fmt::Error> {
        self.0.now.set(snapshot);
        self.0.targets.set(&snapshot.targets);
        self.0.service_tokens.set(snapshot.broken_connections.as_deref());
        let (full, failed) = queue::lost();
        for (counter, lost) in self.0.lines_lost.iter().zip([full, failed]) {
            counter.inner().store(lost, std::sync::atomic::Ordering::Relaxed);
        }
        let mut text = String::with_capacity(32 * 1024);
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Increments a gauge until it is dropped.
pub struct OpenStream(Gauge);

impl OpenStream {
    fn one_more(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.stream(), metrics.stream());
        drop(one);

        let text = metrics.text(&Snapshot::default()).unwrap();

        assert!(text.contains("\nportcullis_streams 1\n"), "{text}");
        drop(two);
        let text = metrics.text(&Snapshot::default()).unwrap();
        assert!(text.contains("\nportcullis_streams 0\n"), "{text}");
    }

    #[test]
    fn every_event_and_limit_is_there_before_it_happens() {
        let metrics = Metrics::new();
        metrics.event("code_redeemed");

        let text = metrics.text(&Snapshot::default()).unwrap();

        assert!(text.contains("portcullis_events_total{event=\"code_redeemed\"} 1"), "{text}");
        assert!(text.contains("portcullis_events_total{event=\"refresh_reused\"} 0"), "{text}");
        assert!(text.contains("portcullis_limited_total{limit=\"token_per_minute\"} 0"), "{text}");
    }
}
