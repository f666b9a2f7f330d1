//! The audit trail: lines are added in the step they belong to, and chained within a second.
//!
//! Chaining at once would make every writer of every replica wait for one row. So a line is stored first,
//! under a MAC of its own, and chained soon after (`chain.rs`). The trail has a size, and beyond it lines go
//! (`trim.rs`): first those that name neither a person nor a grant, which anybody can cause.
//! By what lines are searched is indexed when they are chained: a step would touch a page for each index, and
//! lines that are chained together share these pages. So every search looks twice.

mod budget;
mod chain;
mod trim;

use sqlx::any::AnyRow;

use super::select::SelectBuilder;
use super::{Storage, StorageError, Transaction, Use, column};
use crate::clock::Timestamp;
use crate::telemetry::audit::{AuditEvent, EVENTS};

pub(super) use budget::LineBudget;
pub(super) use chain::Marks;
pub use chain::{ChainBroken, ChainHead, SETTLED_AT_ONCE, Verified};
pub(super) use trim::AuditSize;

/// The columns of a line.
const COLUMNS: &str =
    "id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, seq";

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

impl AuditLine {
    /// The line that an event becomes.
    fn of(event: &AuditEvent, detail: &str) -> Self {
        Self {
            id: event.id.clone(),
            at: event.at,
            event: event.event.to_owned(),
            actor: event.actor.to_string(),
            client_id: event.client_id.clone(),
            subject: event.subject.clone(),
            resource: event.resource.clone(),
            grant_id: event.grant_id.clone(),
            reference: event.reference.clone(),
            detail: detail.to_owned(),
            seq: None,
        }
    }
}

/// What the room is used for that these lines take.
fn use_of(events: &[AuditEvent]) -> Use {
    if events.iter().all(AuditEvent::is_anonymous) { Use::Refusals } else { Use::People }
}

impl Transaction {
    /// Adds a line to the audit trail; the log hears of it when the step is durable.
    pub(super) async fn record(&mut self, event: AuditEvent) -> Result<(), StorageError> {
        debug_assert!(EVENTS.contains(&event.event), "{} is not in EVENTS", event.event);
        if event.log_only || !self.lines.allows(&event) {
            self.events.push(event);
            return Ok(());
        }
        let detail = serde_json::to_string(&event.detail)?;
        let row_mac = chain::row_mac(&self.sealer, &AuditLine::of(&event, &detail));
        sqlx::query(
            "INSERT INTO audit_events
                 (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail,
                  row_mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
    /// Adds lines that belong to no change.
    pub async fn record(&self, events: Vec<AuditEvent>) -> Result<(), StorageError> {
        let mut step = self.begin_for(use_of(&events)).await?;
        for event in events {
            step.record(event).await?;
        }
        step.commit().await
    }

    /// Adds lines that the log has already.
    pub async fn note(&self, events: &[AuditEvent]) -> Result<(), StorageError> {
        let mut step = self.begin_for(use_of(events)).await?;
        for event in events {
            step.record(event.clone()).await?;
        }
        step.events.clear();
        step.commit().await
    }

    /// How many lines that steps caused the log alone has, since this was last asked.
    pub fn take_left_out(&self) -> u64 {
        self.lines.take_left_out()
    }

    /// Whether what one person can cause has a bound in the trail.
    pub fn bound_lines_of_people(&self, bound: bool) {
        self.lines.count_people(bound);
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
        let mut listing = SelectBuilder::new(
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
