//! Conditions that last: an outage of the identity provider, the end of a key. All replicas see them, and one
//! of them tells.

use super::{Storage, StorageError};
use crate::clock::Timestamp;
use crate::storage::{SqlQuery, column};
use crate::telemetry::audit::AuditEvent;

/// The counter with the beginning of an outage of the identity provider, in Unix seconds; 0: none.
const PROVIDER: &str = "provider_down_since";

impl Storage {
    /// Returns since when the identity provider is known to be down.
    pub async fn provider_down_since(&self) -> Result<Option<Timestamp>, StorageError> {
        let since = sqlx::query("SELECT value FROM counters WHERE name = $1").bind(PROVIDER);
        let row = self.read_one(since).await?;
        let since: i64 = row.as_ref().map_or(Ok(0), |row| column(row, "value"))?;
        Ok((since > 0).then(|| Timestamp::from_unix(since)))
    }

    /// Records that the identity provider is down, once.
    pub async fn provider_went_down(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let change = sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2 WHERE counters.value = 0",
        );
        self.record_once(change.bind(PROVIDER).bind(now.unix()), event).await
    }

    /// Records that it answers again, once.
    pub async fn provider_came_back(
        &self,
        since: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let change = sqlx::query("UPDATE counters SET value = 0 WHERE name = $1 AND value = $2");
        self.record_once(change.bind(PROVIDER).bind(since.unix()), event).await
    }

    /// Records that something ends soon, once for each `level`: 1 is early, 3 is the last. `thing` is one of a
    /// few names.
    pub async fn note_end(
        &self,
        thing: &str,
        ends_at: Timestamp,
        level: u8,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        // Both in one number, so that another end begins from the first level.
        let first_level = ends_at.unix().saturating_mul(4);
        let told = first_level + i64::from(level.min(3));
        let change = sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2
             WHERE counters.value < $2 OR counters.value > $3",
        );
        let change = change.bind(format!("told end: {thing}")).bind(told).bind(first_level + 3);
        self.record_once(change, event).await
    }

    /// Makes a change of a counter, and records the event if the change was not made before.
    async fn record_once(
        &self,
        change: SqlQuery<'_>,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        if change.execute(&mut *step).await?.rows_affected() == 1 {
            step.record(event).await?;
        }
        step.commit().await
    }
}
