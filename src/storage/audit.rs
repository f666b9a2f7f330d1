//! The audit trail: lines are added in the step they belong to, and chained within a second.
//!
//! Chaining at once would make every writer of every replica wait for one row; so a line is stored
//! first and settled soon after, in the order of ids, under an HMAC whose key is not in the database.
//! By what lines are searched is indexed then, too: a step would touch a page for each index, all of
//! them apart, and what is settled together shares them. So every search looks twice.
//! A changed, removed or reordered line breaks the chain. What the chain cannot show: a line removed
//! before it was settled, and a whole database put back to an older state; for that, keep the head
//! that `portcullis audit verify` prints.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::listing::Listing;
use super::{Step, Storage, StorageError, column};
use crate::clock::Timestamp;
use crate::oauth::sealed::Purpose;
use crate::telemetry::audit::{AuditEvent, EVENTS};

/// Lines settled in one step: the more, the fewer pages for each, and the longer everybody else waits.
pub const SETTLED_AT_ONCE: u64 = 500;
/// Lines read or removed at once.
const BATCH: i64 = 200;
/// Lines chained by one statement: a statement each would keep the writer from everybody else.
const AT_ONCE: usize = 100;
const HEAD: &str = "audit_head";
const START: &str = "audit_start";

/// A line as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in AuditEvent")]
pub struct AuditLine {
    pub id: String,
    pub at: i64,
    pub event: String,
    pub actor: String,
    pub client_id: Option<String>,
    pub subject: Option<String>,
    pub resource: Option<String>,
    pub grant_id: Option<String>,
    pub reference: Option<String>,
    pub detail: String,
    /// The place in the chain; `None` within the first second.
    pub seq: Option<i64>,
}

/// Which lines are wanted; empty texts and `None` want all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Exactly this event.
    pub event: String,
    /// This client.
    pub client_id: String,
    /// This person.
    pub subject: String,
    /// This grant.
    pub grant_id: String,
    /// The line of this reference.
    pub reference: String,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Older than the line with this id: the next page.
    pub before: String,
}

/// The last line of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Its place; 0 when there is none.
    pub seq: i64,
    /// Its MAC.
    pub mac: String,
}

/// The chain holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The first line that is still there.
    pub first: i64,
    /// The last line.
    pub head: ChainHead,
    /// Lines that are not chained yet.
    pub unsettled: i64,
}

/// Where the chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainBroken {
    /// A line is gone.
    #[error("line {0} is missing")]
    Missing(i64),
    /// A line is not what was written, or stands in another place.
    #[error("line {seq} (id {id}) was changed or moved")]
    Changed {
        /// Its place.
        seq: i64,
        /// Its id.
        id: String,
    },
    /// The mark of the first or the last line is not ours.
    #[error("the mark of the chain's {0} was changed")]
    Mark(&'static str),
}

impl Step {
    /// Adds a line to the audit trail; the log hears of it when the step is durable.
    pub(super) async fn record(&mut self, event: AuditEvent) -> Result<(), StorageError> {
        debug_assert!(EVENTS.contains(&event.event), "{} is not in EVENTS", event.event);
        if event.log_only {
            self.events.push(event);
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO audit_events
                 (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(event.id.as_str())
        .bind(event.at)
        .bind(event.event)
        .bind(event.actor.to_string())
        .bind(event.client_id.as_deref())
        .bind(event.subject.as_deref())
        .bind(event.resource.as_deref())
        .bind(event.grant_id.as_deref())
        .bind(event.reference.as_deref())
        .bind(serde_json::to_string(&event.detail)?)
        .execute(&mut **self)
        .await?;
        self.events.push(event);
        Ok(())
    }
}

/// Writes places in the chain: row id, number, link. Answers how many lines were there to be settled.
async fn set_links(step: &mut Step, links: &[(String, i64, String)]) -> Result<u64, StorageError> {
    let rows: Vec<String> = (0..links.len())
        .map(|row| format!("(${}, ${}, ${})", 3 * row + 1, 3 * row + 2, 3 * row + 3))
        .collect();
    let sql = format!(
        "UPDATE audit_events SET seq = link.column2, mac = link.column3
         FROM (VALUES {}) AS link WHERE id = link.column1",
        rows.join(", ")
    );
    let mut update = sqlx::query(AssertSqlSafe(sql)); // placeholders alone
    for (id, seq, mac) in links {
        update = update.bind(id).bind(seq).bind(mac);
    }
    Ok(update.persistent(false).execute(&mut **step).await?.rows_affected())
}

/// Moves the mark of an end of the chain; `false` when somebody else has moved it since it was read.
async fn move_mark(
    step: &mut Step,
    name: &str,
    from: Option<&str>,
    to: &str,
) -> Result<bool, StorageError> {
    let moved = match from {
        None => sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        ),
        Some(_) => sqlx::query("UPDATE installation SET value = $2 WHERE name = $1 AND value = $3"),
    };
    let moved = moved.bind(name).bind(to);
    let moved = match from {
        None => moved,
        Some(from) => moved.bind(from),
    };
    Ok(moved.execute(&mut **step).await?.rows_affected() == 1)
}

impl Storage {
    /// Adds lines that belong to no change.
    pub async fn record(&self, events: Vec<AuditEvent>) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        for event in events {
            step.record(event).await?;
        }
        step.commit().await
    }

