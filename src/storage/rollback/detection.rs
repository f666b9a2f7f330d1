//! Detects that the database was rolled back: it no longer contains data that it contained before.
//!
//! After a failover to a standby that lagged, or a restore under running servers, revoked grants are live
//! again and rotated tokens look unused, while the audit chain is intact. Only a process that has seen
//! later data can notice. So each process remembers in memory the last head of the audit chain that it
//! saw (number and MAC), and the lines that it committed and that were not chained yet. It compares every
//! second, and on PostgreSQL also before the first use of a new connection: a failover ends every
//! connection, so no request is served from a database that was rolled back. Such a database is treated
//! like a restored backup: everything that may have ended since is ended. One replica does so, and the
//! others adopt the result.
//!
//! A process that has just started has seen nothing. Data that was lost together with every process that
//! saw it cannot be noticed here; the mark in a backup covers that case.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool};

use super::settlement::{AT, TIMES, end_everything, note_at};
use crate::clock::{Clock, Timestamp};
use crate::oauth::sealed::Sealer;
use crate::storage::audit::{ChainHead, LineBudget, Marks, SeenLines};
use crate::storage::database::{ConnectionCheck, SqlTransaction};
use crate::storage::{Storage, StorageError, Transaction, column};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::metrics::Metrics;

/// Most unchained lines remembered: the latest 8. A database that loses commits loses the latest ones
/// first.
const LINES: usize = 8;

const FACTS: &str =
    "SELECT 'head' AS what, value AS text FROM installation WHERE name = 'audit_head'
    UNION ALL SELECT 'start', value FROM installation WHERE name = 'audit_start'
    UNION ALL SELECT name, CAST(value AS TEXT) FROM counters
              WHERE name IN ('times_went_back', 'went_back_at')
    UNION ALL SELECT 'mac', mac FROM audit_events WHERE seq = $1
    UNION ALL SELECT CASE WHEN seq IS NULL THEN 'line' ELSE 'chained' END, id FROM audit_events
              WHERE id IN ($2, $3, $4, $5, $6, $7, $8, $9)";
