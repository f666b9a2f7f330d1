//! Protects against a clock that was set back, by means of the last time that was stored (threat ST-05).
//!
//! A machine that starts with yesterday's clock, or resumes from a snapshot, would accept what has
//! expired and sign tokens for a time that has passed. So the current time is stored regularly, and while
//! the clock is clearly behind it, no token is minted. A clock that was ahead when the time was stored
//! looks the same afterwards; in that case an administrator confirms that it is right now.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::{Storage, StorageError, column};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

/// The counter that holds the time, in Unix seconds.
const NAME: &str = "last_time";
/// How far the clock may be behind: 5 minutes. Clocks get corrected by small steps, and those of replicas
/// differ.
const TOLERANCE: Duration = Duration::from_mins(5);

/// What this process knows of the stored time.
#[derive(Default)]
pub(super) struct ClockGuard {
    /// Unix seconds; zero before anything was stored.
    stored: AtomicI64,
    /// The value when this process last stored the time.
    noted: AtomicI64,
    /// Whether it has been logged that the clock is behind.
    told: AtomicBool,
}

impl Storage {
    /// Stores the time unless a later one is stored. Does not store it if this clock is clearly ahead of
    /// replicas that keep storing theirs: it is wrong, and must not stop them.
    pub async fn note_time(&self, now: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        let before = sqlx::query_scalar("SELECT value FROM counters WHERE name = $1");
        let before: Option<i64> = before.bind(NAME).fetch_optional(&mut *step).await?;
        let before = before.unwrap_or_default();
        let others_go_on = before > self.last_time.noted.swap(before, Ordering::SeqCst);
        if others_go_on && now.minus(TOLERANCE) > Timestamp::from_unix(before) {
            self.last_time.stored.store(before, Ordering::SeqCst);
            let seconds = now.since(Timestamp::from_unix(before)).as_secs();
            tracing::error!(
                seconds,
                "the clock is ahead of those of the other replicas; set it right"
            );
            return Ok(());
        }
        let stored: i64 = sqlx::query_scalar(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE
             SET value = CASE WHEN counters.value < $2 THEN $2 ELSE counters.value END
             RETURNING value",
        )
        .bind(NAME)
        .bind(now.unix())
        .fetch_one(&mut *step)
        .await?;
        step.commit().await?;
        self.last_time.stored.store(stored, Ordering::SeqCst);
        self.last_time.noted.store(stored, Ordering::SeqCst);
        Ok(())
    }

    /// Loads the last time that any process stored.
    pub async fn last_time(&self) -> Result<Option<Timestamp>, StorageError> {
        let stored = sqlx::query("SELECT value FROM counters WHERE name = $1").bind(NAME);
        let stored = self.read_row(stored).await?;
        let stored: Option<i64> = stored.as_ref().map(|row| column(row, "value")).transpose()?;
        let seconds = stored.unwrap_or_default();
        self.last_time.stored.store(seconds, Ordering::SeqCst);
        let _ =
            self.last_time.noted.compare_exchange(0, seconds, Ordering::SeqCst, Ordering::SeqCst);
        Ok(stored.map(Timestamp::from_unix))
    }

    /// Warns at a start if nothing was stored for hours: the database may be an old copy without the mark
    /// of a backup.
    pub async fn warn_of_old_audit_trail(&self, now: Timestamp) -> Result<(), StorageError> {
        let at = "SELECT at FROM audit_events ORDER BY id DESC LIMIT 1";
        let Some(at) = sqlx::query_scalar::<_, i64>(at).fetch_optional(self.pool()).await? else {
            return Ok(()); // a new database
        };
        let served = self.last_time().await?.unwrap_or(Timestamp::from_unix(0));
        let last = served.max(Timestamp::from_unix(at / 1000));
        let hours = now.since(last).as_secs() / 3600;
        if hours > 0 {
            tracing::warn!(
                "the audit trail ends {hours} hours before now, and no server has stored the time since. If this database was restored from a dump, revoked grants may be live in it: stop all replicas, run INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0') in it, and start; everybody signs in again, once. If it merely was not served, there is nothing to do"
            );
        }
        Ok(())
    }

    /// Stores the current time, even if a later one was stored.
    pub async fn accept_time(&self, now: Timestamp, event: AuditEvent) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(NAME)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        step.record(event).await?;
        step.commit().await
    }

    /// Fails while the clock is behind the stored time.
    pub fn ensure_clock_sane(&self, now: Timestamp) -> Result<(), StorageError> {
        if self.clock_is_behind(now) { Err(StorageError::ClockBehind) } else { Ok(()) }
    }

    /// Returns whether the clock is behind the stored time. Logs each change once.
    pub fn clock_is_behind(&self, now: Timestamp) -> bool {
        let stored = Timestamp::from_unix(self.last_time.stored.load(Ordering::SeqCst));
        let behind = now < stored.minus(TOLERANCE);
        if self.last_time.told.swap(behind, Ordering::SeqCst) != behind {
            if behind {
                let seconds = stored.since(now).as_secs();
                tracing::error!(
                    seconds,
                    "the clock lies before the last time that this server stored: no token is minted. Set the clock right; if it is right, say so with `portcullis clock accept`"
                );
            } else {
                tracing::warn!(
                    "the clock does not lie before the stored time any more: tokens are minted again"
                );
            }
        }
        behind
    }
}
