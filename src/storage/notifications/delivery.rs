//! Takes messages from the queue, and records what became of them.

use std::time::Duration;

use sqlx::any::AnyRow;

use super::{Occurrence, Storage, StorageError};
use crate::clock::Timestamp;
use crate::storage::{Transaction, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// How long a replica has for one delivery: 2 minutes, longer than any delivery takes. Afterwards another one
/// delivers the message again.
const LEASE: Duration = Duration::from_mins(2);
/// A time further in the future than this was stored with a wrong clock, and counts as past: 2 days.
const NONSENSE: Duration = Duration::from_hours(48);
/// Messages that are looked at in one round: 200.
const ROUND: i64 = 200;

/// The column of sealed errors, as context of the sealing.
const ERROR: &str = "notification_targets.error";

/// A message that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueNotification {
    pub id: String,
    pub target: String,
}

/// A message that this replica delivers.
#[derive(Clone, Debug)]
pub struct LeasedNotification {
    pub id: String,
    pub target: String,
    /// The kind's name.
    pub event: String,
    /// The first occurrences.
    pub content: Vec<Occurrence>,
    pub occurrences: u64,
    /// When it was queued.
    pub created_at: Timestamp,
    /// Attempts, with this one.
    pub attempts: u32,
    /// Dropped messages to this target that no delivered message has told of.
    pub dropped: u64,
    leased_until: Timestamp,
}

/// What became of the messages to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetReport {
    pub delivered_at: Option<Timestamp>,
    /// Time and reason of the last failure.
    pub failure: Option<(Timestamp, String)>,
    pub waiting: u64,
}

impl Storage {
    /// Returns the messages that are due, the oldest first.
    pub async fn due_notifications(
        &self,
        now: Timestamp,
    ) -> Result<Vec<DueNotification>, StorageError> {
        let due = sqlx::query(
            "SELECT id, target FROM notifications
             WHERE (due_at <= $1 OR due_at > $2) AND (leased_until <= $1 OR leased_until > $2)
             ORDER BY due_at, id LIMIT $3",
        )
        .bind(now.unix())
        .bind(now.plus(NONSENSE).unix())
        .bind(ROUND);
        let rows = self.read_all(due).await?;
        let read = |row: &AnyRow| {
            Ok(DueNotification { id: column(row, "id")?, target: column(row, "target")? })
        };
        rows.iter().map(read).collect()
    }

