//! When a connection was last used, to the minute.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::storage::{Storage, StorageError};

/// The use of a connection is written once a minute at most.
const NOTED: Duration = Duration::from_mins(1);
/// Connections whose last write this process remembers: 16,384. Beyond it, a use is written again.
const USES: usize = 16 * 1024;

/// When the last use of each connection was written, by person and service.
pub(in crate::storage) struct RecentUses(quick_cache::sync::Cache<(String, String), Timestamp>);

impl Default for RecentUses {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(USES))
    }
}

impl Storage {
    /// Records that a token of a connection was used; at most once a minute.
    pub async fn note_connection_used(
        &self,
        subject: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let (key, noted) = ((subject.to_owned(), name.to_owned()), &self.connections_used.0);
        let last = noted.get(&key);
        if last.is_some_and(|last| last <= now && now.since(last) < NOTED) {
            return Ok(());
        }
        // Before the write: others that use it in the same moment need not write it too.
        noted.insert(key, now);
        let mut step = self.begin().await?;
        sqlx::query(
            "UPDATE connections SET used_at = $3
             WHERE subject = $1 AND name = $2 AND (used_at IS NULL OR used_at < $3)",
        )
        .bind(subject)
        .bind(name)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await
    }
}
