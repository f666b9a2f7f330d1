//! The metrics of this process, for `/metrics` on the admin listener.
//!
//! Label values are our own: routes as the route table writes them, paths of configured MCP servers,
//! statuses, outcomes. No label contains a caller's input, a client or a person (threat DS-12), so the number
//! of time series does not grow with the callers. A request costs one lookup of its route, and additions to
//! atomic counters.

mod process;
mod routes;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

pub use routes::{ListenerKind, RouteMetrics};

use super::audit::EVENTS;
use super::families::{Counters, Gauges, Histograms, one};
use super::lately::Lately;
use super::queue;
use super::tasks::TaskStates;
use crate::clock::Timestamp;
use crate::config::{self, Limit, LimitTrait};
use routes::Routes;
use strum::{IntoStaticStr, VariantArray};

/// Buckets of response times in seconds, from a cached document to a slow identity provider.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Buckets for the number of transactions that share a commit.
const STEPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// The outcome of a call that the gateway forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Passed {
    /// The MCP server responded with another status than 5xx.
    #[strum(serialize = "answered")]
    Answered,
    /// The MCP server responded with 5xx.
    #[strum(serialize = "failed")]
    Failed,
    /// The MCP server did not respond in time.
    #[strum(serialize = "timed_out")]
    TimedOut,
    /// No response came, or none that may be passed on.
    #[strum(serialize = "broken")]
    Broken,
    /// The gateway itself refused the call or its response: the body was too large, the session another
    /// caller's, or the grant ended meanwhile.
    #[strum(serialize = "withheld")]
    Withheld,
}

impl Passed {
    /// Returns the label in metrics.
    fn word(self) -> &'static str {
        self.into()
    }
}

/// The outcome of a recheck: whether the identity provider still confirms a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Rechecked {
    /// The last confirmation is recent enough; the provider was not asked.
    #[strum(serialize = "remembered")]
    Remembered,
    /// The provider confirmed the person.
    #[strum(serialize = "confirmed")]
    Confirmed,
    /// The provider cannot be reached; its last confirmation still counts.
    #[strum(serialize = "bridged")]
    Bridged,
    /// The provider refused, or the session has ended.
    #[strum(serialize = "ended")]
    Ended,
    /// The provider cannot be reached, and its last confirmation is too old.
    #[strum(serialize = "unknown")]
    Unknown,
}

impl Rechecked {
    /// Returns the label in metrics.
    fn word(self) -> &'static str {
        self.into()
    }
}

/// What became of a notification to administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum NotifyOutcome {
    /// It was delivered.
    #[strum(serialize = "delivered")]
    Delivered,
    /// An attempt failed; there are more.
    #[strum(serialize = "failed")]
    Failed,
    /// All attempts failed.
    #[strum(serialize = "given_up")]
    GivenUp,
    /// It was dropped because too many waited.
    #[strum(serialize = "dropped")]
    Dropped,
}

impl NotifyOutcome {
    /// Returns the label in metrics.
    fn word(self) -> &'static str {
        self.into()
    }
}

/// The outcome of a request to the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Answered {
    /// 2xx or 3xx.
    #[strum(serialize = "ok")]
    Ok,
    /// 4xx: it refuses a person, a token or this client.
    #[strum(serialize = "refused")]
    Refused,
    /// 5xx.
    #[strum(serialize = "failed")]
    Failed,
    /// No response in time.
    #[strum(serialize = "timed_out")]
    TimedOut,
    /// No connection, no TLS, a failed proxy, or a response that is too large.
    #[strum(serialize = "unreachable")]
    Unreachable,
}

impl Answered {
    /// Returns the label in metrics.
    fn word(self) -> &'static str {
        self.into()
    }
}

/// All metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Numbers>);

struct Numbers {
    registry: Registry,
    routes: Routes,
    events: BTreeMap<&'static str, Counter>,
    audit_failures: Counter,
    /// Lost log lines: those that the full queue refused, and those that could not be written.
    lines_lost: [Counter; 2],
    lines_lost_lately: Lately,
    tasks: TaskStates,
    limits: BTreeMap<&'static str, Counter>,
    connections: [Gauge; 2],
    streams: Gauge,
    upstream: Vec<Counter>,
    upstream_seconds: Histogram,
    rechecks: Vec<Counter>,
    notified: Vec<Counter>,
    passed: Counters<2>,
    passed_seconds: Histograms<1>,
    step_wait: Histogram,
    commit_seconds: Histogram,
    commit_steps: Histogram,
    now: Now,
}

