//! Trims the audit trail: lines older than their retention, and lines beyond `limits.audit_size`. If the
//! trail is too large, lines of anonymous callers go first, wherever they are, down to a tenth of the
//! size; after that, the oldest lines go. A line that the chain does not prove is never removed:
//! otherwise write access to the database would suffice to make the server erase traces.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::chain::{ChainHead, Gap, Mark, START, advance_chain_end, chain, mac};
use super::{AuditLine, COLUMNS, WEIGHT, read_line};
use crate::clock::{Clock, Timestamp};
use crate::storage::{Engine, Storage, StorageError, Transaction, column};
use crate::telemetry::audit::{Actor, AuditEvent};

/// The same condition as in the index, literally, and as in [`AuditLine::is_anonymous`].
const ANONYMOUS: &str = "subject IS NULL AND grant_id IS NULL AND actor IN ('client', 'person')";
/// Most lines removed in one transaction: 500. More would make callers wait for the writer.
const AT_ONCE: i64 = 500;
/// Most transactions in one call: 20, so that a call removes at most 10,000 lines.
const STEPS: u32 = 20;

/// The size limit of the trail.
pub(crate) struct AuditSize {
    bytes: AtomicU64,
    /// Whether it has been logged that lines cannot be removed.
    told: AtomicBool,
}

impl Default for AuditSize {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(u64::MAX), told: AtomicBool::new(false) }
    }
}

impl AuditLine {
    /// Returns whether the line names neither a person nor a grant, and was caused by a client or by a
    /// person in a browser.
    pub(super) fn is_anonymous(&self) -> bool {
        self.subject.is_none()
            && self.grant_id.is_none()
            && matches!(self.actor.as_str(), "client" | "person")
    }
}

/// Lines to be removed, and the resulting start of the chain.
struct Removal {
    start: Mark,
    lines: i64,
    /// Number of the last one.
    up_to: i64,
}

impl Removal {
    fn after(start: &Mark) -> Self {
        Self { start: start.clone(), lines: 0, up_to: 0 }
    }

    fn add(&mut self, line: &AuditLine, weight: i64) {
        self.start.bytes += weight;
        if line.is_anonymous() {
            self.start.anonymous += weight;
        }
        self.start.removed += 1;
        self.lines += 1;
        self.up_to = line.seq.unwrap_or_default();
    }
}

