//! The periodic clean-up: expired rows, usage beyond what is kept, and rate limits.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::clock::Timestamp;
use crate::storage::{Retention, StorageError, UsageRetention};

/// The wall clock leapt if it differs by more than this from the time that really passed.
const LEAP: Duration = Duration::from_mins(5);
/// Clean-up pauses for this long after the clock leapt, so that an administrator can correct it before rows
/// are deleted according to it.
const AFTER_LEAP: Duration = Duration::from_hours(1);
/// Interval between two clean-ups of expired rows.
const SWEEP: Duration = Duration::from_mins(1);

/// Whether the clock was set between two readings: it showed `before`, `passed` went by, and it shows `now`.
fn leapt(before: Timestamp, now: Timestamp, passed: Duration) -> bool {
    let expected = before.plus(passed);
    now > expected.plus(LEAP) || now.plus(LEAP) < expected
}

/// Removes expired rows once a [`SWEEP`]. Also sweeps the rate limits and fills the disk reserve.
pub(super) async fn sweep(app: App) {
    panic_point!("clean-up");
    app.storage().keep_reserve().await;
    let (mut wall, mut steady) = (app.now(), Instant::now());
    let mut paused_until = None;
    loop {
        tokio::time::sleep(SWEEP).await;
        let app = app.current();
        app.rates().sweep();
        // A clock that leapt was wrong before or is wrong now, so rows that expire according to it are not
        // deleted at once.
        let (now, passed) = (app.now(), steady.elapsed());
        if leapt(wall, now, passed) {
            tracing::warn!("the clock leapt: nothing is cleaned up for an hour");
            paused_until = Some(Instant::now() + AFTER_LEAP);
        }
        (wall, steady) = (now, Instant::now());
        if paused_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        app.storage().ready(now).await; // runs even if nobody requests `/ready`
        if let Err(cause) = app.storage().note_time(now).await {
            tracing::warn!(%cause, "the time could not be stored");
        }
        clean_up(&app).await;
    }
}

/// Removes expired rows until none is left, or until another replica does it.
async fn clean_up(app: &App) {
    let limits = &app.config().limits;
    let keep = Retention {
        unused_client: limits.unused_client_expiry,
        idle_client: limits.idle_client_expiry,
        audit: app.config().audit_retention,
        refused_person: limits.refused_person_expiry,
        refresh_idle: app.config().tokens.refresh_idle,
        rows: limits.sweep_rows,
    };
    // Only one replica cleans up at a time: several would wait for each other's row locks.
    let mut turn = None;
    loop {
        match app.storage().take_clean_up(app.now(), turn).await {
            Ok(Some(until)) => turn = Some(until),
            Ok(None) => return,
            Err(cause) => {
                tracing::warn!(%cause, "clean-up failed; it is tried again");
                break;
            }
        }
        match remove_expired(app, keep).await {
            Ok(0) => break,
            Ok(removed) => tracing::debug!(removed, "expired rows removed"),
            Err(cause) => {
                tracing::warn!(%cause, "clean-up failed; it is tried again");
                break;
            }
        }
    }
    if let Some(until) = turn {
        // If the release fails, the turn expires by itself.
        let _ = app.storage().give_clean_up_back(until).await;
    }
}

/// Removes rows that have expired, and usage beyond what is kept. Returns how many.
async fn remove_expired(app: &App, keep: Retention) -> Result<u64, StorageError> {
    let usage = UsageRetention {
        age: app.config().usage_retention,
        hours: app.config().limits.usage_rows,
        rows: keep.rows,
    };
    let now = app.now();
    Ok(app.storage().sweep(now, keep).await? + app.storage().sweep_usage(now, usage).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_leaps_when_it_shows_more_or_less_than_the_time_that_passed() {
        let before = Timestamp::from_unix(1_800_000_000);
        let after = |seconds: i64| Timestamp::from_unix(1_800_000_000 + seconds);
        let minute = Duration::from_mins(1);

        for (now, leaps) in [(60, false), (360, false), (361, true), (-240, false), (-241, true)] {
            assert_eq!(leapt(before, after(now), minute), leaps, "{now}");
        }
        assert!(!leapt(before, after(86_400), Duration::from_hours(24)), "a long pause is no leap");
    }
}
