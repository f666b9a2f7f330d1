//! The audit trail. A line is inserted in the transaction of the event that it records, and chained
//! within a second.
//!
//! Chaining in the same transaction would make every transaction of every replica wait for one row. So a
//! line is first stored with a MAC of its own, and chained soon after (`chain.rs`). The trail has a size
//! limit; beyond it, lines are trimmed (`trim.rs`), first those that name neither a person nor a grant,
//! because anybody can cause them. The columns used for searches are indexed only for chained lines: a
//! transaction would touch one page for each index, while lines that are chained together share these
//! pages. So each search runs two queries.

mod budget;
mod chain;
mod single_statement;
mod transaction;
mod trim;
mod verify;

use sqlx::any::AnyRow;

use super::select::SelectBuilder;
use super::{NameSearch, Storage, StorageError, Use, column};
use crate::clock::Timestamp;
use crate::telemetry::audit::{AuditEvent, EVENTS};

pub(super) use budget::LineBudget;
pub(super) use chain::Marks;
pub use chain::{ChainBroken, ChainHead, SETTLED_AT_ONCE};
pub(super) use transaction::{SeenLines, Transaction};
pub(super) use trim::AuditSize;
pub use verify::Verified;

/// The columns of a line.
const COLUMNS: &str =
    "id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, seq";

/// Estimated bytes of a line in the database, with its index entries. Only the database computes it, so
/// that the bytes added when a line is chained equal those subtracted when it is removed.
const WEIGHT: &str = "CAST(260 + LENGTH(detail) + 2 * LENGTH(event) + LENGTH(actor)
     + COALESCE(LENGTH(resource), 0) + COALESCE(48 + 2 * LENGTH(client_id), 0)
     + COALESCE(48 + 2 * LENGTH(subject), 0) + COALESCE(48 + 2 * LENGTH(grant_id), 0)
     + COALESCE(16 + 2 * LENGTH(reference), 0) AS BIGINT)";

#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The number in the chain; `None` until the line is chained.
    pub seq: Option<i64>,
}

/// A filter for lines. Empty texts and `None` match every line.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub event: String,
    pub client_id: String,
    /// Only this person, by `sub`.
    pub subject: String,
    pub grant_id: String,
    /// Only the line with this reference.
    pub reference: String,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Only one of these events; of any event if there are none.
    pub events: &'static [&'static str],
    /// Only lines about people and clients that a search found, or about the grant with its id.
    pub names: Option<NameSearch>,
    /// None of the [`ROUTINE`](crate::telemetry::audit::ROUTINE) events.
    pub without_routine: bool,
    /// Only what administrators did, at the pages or on the command line.
    pub by_administrators: bool,
    /// Only lines older than the one with this id: the next page.
    pub before: String,
    /// Only lines newer than the one with this id, the nearest ones: the previous page.
    pub after: String,
}

/// The same condition as in the index, literally: actors are `admin …`, `shell`, and these.
const BY_ADMINISTRATORS: &str = "actor NOT IN ('client', 'person', 'provider', 'server')";

/// The same condition as in the index, literally: none of [`ROUTINE`](crate::telemetry::audit::ROUTINE).
const NOT_ROUTINE: &str = "event NOT IN ('code_redeemed', 'consent_remembered', 'refresh_grace_replayed', 'refresh_rotated', 'upstream_token_exchanged')";

/// The conditions of a search for names.
const KEYS: [&str; 3] = ["subject = ?", "client_id = ?", "grant_id = ?"];

/// Returns for what kind of use these lines take space.
fn use_of(events: &[AuditEvent]) -> Use {
    if events.iter().all(AuditEvent::is_anonymous) { Use::Refusals } else { Use::People }
}

