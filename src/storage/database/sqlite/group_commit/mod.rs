//! Group commit: many transactions share SQLite's one writer and one commit.
//!
//! A commit with `synchronous = FULL` waits for the disk, and that wait hardly grows with the amount of
//! data. So callers take turns at one connection, in the order in which they asked. Each runs its
//! statements in a savepoint of its own. While others are waiting, it passes the turn on instead of
//! committing. The last caller in the queue, or the one that fills the batch, commits once for all of
//! them, and only then does any of them return. Nobody waits for followers: a single caller commits at
//! once.
//!
//! The WAL is checkpointed in the background: `checkpoint.rs`.
//!
//! A caller that is cancelled must not leave anything half-done. Therefore the work that has to follow a
//! transaction happens in the next turn, or in a task of its own.

mod checkpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{AnyConnection, Connection, any::AnyConnectOptions};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::Instant;

use checkpoint::Checkpointer;

use super::connection::{NEXT_SAVEPOINT, knows_transactions};
use super::pragmas::connect;
use super::size_limit::{self, Sizes};
use crate::storage::database::StorageError;

use crate::telemetry::metrics::Metrics;

/// Most transactions in one batch: 256. A larger batch makes the first caller wait longer for the shared
/// commit; a smaller one waits for the disk more often.
const SHARED_BY: usize = 256;
/// Most callers that may wait for their turn: 4096. The next one fails with [`StorageError::Busy`].
const QUEUE: usize = 4096;
/// Longest wait for the turn: 5 seconds.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum wait for SQLite's write lock while another process holds it: 500 ms, even for a caller whose
/// time was used up in our own queue. It is skipped when the previous attempt has just timed out on the
/// same lock.
const AT_LEAST: Duration = Duration::from_millis(500);
/// Upper estimate of the pages that one transaction adds: 64. Pages in use are counted only when this
/// estimate says that the limit may have been reached.
const PAGES_OF_A_STEP: i64 = 64;
/// Pages beyond the size limit (16 MiB) for transactions that end grants or free space: an administrator
/// must be able to revoke access while the database is full.
const RESERVE: i64 = 4096;

/// The writer of an SQLite database, with its queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Queue>);

struct Queue {
    state: Arc<Mutex<WriterState>>,
    waiting: AtomicUsize,
    checkpointer: Arc<Checkpointer>,
}

/// Everything that belongs to the caller whose turn it is.
struct WriterState {
    connection: AnyConnection,
    options: AnyConnectOptions,
    sizes: Option<Sizes>,
    /// The limits that the connection has now; they differ while a transaction may use the reserve.
    applied_limits: Option<Sizes>,
    /// Pages in use when they were last counted.
    used_pages: i64,
    /// Transactions begun since then.
    steps_since: i64,
    /// How long a caller waits, counted from when it asked, while another process holds the lock.
    lock_timeout: Duration,
    /// The last attempt to get that lock timed out.
    locked_out: bool,
    /// The open transaction, with the callers that wait for its commit.
    batch: Option<OpenBatch>,
    /// The state of the connection is unknown: the next turn opens a new one.
    connection_lost: bool,
    checkpointer: Arc<Checkpointer>,
    metrics: Metrics,
}

struct OpenBatch {
    /// Callers that called `commit` and wait for the shared commit.
    pending: usize,
    /// Turns taken, however they ended.
    turns: usize,
    left: SavepointState,
    outcome: watch::Sender<CommitOutcome>,
}

/// What the last turn left in the open transaction.
#[derive(Clone, Copy)]
enum SavepointState {
    /// A finished step, whose savepoint can be released.
    Released,
    /// Changes after the savepoint of a step that was given up. They must be rolled back.
    Abandoned,
    /// No changes. Whether the savepoint exists is unknown.
    Nothing,
}

#[derive(Clone)]
enum CommitOutcome {
    Pending,
    Durable,
    Failed(Arc<str>),
}

/// A transaction whose turn it is. Dropped without [`Self::commit`], it changes nothing.
pub(crate) struct Step {
    queue: Writer,
    state: OwnedMutexGuard<WriterState>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Opening,
    Open,
    Ended,
}

impl std::ops::Deref for Step {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.state.connection
    }
}

impl std::ops::DerefMut for Step {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.state.connection
    }
}

