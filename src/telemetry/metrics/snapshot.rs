//! Gauges of what other parts of the program know, collected at each scrape.

use std::borrow::Cow;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::super::families::{Gauges, gauge, one};
use super::process::Process;
use super::service_tokens::BrokenConnections;
use super::targets::TargetUp;

/// Values that other modules supply for [`Metrics::text`](super::Metrics::text).
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whether `/ready` succeeds.
    pub ready: bool,
    /// What the database still accepts: 0 nothing, 1 no sign-ins, 2 no registrations, 3 everything.
    pub database_room: u8,
    /// The size of the database in bytes; `None` if the database cannot be read.
    pub database_bytes: Option<i64>,
    /// `limits.database_size`; 0 for PostgreSQL, where there is none.
    pub database_bytes_limit: u64,
    /// Whether requests to the identity provider pause after failures.
    pub upstream_paused: bool,
    /// The number of registered clients; `None` if the database cannot be read.
    pub clients: Option<i64>,
    /// The most registered clients that are allowed.
    pub clients_limit: u64,
    /// Callers that wait for the writer (SQLite).
    pub writer_waiting: usize,
    /// Audit events that wait to be stored.
    pub audit_waiting: usize,
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
    /// The targets of the gateway.
    pub targets: Vec<TargetUp>,
    /// The certificate of the listeners: where it comes from, and in how many seconds it expires.
    pub certificate: Option<(&'static str, i64)>,
    /// Each configured connection; `None` if the database cannot be read.
    pub broken_connections: Option<Vec<BrokenConnections>>,
    /// Signing keys: algorithm, state, creation time, and time of first use, both in Unix seconds.
    pub keys: Vec<(&'static str, &'static str, i64, i64)>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Gauges that are set from a [`Snapshot`] at each scrape.
pub(super) struct Now {
    ready: Gauge,
    upstream_paused: Gauge,
    clients: Gauge,
    clients_limit: Gauge,
    audit_waiting: Gauge,
    database: DatabaseNow,
    configuration: ConfigurationNow,
    replicas: ReplicasNow,
    certificate_expires_in: Gauges<1>,
    keys: KeysNow,
    process: Process,
}

impl Now {
    pub(super) fn register(r: &mut Registry, process: Process) -> Self {
        let paused =
            "1 while no requests are sent to the identity provider, after repeated failures";
        let waiting = "Audit events that wait to be stored; 4096 at most";
        let certificate_expires_in = Gauges::<1>::default();
        let help =
            "Seconds until the certificate of the listeners expires; negative: it has expired";
        r.register("certificate_expires_in_seconds", help, certificate_expires_in.clone());
        Self {
            ready: gauge(r, "ready", "1 while /ready says yes"),
            upstream_paused: gauge(r, "upstream_paused", paused),
            clients: gauge(r, "clients", "Clients that registered themselves"),
            clients_limit: gauge(r, "clients_limit", "limits.clients"),
            audit_waiting: gauge(r, "audit_waiting", waiting),
            database: DatabaseNow::register(r),
            configuration: ConfigurationNow::register(r),
            replicas: ReplicasNow::register(r),
            certificate_expires_in,
            keys: KeysNow::register(r),
            process,
        }
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
        self.ready.set(i64::from(snapshot.ready));
        self.upstream_paused.set(i64::from(snapshot.upstream_paused));
        if let Some(clients) = snapshot.clients {
            self.clients.set(clients);
        }
        self.clients_limit.set(signed(snapshot.clients_limit));
        self.audit_waiting.set(signed(snapshot.audit_waiting as u64));
        self.database.set(snapshot);
        self.configuration.set(snapshot);
        self.replicas.set(snapshot);
        self.certificate_expires_in.clear();
        if let Some((source, seconds)) = snapshot.certificate {
            self.certificate_expires_in.get_or_create(&one("source", source)).set(seconds);
        }
        self.keys.set(snapshot);
        self.process.set();
    }
}

struct DatabaseNow {
    room: Gauge,
    bytes: Gauge,
    bytes_limit: Gauge,
    writer_waiting: Gauge,
    connections: Gauges<1>,
}

impl DatabaseNow {
    fn register(r: &mut Registry) -> Self {
        let room =
            "Room of the database: 3 enough, 2 not for registrations, 1 nor for sign-ins, 0 none";
        let limit = "limits.database_size; 0 for PostgreSQL, where there is none";
        let connections = Gauges::<1>::default();
        let help = "Connections of the pool to the database";
        r.register("database_connections", help, connections.clone());
        Self {
            room: gauge(r, "database_room", room),
            bytes: gauge(r, "database_bytes", "Size of the database"),
            bytes_limit: gauge(r, "database_bytes_limit", limit),
            writer_waiting: gauge(r, "writer_waiting", "Callers that wait for the writer (SQLite)"),
            connections,
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        self.room.set(i64::from(snapshot.database_room));
        if let Some(bytes) = snapshot.database_bytes {
            self.bytes.set(bytes);
        }
        self.bytes_limit.set(signed(snapshot.database_bytes_limit));
        self.writer_waiting.set(signed(snapshot.writer_waiting as u64));
        let (used, idle) = snapshot.database_connections;
        for (state, connections) in [("used", used), ("idle", idle)] {
            self.connections.get_or_create(&one("state", state)).set(i64::from(connections));
        }
    }
}

struct ConfigurationNow {
    read_at: Gauge,
    problems: Gauge,
    waiting: Gauge,
}

impl ConfigurationNow {
    fn register(r: &mut Registry) -> Self {
        let read_at = "When the configuration in use was read, Unix seconds";
        let problems =
            "Mistakes in the configuration as it is written now; the one before is in use";
        let waiting = "Changed keys of the configuration that wait for a restart";
        Self {
            read_at: gauge(r, "configuration_read_timestamp", read_at),
            problems: gauge(r, "configuration_mistakes", problems),
            waiting: gauge(r, "configuration_waiting", waiting),
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        self.read_at.set(snapshot.configured_at);
        self.problems.set(signed(snapshot.problems as u64));
        self.waiting.set(signed(snapshot.waiting as u64));
    }
}

struct ReplicasNow {
    clock_ahead: Gauge,
    replicas: Gauge,
    configured_differently: Gauge,
    went_back_at: Gauge,
}

impl ReplicasNow {
    fn register(r: &mut Registry) -> Self {
        let clock_ahead = "Seconds that the clock is ahead of the database's; negative: behind";
        let differs = "Replicas whose configuration differs from this one's";
        let went_back =
            "When it was noticed last that the database went back in time, Unix seconds";
        Self {
            clock_ahead: gauge(r, "clock_ahead_seconds", clock_ahead),
            replicas: gauge(r, "replicas", "Replicas that are running, with this one"),
            configured_differently: gauge(r, "configuration_differs", differs),
            went_back_at: gauge(r, "database_went_back_timestamp", went_back),
        }
    }

    fn set(&self, snapshot: &Snapshot) {
        self.clock_ahead.set(snapshot.clock_ahead);
        self.replicas.set(signed(snapshot.replicas as u64));
        self.configured_differently.set(signed(snapshot.configured_differently as u64));
        self.went_back_at.set(snapshot.went_back_at);
    }
}

/// Published signing keys, by algorithm and state.
struct KeysNow {
    created: Gauges<2>,
    signs_from: Gauges<2>,
}

impl KeysNow {
    fn register(r: &mut Registry) -> Self {
        let created = Gauges::<2>::default();
        let help = "When a published signing key was made, Unix seconds";
        r.register("signing_key_created_timestamp", help, created.clone());
        let signs_from = Gauges::<2>::default();
        let help = "From when a published signing key signs, Unix seconds";
        r.register("signing_key_signs_from_timestamp", help, signs_from.clone());
        Self { created, signs_from }
    }

    fn set(&self, snapshot: &Snapshot) {
        // Retired keys disappear from the metrics.
        self.created.clear();
        self.signs_from.clear();
        for (alg, state, created_at, signs_from) in &snapshot.keys {
            let labels = [("alg", Cow::Borrowed(*alg)), ("state", Cow::Borrowed(*state))];
            self.created.get_or_create(&labels).set(*created_at);
            self.signs_from.get_or_create(&labels).set(*signs_from);
        }
    }
}
