//! Verifies the audit chain, for `portcullis audit verify`.

use sqlx::AssertSqlSafe;

use super::chain::{BATCH, ChainBroken, ChainHead, HEAD, START, mac};
use super::{COLUMNS, read_line};
use crate::storage::{Storage, StorageError};

/// Most attempts to verify a chain whose start is moved meanwhile: 5.
const WALKS: u32 = 5;

/// The result for an intact chain.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Number of the first line that has not been trimmed.
    pub first: i64,
    /// The last line.
    pub head: ChainHead,
    /// Number of lines that are not chained yet.
    pub unsettled: i64,
    /// Number of lines removed so far, because of their age or the size limit.
    pub removed: i64,
    /// How many of these lay between lines that still exist.
    pub removed_between: i64,
    /// Estimated bytes that the lines take in the database.
    pub bytes: i64,
}

impl Storage {
    /// Verifies the whole chain. The outer error is one of the database; the inner one is the finding.
    pub async fn verify_audit(&self) -> Result<Result<Verified, ChainBroken>, StorageError> {
        let mut attempts = 0;
        loop {
            let start = self.text_of_mark(START).await?;
            let verified = self.walk_chain().await?;
            attempts += 1;
            // Lines that were trimmed during the walk look like missing ones.
            let same = || async { Ok::<_, StorageError>(self.text_of_mark(START).await? == start) };
            if verified.is_ok() || attempts >= WALKS || same().await? {
                return Ok(verified);
            }
        }
    }

    async fn walk_chain(&self) -> Result<Result<Verified, ChainBroken>, StorageError> {
        let Some(start) = self.stored_mark(START).await? else {
            return Ok(Err(ChainBroken::Mark("beginning")));
        };
        let Some(head) = self.stored_mark(HEAD).await? else {
            return Ok(Err(ChainBroken::Mark("end")));
        };
        let mut walk = self.walk_from(&start);
        loop {
            let rows = self.chained_after(walk.last.seq, BATCH).await?;
            for row in &rows {
                if let Err(broken) = walk.go_on(&read_line(row)?, &mac(row)?).await? {
                    return Ok(Err(broken));
                }
            }
            if rows.is_empty() {
                break;
            }
        }
        // The very last lines may have been removed as well.
        if walk.last.seq < head.line.seq && !walk.cross_gap(head.line.seq + 1).await? {
            return Ok(Err(ChainBroken::Missing(walk.last.seq + 1)));
        }
        // Lines chained during the walk lie beyond the head that was read; they have been verified.
        if walk.last.seq == head.line.seq && walk.last.mac != head.line.mac {
            return Ok(Err(ChainBroken::Mark("end")));
        }
        let before: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM audit_events WHERE seq IS NOT NULL AND seq <= $1",
        )
        .bind(start.line.seq)
        .fetch_one(self.pool())
        .await?;
        if before > 0 {
            return Ok(Err(ChainBroken::Mark("beginning")));
        }
        let unsettled = match self.check_unsettled().await? {
            Ok(unsettled) => unsettled,
            Err(found) => return Ok(Err(found)),
        };
        Ok(Ok(Verified {
            first: start.line.seq + 1,
            removed: start.removed,
            removed_between: walk.in_gaps,
            bytes: (head.bytes - start.bytes).max(0),
            head: walk.last,
            unsettled,
        }))
    }

    /// Checks that a server recorded every line that is not chained yet. Returns their number.
    async fn check_unsettled(&self) -> Result<Result<i64, ChainBroken>, StorageError> {
        let (mut number, mut after) = (0, String::new());
        loop {
            let sql = format!(
                "SELECT {COLUMNS}, row_mac FROM audit_events WHERE seq IS NULL AND id > $1
                 ORDER BY id LIMIT $2"
            );
            let rows = sqlx::query(AssertSqlSafe(sql)).bind(&after).bind(BATCH);
            let rows = rows.fetch_all(self.pool()).await?;
            for row in &rows {
                let line = read_line(row)?;
                if !self.is_recorded(row, &line)? {
                    return Ok(Err(ChainBroken::NotRecorded { id: line.id }));
                }
                (number, after) = (number + 1, line.id);
            }
            if rows.is_empty() {
                return Ok(Ok(number));
            }
        }
    }

    /// Checks whether `earlier`, the head at some earlier time, is part of the verified chain. The outer
    /// error is one of the database; the inner one is the finding.
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
            return Ok(Ok(())); // it was trimmed, which only a holder of the secret key can do
        }
        let mac: Option<String> = sqlx::query_scalar("SELECT mac FROM audit_events WHERE seq = $1")
            .bind(earlier.seq)
            .fetch_optional(self.pool())
            .await?;
        let mac = match mac {
            Some(mac) => Some(mac),
            // A server removed it. Of a removed run, only the MAC of the last line is still known.
            None => match self.gap_at(earlier.seq).await? {
                Some(gap) if gap.last.seq == earlier.seq => Some(gap.last.mac),
                Some(_) => return Ok(Ok(())),
                None => None,
            },
        };
        if mac.as_deref() == Some(&earlier.mac) {
            return Ok(Ok(()));
        }
        Ok(Err(format!("line {} is not the one that stood there earlier", earlier.seq)))
    }
}