impl Writer {
    /// Opens the writer on a connection of its own. `lock_timeout` is how long a caller waits while another
    /// process holds the lock.
    pub(crate) async fn open(
        options: AnyConnectOptions,
        lock_timeout: Duration,
        metrics: Metrics,
    ) -> Result<Self, sqlx::Error> {
        let checkpointer = Checkpointer::open(&options).await?;
        let desk = WriterState {
            connection: connect(&options).await?,
            options,
            sizes: None,
            applied_limits: None,
            used_pages: i64::MAX / 2, // not counted yet
            steps_since: 0,
            lock_timeout,
            locked_out: false,
            batch: None,
            connection_lost: false,
            checkpointer: Arc::clone(&checkpointer),
            metrics,
        };
        let (desk, waiting) = (Arc::new(Mutex::new(desk)), AtomicUsize::new(0));
        Ok(Self(Arc::new(Queue { state: desk, waiting, checkpointer })))
    }

    /// Limits the size of the database file and its WAL.
    pub(crate) async fn limit_size(&self, sizes: Sizes) -> Result<(), StorageError> {
        let mut desk = self.0.state.lock().await;
        desk.sizes = Some(sizes);
        Ok(desk.limit(0).await?)
    }

    /// Waits for the turn and begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Step, StorageError> {
        let asked = Instant::now();
        let ticket = QueueTicket::take(self)?;
        let turn = Arc::clone(&self.0.state).lock_owned();
        let desk =
            tokio::time::timeout(QUEUE_TIMEOUT, turn).await.map_err(|_| StorageError::Busy)?;
        let mut step = Step { queue: self.clone(), state: desk, phase: Phase::Opening };
        ticket.has_its_turn();
        if step.state.batch.as_ref().is_some_and(OpenBatch::is_full) {
            step = step.finish_first().await?;
        }
        step.state.open(asked).await?;
        step.phase = Phase::Open;
        Ok(step)
    }

    /// Commits what is open and stops the checkpointer; with `checkpoint`, also checkpoints the WAL.
    pub(crate) async fn close(&self, checkpoint: bool) {
        let mut desk = self.0.state.lock().await;
        desk.finish().await;
        self.0.checkpointer.close().await;
        if !checkpoint {
            return;
        }
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        if let Err(cause) = checkpoint.execute(&mut desk.connection).await {
            tracing::warn!(%cause, "the last checkpoint of the WAL failed");
        }
    }

    /// Returns how many callers wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    fn somebody_waits(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }

    /// Schedules the commit that waiting callers need, for `Drop` implementations, which cannot wait.
    fn commit_soon(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return; // the process ends; no caller was told of a success
        };
        let queue = self.clone();
        runtime.spawn(async move {
            let mut desk = Arc::clone(&queue.0.state).lock_owned().await;
            let full = desk.batch.as_ref().is_some_and(OpenBatch::is_full);
            if full || !queue.somebody_waits() {
                desk.finish().await;
            }
        });
    }
}

/// A position in the queue. A caller that passes its turn on relies on the holders of these to commit.
struct QueueTicket<'a> {
    queue: &'a Writer,
    had_its_turn: bool,
}

impl<'a> QueueTicket<'a> {
    fn take(queue: &'a Writer) -> Result<Self, StorageError> {
        if queue.0.waiting.fetch_add(1, Ordering::SeqCst) >= QUEUE {
            queue.0.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(StorageError::Busy);
        }
        Ok(Self { queue, had_its_turn: false })
    }

    fn has_its_turn(mut self) {
        self.had_its_turn = true;
    }
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        let others = self.queue.0.waiting.fetch_sub(1, Ordering::SeqCst) > 1;
        if !self.had_its_turn && !others {
            self.queue.commit_soon(); // an earlier caller may have left the commit to this one
        }
    }
}

impl OpenBatch {
    fn is_full(&self) -> bool {
        self.turns >= SHARED_BY
    }
}

impl Step {
    /// Lets this transaction use the reserve beyond the size limit.
    pub(crate) async fn use_reserve(&mut self) -> Result<(), StorageError> {
        Ok(self.state.limit(RESERVE).await?)
    }

    /// Returns whether less than `percent` of the allowed pages are in use.
    pub(crate) async fn is_filled_less_than(&mut self, percent: i64) -> Result<bool, StorageError> {
        Ok(self.state.is_filled_less_than(percent).await?)
    }

