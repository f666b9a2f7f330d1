//! Repeats what PostgreSQL has rolled back because of another transaction.
//!
//! A serialization failure (SQLSTATE 40001) and a deadlock (40P01) are promises of the server: nothing of
//! the transaction was committed. So the transaction can run again, and no caller has to know. It runs
//! again by replay: this connection keeps the statements of the open transaction with their results, and
//! after such an error it sends them to the server once more. If each gives the same result as before, the
//! code that runs them could not have decided otherwise, so it continues where the error occurred: at a
//! statement, or at the commit. If a result differs, that code has to decide again: the transaction fails with
//! the error of the server, nothing has changed, and the caller gets a 503 ([`Attempts`] does so
//! where callers are expected to compete).
//!
//! Everything else is never repeated here. An error without an answer of the server (a lost connection, a
//! timeout on our side) says nothing about a commit. Neither does SQLSTATE 40003 (completion unknown).

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{Either, SqlStr};
use sqlx_core::any::{AnyArgumentBuffer, AnyConnectionBackend, AnyValueKind};
use tokio::time::{Instant, sleep};

use crate::oauth::secret::random_bytes;
use crate::storage::database::{StorageError, errors};
use crate::telemetry::metrics::{Metrics, RetryCause};

/// Most repetitions of one transaction: 6.
const REPETITIONS: u32 = 6;
/// A transaction is not repeated any more when its first failure was 2 seconds ago: callers wait.
const REPEATED_FOR: Duration = Duration::from_secs(2);
/// Longest pause before the first repetition: 10 ms. It doubles with each one, and is shortened at random by
/// up to a half, so that two transactions do not meet again.
const PAUSE: Duration = Duration::from_millis(10);
/// Most values that are kept of the results of one transaction: 10,000. A larger one is not repeated.
const VALUES: usize = 10_000;
/// Most times that a whole step is run: 4, the last of them within [`REPEATED_FOR`] of the first.
const ATTEMPTS: u32 = 4;

/// Returns why a transaction may be repeated: the server says that nothing was committed, and the same
/// transaction may succeed.
pub(crate) fn retry_cause(error: &sqlx::Error) -> Option<RetryCause> {
    match errors::code(error)?.as_str() {
        "40001" => Some(RetryCause::Serialization),
        "40P01" => Some(RetryCause::Deadlock),
        _ => None,
    }
}

/// Runs a whole step again after it lost to another one, where callers are expected to compete for one row.
pub(crate) struct Attempts {
    number: u32,
    begun: Instant,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { number: 1, begun: Instant::now() }
    }

    /// Returns whether the step may run again after this error. Waits for a moment if it may.
    pub(crate) async fn again(&mut self, error: &StorageError) -> bool {
        let StorageError::Unavailable(cause) = error else { return false };
        if self.number >= ATTEMPTS
            || self.begun.elapsed() >= REPEATED_FOR
            || retry_cause(cause).is_none()
        {
            return false;
        }
        sleep(pause(PAUSE, self.number)).await;
        self.number += 1;
        true
    }
}

/// Returns whether the connection is gone, so that only another one can serve.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        _ => errors::code(error).is_some_and(|code| {
            // Shutdown, crash, start; timeouts of idle sessions; and everything that a connection says.
            ["57P01", "57P02", "57P03", "57P05", "25P03"].contains(&&*code)
                || code.starts_with("08")
        }),
    }
}

/// Returns the pause before this repetition, counted from 1. `first` is the longest one before the first.
fn pause(first: Duration, repetition: u32) -> Duration {
    let longest = first * 2_u32.saturating_pow(repetition.saturating_sub(1).min(8));
    let [random] = random_bytes::<1>();
    longest / 2 + longest / 2 * u32::from(random) / 255
}

/// A connection to PostgreSQL that repeats transactions.
pub(crate) struct RetryConnection<B> {
    backend: B,
    metrics: Metrics,
    /// Longest pause before the first repetition.
    pause: Duration,
    /// The open transaction.
    step: Option<RecordedStep>,
    /// The server takes no writes any more: the pool must not keep this connection.
    read_only: bool,
}

impl<B> fmt::Debug for RetryConnection<B> {
    /// Leaves out the statements, whose values are not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryConnection").finish_non_exhaustive()
    }
}

/// What an open transaction has done.
struct RecordedStep {
    done: Vec<(Statement, SeenResult)>,
    /// The number of values in the results.
    values: usize,
    /// Whether `done` is complete.
    whole: bool,
    /// A statement failed: nothing may be committed.
    failed: bool,
    repetitions: u32,
    /// When the first failure occurred.
    failed_at: Option<Instant>,
}