/// The timeline of the server's history; `standby` while it still follows another server.
const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby'
    ELSE SUBSTR(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

/// What this process has seen of its database.
#[derive(Default)]
pub(crate) struct Watch {
    known: Mutex<Known>,
    timeline: Mutex<Option<String>>,
    /// For ending everything on PostgreSQL while no pooled connection may be used yet.
    tools: OnceLock<Tools>,
    clock: OnceLock<Clock>,
    settling: tokio::sync::Mutex<()>,
}

pub(crate) struct Tools {
    /// Connects to the same server as the other pools, but without this check.
    pub(crate) pool: AnyPool,
    pub(crate) sealer: Sealer,
    pub(crate) metrics: Metrics,
    pub(crate) lines: Arc<LineBudget>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// Grows whenever the remembered state is replaced.
    generation: u64,
    head: ChainHead,
    lines: VecDeque<CommittedLine>,
    /// The value of the counter [`TIMES`]; `None` before the first comparison.
    settled: Option<i64>,
    at: i64,
}

#[derive(Clone, Debug)]
struct CommittedLine {
    id: String,
    /// The number of the chain's head when the line was committed.
    after: i64,
}

/// The current content of the database.
#[derive(Debug, Default)]
struct ChainFacts {
    head: Option<ChainHead>,
    /// A head exists, but no server wrote it.
    unproven: bool,
    /// Number of the last line that was trimmed from the start of the chain.
    start: i64,
    settled: i64,
    at: i64,
    /// The MAC of the line that has the number of the remembered head.
    mac: Option<String>,
    lines: HashSet<String>,
    chained: HashSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Everything that was seen still exists.
    Whole,
    /// Something that was seen is missing.
    Less(&'static str),
    /// Something is missing, and another replica has already ended everything.
    Settled,
}

impl ChainFacts {
    fn of(rows: &[AnyRow], marks: &Marks<'_>) -> Result<Self, StorageError> {
        let mut facts = Self::default();
        for row in rows {
            let (what, text): (String, Option<String>) =
                (column(row, "what")?, column(row, "text")?);
            let text = text.unwrap_or_default();
            match what.as_str() {
                "head" => {
                    facts.head = marks.head(&text);
                    facts.unproven = facts.head.is_none();
                }
                // A start without proof must not cause anybody to be signed out.
                "start" => facts.start = marks.start(&text).map_or(i64::MAX, |start| start.seq),
                TIMES => facts.settled = text.parse().unwrap_or_default(),
                AT => facts.at = text.parse().unwrap_or_default(),
                "mac" => facts.mac = Some(text),
                "line" => {
                    facts.lines.insert(text);
                }
                _ => {
                    facts.chained.insert(text);
                }
            }
        }
        Ok(facts)
    }
}

impl Known {
    /// Compares the database with what was known before it was queried.
    fn judge(&self, facts: &ChainFacts) -> Verdict {
        let Some(settled) = self.settled else { return Verdict::Whole };
        if facts.settled > settled {
            return Verdict::Settled;
        }
        if facts.unproven {
            return Verdict::Whole; // `audit verify` reports it
        }
        let head = facts.head.clone().unwrap_or_default();
        if head.seq < self.head.seq {
            return Verdict::Less("the audit trail ends earlier than it did");
        }
        let there = if head.seq == self.head.seq { Some(&head.mac) } else { facts.mac.as_ref() };
        if self.head.seq > 0 && there.is_some_and(|mac| *mac != self.head.mac) {
            return Verdict::Less("another line stands where the audit trail ended");
        }
        let lost = |line: &&CommittedLine| {
            let there = facts.lines.contains(&line.id) || facts.chained.contains(&line.id);
            !there && facts.start <= line.after
        };
        if self.lines.iter().any(|line| lost(&line)) {
            return Verdict::Less("a line of the audit trail that was stored is not there");
        }
        Verdict::Whole
    }
}

impl SeenLines for Watch {
    fn committed(&self, generation: u64, id: String) {
        let mut known = self.known();
        if known.generation != generation {
            return; // the transaction began before everything was ended
        }
        let after = known.head.seq;
        known.lines.push_back(CommittedLine { id, after });
        while known.lines.len() > LINES {
            known.lines.pop_front();
        }
    }
}

impl ConnectionCheck for Watch {
    fn admit(
        self: Arc<Self>,
        connection: &mut AnyConnection,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async move { self.check(connection).await })
    }
}

impl Watch {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Sets what is needed for ending everything on PostgreSQL.
    pub(crate) fn equip(&self, tools: Tools) {
        let _ = self.tools.set(tools);
    }

    pub(crate) async fn close(&self) {
        if let Some(tools) = self.tools.get() {
            tools.pool.close().await;
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// Updates what is remembered, from a database that contains everything seen before.
    fn saw(&self, generation: u64, facts: &ChainFacts) {
        let mut known = self.known();
        if known.generation != generation {
            return;
        }
        if let Some(head) = facts.head.as_ref().filter(|head| head.seq > known.head.seq) {
            known.head.clone_from(head);
        }
        known.lines.retain(|line| !facts.chained.contains(&line.id));
        known.settled = known.settled.max(Some(facts.settled));
        known.at = facts.at;
    }

    /// Replaces what is remembered by the current content.
    fn begin_again(&self, facts: &ChainFacts) {
        let mut known = self.known();
        *known = Known {
            generation: known.generation + 1,
            head: facts.head.clone().unwrap_or_default(),
            lines: VecDeque::new(),
            settled: Some(facts.settled),
            at: facts.at,
        };
    }

    /// Checks a new connection to PostgreSQL before its first use. If the server misses something that
    /// was seen, ends everything in the database first.
    async fn check(self: &Arc<Self>, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let Some(tools) = self.tools.get() else { return Ok(()) }; // the first connections, at the start
        // The role may lack the privilege, and servers that only speak PostgreSQL's protocol may lack the
        // functions.
        let timeline = sqlx::query_scalar::<_, String>(TIMELINE).fetch_one(&mut *connection).await;
        let timeline = timeline.ok();
        if timeline.as_deref() == Some("standby") {
            return Err(refused("this server is a standby that follows another one"));
        }
        let known = self.known().clone();
        let facts = self.ask(&known, &tools.sealer, &mut *connection).await;
        let facts = facts.map_err(|cause| refused(&cause.to_string()))?;
        match known.judge(&facts) {
            Verdict::Whole => self.saw(known.generation, &facts),
            Verdict::Settled => self.adopt(&known, &facts),
            Verdict::Less(_) => {
                // In a task of its own, because the caller that waits for the connection may be
                // cancelled.
                let (watch, timeline) = (Arc::clone(self), timeline.clone());
                let settled = tokio::spawn(async move { watch.settle_first(timeline).await });
                let settled = settled.await.map_err(|_| sqlx::Error::WorkerCrashed)?;
                settled.map_err(|cause| refused(&cause.to_string()))?;
            }
        }
        self.note_timeline(timeline, known.judge(&facts));
        Ok(())
    }

    /// Logs a failover to a standby that had everything.
    fn note_timeline(&self, timeline: Option<String>, verdict: Verdict) {
        let Some(timeline) = timeline else { return };
        let mut known = self.timeline.lock();
        let before = known.replace(timeline.clone());
        if verdict == Verdict::Whole && before.is_some_and(|before| before != timeline) {
            tracing::warn!(
                timeline,
                "PostgreSQL goes on on another timeline, as after a failover; everything that this server has seen is there"
            );
        }
    }

    async fn ask(
        &self,
        known: &Known,
        sealer: &Sealer,
        connection: &mut AnyConnection,
    ) -> Result<ChainFacts, StorageError> {
        ChainFacts::of(&facts(known).fetch_all(connection).await?, &Marks(sealer))
    }

    /// Ends everything in the database before any pooled connection may be used.
    async fn settle_first(&self, timeline: Option<String>) -> Result<(), StorageError> {
        let (Some(tools), Some(clock)) = (self.tools.get(), self.clock.get()) else {
            return Err(StorageError::Busy);
        };
        let _one = self.settling.lock().await;
        let known = self.known().clone();
        let sql = SqlTransaction::Postgres(tools.pool.begin().await?);
        let (metrics, sealer) = (tools.metrics.clone(), tools.sealer.clone());
        let mut step = Transaction::new(sql, metrics, sealer, Arc::clone(&tools.lines), None);
        step.disable_statement_timeout().await?;
        let facts = match self.settle(&mut step, &known, clock, timeline).await? {
            Ok(facts) => facts,
            Err(verdict_and_facts) => {
                let (verdict, facts) = *verdict_and_facts;
                if verdict == Verdict::Settled {
                    self.adopt(&known, &facts);
                }
                return Ok(());
            }
        };
        step.notify_replicas(None).await?;
        step.commit().await?;
        self.begin_again(&facts);
        Ok(())
    }

    /// Adopts the result of another replica that has ended everything.
    fn adopt(&self, known: &Known, facts: &ChainFacts) {
        if self.generation() != known.generation {
            return; // another task of this process has noticed
        }
        tracing::error!(
            seen = known.head.seq,
            found = facts.head.as_ref().map_or(0, |head| head.seq),
            "the database went back in time; another replica has ended everything that may have ended since"
        );
        self.begin_again(facts);
    }

    /// Ends everything in a database that misses something, in a transaction that the caller commits. The
    /// inner error means that there is nothing to do.
    async fn settle(
        &self,
        step: &mut Transaction,
        known: &Known,
        clock: &Clock,
        timeline: Option<String>,
    ) -> Result<Result<ChainFacts, Box<(Verdict, ChainFacts)>>, StorageError> {
        let now = clock.now();
        let settled = known.settled.unwrap_or_default() + 1;
        // Waits for another replica that is doing this. Afterwards no row is changed if that replica has
        // ended everything.
        let claimed = sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2 WHERE counters.value < $2",
        );
        let claimed = claimed.bind(TIMES).bind(settled).execute(&mut **step).await?.rows_affected();
        // Queries again inside the transaction: only a server that accepts writes gets this far.
        let rows = facts(known).fetch_all(&mut **step).await?;
        let mut facts = ChainFacts::of(&rows, &Marks(&step.sealer().clone()))?;
        if claimed == 0 {
            return Ok(Err(Box::new((known.judge(&facts), facts))));
        }
        facts.settled = settled - 1;
        let Verdict::Less(how) = known.judge(&facts) else {
            return Ok(Err(Box::new((Verdict::Whole, facts))));
        };
        (facts.settled, facts.at) = (settled, now.unix());
        let ended = end_everything(step, now, WENT_BACK).await?;
        note_at(step, now).await?;
        let found = facts.head.as_ref().map_or(0, |head| head.seq);
        let seen = known.head.seq;
        tracing::error!(
            how,
            seen,
            found,
            timeline,
            ended,
            "the database went back in time: a failover to a standby that was behind, or a restore under running servers. Everything that may have ended since has ended, and everybody has to sign in again. See Failover in docs/operations/replicas.md"
        );
        let event = AuditEvent::new("database_went_back", Actor::Server, clock);
        let event = event.with("seen", seen).with("found", found).with("ended", ended);
        step.record(event).await?;
        Ok(Ok(facts))
    }
}

const WENT_BACK: &str = "the database went back in time";

fn facts(known: &Known) -> Query<'static, Any, AnyArguments> {
    let mut query = sqlx::query(FACTS).bind(known.head.seq);
    let mut lines = known.lines.iter();
    for _ in 0..LINES {
        query = query.bind(lines.next().map(|line| line.id.clone()).unwrap_or_default());
    }
    query
}

/// Makes an error after which the pool retries.
fn refused(reason: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(reason.to_owned()))
}

