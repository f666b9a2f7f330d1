//! Ends everything in a database that lacks what happened since, and counts how often that was done.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::storage::revocation::{self, RevocationScope};
use crate::storage::{StorageError, Transaction, replay_guard};

/// Lifetime of a consent page less the second in which the server starts. All pages shown before the
/// start expire within it, while a page shown now expires later and is valid.
const CONSENT_PAGE: Duration = Duration::from_secs(10 * 60 - 1);
/// Counter: how many times everything was ended because this database was rolled back or restored.
pub(super) const TIMES: &str = "times_went_back";
/// Counter: when a rollback was last detected, in Unix seconds.
pub(super) const AT: &str = "went_back_at";

/// Ends all grants, everything that could become one, and every session. Returns the number of grants.
pub(super) async fn end_everything(
    step: &mut Transaction,
    now: Timestamp,
    reason: &str,
) -> Result<u64, StorageError> {
    // Uses since the backup are not recorded in it, so everything issued until now counts as used.
    replay_guard::mark(step, replay_guard::ASSERTIONS_ISSUED, now).await?;
    replay_guard::mark(step, replay_guard::CONSENTS, now.plus(CONSENT_PAGE)).await?;
    Ok(revocation::end(step, RevocationScope::Everything, reason, now).await?.grants)
}

/// Stores when a rollback was detected.
pub(super) async fn note_at(step: &mut Transaction, now: Timestamp) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = $2",
    )
    .bind(AT)
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(())
}

/// Counts that everything was ended for another reason, so that running servers which saw more do not
/// repeat it.
pub(super) async fn count_as_settled(step: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES ($1, 1)
         ON CONFLICT (name) DO UPDATE SET value = counters.value + 1",
    )
    .bind(TIMES)
    .execute(&mut **step)
    .await?;
    Ok(())
}
