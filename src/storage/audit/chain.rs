//! The audit chain: each line has an HMAC over itself and the HMAC of the line before it. The key is not
//! in the database, so a changed, removed, inserted or reordered line breaks the chain.
//!
//! The two ends of the chain are rows of the table `installation`, and removed runs of lines are rows of
//! `audit_gaps`. Both carry a MAC, so that only a server can shorten the chain. The chain cannot reveal
//! two things: a line that was removed before it was chained, and a whole database that was reset to an
//! older state. To notice those, keep the head that `portcullis audit verify` prints.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{AuditLine, COLUMNS, WEIGHT, read_line};
use crate::clock::Clock;
use crate::oauth::sealed::{MacInput, Purpose, Sealer};
use crate::storage::{Storage, StorageError, Transaction, column};
use crate::telemetry::audit::{Actor, AuditEvent};

/// Most lines chained in one transaction: 500. More lines share more pages, but everything else waits
/// longer.
pub const SETTLED_AT_ONCE: u64 = 500;
/// Lines read at a time: 200.
pub(super) const BATCH: i64 = 200;
/// Lines chained by one statement: 100, or fewer for the last ones. One statement for each line would occupy
/// the writer for too long. The numbers are few, because each is a statement of its own: to prepare one costs
/// as much as to run it several times.
const AT_ONCE: [usize; 3] = [100, 10, 1];
pub(super) const HEAD: &str = "audit_head";
pub(super) const START: &str = "audit_start";
/// Stored in place of the MAC of a line that no server has recorded.
const REFUSED: &str = "refused";
/// Bytes that the input of most MACs needs at most: 1024.
const MAC_INPUT: usize = 1024;

/// The last line of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// Its number in the chain; 0 for an empty chain.
    pub seq: i64,
    pub mac: String,
}

/// How the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainBroken {
    #[error("line {0} is missing")]
    Missing(i64),
    /// A line was changed or moved.
    #[error("line {seq} (id {id}) was changed or moved")]
    Changed { seq: i64, id: String },
    /// The row of the chain's start or end was not written by a server.
    #[error("the mark of the chain's {0} was changed")]
    Mark(&'static str),
    /// A line that is not chained yet has no valid MAC of its own.
    #[error(
        "the line with id {id} was not recorded by this server, or was changed before it was chained"
    )]
    NotRecorded { id: String },
}

/// An end of the chain, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The line at this end: the last one, or the one before the first.
    pub(super) line: ChainHead,
    /// At the end: bytes of all lines that were ever chained. At the start: bytes of the removed ones.
    pub(super) bytes: i64,
    /// The same, for lines of anonymous callers only.
    pub(super) anonymous: i64,
    pub(super) removed: i64,
    /// Written by a version that neither counted bytes nor gave unchained lines a MAC.
    uncounted: bool,
}

/// Walks along the chain and across gaps, for verification and for trimming.
pub(super) struct Walk<'a> {
    storage: &'a Storage,
    pub(super) last: ChainHead,
    pub(super) in_gaps: i64,
}

