//! Uses up a pending login by one statement.

use crate::clock::Timestamp;
use crate::oauth::secret::{LoginState, Secret};
use crate::storage::logins::{Comer, PendingLogin};
use crate::storage::{Storage, StorageError, column, moment};

const CLAIM: &str = "
UPDATE logins SET ended_at = $4
WHERE id = $1 AND state_hash = $2 AND binding_hash = $3
  AND COALESCE(ended_at, 0) = 0 AND expires_at > $4
  AND NOT EXISTS (SELECT 1 FROM replay_guard WHERE purpose = 'sign_in' AND replay_guard.id = $5)
RETURNING request, expires_at, sign_outs";

impl Storage {
    /// Uses up the login if the browser that approved it comes back in time, with a code that no other browser
    /// has brought. Returns `None`, and changes nothing, if not, or if the step cannot be one statement.
    pub(in crate::storage) async fn claim_by_statement(
        &self,
        state: &Secret<LoginState>,
        comer: Comer<'_>,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StorageError> {
        let Some(binding) = comer.binding.filter(|_| self.takes_single_statements()) else {
            return Ok(None);
        };
        let claim = sqlx::query(CLAIM)
            .bind(state.id())
            .bind(state.hash().as_str())
            .bind(binding.hash().as_str())
            .bind(now.unix())
            .bind(comer.code.map(|code| self.code_mark(state.id(), code)));
        let claimed = self.measured("transaction", self.database.run_single(claim)).await?;
        let Some(row) = claimed else { return Ok(None) };
        let request: String = column(&row, "request")?;
        let mut pending: PendingLogin = self.open_json("logins.request", state.id(), &request)?;
        pending.sign_outs_before = column(&row, "sign_outs")?;
        pending.expires_at = moment(&row, "expires_at")?.unix();
        Ok(Some(pending))
    }
}