impl Storage {
    /// Sets the clock for ending everything.
    pub fn settle_by(&self, clock: &Clock) {
        let _ = self.watch.clock.set(clock.clone());
    }

    /// Lets each new connection to PostgreSQL end everything in a database that was rolled back, before
    /// any request is served from it.
    pub(crate) fn settle_rollbacks_early(&self) -> Result<(), sqlx::Error> {
        if let Some(pool) = self.database.unchecked_pool()? {
            let (sealer, metrics) = (self.sealer.clone(), self.metrics().clone());
            self.watch.equip(Tools { pool, sealer, metrics, lines: Arc::clone(&self.lines) });
        }
        Ok(())
    }

    /// Compares the database with what was seen before. Ends everything if the database was rolled back,
    /// and returns whether it was.
    pub async fn look_back(&self, clock: &Clock) -> Result<bool, StorageError> {
        let watch = &self.watch;
        let known = watch.known().clone();
        let found = ChainFacts::of(&self.read_all(facts(&known)).await?, &Marks(&self.sealer))?;
        if watch.generation() != known.generation {
            return Ok(false);
        }
        match known.judge(&found) {
            Verdict::Whole => {
                watch.saw(known.generation, &found);
                return Ok(false);
            }
            Verdict::Settled => {
                watch.adopt(&known, &found);
                self.wake_streams();
                return Ok(false);
            }
            Verdict::Less(_) => {}
        }
        // The connection first: a caller that waits for one may have to end everything itself.
        let mut step = self.begin_revocation().await?;
        let _one = watch.settling.lock().await;
        if watch.generation() != known.generation {
            return Ok(false); // another task has ended everything meanwhile
        }
        step.disable_statement_timeout().await?;
        match watch.settle(&mut step, &known, clock, None).await? {
            Ok(facts) => {
                step.forget_lines();
                self.commit_and_notify(step).await?;
                watch.begin_again(&facts);
                Ok(true)
            }
            Err(found) => {
                if found.0 == Verdict::Settled {
                    watch.adopt(&known, &found.1);
                }
                Ok(false)
            }
        }
    }