impl Walk<'_> {
    /// Continues to `line`, which must be the next one.
    pub(super) async fn go_on(
        &mut self,
        line: &AuditLine,
        mac: &str,
    ) -> Result<Result<(), ChainBroken>, StorageError> {
        let seq = line.seq.unwrap_or_default();
        if seq > self.last.seq + 1 && !self.cross_gap(seq).await? {
            return Ok(Err(ChainBroken::Missing(self.last.seq + 1)));
        }
        let expected = chain(&self.storage.sealer, &self.last.mac, seq, line);
        if seq != self.last.seq + 1 || mac != expected {
            return Ok(Err(ChainBroken::Changed { seq, id: line.id.clone() }));
        }
        self.last = ChainHead { seq, mac: expected };
        Ok(Ok(()))
    }

    /// Crosses the gaps after the last line, up to the line before `seq`. Returns whether they reach that
    /// far.
    pub(super) async fn cross_gap(&mut self, seq: i64) -> Result<bool, StorageError> {
        while self.last.seq + 1 < seq {
            match self.storage.gap_at(self.last.seq + 1).await? {
                Some(gap) if gap.last.seq < seq => {
                    self.in_gaps += gap.last.seq - self.last.seq;
                    self.last = gap.last;
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A run of removed lines.
pub(super) struct Gap {
    pub(super) first: i64,
    pub(super) last: ChainHead,
}

/// The parts of a line that its MACs cover.
pub(super) struct Content<'a> {
    pub(super) id: &'a str,
    pub(super) at: i64,
    pub(super) event: &'a str,
    pub(super) actor: &'a str,
    pub(super) client_id: Option<&'a str>,
    pub(super) subject: Option<&'a str>,
    pub(super) resource: Option<&'a str>,
    pub(super) grant_id: Option<&'a str>,
    pub(super) reference: Option<&'a str>,
    pub(super) detail: &'a str,
}

impl<'a> From<&'a AuditLine> for Content<'a> {
    fn from(line: &'a AuditLine) -> Self {
        Self {
            id: &line.id,
            at: line.at,
            event: &line.event,
            actor: &line.actor,
            client_id: line.client_id.as_deref(),
            subject: line.subject.as_deref(),
            resource: line.resource.as_deref(),
            grant_id: line.grant_id.as_deref(),
            reference: line.reference.as_deref(),
            detail: &line.detail,
        }
    }
}

/// Returns the MAC of a line until it is chained.
pub(super) fn row_mac(sealer: &Sealer, line: &Content<'_>) -> String {
    mac_of(sealer, b"row", "", line)
}

/// Returns the MAC of a chained line.
pub(super) fn chain(sealer: &Sealer, before: &str, seq: i64, line: &AuditLine) -> String {
    mac_of(sealer, before.as_bytes(), &seq.to_string(), &line.into())
}

fn mac_of(sealer: &Sealer, before: &[u8], seq: &str, line: &Content<'_>) -> String {
    let mut input = MacInput::with_room(MAC_INPUT);
    input.add(before);
    input.add(seq.as_bytes());
    input.add(line.id.as_bytes());
    input.add(line.at.to_string().as_bytes());
    input.add(line.event.as_bytes());
    input.add(line.actor.as_bytes());
    let optional = [line.client_id, line.subject, line.resource, line.grant_id, line.reference];
    for text in optional {
        input.add_optional(text);
    }
    input.add(line.detail.as_bytes());
    sealer.mac_of(Purpose::Audit, &input)
}

/// Writes row id, number and MAC of chained lines. Returns how many of the lines existed.
async fn set_links(
    step: &mut Transaction,
    links: &[(String, i64, String)],
) -> Result<u64, StorageError> {
    let rows: Vec<String> = (0..links.len())
        .map(|row| format!("(${}, ${}, ${})", 3 * row + 1, 3 * row + 2, 3 * row + 3))
        .collect();
    let sql = format!(
        "UPDATE audit_events SET seq = link.column2, mac = link.column3, row_mac = NULL
         FROM (VALUES {}) AS link WHERE id = link.column1",
        rows.join(", ")
    );
    let mut update = sqlx::query(AssertSqlSafe(sql)); // placeholders only
    for (id, seq, mac) in links {
        update = update.bind(id).bind(seq).bind(mac);
    }
    Ok(update.execute(&mut **step).await?.rows_affected())
}

/// Moves a stored end of the chain. Returns `false` when it has been moved since it was read.
pub(super) async fn advance_chain_end(
    step: &mut Transaction,
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

/// Lines to be chained, and lines that no server recorded.
#[derive(Default)]
struct Sorted {
    links: Vec<(String, i64, String)>,
    refused: Vec<String>,
}

impl Storage {
    /// Chains up to [`SETTLED_AT_ONCE`] lines that are not chained yet. Returns how many it processed. If
    /// several replicas do this at once, one succeeds and the others find nothing to do.
    pub async fn settle_audit(&self) -> Result<u64, StorageError> {
        self.chain(None).await
    }

    /// Like [`Self::settle_audit`], but also records an event when it finds lines that no server has
    /// recorded.
    pub async fn settle_audit_and_tell(&self, clock: &Clock) -> Result<u64, StorageError> {
        self.chain(Some(clock)).await
    }

    async fn chain(&self, clock: Option<&Clock>) -> Result<u64, StorageError> {
        // Reads and computes before the transaction begins, because other callers wait for its end. The
        // head is read first: if it has moved by the time of the commit, the lines read here are
        // outdated.
        let text = self.text_of_mark(HEAD).await?;
        let head = match &text {
            None => Mark::default(),
            Some(text) => self
                .read_mark(HEAD, text)
                .filter(|mark| !mark.uncounted)
                .ok_or_else(|| StorageError::Corrupt("the head of the audit chain".to_owned()))?,
        };
        let sql = format!(
            "SELECT {COLUMNS}, row_mac, {WEIGHT} AS weight FROM audit_events
             WHERE seq IS NULL AND (row_mac IS NULL OR row_mac <> '{REFUSED}') ORDER BY id LIMIT $1"
        );
        let most = i64::try_from(SETTLED_AT_ONCE).unwrap_or(i64::MAX);
        let rows = self.read_all(sqlx::query(AssertSqlSafe(sql)).bind(most)).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let (sorted, head) = self.link(head, &rows, true)?;
        if !self.store_links(text.as_deref(), &head, &sorted, clock).await? {
            return Ok(0);
        }
        Ok(rows.len() as u64)
    }

    /// Chains lines after `head` in memory. Returns them and the new head. With `proven`, leaves out
    /// lines without a valid MAC of their own.
    fn link(
        &self,
        mut head: Mark,
        rows: &[AnyRow],
        proven: bool,
    ) -> Result<(Sorted, Mark), StorageError> {
        let mut sorted = Sorted::default();
        for row in rows {
            let line = read_line(row)?;
            if proven && !self.is_recorded(row, &line)? {
                sorted.refused.push(line.id);
                continue;
            }
            let weight: i64 = column(row, "weight")?;
            head.bytes += weight;
            if line.is_anonymous() {
                head.anonymous += weight;
            }
            let seq = head.line.seq + 1;
            head.line = ChainHead { seq, mac: chain(&self.sealer, &head.line.mac, seq, &line) };
            sorted.links.push((line.id, seq, head.line.mac.clone()));
        }
        Ok((sorted, head))
    }

    /// Returns whether an unchained line is as a server recorded it.
    pub(super) fn is_recorded(&self, row: &AnyRow, line: &AuditLine) -> Result<bool, StorageError> {
        let mac: Option<String> = column(row, "row_mac")?;
        Ok(mac.is_some_and(|mac| mac == row_mac(&self.sealer, &line.into())))
    }

    async fn store_links(
        &self,
        before: Option<&str>,
        head: &Mark,
        sorted: &Sorted,
        clock: Option<&Clock>,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        // Locks the head: a second replica waits here, and then finds it moved.
        if !advance_chain_end(&mut step, HEAD, before, &self.mark(HEAD, head)).await? {
            return Ok(false);
        }
        let mut settled = 0;
        let mut rest = sorted.links.as_slice();
        while let Some(lines) = AT_ONCE.into_iter().find(|lines| *lines <= rest.len()) {
            let (links, later) = rest.split_at(lines);
            settled += set_links(&mut step, links).await?;
            rest = later;
        }
        if settled != sorted.links.len() as u64 {
            return Ok(false); // a line was removed meanwhile; the next attempt chains the rest
        }
        for id in &sorted.refused {
            let refused =
                sqlx::query("UPDATE audit_events SET row_mac = $2 WHERE id = $1 AND seq IS NULL");
            refused.bind(id).bind(REFUSED).execute(&mut *step).await?;
        }
        if let Some(first) = sorted.refused.first() {
            tracing::error!(
                id = first,
                lines = sorted.refused.len(),
                "lines of the audit trail were not recorded by this server: the database was written to by other means"
            );
            if let Some(clock) = clock {
                let event = AuditEvent::new("audit_line_refused", Actor::Server, clock);
                let event = event.with("lines", sorted.refused.len()).with("first", first.as_str());
                step.record(event).await?;
            }
        }
        step.commit().await?;
        Ok(true)
    }

    /// Runs once, at the first start after an update from a version without MACs for unchained lines:
    /// chains those lines and counts the bytes of all. Afterwards no line without a MAC is chained.
    pub(crate) async fn adopt_audit_trail(&self) -> Result<(), StorageError> {
        loop {
            let text = self.text_of_mark(HEAD).await?;
            let head = match &text {
                None => Some(Mark { uncounted: true, ..Mark::default() }),
                Some(text) => self.read_mark(HEAD, text),
            };
            // Chaining and `audit verify` report a head with a wrong MAC.
            let Some(head) = head.filter(|head| head.uncounted) else { return Ok(()) };
            let sql = format!(
                "SELECT {COLUMNS}, row_mac, {WEIGHT} AS weight FROM audit_events
                 WHERE seq IS NULL AND row_mac IS NULL ORDER BY id LIMIT $1"
            );
            let most = i64::try_from(SETTLED_AT_ONCE).unwrap_or(i64::MAX);
            let rows = self.read_all(sqlx::query(AssertSqlSafe(sql)).bind(most)).await?;
            let (sorted, mut head) = self.link(head, &rows, false)?;
            if rows.is_empty() {
                (head.bytes, head.anonymous) = self.weigh_audit_trail().await?;
                head.uncounted = false;
            }
            self.store_links(text.as_deref(), &head, &sorted, None).await?;
        }
    }

    /// Returns the number of the last chained line; 0 if there is none. Its MAC is not checked; see
    /// [`Storage::verify_audit`].
    pub async fn audit_head(&self) -> Result<i64, StorageError> {
        let head: Option<i64> =
            sqlx::query_scalar("SELECT MAX(seq) FROM audit_events").fetch_one(self.pool()).await?;
        Ok(head.unwrap_or_default())
    }

    pub(super) fn walk_from(&self, start: &Mark) -> Walk<'_> {
        Walk { storage: self, last: start.line.clone(), in_gaps: 0 }
    }

    /// Loads the chained lines after number `seq`, in order, with their estimated bytes.
    pub(super) async fn chained_after(
        &self,
        seq: i64,
        most: i64,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let sql = format!(
            "SELECT {COLUMNS}, mac, {WEIGHT} AS weight FROM audit_events
             WHERE seq > $1 ORDER BY seq LIMIT $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(seq).bind(most);
        Ok(rows.fetch_all(self.pool()).await?)
    }

    /// Loads the run of removed lines that contains `seq`, if a server wrote it.
    pub(super) async fn gap_at(&self, seq: i64) -> Result<Option<Gap>, StorageError> {
        let gap = sqlx::query(
            "SELECT first_seq, last_seq, line_mac, mac FROM audit_gaps
             WHERE first_seq <= $1 ORDER BY first_seq DESC LIMIT 1",
        );
        let Some(row) = gap.bind(seq).fetch_optional(self.pool()).await? else { return Ok(None) };
        let last = ChainHead { seq: column(&row, "last_seq")?, mac: column(&row, "line_mac")? };
        let gap = Gap { first: column(&row, "first_seq")?, last };
        let ours = self.mac_of_gap(&gap) == column::<String>(&row, "mac")?;
        Ok(Some(gap).filter(|gap| ours && gap.last.seq >= seq))
    }

    pub(super) fn mac_of_gap(&self, gap: &Gap) -> String {
        let (first, last) = (gap.first.to_string(), gap.last.seq.to_string());
        let parts = [b"gap".as_slice(), first.as_bytes(), last.as_bytes(), gap.last.mac.as_bytes()];
        self.sealer.mac(Purpose::Audit, &parts)
    }

    pub(super) async fn text_of_mark(&self, name: &str) -> Result<Option<String>, StorageError> {
        let mark = sqlx::query_scalar("SELECT value FROM installation WHERE name = $1");
        Ok(mark.bind(name).fetch_optional(self.pool()).await?)
    }

    pub(super) async fn stored_mark(&self, name: &str) -> Result<Option<Mark>, StorageError> {
        Ok(match self.text_of_mark(name).await? {
            // Nothing has been removed, or chained, yet. If there are chained lines all the same, the
            // walk finds out.
            None => Some(Mark::default()),
            Some(mark) => self.read_mark(name, &mark),
        })
    }

    pub(super) fn mark(&self, name: &str, mark: &Mark) -> String {
        written_mark(&self.sealer, name, mark)
    }

    pub(super) fn read_mark(&self, name: &str, text: &str) -> Option<Mark> {
        read_mark(&self.sealer, name, text)
    }
}

/// Reads the two ends of the chain without access to the database.
pub(crate) struct Marks<'a>(pub(crate) &'a Sealer);

impl Marks<'_> {
    /// Returns the last line of the chain; `None` if no server wrote `text`.
    pub(crate) fn head(&self, text: &str) -> Option<ChainHead> {
        read_mark(self.0, HEAD, text).map(|mark| mark.line)
    }

    /// Returns the line before the first one.
    pub(crate) fn start(&self, text: &str) -> Option<ChainHead> {
        read_mark(self.0, START, text).map(|mark| mark.line)
    }
}

/// Formats an end as `seq mac bytes anonymous removed proof`. The proof ensures that only a holder of the
/// secret key can move an end or change the byte counts.
fn written_mark(sealer: &Sealer, name: &str, mark: &Mark) -> String {
    let Mark { line, bytes, anonymous, removed, uncounted } = mark;
    let seq = line.seq.to_string();
    let mut parts = vec![name.as_bytes(), seq.as_bytes(), line.mac.as_bytes()];
    let counts = [bytes, anonymous, removed].map(ToString::to_string);
    if *uncounted {
        return format!("{seq} {} {}", line.mac, sealer.mac(Purpose::Audit, &parts));
    }
    parts.extend(counts.iter().map(String::as_bytes));
    let proof = sealer.mac(Purpose::Audit, &parts);
    format!("{seq} {} {} {proof}", line.mac, counts.join(" "))
}

fn read_mark(sealer: &Sealer, name: &str, text: &str) -> Option<Mark> {
    let parts: Vec<&str> = text.split(' ').collect();
    let line =
        |seq: &str, mac: &str| Some(ChainHead { seq: seq.parse().ok()?, mac: mac.to_owned() });
    let mark = match parts.as_slice() {
        [seq, mac, _] => Mark { line: line(seq, mac)?, uncounted: true, ..Mark::default() },
        [seq, mac, bytes, anonymous, removed, _] => Mark {
            line: line(seq, mac)?,
            bytes: bytes.parse().ok()?,
            anonymous: anonymous.parse().ok()?,
            removed: removed.parse().ok()?,
            uncounted: false,
        },
        _ => return None,
    };
    (written_mark(sealer, name, &mark) == text).then_some(mark)
}

/// Reads the MAC of a chained line.
pub(super) fn mac(row: &AnyRow) -> Result<String, StorageError> {
    Ok(column::<Option<String>>(row, "mac")?.unwrap_or_default())
}