/// A statement as it was given to us.
#[derive(Clone)]
struct Statement {
    sql: SqlStr,
    persistent: bool,
    values: Option<Vec<AnyValueKind>>,
    /// Whether only the first row was asked for.
    one_row: bool,
}

/// What a statement gave.
#[derive(Default)]
struct SeenResult {
    affected: u64,
    rows: usize,
    values: Vec<AnyValueKind>,
}

type Item = Either<AnyQueryResult, AnyRow>;

impl Statement {
    fn arguments(&self) -> Option<AnyArguments> {
        let values = self.values.clone()?;
        Some(AnyArguments { values: AnyArgumentBuffer(values) })
    }
}

impl SeenResult {
    fn of(items: &[Item]) -> Self {
        let mut outcome = Self::default();
        for item in items {
            match item {
                Either::Left(result) => outcome.affected += result.rows_affected,
                Either::Right(row) => {
                    outcome.rows += 1;
                    outcome.values.extend(row.values.iter().map(|value| value.kind.clone()));
                }
            }
        }
        outcome
    }

    fn is(&self, other: &Self) -> bool {
        self.affected == other.affected
            && self.rows == other.rows
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|(one, other)| is_same(one, other))
    }
}

/// Compares two values. Values of a kind that is not known here count as different.
fn is_same(one: &AnyValueKind, other: &AnyValueKind) -> bool {
    use AnyValueKind as V;
    match (one, other) {
        (V::Null(_), V::Null(_)) => true,
        (V::Bool(one), V::Bool(other)) => one == other,
        (V::SmallInt(one), V::SmallInt(other)) => one == other,
        (V::Integer(one), V::Integer(other)) => one == other,
        (V::BigInt(one), V::BigInt(other)) => one == other,
        (V::Real(one), V::Real(other)) => one.to_bits() == other.to_bits(),
        (V::Double(one), V::Double(other)) => one.to_bits() == other.to_bits(),
        (V::Text(one), V::Text(other)) => one == other,
        (V::TextSlice(one), V::TextSlice(other)) => one == other,
        (V::Blob(one), V::Blob(other)) => one == other,
        _ => false,
    }
}

impl RecordedStep {
    /// `whole`: whether the transaction began with a plain `BEGIN`, so that it can begin again.
    fn new(whole: bool) -> Self {
        Self { done: Vec::new(), values: 0, whole, failed: false, repetitions: 0, failed_at: None }
    }

    fn note(&mut self, statement: Statement, outcome: SeenResult) {
        self.values += outcome.values.len();
        self.whole &= self.values <= VALUES;
        if self.whole {
            self.done.push((statement, outcome));
        } else {
            self.done.clear();
        }
    }

    /// Counts one more repetition, and returns its number; `None` if there may be none.
    fn next(&mut self) -> Option<u32> {
        let failed_at = *self.failed_at.get_or_insert_with(Instant::now);
        self.repetitions += 1;
        let may = self.whole
            && !self.failed
            && self.repetitions <= REPETITIONS
            && failed_at.elapsed() < REPEATED_FOR;
        may.then_some(self.repetitions)
    }
}

fn given_up() -> sqlx::Error {
    sqlx::Error::Protocol("a statement of the transaction has failed; nothing is committed".into())
}

impl<B: AnyConnectionBackend> RetryConnection<B> {
    pub(crate) fn new(backend: B, metrics: Metrics) -> Self {
        Self { backend, metrics, pause: PAUSE, step: None, read_only: false }
    }

    /// Runs a statement, in the open transaction or as one of its own.
    async fn run(&mut self, statement: Statement) -> sqlx::Result<Vec<Item>> {
        // A statement outside of a transaction is one by itself, with nothing before it.
        let mut alone =
            (self.backend.get_transaction_depth() == 0).then(|| RecordedStep::new(true));
        if self.step.as_ref().is_some_and(|step| step.failed) && alone.is_none() {
            return Err(given_up());
        }
        loop {
            let cause = match send(&mut self.backend, &statement).await {
                Ok(items) => {
                    if let (None, Some(step)) = (&alone, &mut self.step) {
                        step.note(statement, SeenResult::of(&items));
                    }
                    return Ok(items);
                }
                Err(cause) => cause,
            };
            self.read_only |= errors::code(&cause).as_deref() == Some("25006");
            match (&mut alone, retry_cause(&cause)) {
                (None, _) => self.recover(cause).await?,
                (Some(alone), Some(why)) => {
                    let Some(repetition) = alone.next() else { return Err(cause) };
                    self.metrics.retried(why);
                    sleep(pause(self.pause, repetition)).await;
                }
                (Some(_), None) => return Err(cause),
            }
        }
    }