    /// Returns when the database was last rolled back, as far as this process has looked.
    pub fn went_back_at(&self) -> Option<Timestamp> {
        Some(self.watch.known().at).filter(|at| *at > 0).map(Timestamp::from_unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: i64, mac: &str) -> ChainHead {
        ChainHead { seq, mac: mac.to_owned() }
    }

    fn known(seq: i64, mac: &str, lines: &[&str]) -> Known {
        let line = |id: &&str| CommittedLine { id: (*id).to_owned(), after: seq };
        let lines = lines.iter().map(line).collect();
        Known { head: head(seq, mac), lines, settled: Some(0), ..Known::default() }
    }

    fn found(seq: i64, mac: &str, at_seen: Option<&str>, lines: &[&str]) -> ChainFacts {
        let lines = lines.iter().map(|id| (*id).to_owned()).collect();
        let mac_at_seen = at_seen.map(str::to_owned);
        ChainFacts { head: Some(head(seq, mac)), mac: mac_at_seen, lines, ..ChainFacts::default() }
    }

    #[test]
    fn less_than_was_seen_is_told_from_more_and_from_what_was_removed() {
        let seen = known(10, "j", &["x", "y"]);
        let whole = ["x", "y"];
        let less = |found: &ChainFacts| matches!(seen.judge(found), Verdict::Less(_));

        assert!(!less(&found(10, "j", Some("j"), &whole)), "as before");
        assert!(!less(&found(12, "l", Some("j"), &whole)), "it went on");
        assert!(!less(&found(12, "l", None, &whole)), "the line was removed, and it went on");
        assert!(less(&found(9, "i", None, &whole)), "the chain ends earlier");
        assert!(less(&found(10, "other", Some("other"), &whole)), "another line at its end");
        assert!(less(&found(12, "l", Some("other"), &whole)), "another line, and it went on");
        assert!(less(&found(10, "j", Some("j"), &["x"])), "a line is lost before it was chained");
        assert!(less(&found(11, "k", Some("j"), &["x"])), "and others came after it");
        assert!(less(&ChainFacts::default()), "there is no chain any more");
        let trimmed = ChainFacts { start: 11, ..found(30, "z", None, &[]) };
        assert!(!less(&trimmed), "everything up to a later line was removed");
        let start = ChainFacts { start: 10, ..found(30, "z", None, &[]) };
        assert!(less(&start), "but not what came after the start of the chain");
        let unproven = ChainFacts { unproven: true, ..ChainFacts::default() };
        assert!(!less(&unproven), "a head that no server wrote says nothing");
    }

    #[test]
    fn what_another_replica_settled_is_adopted_and_a_start_has_seen_nothing() {
        let seen = known(10, "j", &["x"]);
        let settled = ChainFacts { settled: 1, ..found(3, "c", None, &[]) };
        assert_eq!(seen.judge(&settled), Verdict::Settled);
        let later = Known { settled: Some(1), ..known(10, "j", &[]) };
        assert!(matches!(later.judge(&settled), Verdict::Less(_)), "that was before");
        assert_eq!(Known::default().judge(&settled), Verdict::Whole);
    }

    #[test]
    fn what_was_seen_before_a_settlement_does_not_count_after_it() {
        let watch = Watch::default();
        watch.saw(0, &found(10, "j", None, &[]));
        watch.committed(0, "x".to_owned());
        watch.begin_again(&ChainFacts { settled: 1, ..found(3, "c", None, &[]) });
        watch.committed(0, "late".to_owned());
        watch.saw(0, &found(11, "k", None, &[]));

        let known = watch.known().clone();

        assert_eq!((known.head, known.lines.len()), (head(3, "c"), 0));
    }
}
