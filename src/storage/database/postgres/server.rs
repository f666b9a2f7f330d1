//! The address of the PostgreSQL server, and why it last refused a connection.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::Instant;

use crate::storage::database::errors::{code, hint_of, told};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::metrics::Metrics;

/// URL scheme of [`Server::options`].
pub(crate) const SCHEME: &str = "postgres-within-bounds";
/// How long a refusal counts as current: 6 seconds.
const FRESH: Duration = Duration::from_secs(6);
/// Pause of 500 ms before a server that grants no further connection is asked again, however many callers
/// wait.
const HOLD_OFF: Duration = Duration::from_millis(500);

static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();
/// Servers by the number in their URL, because sqlx passes only a URL to a driver.
static SERVERS: Mutex<BTreeMap<u64, Weak<Server>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Server {
    number: u64,
    options: PgConnectOptions,
    refused: Mutex<Option<(Instant, ServerRefusal)>>,
    metrics: Metrics,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why no connection could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerRefusal {
    /// The server, the database or the role has reached its limit of connections.
    Full,
    /// The server is unreachable, or rejects us.
    Down(String),
}

impl Server {
    pub(crate) fn new(options: PgConnectOptions, metrics: Metrics) -> Arc<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = Arc::new(Self { number, options, refused: Mutex::default(), metrics });
        let mut servers = servers();
        servers.retain(|_, server| server.strong_count() > 0);
        servers.insert(number, Arc::downgrade(&server));
        server
    }

    /// Returns the metrics of the process that uses this server.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the options with which pools connect.
    pub(crate) fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        format!("{SCHEME}:{}", self.number).parse()
    }

    /// Returns the options of sqlx's own driver, for connections outside of the pools.
    pub(crate) fn connect_options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the server with this number, while it is in use.
    pub(crate) fn numbered(number: &str) -> Option<Arc<Self>> {
        servers().get(&number.parse().ok()?)?.upgrade()
    }

    /// Returns why the last attempt failed, if that was a moment ago.
    pub(crate) fn refusal(&self) -> Option<ServerRefusal> {
        self.refused_within(FRESH)
    }

    fn refused_within(&self, time: Duration) -> Option<ServerRefusal> {
        let refused = self.refused.lock();
        refused.as_ref().filter(|(at, _)| at.elapsed() < time).map(|(_, refusal)| refusal.clone())
    }

    /// Opens a connection, and logs why it was refused. The pools retry without logging anything.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        if self.refused_within(HOLD_OFF) == Some(ServerRefusal::Full) {
            let told = "PostgreSQL has just refused a further connection (SQLSTATE 53300)";
            return Err(sqlx::Error::Io(std::io::Error::other(told)));
        }
        let connected = self.options.connect().await;
        let refusal = connected.as_ref().err().map(refusal_of);
        *self.refused.lock() = refusal.clone().map(|refusal| (Instant::now(), refusal));
        let cause = match connected {
            Ok(connection) => return Ok(connection),
            Err(cause) => cause,
        };
        let text = told(&cause).to_string();
        if let Some(left_out) = REFUSED.admit(&text) {
            let why = hint_of(&cause).unwrap_or_default();
            tracing::error!(cause = text, why, left_out, "PostgreSQL refuses a connection");
        }
        if refusal == Some(ServerRefusal::Full) {
            // An I/O error, so that sqlx does not keep retrying while open connections are returned to
            // the pool.
            return Err(sqlx::Error::Io(std::io::Error::other(text)));
        }
        Err(cause)
    }
}

fn servers() -> MutexGuard<'static, BTreeMap<u64, Weak<Server>>> {
    SERVERS.lock()
}

fn refusal_of(cause: &sqlx::Error) -> ServerRefusal {
    if code(cause).is_some_and(|code| code.starts_with("53")) {
        return ServerRefusal::Full;
    }
    ServerRefusal::Down(told(cause).to_string())
}
