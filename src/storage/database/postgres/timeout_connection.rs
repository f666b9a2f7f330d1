//! PostgreSQL with a timeout on every wait.
//!
//! A host that vanishes (a cable, a failed machine, a firewall that dropped its state) closes no
//! connection. A statement would wait until the operating system stops retransmitting, a quarter of an
//! hour, and its connection would stay in use. PostgreSQL's own timeouts ([`super::timeouts`]) do
//! not help then. A call without a response in time fails here, and its connection is given up, because
//! its state is unknown.
//!
//! sqlx's pools ping a connection when they hand it out and when they get it back: two round trips, more
//! than most callers send in between. A connection that has just answered is not asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::postgres::PgConnection;
use sqlx::{Either, SqlStr};
use sqlx_core::any::AnyConnectionBackend;
use tokio::time::{Instant, timeout};

use super::timeouts::{NO_STATEMENT_TIMEOUT, STATEMENT_TIMEOUT};
use crate::storage::database::arguments::check_texts;

/// Added to PostgreSQL's own timeout, so that PostgreSQL reports the timeout itself if it is reachable.
const BEYOND: Duration = Duration::from_secs(2);
/// Longest wait for a ping: 2 seconds. After it, the connection counts as lost.
const PING: Duration = Duration::from_secs(2);
/// A connection counts as alive for this long after its last answer: 1 second. With more, more callers
/// would find out by themselves that the server has ended their connection; with less, it is asked more often.
const ALIVE: Duration = Duration::from_secs(1);
/// Timeout of a statement in a transaction that goes through whole tables: 1 hour.
const WHOLE_TABLES: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(crate) struct TimeoutConnection {
    postgres: PgConnection,
    answers: Arc<ServerAnswers>,
    /// Timeout of a statement.
    bound: Duration,
}

/// What is known of the server at the other end.
#[derive(Debug)]
struct ServerAnswers {
    /// A call timed out: the connection is unusable.
    lost: AtomicBool,
    /// A BEGIN was sent, and nobody waits for its answer any more unless [`TimeoutConnection::begin`] still does.
    begins: AtomicBool,
    /// When the connection was opened.
    opened: Instant,
    /// When the last call was answered, in milliseconds after `opened`.
    last: AtomicU64,
}

impl ServerAnswers {
    fn note(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    /// Returns whether the last answer came within [`ALIVE`].
    fn are_recent(&self) -> bool {
        let last = self.opened + Duration::from_millis(self.last.load(Ordering::Relaxed));
        last.elapsed() < ALIVE
    }
}

impl TimeoutConnection {
    pub(crate) fn new(postgres: PgConnection) -> Self {
        let answers = ServerAnswers {
            lost: AtomicBool::new(false),
            begins: AtomicBool::new(false),
            opened: Instant::now(),
            last: AtomicU64::new(0),
        };
        Self { postgres, answers: Arc::new(answers), bound: STATEMENT_TIMEOUT + BEYOND }
    }

    /// Returns the timeout for the end of the transaction, and resets it to the default.
    fn last_bound(&mut self) -> Duration {
        std::mem::replace(&mut self.bound, STATEMENT_TIMEOUT + BEYOND)
    }

    fn note_timeout(&mut self, sql: &SqlStr) {
        if sql.as_str() == NO_STATEMENT_TIMEOUT {
            self.bound = WHOLE_TABLES; // until the transaction ends, as in PostgreSQL
        }
    }
}

/// Waits for an answer of the server, and notes that it came.
async fn within<T>(
    answers: Arc<ServerAnswers>,
    bound: Duration,
    answer: BoxFuture<'_, sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let answer = bounded(&answers, bound, answer).await;
    if answer.is_ok() {
        answers.note();
    }
    answer
}

async fn bounded<T>(
    answers: &ServerAnswers,
    bound: Duration,
    answer: BoxFuture<'_, sqlx::Result<T>>,
) -> sqlx::Result<T> {
    if answers.lost.load(Ordering::SeqCst) {
        return Err(silent());
    }
    timeout(bound, answer).await.unwrap_or_else(|_| {
        answers.lost.store(true, Ordering::SeqCst);
        Err(silent())
    })
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "PostgreSQL did not answer in time; the connection is given up",
    ))
}

fn begun_for_nobody() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::Interrupted,
        "a transaction was begun for a caller who went away; the connection is closed",
    ))
}

