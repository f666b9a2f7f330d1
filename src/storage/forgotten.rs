//! What the clean-up has forgotten stays used up.
//!
//! That a consent page was decided, an assertion or a notice came before, is remembered until it could not be
//! used again anyway. A clock that leaps ahead makes the clean-up forget too early, and when it comes back the
//! same thing would look new. So with what is forgotten goes a mark: whatever expires before it counts as
//! used.

use super::{StorageError, Transaction};
use crate::clock::Timestamp;

/// Of `consents`.
pub(super) const CONSENTS: &str = "consents_forgotten_until";
/// Of `client_assertions`.
pub(super) const ASSERTIONS: &str = "assertions_forgotten_until";
/// Of `client_assertions`, by when they were issued: those of before a restored backup began to serve.
pub(super) const ASSERTIONS_ISSUED: &str = "assertions_used_if_issued_until";
/// Of `used_once`.
pub(super) const USED_ONCE: &str = "used_once_forgotten_until";
/// Of `upstream_notices`.
pub(super) const NOTICES: &str = "notices_forgotten_until";

/// Sets a mark: rows that expired at `last` or before may be gone. It never goes back.
pub(super) async fn mark(
    step: &mut Transaction,
    name: &'static str,
    last: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO counters (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = $2 WHERE counters.value < $2",
    )
    .bind(name)
    .bind(last.unix())
    .execute(&mut **step)
    .await?;
    Ok(())
}