    /// Adds lines that the log has already.
    pub async fn note(&self, events: &[AuditEvent]) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        for event in events {
            step.record(event.clone()).await?;
        }
        step.events.clear();
        step.commit().await
    }

    /// Chains lines that are not chained yet, [`SETTLED_AT_ONCE`] at most, and answers how many. Of
    /// replicas that settle at once, one succeeds and the others find nothing to do.
    pub async fn settle_audit(&self) -> Result<u64, StorageError> {
        // Read and chained before the step begins, which everybody else waits for. The head comes first:
        // when it has moved since, what was read of the lines means nothing.
        let mark = self.text_of_mark(HEAD).await?;
        let query = sqlx::query(
            "SELECT id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, seq
             FROM audit_events WHERE seq IS NULL ORDER BY id LIMIT $1",
        );
        let rows = self.look_up_all(query.bind(i64::try_from(SETTLED_AT_ONCE).unwrap_or(i64::MAX)));
        let rows = rows.await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut head = match &mark {
            None => ChainHead::none(),
            Some(mark) => self
                .read_mark(HEAD, mark)
                .ok_or_else(|| StorageError::Corrupt("the head of the audit chain".to_owned()))?,
        };
        let mut links = Vec::with_capacity(rows.len());
        for row in &rows {
            let line = read_line(row)?;
            head = ChainHead { seq: head.seq + 1, mac: self.chain(&head, &line) };
            links.push((line.id, head.seq, head.mac.clone()));
        }
        let mut step = self.begin().await?;
        // Locks the head: a replica that comes second waits here, and finds it moved.
        if !move_mark(&mut step, HEAD, mark.as_deref(), &self.mark(HEAD, &head)).await? {
            return Ok(0);
        }
        let mut settled = 0;
        for links in links.chunks(AT_ONCE) {
            settled += set_links(&mut step, links).await?;
        }
        if settled != rows.len() as u64 {
            return Ok(0); // a line went away meanwhile; the next attempt chains what there is
        }
        step.commit().await?;
        Ok(settled)
    }

    /// Walks the whole chain. The outer error is the database's; the inner one is what was found.
    pub async fn verify_audit(&self) -> Result<Result<Verified, ChainBroken>, StorageError> {
        let start = self.stored_mark(START).await?;
        let Some(start) = start else { return Ok(Err(ChainBroken::Mark("beginning"))) };
        let head = self.stored_mark(HEAD).await?;
        let Some(head) = head else { return Ok(Err(ChainBroken::Mark("end"))) };
        let mut last = start.clone();
        loop {
            let rows = sqlx::query(
                "SELECT id, at, event, actor, client_id, subject, resource, grant_id, reference,
                        detail, seq, mac
                 FROM audit_events WHERE seq > $1 ORDER BY seq LIMIT $2",
            )
            .bind(last.seq)
            .bind(BATCH)
            .fetch_all(&self.pool)
            .await?;
            for row in &rows {
                let line = read_line(row)?;
                let seq = line.seq.unwrap_or_default();
                if seq > last.seq + 1 {
                    return Ok(Err(ChainBroken::Missing(last.seq + 1)));
                }
                let mac = self.chain(&last, &line);
                if mac != column::<Option<String>>(row, "mac")?.unwrap_or_default() {
                    return Ok(Err(ChainBroken::Changed { seq, id: line.id }));
                }
                last = ChainHead { seq, mac };
            }
            if rows.is_empty() {
                break;
            }
        }
        if last.seq < head.seq {
            return Ok(Err(ChainBroken::Missing(last.seq + 1)));
        }
        // Lines that were settled while we walked are further than the head we read, and hold.
        if last.seq == head.seq && last.mac != head.mac {
            return Ok(Err(ChainBroken::Mark("end")));
        }
        let before: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM audit_events WHERE seq IS NOT NULL AND seq <= $1",
        )
        .bind(start.seq)
        .fetch_one(&self.pool)
        .await?;
        if before > 0 {
            return Ok(Err(ChainBroken::Mark("beginning")));
        }
        let unsettled: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM audit_events WHERE seq IS NULL")
                .fetch_one(&self.pool)
                .await?;
        Ok(Ok(Verified { first: start.seq + 1, head: last, unsettled }))
    }

    /// Whether the line that was the head earlier is still part of a chain that holds. The outer error
    /// is the database's; the inner one is what was found.
    pub async fn still_holds(
        &self,
        earlier: &ChainHead,
        verified: &Verified,
    ) -> Result<Result<(), String>, StorageError> {
        if earlier.seq > verified.head.seq {
            let (then, now) = (earlier.seq, verified.head.seq);
            let found = format!("it ended at line {then} earlier and ends at line {now} now");
            return Ok(Err(found));
        }
        if earlier.seq < verified.first {
            return Ok(Ok(())); // its time was over, and whoever holds the secret key removed it
        }
        let mac: Option<String> = sqlx::query_scalar("SELECT mac FROM audit_events WHERE seq = $1")
            .bind(earlier.seq)
            .fetch_optional(&self.pool)
            .await?;
        if mac.as_deref() == Some(&earlier.mac) {
            return Ok(Ok(()));
        }
        Ok(Err(format!("line {} is not the one that stood there earlier", earlier.seq)))
    }

    /// Lines, newest first, at most `limit` of them.
    pub async fn audit_lines(
        &self,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditLine>, StorageError> {
        // What is not settled first: a line that is settled meanwhile is found twice, never missed.
        let mut lines = self.lines_where("seq IS NULL", filter, limit).await?;
        lines.extend(self.lines_where("seq IS NOT NULL", filter, limit).await?);
        lines.sort_by(|a, b| b.id.cmp(&a.id));
        lines.dedup_by(|a, b| a.id == b.id);
        lines.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(lines)
    }

    async fn lines_where(
        &self,
        settled: &'static str,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditLine>, StorageError> {
        let mut listing = Listing::new(
            "SELECT id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, seq
             FROM audit_events",
        );
        listing.only(settled);
        for (condition, value) in [
            ("event = ?", &filter.event),
            ("client_id = ?", &filter.client_id),
            ("subject = ?", &filter.subject),
            ("grant_id = ?", &filter.grant_id),
            ("reference = ?", &filter.reference),
            ("id < ?", &filter.before),
        ] {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        // Ids begin with their milliseconds.
        if let Some(since) = filter.since {
            listing.and("id >= ?", first_id_at(since));
        }
        if let Some(until) = filter.until {
            listing.and("id < ?", first_id_at(until));
        }
        let rows = listing.fetch(&self.pool, "ORDER BY id DESC", limit).await?;
        rows.iter().map(read_line).collect()
    }

    /// The place of the last chained line; 0 when there is none. Whether it is ours is for
    /// [`Self::verify_audit`] to say.
    pub async fn audit_head(&self) -> Result<i64, StorageError> {
        let head: Option<i64> =
            sqlx::query_scalar("SELECT MAX(seq) FROM audit_events").fetch_one(&self.pool).await?;
        Ok(head.unwrap_or_default())
    }

    /// Removes lines older than `retention` from the beginning of the chain; the mark moves along.
    pub(super) async fn sweep_audit(
        &self,
        now: Timestamp,
        retention: Duration,
    ) -> Result<u64, StorageError> {
        let oldest = now.minus(retention).unix().saturating_mul(1000);
        let due =
            "SELECT seq, mac, at FROM audit_events WHERE seq IS NOT NULL ORDER BY seq LIMIT $1";
        let peek = sqlx::query(due).bind(1_i64).fetch_optional(&self.pool).await?;
        match peek {
            Some(row) if column::<i64>(&row, "at")? < oldest => {}
            _ => return Ok(0),
        }
        let mut step = self.begin_to_make_room().await?;
        let rows = sqlx::query(due).bind(BATCH).fetch_all(&mut *step).await?;
        let mut last = None;
        for row in &rows {
            if column::<i64>(row, "at")? >= oldest {
                break;
            }
            last = Some(ChainHead { seq: column(row, "seq")?, mac: column(row, "mac")? });
        }
        let Some(last) = last else { return Ok(0) };
        let removed = sqlx::query("DELETE FROM audit_events WHERE seq <= $1")
            .bind(last.seq)
            .execute(&mut *step)
            .await?
            .rows_affected();
        sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(START)
        .bind(self.mark(START, &last))
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(removed)
    }

    async fn text_of_mark(&self, name: &str) -> Result<Option<String>, StorageError> {
        let mark = sqlx::query_scalar("SELECT value FROM installation WHERE name = $1");
        Ok(mark.bind(name).fetch_optional(&self.pool).await?)
    }

    async fn stored_mark(&self, name: &str) -> Result<Option<ChainHead>, StorageError> {
        Ok(match self.text_of_mark(name).await? {
            // Nothing was removed, or settled, yet. That there are lines all the same is found out
            // by the walk.
            None => Some(ChainHead::none()),
            Some(mark) => self.read_mark(name, &mark),
        })
    }

    /// `seq mac proof`: only the holder of the secret key can move an end of the chain.
    fn mark(&self, name: &str, head: &ChainHead) -> String {
        let seq = head.seq.to_string();
        let parts = [name.as_bytes(), seq.as_bytes(), head.mac.as_bytes()];
        format!("{seq} {} {}", head.mac, self.sealer.mac(Purpose::Audit, &parts))
    }

    fn read_mark(&self, name: &str, mark: &str) -> Option<ChainHead> {
        let (seq, rest) = mark.split_once(' ')?;
        let (mac, _) = rest.split_once(' ')?;
        let head = ChainHead { seq: seq.parse().ok()?, mac: mac.to_owned() };
        (self.mark(name, &head) == mark).then_some(head)
    }

    fn chain(&self, before: &ChainHead, line: &AuditLine) -> String {
        let seq = (before.seq + 1).to_string();
        let at = line.at.to_string();
        let optional = |text: &Option<String>| match text {
            None => vec![0],
            Some(text) => [&[1], text.as_bytes()].concat(),
        };
        let (client_id, subject) = (optional(&line.client_id), optional(&line.subject));
        let (resource, grant_id) = (optional(&line.resource), optional(&line.grant_id));
        let reference = optional(&line.reference);
        let parts: [&[u8]; 12] = [
            before.mac.as_bytes(),
            seq.as_bytes(),
            line.id.as_bytes(),
            at.as_bytes(),
            line.event.as_bytes(),
            line.actor.as_bytes(),
            &client_id,
            &subject,
            &resource,
            &grant_id,
            &reference,
            line.detail.as_bytes(),
        ];
        self.sealer.mac(Purpose::Audit, &parts)
    }
}

impl ChainHead {
    fn none() -> Self {
        Self { seq: 0, mac: String::new() }
    }
}

fn first_id_at(moment: Timestamp) -> String {
    format!("{:012x}", moment.unix().saturating_mul(1000).max(0))
}

fn read_line(row: &AnyRow) -> Result<AuditLine, StorageError> {
    Ok(AuditLine {
        id: column(row, "id")?,
        at: column(row, "at")?,
        event: column(row, "event")?,
        actor: column(row, "actor")?,
        client_id: column(row, "client_id")?,
        subject: column(row, "subject")?,
        resource: column(row, "resource")?,
        grant_id: column(row, "grant_id")?,
        reference: column(row, "reference")?,
        detail: column(row, "detail")?,
        seq: column(row, "seq")?,
    })
}
