//! How long usage is kept, and how much of it.

use std::time::Duration;

use super::A_DAY;
use crate::clock::Timestamp;
use crate::storage::{Storage, StorageError, column};

/// How long usage is kept, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct UsageRetention {
    /// Calls older than this go.
    pub age: Duration,
    /// Most sums of an hour that are kept; beyond it, the oldest hours go.
    pub hours: u64,
    /// Most rows of a table removed in one transaction, so that callers do not wait long for the writer.
    pub rows: u32,
}

/// Statements that remove at most `$2` rows from before the hour `$1`.
const OF_HOURS: [&str; 2] = [
    "DELETE FROM usage_hours WHERE (hour, usage_key) IN
         (SELECT hour, usage_key FROM usage_hours WHERE hour < $1 ORDER BY hour LIMIT $2)",
    "DELETE FROM usage_of_servers WHERE (hour, server) IN
         (SELECT hour, server FROM usage_of_servers WHERE hour < $1 ORDER BY hour LIMIT $2)",
];
/// The same, from before the day `$1`. A key that was just used has a later day by then.
const OF_DAYS: [&str; 2] = [
    "DELETE FROM usage_days WHERE (usage_key, day) IN
         (SELECT usage_key, day FROM usage_days WHERE day < $1 ORDER BY day LIMIT $2)",
    "DELETE FROM usage_keys WHERE last_day < $1 AND id IN
         (SELECT id FROM usage_keys WHERE last_day < $1 ORDER BY last_day LIMIT $2)",
];

impl Storage {
    /// Removes the usage that is too old, or more than is kept. Returns the number of rows. Call it again while
    /// it returns more than zero.
    pub async fn sweep_usage(
        &self,
        now: Timestamp,
        keep: UsageRetention,
    ) -> Result<u64, StorageError> {
        let hour = now.unix().div_euclid(3600);
        let by_age = now.minus(keep.age).unix().div_euclid(3600);
        let by_size = self.oldest_hour_with_room(keep.hours).await?;
        // The current hour stays, or nothing would be left to read.
        let first = by_age.max(by_size.unwrap_or(by_age)).min(hour);
        let mut removed = 0;
        for statement in OF_HOURS {
            removed += self.remove_usage(statement, first, keep.rows).await?;
        }
        for statement in OF_DAYS {
            removed += self.remove_usage(statement, first.div_euclid(A_DAY), keep.rows).await?;
        }
        Ok(removed)
    }

    /// Returns the first hour of those that fit into `most` rows; `None` if all fit.
    async fn oldest_hour_with_room(&self, most: u64) -> Result<Option<i64>, StorageError> {
        let beyond = sqlx::query(
            "SELECT hour FROM usage_hours ORDER BY hour DESC, usage_key DESC LIMIT 1 OFFSET $1",
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let beyond = beyond.bind(most).fetch_optional(self.pool()).await?;
        match beyond {
            Some(row) => Ok(Some(column::<i64>(&row, "hour")? + 1)),
            None => Ok(None),
        }
    }

    async fn remove_usage(
        &self,
        statement: &'static str,
        before: i64,
        rows: u32,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(statement).bind(before).bind(i64::from(rows));
        let removed = removed.execute(&mut *step).await?.rows_affected();
        step.commit().await?;
        Ok(removed)
    }
}