impl AnyConnectionBackend for TimeoutConnection {
    fn name(&self) -> &str {
        AnyConnectionBackend::name(&self.postgres)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        let answers = Arc::clone(&self.answers);
        Box::pin(within(answers, PING, AnyConnectionBackend::close(Box::new(self.postgres))))
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        let answers = Arc::clone(&self.answers);
        Box::pin(within(answers, PING, AnyConnectionBackend::close_hard(Box::new(self.postgres))))
    }

    fn ping(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        let answers = Arc::clone(&self.answers);
        if answers.begins.load(Ordering::SeqCst) {
            return Box::pin(async { Err(begun_for_nobody()) });
        }
        if answers.are_recent() {
            // Sends a queued ROLLBACK and waits for what is not answered yet, if there is any.
            let flushed = AnyConnectionBackend::flush(&mut self.postgres);
            return Box::pin(async move { bounded(&answers, PING, flushed).await });
        }
        Box::pin(within(answers, PING, AnyConnectionBackend::ping(&mut self.postgres)))
    }

    /// If the caller gives up in the middle, the server begins the transaction all the same, and sqlx does not
    /// know of it. A later statement that is a transaction of its own would be part of that one, and never be
    /// committed. So the pool gets an error from its next ping, and closes the connection.
    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, sqlx::Result<()>> {
        let (answers, bound) = (Arc::clone(&self.answers), self.bound);
        let is_outermost = self.get_transaction_depth() == 0;
        Box::pin(async move {
            if is_outermost {
                answers.begins.store(true, Ordering::SeqCst);
            }
            let begun = AnyConnectionBackend::begin(&mut self.postgres, statement);
            let begun = within(Arc::clone(&answers), bound, begun).await;
            answers.begins.store(false, Ordering::SeqCst);
            begun
        })
    }

    fn commit(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        let (answers, bound) = (Arc::clone(&self.answers), self.last_bound());
        Box::pin(within(answers, bound, AnyConnectionBackend::commit(&mut self.postgres)))
    }

    fn rollback(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        let (answers, bound) = (Arc::clone(&self.answers), self.last_bound());
        Box::pin(within(answers, bound, AnyConnectionBackend::rollback(&mut self.postgres)))
    }

    fn start_rollback(&mut self) {
        self.last_bound();
        AnyConnectionBackend::start_rollback(&mut self.postgres);
    }

    fn get_transaction_depth(&self) -> usize {
        AnyConnectionBackend::get_transaction_depth(&self.postgres)
    }

    fn shrink_buffers(&mut self) {
        AnyConnectionBackend::shrink_buffers(&mut self.postgres);
    }

    fn flush(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        let answers = Arc::clone(&self.answers);
        Box::pin(within(answers, PING, AnyConnectionBackend::flush(&mut self.postgres)))
    }

    fn should_flush(&self) -> bool {
        AnyConnectionBackend::should_flush(&self.postgres)
    }

    fn fetch_many(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, sqlx::Result<Either<AnyQueryResult, AnyRow>>> {
        if let Err(cause) = check_texts(arguments.as_ref()) {
            return stream::once(async { Err(cause) }).boxed();
        }
        self.note_timeout(&query);
        let (answers, bound) = (Arc::clone(&self.answers), self.bound);
        let rows =
            AnyConnectionBackend::fetch_many(&mut self.postgres, query, persistent, arguments);
        stream::unfold((Some(rows), answers), move |(rows, answers)| async move {
            let mut rows = rows?;
            let next = async { rows.next().await.transpose() };
            match within(Arc::clone(&answers), bound, Box::pin(next)).await {
                Ok(None) => None,
                Ok(Some(row)) => Some((Ok(row), (Some(rows), answers))),
                Err(cause) => Some((Err(cause), (None, answers))),
            }
        })
        .boxed()
    }

    fn fetch_optional(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, sqlx::Result<Option<AnyRow>>> {
        if let Err(cause) = check_texts(arguments.as_ref()) {
            return Box::pin(async { Err(cause) });
        }
        self.note_timeout(&query);
        let (answers, bound) = (Arc::clone(&self.answers), self.bound);
        let row =
            AnyConnectionBackend::fetch_optional(&mut self.postgres, query, persistent, arguments);
        Box::pin(within(answers, bound, row))
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        sql: SqlStr,
        parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, sqlx::Result<AnyStatement>> {
        let (answers, bound) = (Arc::clone(&self.answers), self.bound);
        let prepared = AnyConnectionBackend::prepare_with(&mut self.postgres, sql, parameters);
        Box::pin(within(answers, bound, prepared))
    }
}
