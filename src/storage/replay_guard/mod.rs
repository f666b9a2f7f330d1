//! Replay protection for deleted rows.
//!
//! A used consent page, client assertion or logout notice is remembered until it would have expired
//! anyway. If the clock jumps ahead, retention deletes such rows too early, and after the clock is
//! corrected the same thing would look new. So each deletion raises a watermark, and whatever expires
//! before it counts as used.

mod assertions;
mod one_time_values;

use super::{StorageError, Transaction};
use crate::clock::Timestamp;

pub use assertions::AssertionUse;

/// Watermark of `consents`.
pub(crate) const CONSENTS: &str = "consents_forgotten_until";
/// Watermark of client assertions in `replay_guard`.
pub(crate) const ASSERTIONS: &str = "assertions_forgotten_until";
/// Assertions issued before this time count as used. Raised when a restored backup begins to serve.
pub(crate) const ASSERTIONS_ISSUED: &str = "assertions_used_if_issued_until";
/// Watermark of sign-ins in `replay_guard`.
pub(crate) const SIGN_INS: &str = "sign_ins_forgotten_until";
/// Watermark of logout tokens in `replay_guard`.
pub(crate) const LOGOUT_TOKENS: &str = "logout_tokens_forgotten_until";

/// Raises a watermark to `last`: rows that expire then or earlier may have been deleted. It never falls.
pub(crate) async fn mark(
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