impl Storage {
    /// Limits the trail to `bytes`; on SQLite also to half of `file`, the size limit of the database
    /// file.
    pub fn limit_audit(&self, bytes: u64, file: u64) {
        let bytes = match self.engine() {
            Engine::Sqlite => bytes.min(file / 2),
            Engine::Postgres => bytes,
        };
        self.audit_size.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Trims a trail that exceeds its limit to 95 % of it. Returns how many lines were removed. Each
    /// transaction that removes lines records an event.
    pub async fn trim_audit(&self, clock: &Clock) -> Result<u64, StorageError> {
        let most = i64::try_from(self.audit_size.bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        // Trims to 95 %, so that the line which records a removal does not itself cause the next one.
        let (mut aim, mut removed) = (most, 0);
        for _ in 0..STEPS {
            let Some((start, text, head)) = self.ends().await? else { break };
            let over = (head.bytes - start.bytes) - aim;
            if over <= 0 {
                break;
            }
            aim = most - most / 20;
            let anonymous = head.anonymous - start.anonymous;
            let gone = if anonymous > most / 10 {
                let over = over.min(anonymous - most / 10);
                self.remove_anonymous(&start, text.as_deref(), over, clock).await?
            } else {
                let mut left = over;
                let due = |_: &AuditLine, weight| {
                    let due = left > 0;
                    left -= weight;
                    due
                };
                self.remove_oldest(&start, text.as_deref(), due, Some(clock)).await?
            };
            removed += gone;
            if gone == 0 {
                break;
            }
        }
        Ok(removed)
    }

    /// Removes lines older than `retention` from the start of the chain.
    pub(crate) async fn sweep_audit(
        &self,
        now: Timestamp,
        retention: Duration,
    ) -> Result<u64, StorageError> {
        let oldest = now.minus(retention).unix().saturating_mul(1000);
        let Some((start, text, _)) = self.ends().await? else { return Ok(0) };
        let due = |line: &AuditLine, _| line.at < oldest;
        self.remove_oldest(&start, text.as_deref(), due, None).await
    }

    /// Loads both ends of the chain, and the start also as stored. Returns `None` if a server did not
    /// write one of them.
    async fn ends(&self) -> Result<Option<(Mark, Option<String>, Mark)>, StorageError> {
        let (start, head) =
            (self.text_of_mark(START).await?, self.text_of_mark(super::chain::HEAD).await?);
        let read = |name, text: &Option<String>| match text {
            None => Some(Mark::default()),
            Some(text) => self.read_mark(name, text),
        };
        let ends = read(START, &start).zip(read(super::chain::HEAD, &head));
        Ok(ends.map(|(first, last)| (first, start, last)))
    }

    /// Removes lines from the start of the chain while they are `due`, and moves the start.
    async fn remove_oldest(
        &self,
        start: &Mark,
        text: Option<&str>,
        mut due: impl FnMut(&AuditLine, i64) -> bool,
        clock: Option<&Clock>,
    ) -> Result<u64, StorageError> {
        let mut walk = self.walk_from(start);
        let mut removal = Removal::after(start);
        for row in self.chained_after(start.line.seq, AT_ONCE).await? {
            let (line, weight) = (read_line(&row)?, column(&row, "weight")?);
            if !due(&line, weight) {
                break;
            }
            if let Err(broken) = walk.go_on(&line, &mac(&row)?).await? {
                self.tell_broken(&broken.to_string());
                break;
            }
            removal.add(&line, weight);
        }
        if removal.lines == 0 {
            return Ok(0);
        }
        removal.start.line = walk.last;
        let mut step = self.begin_cleanup().await?;
        let to = self.mark(START, &removal.start);
        if !advance_chain_end(&mut step, START, text, &to).await? {
            return Ok(0); // another replica is trimming
        }
        for sql in [
            "DELETE FROM audit_events WHERE seq <= $1",
            "DELETE FROM audit_gaps WHERE last_seq <= $1",
        ] {
            sqlx::query(sql).bind(removal.up_to).execute(&mut *step).await?;
        }
        if let Some(clock) = clock {
            tell(&mut step, &removal, "oldest", clock).await?;
        }
        step.commit().await?;
        Ok(removal.lines.unsigned_abs())
    }

    /// Removes the oldest lines of anonymous callers, wherever they are, until `bytes` are freed. Records
    /// the gaps, so that the chain can be verified across them.
    async fn remove_anonymous(
        &self,
        start: &Mark,
        text: Option<&str>,
        bytes: i64,
        clock: &Clock,
    ) -> Result<u64, StorageError> {
        let sql = format!(
            "SELECT {COLUMNS}, mac, {WEIGHT} AS weight FROM audit_events
             WHERE seq IS NOT NULL AND {ANONYMOUS} AND seq > $1 ORDER BY seq LIMIT $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(start.line.seq).bind(AT_ONCE);
        let rows = rows.fetch_all(self.pool()).await?;
        let mut removal = Removal::after(start);
        let mut gaps: Vec<Gap> = Vec::new();
        for row in &rows {
            if removal.start.bytes - start.bytes >= bytes {
                break;
            }
            let (line, own) = (read_line(row)?, mac(row)?);
            let seq = line.seq.unwrap_or_default();
            let before = match gaps.last() {
                Some(gap) if gap.last.seq + 1 == seq => Some(gap.last.mac.clone()),
                _ => self.mac_before(start, seq).await?,
            };
            if before.map(|before| chain(&self.sealer, &before, seq, &line)) != Some(own.clone()) {
                self.tell_broken(&format!("line {seq} (id {}) was changed or moved", line.id));
                continue;
            }
            removal.add(&line, column(row, "weight")?);
            let last = ChainHead { seq, mac: own };
            match gaps.last_mut() {
                Some(gap) if gap.last.seq + 1 == seq => gap.last = last,
                _ => gaps.push(Gap { first: seq, last }),
            }
        }
        if gaps.is_empty() {
            return Ok(0);
        }
        let mut joined = Vec::with_capacity(gaps.len());
        for gap in &gaps {
            joined.push(self.join(gap).await?);
        }
        let mut step = self.begin_cleanup().await?;
        let to = self.mark(START, &removal.start);
        if !advance_chain_end(&mut step, START, text, &to).await? {
            return Ok(0); // another replica is trimming
        }
        let mut deleted = 0;
        for (gap, whole) in gaps.iter().zip(&joined) {
            deleted += self.leave_gap(&mut step, gap, whole).await?;
        }
        if deleted != removal.lines.unsigned_abs() {
            return Ok(0); // a line was removed meanwhile; the next attempt removes the rest
        }
        tell(&mut step, &removal, "anonymous", clock).await?;
        step.commit().await?;
        Ok(deleted)
    }

    /// Removes the lines of a gap, and stores it merged with its neighbours.
    async fn leave_gap(
        &self,
        step: &mut Transaction,
        gap: &Gap,
        whole: &Gap,
    ) -> Result<u64, StorageError> {
        let deleted = sqlx::query("DELETE FROM audit_events WHERE seq >= $1 AND seq <= $2")
            .bind(gap.first)
            .bind(gap.last.seq)
            .execute(&mut **step)
            .await?
            .rows_affected();
        sqlx::query("DELETE FROM audit_gaps WHERE first_seq >= $1 AND first_seq <= $2")
            .bind(whole.first)
            .bind(whole.last.seq)
            .execute(&mut **step)
            .await?;
        sqlx::query(
            "INSERT INTO audit_gaps (first_seq, last_seq, line_mac, mac) VALUES ($1, $2, $3, $4)",
        )
        .bind(whole.first)
        .bind(whole.last.seq)
        .bind(&whole.last.mac)
        .bind(self.mac_of_gap(whole))
        .execute(&mut **step)
        .await?;
        Ok(deleted)
    }

    /// Merges a gap with the stored ones directly before and after it.
    async fn join(&self, gap: &Gap) -> Result<Gap, StorageError> {
        let before = self.gap_at(gap.first - 1).await?;
        let after = self.gap_at(gap.last.seq + 1).await?;
        Ok(Gap {
            first: before.map_or(gap.first, |before| before.first),
            last: after.map_or_else(|| gap.last.clone(), |after| after.last),
        })
    }

    /// Returns the MAC of the line before `seq`, whether that line still exists or not.
    async fn mac_before(&self, start: &Mark, seq: i64) -> Result<Option<String>, StorageError> {
        if seq == start.line.seq + 1 {
            return Ok(Some(start.line.mac.clone()));
        }
        let stored = sqlx::query_scalar("SELECT mac FROM audit_events WHERE seq = $1");
        let stored: Option<String> = stored.bind(seq - 1).fetch_optional(self.pool()).await?;
        if stored.is_some() {
            return Ok(stored);
        }
        let gap = self.gap_at(seq - 1).await?;
        Ok(gap.filter(|gap| gap.last.seq == seq - 1).map(|gap| gap.last.mac))
    }

    /// Returns the estimated bytes of all chained lines, and those of anonymous callers.
    pub(super) async fn weigh_audit_trail(&self) -> Result<(i64, i64), StorageError> {
        let sql = format!(
            "SELECT CAST(COALESCE(SUM({WEIGHT}), 0) AS BIGINT) AS bytes,
                    CAST(COALESCE(SUM(CASE WHEN {ANONYMOUS} THEN {WEIGHT} ELSE 0 END), 0) AS BIGINT)
                        AS anonymous
             FROM audit_events WHERE seq IS NOT NULL"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(self.pool()).await?;
        Ok((column(&row, "bytes")?, column(&row, "anonymous")?))
    }

    /// Logs a broken chain once; it does not repair itself.
    fn tell_broken(&self, found: &str) {
        if !self.audit_size.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                found,
                "lines of the audit trail are kept: its chain is broken before them"
            );
        }
    }
}

async fn tell(
    step: &mut Transaction,
    removal: &Removal,
    which: &'static str,
    clock: &Clock,
) -> Result<(), StorageError> {
    let event = AuditEvent::new("audit_trimmed", Actor::Server, clock);
    let event = event.with("lines", removal.lines).with("up_to", removal.up_to);
    step.record(event.with("which", which)).await
}