/// Gauges that are set from a [`Snapshot`] at each scrape.
struct Now {
    ready: Gauge,
    database_room: Gauge,
    upstream_paused: Gauge,
    clients: Gauge,
    clients_limit: Gauge,
    writer_waiting: Gauge,
    configured_at: Gauge,
    problems: Gauge,
    waiting: Gauge,
    clock_ahead: Gauge,
    replicas: Gauge,
    configured_differently: Gauge,
    went_back_at: Gauge,
    database_connections: Gauges<1>,
    key_created: Gauges<2>,
    key_signs_from: Gauges<2>,
    process: process::Process,
}

/// Values that other modules supply for [`Metrics::text`].
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whether `/ready` succeeds.
    pub ready: bool,
    /// What the database still accepts: 0 nothing, 1 no sign-ins, 2 no registrations, 3 everything.
    pub database_room: u8,
    /// Whether requests to the identity provider pause after failures.
    pub upstream_paused: bool,
    /// The number of registered clients; `None` if the database cannot be read.
    pub clients: Option<i64>,
    /// The most registered clients that are allowed.
    pub clients_limit: u64,
    /// Callers that wait for the writer (SQLite).
    pub writer_waiting: usize,
    /// Connections to the database, in use and idle.
    pub database_connections: (u32, u32),
    /// When the configuration in use was read, Unix seconds.
    pub configured_at: i64,
    /// The number of mistakes in the configuration file as last read.
    pub problems: usize,
    /// The number of keys that changed and need a restart.
    pub waiting: usize,
    /// Seconds that the clock is ahead of the database's; negative if behind.
    pub clock_ahead: i64,
    /// The number of running replicas, including this one.
    pub replicas: usize,
    /// How many of them have another configuration than this one.
    pub configured_differently: usize,
    /// When it was last noticed that the database went back in time, in Unix seconds; 0 if never.
    pub went_back_at: i64,
    /// Signing keys: algorithm, state, creation time, and time of first use, both in Unix seconds.
    pub keys: Vec<(&'static str, &'static str, i64, i64)>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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

        let routes = Routes::register(r);
        let events = Counters::<1>::default();
        r.register("events", "What happened, by the names of the audit trail", events.clone());
        let events =
            EVENTS.iter().map(|name| (*name, events.get_or_create_owned(&one("event", name))));
        let audit_failures = Counter::default();
        let help = "Audit events that only the log has: the database could not store them";
        r.register("audit_failures", help, audit_failures.clone());
        let lost = Counters::<1>::default();
        let help =
            "Lines of the log that were lost: there was no room, or they could not be written";
        r.register("log_lines_lost", help, lost.clone());
        let lines_lost = ["full", "failed"].map(|why| lost.get_or_create_owned(&one("why", why)));
        let tasks = TaskStates::register(r);
        let limits = Counters::<1>::default();
        r.register("limited", "Refusals because of a limit, by its key", limits.clone());
        let limits = config::limits()
            .filter(|limit| limit.is(LimitTrait::Counted))
            .map(|Limit { name, .. }| (*name, limits.get_or_create_owned(&one("limit", name))));

        let connections = Gauges::<1>::default();
        r.register("connections", "Open connections", connections.clone());
        let connections = [ListenerKind::Public, ListenerKind::Admin]
            .map(|on| connections.get_or_create_owned(&one("listener", on.word())));
        let streams = Gauge::default();
        r.register("streams", "Open event streams through the gateway", streams.clone());

        let upstream = Counters::<1>::default();
        let help = "Requests to the identity provider, by outcome";
        r.register("upstream_requests", help, upstream.clone());
        let upstream = Answered::VARIANTS
            .iter()
            .map(|outcome| upstream.get_or_create_owned(&one("outcome", outcome.word())))
            .collect();
        let upstream_seconds = seconds();
        let help = "How long the identity provider took to answer";
        r.register_with_unit("upstream_duration", help, Unit::Seconds, upstream_seconds.clone());
        let rechecks = Counters::<1>::default();
        let help = "Whether the identity provider still vouches for people, by outcome";
        r.register("rechecks", help, rechecks.clone());
        let rechecks = Rechecked::VARIANTS
            .iter()
            .map(|outcome| rechecks.get_or_create_owned(&one("outcome", outcome.word())))
            .collect();

        let notified = Counters::<1>::default();
        let help = "Notifications to administrators, by outcome";
        r.register("notifications", help, notified.clone());
        let notified = NotifyOutcome::VARIANTS
            .iter()
            .map(|outcome| notified.get_or_create_owned(&one("outcome", outcome.word())))
            .collect();

        let passed = Counters::<2>::default();
        let help = "Calls that the gateway passed to MCP servers, by path and outcome";
        r.register("gateway_calls", help, passed.clone());
        let passed_seconds = Histograms::<1>::new_with_constructor(seconds);
        let help = "Until an MCP server began to answer";
        r.register_with_unit("gateway_duration", help, Unit::Seconds, passed_seconds.clone());

        let step_wait = seconds();
        let help = "Until a step had the writer (SQLite) or a connection (PostgreSQL)";
        r.register_with_unit("step_wait", help, Unit::Seconds, step_wait.clone());
        let commit_seconds = seconds();
        let help = "Until a commit was on the disk";
        r.register_with_unit("commit_duration", help, Unit::Seconds, commit_seconds.clone());
        let commit_steps = Histogram::new(STEPS);
        r.register("commit_steps", "Steps that shared a commit (SQLite)", commit_steps.clone());

        let now = Now::register(r, process);
        Self(Arc::new(Numbers {
            routes,
            events: events.collect(),
            audit_failures,
            lines_lost,
            lines_lost_lately: Lately::default(),
            tasks,
            limits: limits.collect(),
            connections,
            streams,
            upstream,
            upstream_seconds,
            rechecks,
            notified,
            passed,
            passed_seconds,
            step_wait,
            commit_seconds,
            commit_steps,
            now,
            registry,
        }))
    }

    /// Returns the metrics of one route. `template` is its pattern in the route table.
    pub fn route(&self, listener: ListenerKind, template: &str) -> Arc<RouteMetrics> {
        self.0.routes.of(listener, template)
    }

    /// Counts an audit event.
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
        self.0.upstream[outcome as usize].inc();
        self.0.upstream_seconds.observe(took.as_secs_f64());
    }

    /// Records the outcome of a recheck.
    pub fn rechecked(&self, outcome: Rechecked) {
        self.0.rechecks[outcome as usize].inc();
    }

    /// Records what became of notifications.
    pub fn notified(&self, outcome: NotifyOutcome, messages: u64) {
        self.0.notified[outcome as usize].inc_by(messages);
    }

    /// Returns the metrics of calls to the MCP server at this configured path.
    pub fn calls(&self, path: &str) -> Calls {
        let path: Cow<'static, str> = Cow::Owned(path.to_owned());
        let outcome = |outcome: &Passed| {
            let labels = [("path", path.clone()), ("outcome", outcome.word().into())];
            self.0.passed.get_or_create_owned(&labels)
        };
        let seconds = self.0.passed_seconds.get_or_create_owned(&[("path", path.clone())]);
        Calls { outcomes: Passed::VARIANTS.iter().map(outcome).collect(), seconds }
    }

    /// Records how long a transaction waited for the writer (SQLite) or a connection (PostgreSQL).
    pub fn step_waited(&self, since: Instant) {
        self.0.step_wait.observe(since.elapsed().as_secs_f64());
    }

    /// Records a commit, and how many transactions shared it (SQLite).
    pub fn committed(&self, steps: Option<usize>, since: Instant) {
        self.0.commit_seconds.observe(since.elapsed().as_secs_f64());
        if let Some(steps) = steps.and_then(|steps| u32::try_from(steps).ok()) {
            self.0.commit_steps.observe(f64::from(steps));
        }
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

/// The metrics of calls to one MCP server.
pub struct Calls {
    outcomes: Vec<Counter>,
    seconds: Histogram,
}

impl Calls {
    /// Records a forwarded call and its duration.
    pub fn passed(&self, outcome: Passed, since: Instant) {
        self.outcomes[outcome as usize].inc();
        self.seconds.observe(since.elapsed().as_secs_f64());
    }
}

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

impl Now {
    fn register(r: &mut Registry, process: process::Process) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            r.register(name, help, gauge.clone());
            gauge
        };
        let ready = gauge("ready", "1 while /ready says yes");
        let help =
            "Room of the database: 3 enough, 2 not for registrations, 1 nor for sign-ins, 0 none";
        let database_room = gauge("database_room", help);
        let upstream_paused =
            gauge("upstream_paused", "1 while the identity provider is left alone after failures");
        let clients = gauge("clients", "Clients that registered themselves");
        let clients_limit = gauge("clients_limit", "limits.clients");
        let writer_waiting = gauge("writer_waiting", "Callers that wait for the writer (SQLite)");
        let help = "When the configuration in use was read, Unix seconds";
        let configured_at = gauge("configuration_read_timestamp", help);
        let help = "Mistakes in the configuration as it is written now; the one before is in use";
        let problems = gauge("configuration_mistakes", help);
        let help = "Changed keys of the configuration that wait for a restart";
        let waiting = gauge("configuration_waiting", help);
        let help = "Seconds that the clock is ahead of the database's; negative: behind";
        let clock_ahead = gauge("clock_ahead_seconds", help);
        let replicas = gauge("replicas", "Replicas that are running, with this one");
        let help = "Replicas whose configuration differs from this one's";
        let configured_differently = gauge("configuration_differs", help);
        let help = "When it was noticed last that the database went back in time, Unix seconds";
        let went_back_at = gauge("database_went_back_timestamp", help);
        let database_connections = Gauges::<1>::default();
        let help = "Connections of the pool to the database";
        r.register("database_connections", help, database_connections.clone());
        let key_created = Gauges::<2>::default();
        let help = "When a published signing key was made, Unix seconds";
        r.register("signing_key_created_timestamp", help, key_created.clone());
        let key_signs_from = Gauges::<2>::default();
        let help = "From when a published signing key signs, Unix seconds";
        r.register("signing_key_signs_from_timestamp", help, key_signs_from.clone());
        Self {
            ready,
            database_room,
            upstream_paused,
            clients,
            clients_limit,
            writer_waiting,
            configured_at,
            problems,
            waiting,
            clock_ahead,
            replicas,
            configured_differently,
            went_back_at,
            database_connections,
            key_created,
            key_signs_from,
            process,
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        self.ready.set(i64::from(snapshot.ready));
        self.database_room.set(i64::from(snapshot.database_room));
        self.upstream_paused.set(i64::from(snapshot.upstream_paused));
        if let Some(clients) = snapshot.clients {
            self.clients.set(clients);
        }
        self.clients_limit.set(signed(snapshot.clients_limit));
        self.writer_waiting.set(signed(snapshot.writer_waiting as u64));
        self.configured_at.set(snapshot.configured_at);
        self.problems.set(signed(snapshot.problems as u64));
        self.waiting.set(signed(snapshot.waiting as u64));
        self.clock_ahead.set(snapshot.clock_ahead);
        self.replicas.set(signed(snapshot.replicas as u64));
        self.configured_differently.set(signed(snapshot.configured_differently as u64));
        self.went_back_at.set(snapshot.went_back_at);
        let (used, idle) = snapshot.database_connections;
        for (state, connections) in [("used", used), ("idle", idle)] {
            let gauge = self.database_connections.get_or_create(&one("state", state));
            gauge.set(i64::from(connections));
        }
        // Retired keys disappear from the metrics.
        self.key_created.clear();
        self.key_signs_from.clear();
        for (alg, state, created_at, signs_from) in &snapshot.keys {
            let labels = [("alg", Cow::Borrowed(*alg)), ("state", Cow::Borrowed(*state))];
            self.key_created.get_or_create(&labels).set(*created_at);
            self.key_signs_from.get_or_create(&labels).set(*signs_from);
        }
        self.process.set();
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
