//! Notifications between replicas on one PostgreSQL: grants may have ended.
//!
//! A revocation must end streams and requests in every process at once, although none of them queries the
//! database at every request. A notification is a hint: if it is lost, requests notice within a second
//! (`grants.rs`), and open streams at their next check.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::oauth::secret::random_text;
use crate::storage::database::errors::told;
use crate::storage::rollback_detection::Watch;
use crate::storage::{StorageError, Transaction};
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tasks::{Task, supervise};

static FOR_A_MOMENT: LogThrottle = LogThrottle::a_minute();
static NOT_HEARD: LogThrottle = LogThrottle::a_minute();

const CHANNEL: &str = "portcullis_grants_ended";
/// Longest time for one attempt to listen: 2 seconds. sqlx's pause between connection attempts grows to a
/// fifth of it, and notifications are missed for as long after PostgreSQL is back.
const ONE_TRY: Duration = Duration::from_secs(2);
/// Silence after which the connection is tested: 5 seconds.
const QUIET: Duration = Duration::from_secs(5);
/// Pause before the next attempt to listen: 500 ms.
const AGAIN: Duration = Duration::from_millis(500);

/// The other processes on the same database. Cheap to clone. The last clone to be dropped stops the
/// listener.
#[derive(Clone)]
pub(crate) struct Replicas {
    /// Our name in notifications, to recognise our own.
    name: Arc<str>,
    _listening: Arc<Listening>,
}

struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Replicas {
    /// Starts a listener that wakes `grants_ended` when another process sends a notification, or may have
    /// sent one while nobody listened.
    pub(crate) async fn listen(
        options: PgConnectOptions,
        grants_ended: watch::Sender<u64>,
        metrics: Metrics,
        seen: &Arc<Watch>,
    ) -> sqlx::Result<Self> {
        let name: Arc<str> = random_text().into();
        let mut first = Some(connect(&options).await?);
        let (ours, seen) = (Arc::clone(&name), Arc::clone(seen));
        let task = tokio::spawn(async move {
            let heed = || heed(&options, &ours, &grants_ended, &seen, first.take());
            supervise(&metrics, Task::Replicas, heed).await;
        });
        Ok(Self { name, _listening: Arc::new(Listening(task.abort_handle())) })
    }
}

/// Wakes `grants_ended` when a process other than `ours` sends a notification, or may have sent one while
/// nobody listened. If there is no listener, wakes at once.
async fn heed(
    options: &PgConnectOptions,
    ours: &str,
    grants_ended: &watch::Sender<u64>,
    seen: &Watch,
    mut listener: Option<Listener>,
) {
    panic_point!("notices of replicas");
    let wake = || grants_ended.send_modify(|count| *count = count.wrapping_add(1));
    loop {
        let Some(heard) = &mut listener else {
            listener = connect(options).await.ok();
            if listener.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
            wake();
            continue;
        };
        let generation = seen.generation();
        match next(&mut heard.channel).await {
            Ok(Some(notice)) => {
                let mut parts = notice.payload().splitn(3, ' ');
                let (name, line, schema) = (parts.next(), parts.next(), parts.next());
                if name == Some(ours) {
                    continue;
                }
                // A line that another replica committed counts as seen by this one.
                if let Some(line) =
                    line.filter(|line| !line.is_empty() && schema == Some(&heard.schema))
                {
                    seen.committed(generation, line.to_owned());
                }
            }
            Ok(None) => {
                if let Some(left_out) = FOR_A_MOMENT.admit() {
                    tracing::warn!(left_out, "replicas could not be heard for a moment");
                }
            }
            Err(cause) => {
                if let Some(left_out) = NOT_HEARD.admit() {
                    let cause = told(&cause).to_string();
                    tracing::warn!(
                        cause,
                        left_out,
                        "replicas cannot be heard; listening again soon"
                    );
                }
                tokio::time::sleep(AGAIN).await;
                if let Ok(again) = connect(options).await {
                    listener = Some(again);
                }
            }
        }
        wake();
    }
}

/// Waits for the next notification. After some silence it tests the connection, because a vanished host
/// is silent too.
async fn next(listener: &mut PgListener) -> sqlx::Result<Option<PgNotification>> {
    loop {
        if let Ok(notice) = timeout(QUIET, listener.try_recv()).await {
            return notice;
        }
        let asked = timeout(ONE_TRY, sqlx::query("SELECT 1").execute(&mut *listener)).await;
        asked.map_err(|_| sqlx::Error::PoolTimedOut)??;
    }
}

/// Sends a notification with the commit of this transaction: PostgreSQL does both or neither, whatever
/// happens to this process. A command that is attached to a server's database has no `replicas`.
pub(crate) async fn tell(
    step: &mut Transaction,
    replicas: Option<&Replicas>,
) -> Result<(), StorageError> {
    // The schema is included, because a channel belongs to the whole database, and other installations
    // may use it.
    let notice = "SELECT pg_notify($1, $2 || ' ' || COALESCE(CURRENT_SCHEMA(), ''))";
    let notice = sqlx::query(notice).bind(CHANNEL);
    let name = replicas.map_or("", |replicas| &*replicas.name);
    let line = step.last_line.as_deref().unwrap_or_default();
    let notice = notice.bind(format!("{name} {line}"));
    notice.execute(&mut **step).await?;
    Ok(())
}

/// A connection that listens.
struct Listener {
    channel: PgListener,
    /// The schema that it uses. The channel belongs to the whole database.
    schema: String,
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<Listener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ONE_TRY)
        .max_lifetime(None)
        .idle_timeout(None)
        .after_connect(|connection, _| {
            Box::pin(crate::storage::database::postgres::session_settings::listen(connection))
        })
        .connect_with(options.clone())
        .await?;
    let mut channel = PgListener::connect_with(&pool).await?;
    let schema = sqlx::query_scalar::<_, Option<String>>("SELECT CURRENT_SCHEMA()::TEXT");
    let schema = timeout(ONE_TRY, schema.fetch_one(&mut channel))
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??
        .unwrap_or_default();
    channel.listen(CHANNEL).await?;
    Ok(Listener { channel, schema })
}