    /// Returns the pages in use and the pages allowed; `None` without a limit.
    pub(crate) async fn pages(&mut self) -> Result<Option<(i64, i64)>, StorageError> {
        let Some(sizes) = self.state.sizes else { return Ok(None) };
        self.state.count_pages().await?;
        Ok(Some((self.state.used_pages, sizes.most_pages)))
    }

    /// Ends the transaction, and returns once the commit that it shares is durable.
    pub(crate) async fn commit(mut self) -> Result<(), StorageError> {
        let Some(shared) = &mut self.state.batch else {
            return Err(failed("the transaction is gone"));
        };
        shared.pending += 1;
        shared.left = SavepointState::Released;
        let full = shared.is_full();
        let mut outcome = shared.outcome.subscribe();
        self.phase = Phase::Ended;
        if full || !self.queue.somebody_waits() {
            // A task of its own: a cancelled caller must not leave a commit half-done.
            tokio::spawn(async move { self.state.finish().await });
        } else {
            drop(self);
        }
        let decided = outcome.wait_for(|outcome| !matches!(outcome, CommitOutcome::Pending)).await;
        match decided.as_deref() {
            Ok(CommitOutcome::Durable) => Ok(()),
            Ok(CommitOutcome::Failed(cause)) => Err(failed(cause)),
            Ok(CommitOutcome::Pending) | Err(_) => Err(failed("the commit was given up")),
        }
    }

    /// Commits the full batch and keeps the turn.
    async fn finish_first(mut self) -> Result<Self, StorageError> {
        let finished = tokio::spawn(async move {
            self.state.finish().await;
            self
        });
        finished.await.map_err(|_| failed("the commit was given up"))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let Some(shared) = &mut self.state.batch else { return };
        shared.left = match (self.phase, shared.left) {
            (Phase::Ended, left) => left,
            (Phase::Open, _) | (Phase::Opening, SavepointState::Abandoned) => {
                SavepointState::Abandoned
            }
            (Phase::Opening, SavepointState::Released | SavepointState::Nothing) => {
                SavepointState::Nothing
            }
        };
        if shared.is_full() || !self.queue.somebody_waits() {
            self.queue.commit_soon();
        }
    }
}

impl WriterState {
    /// Opens a savepoint for a caller, and the transaction around it when none is open.
    async fn open(&mut self, asked: Instant) -> Result<(), StorageError> {
        self.steps_since += 1;
        if self.connection_lost {
            self.connection = connect(&self.options).await?;
            self.applied_limits = None;
            self.connection_lost = false;
        }
        if matches!(&self.batch, Some(OpenBatch { pending: 0, left: SavepointState::Nothing, .. }))
        {
            // Empty, and maybe never begun: a failure of this ROLLBACK means nothing.
            let _ = self.run(&["ROLLBACK"]).await;
            self.batch = None;
        }
        let still_open = self.is_in_transaction().await;
        let opened = match &mut self.batch {
            None => {
                self.begin_immediate(asked).await?;
                let (outcome, _) = watch::channel(CommitOutcome::Pending);
                let (kept, turns, left) = (0, 1, SavepointState::Nothing);
                self.batch = Some(OpenBatch { pending: kept, turns, left, outcome });
                self.run(&["SAVEPOINT step"]).await
            }
            Some(_) if !still_open => Err(vanished()),
            Some(shared) => {
                shared.turns += 1;
                match shared.left {
                    SavepointState::Abandoned => self.run(&["ROLLBACK TO step"]).await,
                    SavepointState::Released => {
                        shared.left = SavepointState::Nothing;
                        self.run(&[NEXT_SAVEPOINT]).await
                    }
                    SavepointState::Nothing => self.run(&["SAVEPOINT step"]).await,
                }
            }
        };
        let opened = match opened {
            Ok(()) => self.limit(0).await,
            failed => failed,
        };
        if let Err(cause) = opened {
            self.fail(&cause).await;
            return Err(cause.into());
        }
        Ok(())
    }

