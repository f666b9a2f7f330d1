//! Notifications between processes on one PostgreSQL, sent with a commit.
//!
//! A notification is a hint: one that is sent while nobody listens is lost. So the listener also reports
//! each time in which it may have missed some.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use sqlx::{AnyConnection, ConnectOptions as _, Connection as _};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::session_settings;
use super::transaction_pooling::refuse_transaction_pooling;
use crate::storage::database::errors::told;
use crate::storage::database::{Database, OpenError, StorageError};

use crate::oauth::secret::random_text;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::supervision::supervise;
use crate::telemetry::tasks::Task;

static FOR_A_MOMENT: LogThrottle = LogThrottle::a_minute();
static NOT_HEARD: LogThrottle = LogThrottle::a_minute();
static POOLED: LogThrottle = LogThrottle::a_minute();

const CHANNEL: &str = "portcullis_grants_ended";
/// Notifications about connections have a channel of their own: they come with every refresh, and concern no
/// open stream.
const CONNECTIONS: &str = "portcullis_connections_changed";
/// Longest time for one attempt to listen: 2 seconds. sqlx's pause between connection attempts grows to a
/// fifth of it, and notifications are missed for as long after PostgreSQL is back.
const ONE_TRY: Duration = Duration::from_secs(2);
/// Silence after which the connection is tested: 5 seconds.
const QUIET: Duration = Duration::from_secs(5);
/// Pause before the next attempt to listen: 500 ms.
const AGAIN: Duration = Duration::from_millis(500);

/// Receives the notifications of other processes.
pub(crate) trait NoticeHandler: Send + Sync {
    /// Returns a number that is passed to [`Self::heard`] with the next notification.
    fn generation(&self) -> u64;
    /// Handles a notification of another process, with the text that it sent from the same schema; or the
    /// end of a time in which notifications may have been missed.
    fn heard(&self, generation: u64, text: Option<&str>);
    /// Handles a notification of another process about connections.
    fn heard_of_connections(&self);
}

