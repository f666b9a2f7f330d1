//! Restored backups: invalidates what a restored copy of the database would bring back.
//!
//! An old state of the database lacks what happened since: a refresh token that was rotated looks unused,
//! a revoked grant looks live, an ended session goes on. Nobody can tell which ones, so each backup
//! carries a mark, and the first server that opens a database with that mark ends them all. People sign
//! in again, once. Decisions about clients and people, the keys and the audit trail stay.

use super::settlement::{count_as_settled, end_everything};
use crate::clock::Timestamp;
use crate::storage::database::{BACKUP_MARK, is_lock_timeout};
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::AuditEvent;

const BECAUSE: &str = "the database was restored from a backup";

/// The `lock_timeout` in the list of session settings, in seconds.
const LOCK_TIMEOUT_SECONDS: u64 = 4;

impl Storage {
    /// Ends everything in a restored database that may have ended, or been used up, since its backup was
    /// made, and records `event`. Returns the time of the backup; `None` if the database is not a
    /// restored one.
    pub async fn settle_restored(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mut waited = 0;
        loop {
            match self.try_to_settle_restored(now, event.clone()).await {
                Err(StorageError::Unavailable(cause)) if is_lock_timeout(&cause) => {
                    waited += LOCK_TIMEOUT_SECONDS;
                    tracing::warn!(
                        waited,
                        "another replica ends everything in the restored database, which takes long where there are many grants; this one waits for it"
                    );
                }
                settled => return settled,
            }
        }
    }

    async fn try_to_settle_restored(
        &self,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mark =
            sqlx::query_scalar::<_, String>("SELECT value FROM installation WHERE name = $1");
        let Some(taken_at) = mark.bind(BACKUP_MARK).fetch_optional(self.pool()).await? else {
            return Ok(None);
        };
        let taken_at = Timestamp::from_unix(taken_at.parse().unwrap_or_default());
        let mut step = self.begin().await?;
        step.disable_statement_timeout().await?;
        let removed = sqlx::query("DELETE FROM installation WHERE name = $1").bind(BACKUP_MARK);
        if removed.execute(&mut *step).await?.rows_affected() == 0 {
            return Ok(None); // another replica has just done it
        }
        tracing::info!("the database is a restored backup: everything in it is ended");
        let ended = end_everything(&mut step, now, BECAUSE).await?;
        count_as_settled(&mut step).await?;
        step.record(event.with("taken_at", taken_at.unix()).with("ended", ended)).await?;
        self.commit_and_notify(step).await?;
        Ok(Some(taken_at))
    }
}
