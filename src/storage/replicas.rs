//! What replicas on one PostgreSQL tell each other: that grants may have ended.
//!
//! A revocation must cut streams and requests in every process at once, and none of them asks the
//! database at every request. Notices are hints: one that is lost costs a request a second
//! (`grants.rs`) and an open stream its next look.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::errors::told;
use super::rollback_detection::Watch;
use super::{StorageError, Transaction};
use crate::oauth::secret::random_text;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tasks::{Task, supervise};

static FOR_A_MOMENT: LogThrottle = LogThrottle::a_minute();
static NOT_HEARD: LogThrottle = LogThrottle::a_minute();

const CHANNEL: &str = "portcullis_grants_ended";
/// How long one attempt to listen may take. The pause between the connections that it tries grows to a
/// fifth of this, and with it what is said while PostgreSQL is back and nobody listens yet.
const ONE_TRY: Duration = Duration::from_secs(2);
/// Silence after which PostgreSQL is asked whether it is there.
const QUIET: Duration = Duration::from_secs(5);
/// Pause before listening is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// The other processes on the same database. Cheap to clone; stops listening with the last one.
#[derive(Clone)]
pub(super) struct Replicas {
    /// Tells our own notices from theirs.
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
    /// Listens at the database, and wakes `grants_ended` whenever another process says so, or
    /// may have said so while nobody listened.
    pub(super) async fn listen(
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

/// Wakes `grants_ended` whenever another process than `ours` says so, or may have said so while nobody
/// listened: without a listener, at once.
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
                // What ended grants elsewhere was seen here, too.
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

/// Waits for the next notice. Where all is quiet, asks now and then whether somebody is there: a host that
/// vanished is quiet, too.
async fn next(listener: &mut PgListener) -> sqlx::Result<Option<PgNotification>> {
    loop {
        if let Ok(notice) = timeout(QUIET, listener.try_recv()).await {
            return notice;
        }
        let asked = timeout(ONE_TRY, sqlx::query("SELECT 1").execute(&mut *listener)).await;
        asked.map_err(|_| sqlx::Error::PoolTimedOut)??;
    }
}

/// Tells the other processes, with the commit of this step: PostgreSQL does both or neither, whatever
/// becomes of this process. A command that works beside the servers is none of `replicas`.
pub(super) async fn tell(
    step: &mut Transaction,
    replicas: Option<&Replicas>,
) -> Result<(), StorageError> {
    // A channel is the database's, and another installation may be in another schema of it.
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
    /// The schema that it works in. The channel is the whole database's.
    schema: String,
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<Listener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ONE_TRY)
        .max_lifetime(None)
        .idle_timeout(None)
        .after_connect(|connection, _| Box::pin(super::session_settings::listen(connection)))
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