    /// Brings the open transaction back to where the server rolled it back. Fails with `cause`, or with a
    /// later error, if that cannot be.
    async fn recover(&mut self, mut cause: sqlx::Error) -> sqlx::Result<()> {
        loop {
            let Some(step) = &mut self.step else { return Err(cause) };
            let next = retry_cause(&cause).and_then(|why| Some((why, step.next()?)));
            let Some((why, repetition)) = next else {
                step.failed |= matches!(cause, sqlx::Error::Database(_));
                return Err(cause);
            };
            self.metrics.retried(why);
            sleep(pause(self.pause, repetition)).await;
            match self.replay().await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if let Some(step) = &mut self.step {
                        step.failed = true;
                    }
                    return Err(cause);
                }
                Err(next) => cause = next,
            }
        }
    }

    /// Begins again and sends the same statements. Returns whether their results are the same.
    async fn replay(&mut self) -> sqlx::Result<bool> {
        self.backend.rollback().await?;
        self.backend.begin(None).await?;
        let Some(step) = &self.step else { return Ok(false) };
        for (statement, outcome) in &step.done {
            let items = send(&mut self.backend, statement).await?;
            if !SeenResult::of(&items).is(outcome) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Sends a statement, and waits for its whole result.
async fn send(
    backend: &mut impl AnyConnectionBackend,
    statement: &Statement,
) -> sqlx::Result<Vec<Item>> {
    let (sql, arguments) = (statement.sql.clone(), statement.arguments());
    if statement.one_row {
        let row = backend.fetch_optional(sql, statement.persistent, arguments).await?;
        return Ok(row.map(Either::Right).into_iter().collect());
    }
    backend.fetch_many(sql, statement.persistent, arguments).try_collect().await
}

impl<B: AnyConnectionBackend> AnyConnectionBackend for RetryConnection<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        Box::new(self.backend).close()
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        Box::new(self.backend).close_hard()
    }

    fn ping(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        if self.read_only {
            let why = "PostgreSQL takes no writes on this connection; it is given up";
            return Box::pin(async move { Err(sqlx::Error::Io(std::io::Error::other(why))) });
        }
        self.backend.ping()
    }

    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move {
            if self.backend.get_transaction_depth() > 0 {
                if let Some(step) = &mut self.step {
                    step.whole = false; // savepoints are not repeated
                }
                return self.backend.begin(statement).await;
            }
            self.step = Some(RecordedStep::new(statement.is_none()));
            self.backend.begin(statement).await
        })
    }

    fn commit(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move {
            if self.backend.get_transaction_depth() != 1 {
                return self.backend.commit().await;
            }
            loop {
                // PostgreSQL answers such a COMMIT with ROLLBACK, which the driver takes for success.
                if self.step.as_ref().is_some_and(|step| step.failed) {
                    return Err(given_up());
                }
                match self.backend.commit().await {
                    Ok(()) => {
                        self.step = None;
                        return Ok(());
                    }
                    Err(cause) => self.recover(cause).await?,
                }
            }
        })
    }

    fn rollback(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        if self.backend.get_transaction_depth() <= 1 {
            self.step = None;
        }
        self.backend.rollback()
    }

    fn start_rollback(&mut self) {
        if self.backend.get_transaction_depth() <= 1 {
            self.step = None;
        }
        self.backend.start_rollback();
    }

    fn get_transaction_depth(&self) -> usize {
        self.backend.get_transaction_depth()
    }

    fn shrink_buffers(&mut self) {
        self.backend.shrink_buffers();
    }

    fn flush(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        self.backend.flush()
    }

    fn should_flush(&self) -> bool {
        self.backend.should_flush()
    }

    fn fetch_many(
        &mut self,
        sql: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, sqlx::Result<Item>> {
        let values = arguments.map(|arguments| arguments.values.0);
        let statement = Statement { sql, persistent, values, one_row: false };
        let items = async move {
            let items = self.run(statement).await?;
            Ok::<_, sqlx::Error>(stream::iter(items.into_iter().map(Ok)))
        };
        stream::once(items).try_flatten().boxed()
    }

    fn fetch_optional(
        &mut self,
        sql: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, sqlx::Result<Option<AnyRow>>> {
        let values = arguments.map(|arguments| arguments.values.0);
        let statement = Statement { sql, persistent, values, one_row: true };
        Box::pin(async move {
            let items = self.run(statement).await?;
            Ok(items.into_iter().find_map(Either::right))
        })
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        sql: SqlStr,
        parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, sqlx::Result<AnyStatement>> {
        self.backend.prepare_with(sql, parameters)
    }
}

#[cfg(test)]
mod tests;