    /// Begins a transaction. While another process holds the lock, the waits of queued callers overlap
    /// instead of adding up: each caller's time counts from when it asked.
    async fn begin_immediate(&mut self, asked: Instant) -> Result<(), StorageError> {
        let mut until = asked + self.lock_timeout;
        if !self.locked_out {
            until = until.max(Instant::now() + AT_LEAST);
        }
        let begun = tokio::time::timeout_at(until, self.run(&["BEGIN IMMEDIATE"])).await;
        self.locked_out = begun.is_err();
        match begun {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => {
                self.connection_lost = true;
                Err(cause.into())
            }
            Err(_) => Err(failed("another process holds the lock of the database")),
        }
    }

    /// Limits the file to its configured size plus `beyond` pages.
    async fn limit(&mut self, beyond: i64) -> Result<(), sqlx::Error> {
        let Some(Sizes { most_pages, log }) = self.sizes else { return Ok(()) };
        let sizes = Sizes { most_pages: most_pages.saturating_add(beyond), log };
        if self.applied_limits != Some(sizes) {
            self.applied_limits = None;
            size_limit::limit(&mut self.connection, sizes).await?;
            self.applied_limits = Some(sizes);
        }
        Ok(())
    }

    /// Returns whether less than `percent` of the allowed pages are in use. Counts the pages only if the
    /// transactions since the last count could have filled that share.
    async fn is_filled_less_than(&mut self, percent: i64) -> Result<bool, sqlx::Error> {
        let Some(sizes) = self.sizes else { return Ok(true) };
        let most = sizes.most_pages.saturating_mul(percent) / 100;
        let at_most = self.used_pages.saturating_add(self.steps_since * PAGES_OF_A_STEP);
        if at_most < most {
            return Ok(true);
        }
        self.count_pages().await?;
        Ok(self.used_pages < most)
    }

    async fn count_pages(&mut self) -> Result<(), sqlx::Error> {
        self.used_pages = size_limit::used_pages(&mut self.connection).await?;
        self.steps_since = 0;
        Ok(())
    }

    /// Commits the open transaction and informs every caller in it.
    async fn finish(&mut self) {
        let Some(OpenBatch { pending: steps, left, .. }) = self.batch else { return };
        let begun = Instant::now();
        let still_open = self.is_in_transaction().await;
        let finished = match (steps, left) {
            (0, _) => self.run(&["ROLLBACK"]).await,
            _ if !still_open => Err(vanished()),
            (_, SavepointState::Abandoned) => self.run(&["ROLLBACK TO step", "COMMIT"]).await,
            (_, SavepointState::Released | SavepointState::Nothing) => self.run(&["COMMIT"]).await,
        };
        match finished {
            Ok(()) => {
                if steps > 0 {
                    self.metrics.committed(Some(steps), begun);
                    self.checkpointer.committed(steps);
                }
                if let Some(shared) = self.batch.take() {
                    shared.outcome.send_replace(CommitOutcome::Durable);
                }
            }
            Err(cause) => self.fail(&cause).await,
        }
    }

    /// Rolls back the whole batch and informs every caller in it of the failure.
    async fn fail(&mut self, cause: &sqlx::Error) {
        self.connection_lost = true;
        if self.run(&["ROLLBACK"]).await.is_ok() {
            self.connection_lost = false;
        }
        if let Some(shared) = self.batch.take() {
            shared.outcome.send_replace(CommitOutcome::Failed(cause.to_string().into()));
        }
    }

    /// Returns whether the batch's transaction is still open: SQLite itself may have rolled it back.
    async fn is_in_transaction(&mut self) -> bool {
        if knows_transactions(&self.options) {
            return self.connection.is_in_transaction();
        }
        // BEGIN fails inside of a transaction, and only there.
        let outside = self.batch.is_some() && self.run(&["BEGIN"]).await.is_ok();
        if outside {
            let _ = self.run(&["ROLLBACK"]).await;
        }
        !outside
    }

    async fn run(&mut self, statements: &[&'static str]) -> Result<(), sqlx::Error> {
        for sql in statements {
            sqlx::query(*sql).execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// SQLite itself rolls back when the disk is full or fails. A savepoint would then begin another
/// transaction, without the other callers' changes that belong to this one.
fn vanished() -> sqlx::Error {
    sqlx::Error::Protocol("the transaction was rolled back".to_owned())
}

fn failed(cause: &str) -> StorageError {
    StorageError::Unavailable(sqlx::Error::Protocol(cause.to_owned()))
}

#[cfg(test)]
mod tests;