    /// Takes a message for one attempt. `None`: another replica has it. `interval` is the time until the next
    /// message of its kind may go to its target.
    pub async fn lease_notification(
        &self,
        due: &DueNotification,
        interval: Duration,
        now: Timestamp,
    ) -> Result<Option<LeasedNotification>, StorageError> {
        let leased_until = now.plus(LEASE);
        let mut step = self.begin_cleanup().await?;
        let row = sqlx::query(
            "UPDATE notifications
             SET open_slot = NULL, attempts = attempts + 1, leased_until = $3
             WHERE id = $1 AND (due_at <= $2 OR due_at > $4)
               AND (leased_until <= $2 OR leased_until > $4)
             RETURNING event, content, occurrences, created_at, attempts",
        )
        .bind(&due.id)
        .bind(now.unix())
        .bind(leased_until.unix())
        .bind(now.plus(NONSENSE).unix())
        .fetch_optional(&mut *step)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let event: String = column(&row, "event")?;
        let attempts: i64 = column(&row, "attempts")?;
        if attempts == 1 {
            pace(&mut step, (&due.target, &event), now.plus(interval)).await?;
        }
        let dropped: Option<i64> = sqlx::query_scalar(
            "SELECT dropped FROM notification_targets WHERE target = $1 AND event = ''",
        )
        .bind(&due.target)
        .fetch_optional(&mut *step)
        .await?;
        step.commit().await?;
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Some(LeasedNotification {
            id: due.id.clone(),
            target: due.target.clone(),
            event,
            content: self.open_occurrences(&due.id, &column::<String>(&row, "content")?)?,
            occurrences: number(column(&row, "occurrences")?),
            created_at: moment(&row, "created_at")?,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            dropped: dropped.map_or(0, number),
            leased_until,
        }))
    }

    /// Ends all leases when a server on SQLite starts: the process that had them no longer exists.
    pub(in crate::storage) async fn free_notifications(&self) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("UPDATE notifications SET leased_until = 0 WHERE leased_until > 0")
            .execute(&mut *step)
            .await?;
        step.commit().await
    }

    /// Records that a message was delivered, and removes it.
    pub async fn notification_delivered(
        &self,
        sent: &LeasedNotification,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        remove(&mut step, sent).await?;
        note_delivery(&mut step, (&sent.target, &sent.event), now).await?;
        if sent.dropped > 0 {
            sqlx::query(
                "UPDATE notification_targets
                 SET dropped = CASE WHEN dropped > $2 THEN dropped - $2 ELSE 0 END
                 WHERE target = $1 AND event = ''",
            )
            .bind(&sent.target)
            .bind(i64::try_from(sent.dropped).unwrap_or(i64::MAX))
            .execute(&mut *step)
            .await?;
        }
        step.commit().await
    }

    /// Records a failed attempt. The next one comes at `again_at`.
    pub async fn notification_failed(
        &self,
        sent: &LeasedNotification,
        reason: &str,
        again_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query(
            "UPDATE notifications SET due_at = $3, leased_until = 0
             WHERE id = $1 AND leased_until = $2",
        )
        .bind(&sent.id)
        .bind(sent.leased_until.unix())
        .bind(again_at.unix())
        .execute(&mut *step)
        .await?;
        self.note_failure(&mut step, (&sent.target, &sent.event), reason, now).await?;
        step.commit().await
    }

    /// Removes a message that cannot be delivered.
    pub async fn notification_given_up(
        &self,
        sent: &LeasedNotification,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        remove(&mut step, sent).await?;
        self.note_failure(&mut step, (&sent.target, &sent.event), reason, now).await?;
        step.record(event).await?;
        step.commit().await
    }

    /// Records what became of a message that was not queued: an administrator's test.
    pub async fn note_test(
        &self,
        target: &str,
        kind: &str,
        outcome: Result<(), &str>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        match outcome {
            Ok(()) => note_delivery(&mut step, (target, kind), now).await?,
            Err(reason) => self.note_failure(&mut step, (target, kind), reason, now).await?,
        }
        step.record(event).await?;
        step.commit().await
    }

    /// Returns what became of the messages to a target.
    pub async fn target_report(&self, target: &str) -> Result<TargetReport, StorageError> {
        let rows = sqlx::query(
            "SELECT event, delivered_at, failed_at, error FROM notification_targets
             WHERE target = $1",
        );
        let mut report = TargetReport::default();
        for row in self.read_all(rows.bind(target)).await? {
            report.delivered_at = report.delivered_at.max(moment_if_any(&row, "delivered_at")?);
            let Some(at) = moment_if_any(&row, "failed_at")? else { continue };
            if report.failure.as_ref().is_some_and(|(known, _)| *known > at) {
                continue;
            }
            let kind: String = column(&row, "event")?;
            let sealed: Option<String> = column(&row, "error")?;
            let Some(sealed) = sealed else { continue };
            let reason = self.open_json(ERROR, &format!("{target}/{kind}"), &sealed)?;
            report.failure = Some((at, reason));
        }
        let waiting =
            sqlx::query("SELECT COUNT(*) AS waiting FROM notifications WHERE target = $1");
        if let Some(row) = self.read_row(waiting.bind(target)).await? {
            report.waiting = u64::try_from(column::<i64>(&row, "waiting")?).unwrap_or_default();
        }
        Ok(report)
    }

    /// Removes the reports of targets that are not among these.
    pub async fn forget_targets(&self, targets: &[String]) -> Result<(), StorageError> {
        let known: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT target FROM notification_targets")
                .fetch_all(self.pool())
                .await?;
        for gone in known.iter().filter(|name| !targets.contains(name)) {
            let mut step = self.begin_cleanup().await?;
            sqlx::query("DELETE FROM notification_targets WHERE target = $1")
                .bind(gone)
                .execute(&mut *step)
                .await?;
            step.commit().await?;
        }
        Ok(())
    }

    async fn note_failure(
        &self,
        step: &mut Transaction,
        (target, kind): (&str, &str),
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let sealed = self.seal_json(ERROR, &format!("{target}/{kind}"), &reason)?;
        sqlx::query(
            "INSERT INTO notification_targets (target, event, next_at, failed_at, error, dropped)
             VALUES ($1, $2, 0, $3, $4, 0)
             ON CONFLICT (target, event) DO UPDATE SET failed_at = $3, error = $4",
        )
        .bind(target)
        .bind(kind)
        .bind(now.unix())
        .bind(sealed)
        .execute(&mut **step)
        .await?;
        Ok(())
    }
}

async fn pace(
    step: &mut Transaction,
    (target, kind): (&str, &str),
    next_at: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO notification_targets (target, event, next_at, dropped) VALUES ($1, $2, $3, 0)
         ON CONFLICT (target, event) DO UPDATE SET next_at = $3",
    )
    .bind(target)
    .bind(kind)
    .bind(next_at.unix())
    .execute(&mut **step)
    .await?;
    Ok(())
}

async fn note_delivery(
    step: &mut Transaction,
    (target, kind): (&str, &str),
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO notification_targets (target, event, next_at, delivered_at, dropped)
         VALUES ($1, $2, 0, $3, 0)
         ON CONFLICT (target, event) DO UPDATE SET delivered_at = $3",
    )
    .bind(target)
    .bind(kind)
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(())
}

/// Removes a message, unless its lease has ended meanwhile.
async fn remove(step: &mut Transaction, sent: &LeasedNotification) -> Result<(), StorageError> {
    sqlx::query("DELETE FROM notifications WHERE id = $1 AND leased_until = $2")
        .bind(&sent.id)
        .bind(sent.leased_until.unix())
        .execute(&mut **step)
        .await?;
    Ok(())
}