impl Transaction {
    /// Inserts a line into the audit trail. The event is logged after the commit.
    pub(super) async fn record(&mut self, event: AuditEvent) -> Result<(), StorageError> {
        debug_assert!(EVENTS.contains(&event.event), "{} is not in EVENTS", event.event);
        self.note_notice(&event);
        if event.log_only || !self.lines.allows(&event) {
            self.events.push(event);
            return Ok(());
        }
        let detail = serde_json::to_string(&event.detail)?;
        let actor = event.actor.to_string();
        let line = chain::Content {
            id: &event.id,
            at: event.at,
            event: event.event,
            actor: &actor,
            client_id: event.client_id.as_deref(),
            subject: event.subject.as_deref(),
            resource: event.resource.as_deref(),
            grant_id: event.grant_id.as_deref(),
            reference: event.reference.as_deref(),
            detail: &detail,
        };
        let row_mac = chain::row_mac(&self.sealer, &line);
        sqlx::query(
            "INSERT INTO audit_events
                 (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail,
                  row_mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(event.id.as_str())
        .bind(event.at)
        .bind(event.event)
        .bind(actor)
        .bind(event.client_id.as_deref())
        .bind(event.subject.as_deref())
        .bind(event.resource.as_deref())
        .bind(event.grant_id.as_deref())
        .bind(event.reference.as_deref())
        .bind(detail)
        .bind(row_mac)
        .execute(&mut **self)
        .await?;
        if !event.is_anonymous() {
            self.last_line = Some(event.id.clone());
        }
        self.events.push(event);
        Ok(())
    }
}

impl Storage {
    /// Records events that belong to no other change.
    pub async fn record(&self, events: Vec<AuditEvent>) -> Result<(), StorageError> {
        let mut step = self.begin_for(use_of(&events)).await?;
        for event in events {
            step.record(event).await?;
        }
        step.commit().await
    }

    /// Stores events that have been logged already.
    pub async fn note(&self, events: &[AuditEvent]) -> Result<(), StorageError> {
        let mut step = self.begin_for(use_of(events)).await?;
        for event in events {
            step.record(event.clone()).await?;
        }
        step.events.clear();
        step.commit().await
    }

    /// Returns how many lines were only logged because of their limit, and resets that count.
    pub fn take_left_out(&self) -> u64 {
        self.lines.take_left_out()
    }

    /// Switches the limit on lines caused by one person on or off.
    pub fn bound_lines_of_people(&self, bound: bool) {
        self.lines.count_people(bound);
    }

    /// Loads at most `limit` lines, newest first.
    pub async fn audit_lines(
        &self,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditLine>, StorageError> {
        // One query for each name or each event, because an index has the lines of one in their order.
        let keys = match &filter.names {
            Some(names) => names.keys(KEYS),
            None => filter.events.iter().map(|event| ("event = ?", *event)).collect(),
        };
        let keys = match keys.as_slice() {
            [] => vec![None],
            several => several.iter().copied().map(Some).collect(),
        };
        // Unchained lines first: a line that is chained between the queries is then found twice, but
        // never missed.
        let mut lines = Vec::new();
        for settled in ["seq IS NULL", "seq IS NOT NULL"] {
            for key in &keys {
                lines.extend(self.lines_where(settled, *key, filter, limit).await?);
            }
        }
        lines.sort_by(|a, b| b.id.cmp(&a.id));
        lines.dedup_by(|a, b| a.id == b.id);
        let most = usize::try_from(limit).unwrap_or_default();
        if !filter.after.is_empty() {
            lines.drain(..lines.len().saturating_sub(most));
        }
        lines.truncate(most);
        Ok(lines)
    }

    async fn lines_where(
        &self,
        settled: &'static str,
        key: Option<(&'static str, &str)>,
        filter: &AuditFilter,
        limit: i64,
    ) -> Result<Vec<AuditLine>, StorageError> {
        let mut listing = SelectBuilder::new(
            "SELECT id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, seq
             FROM audit_events",
        );
        listing.only(settled);
        if let Some((condition, value)) = key {
            listing.and(condition, value);
        }
        if filter.names.is_some() && !filter.events.is_empty() {
            listing.among("event IN (?", filter.events);
        }
        for (condition, value) in [
            ("event = ?", &filter.event),
            ("client_id = ?", &filter.client_id),
            ("subject = ?", &filter.subject),
            ("grant_id = ?", &filter.grant_id),
            ("reference = ?", &filter.reference),
            ("id < ?", &filter.before),
            ("id > ?", &filter.after),
        ] {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        // Nothing that administrators do is routine, and with one condition the index of theirs is used.
        if filter.by_administrators {
            listing.only(BY_ADMINISTRATORS);
        } else if filter.without_routine {
            listing.only(NOT_ROUTINE);
        }
        // Ids begin with the time in milliseconds.
        if let Some(since) = filter.since {
            listing.and("id >= ?", first_id_at(since));
        }
        if let Some(until) = filter.until {
            listing.and("id < ?", first_id_at(until));
        }
        let nearest_first =
            if filter.after.is_empty() { "ORDER BY id DESC" } else { "ORDER BY id" };
        let rows = listing.fetch(self.pool(), nearest_first, limit).await?;
        rows.iter().map(read_line).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::audit::ROUTINE;

    #[test]
    fn the_condition_on_routine_events_names_all_of_them() {
        let events: Vec<String> = ROUTINE.iter().map(|event| format!("'{event}'")).collect();
        assert_eq!(NOT_ROUTINE, format!("event NOT IN ({})", events.join(", ")));
        let schema = include_str!("../../../migrations/0001_schema.sql");
        assert!(schema.contains(NOT_ROUTINE), "the index has another condition");
        assert!(schema.contains(BY_ADMINISTRATORS), "the index has another condition");
    }
}