/// Sends and receives notifications. Cheap to clone. The last clone to be dropped stops the listener.
#[derive(Clone)]
pub(crate) struct Notifications {
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

impl Database {
    /// Starts a listener that calls `handler` when another process sends a notification, or may have sent
    /// one while nobody listened. Returns `None` on SQLite.
    pub(crate) async fn listen(
        &self,
        handler: Arc<dyn NoticeHandler>,
    ) -> sqlx::Result<Option<Notifications>> {
        let Some(pools) = self.postgres() else { return Ok(None) };
        let options = pools.server().connect_options().clone();
        let name: Arc<str> = random_text().into();
        let mut first = Some(connect(&options).await?);
        let (ours, metrics) = (Arc::clone(&name), self.metrics().clone());
        let task = tokio::spawn(async move {
            let heed = || heed(&options, &ours, &*handler, first.take());
            supervise(&metrics, Task::Replicas, heed).await;
        });
        Ok(Some(Notifications { name, _listening: Arc::new(Listening(task.abort_handle())) }))
    }
}

/// Calls `handler` when a process other than `ours` sends a notification, or may have sent one while
/// nobody listened. If there is no listener, calls it at once.
async fn heed(
    options: &PgConnectOptions,
    ours: &str,
    handler: &dyn NoticeHandler,
    mut listener: Option<Listener>,
) {
    panic_point!("notices of replicas");
    loop {
        let generation = handler.generation();
        let Some(heard) = &mut listener else {
            listener = connect(options).await.ok();
            if listener.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
            handler.heard(generation, None);
            continue;
        };
        match next(heard).await {
            Ok(Some(notice)) => {
                let mut parts = notice.payload().splitn(3, ' ');
                let (name, text, schema) = (parts.next(), parts.next(), parts.next());
                if name == Some(ours) {
                    continue;
                }
                if notice.channel() == CONNECTIONS {
                    handler.heard_of_connections();
                    continue;
                }
                let text = text.filter(|_| schema == Some(&heard.schema));
                handler.heard(generation, text);
                continue;
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
        handler.heard(generation, None);
        complain_of_transaction_pooling(options).await;
    }
}

/// Logs an error if a pooler was put in between, or set otherwise, while this process runs. Connections that
/// were lost are the occasion to look: everything else still works now and then, and would not tell.
async fn complain_of_transaction_pooling(options: &PgConnectOptions) {
    let look = async {
        let mut connection = options.connect().await?;
        session_settings::migrate(&mut connection).await?;
        refuse_transaction_pooling(&mut connection, options).await?;
        connection.close().await?;
        Ok::<(), OpenError>(())
    };
    if let Ok(Err(cause @ OpenError::TransactionPooling)) = timeout(ONE_TRY, look).await {
        complain(&cause);
    }
}

fn complain(cause: &OpenError) {
    if let Some(left_out) = POOLED.admit() {
        tracing::error!(
            %cause,
            left_out,
            "replicas cannot be heard, and requests can fail, until the pooler is changed"
        );
    }
}

/// Waits for the next notification. After some silence it tests the connection, because a vanished host
/// is silent too.
async fn next(listener: &mut Listener) -> sqlx::Result<Option<PgNotification>> {
    loop {
        if let Ok(notice) = timeout(QUIET, listener.channel.try_recv()).await {
            listener.session = None; // it may be another connection
            return notice;
        }
        let session = sqlx::query_scalar("SELECT pg_backend_pid()");
        let asked = timeout(ONE_TRY, session.fetch_one(&mut listener.channel)).await;
        let session: i32 = asked.map_err(|_| sqlx::Error::PoolTimedOut)??;
        if listener.session.replace(session).is_some_and(|before| before != session) {
            complain(&OpenError::TransactionPooling);
        }
    }
}

/// Sends a notification with the commit of this transaction: PostgreSQL does both or neither, whatever
/// happens to this process. A process that does not listen has no `ours`. `text` contains no space.
pub(crate) async fn notify(
    transaction: &mut AnyConnection,
    ours: Option<&Notifications>,
    text: &str,
) -> Result<(), StorageError> {
    // The schema is included, because a channel belongs to the whole database, and other installations
    // may use it.
    let notice = "SELECT pg_notify($1, $2 || ' ' || COALESCE(CURRENT_SCHEMA(), ''))";
    let notice = sqlx::query(notice).bind(CHANNEL);
    let name = ours.map_or("", |ours| &*ours.name);
    notice.bind(format!("{name} {text}")).execute(transaction).await?;
    Ok(())
}

/// The same about a change of connections.
pub(crate) async fn notify_of_connections(
    transaction: &mut AnyConnection,
    ours: Option<&Notifications>,
) -> Result<(), StorageError> {
    let name = ours.map_or("", |ours| &*ours.name);
    let notice = sqlx::query("SELECT pg_notify($1, $2)").bind(CONNECTIONS).bind(name);
    notice.execute(transaction).await?;
    Ok(())
}

struct Listener {
    channel: PgListener,
    /// The schema that it uses. The channel belongs to the whole database.
    schema: String,
    /// The process of the server that answered last.
    session: Option<i32>,
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<Listener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ONE_TRY)
        .max_lifetime(None)
        .idle_timeout(None)
        .after_connect(|connection, _| Box::pin(session_settings::listen(connection)))
        .connect_with(options.clone())
        .await?;
    let mut channel = PgListener::connect_with(&pool).await?;
    let schema = sqlx::query_scalar::<_, Option<String>>("SELECT CURRENT_SCHEMA()::TEXT");
    let schema = timeout(ONE_TRY, schema.fetch_one(&mut channel))
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??
        .unwrap_or_default();
    channel.listen_all([CHANNEL, CONNECTIONS]).await?;
    Ok(Listener { channel, schema, session: None })
}
