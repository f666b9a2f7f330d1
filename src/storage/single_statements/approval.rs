//! Records Approve and the login that follows from it by one statement.

use crate::clock::Timestamp;
use crate::storage::logins::{ApprovedPage, LoginQuota, NewLogin};
use crate::storage::replay_guard::CONSENTS;
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::AuditEvent;

const APPROVE: &str = "
WITH decided AS (
    INSERT INTO consents (id, decision, expires_at) SELECT $1, 'approved', $2
    WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
      AND (SELECT COUNT(*) FROM logins WHERE expires_at > $4 AND ended_at IS NULL) < $5
      AND (SELECT COUNT(*) FROM logins
           WHERE network = $7 AND expires_at > $4 AND ended_at IS NULL) < $6
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), login AS (
    INSERT INTO logins (id, state_hash, binding_hash, client_id, request, created_at, expires_at,
                        network, sign_outs)
    SELECT $8, $9, $10, $11, $12, $4, $13, $7,
           COALESCE((SELECT value FROM counters WHERE name = 'sign_outs'), 0)
    FROM decided
), told AS (
    INSERT INTO audit_events
        (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, row_mac)
    SELECT $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24
    WHERE EXISTS (SELECT 1 FROM decided) AND $14 IS NOT NULL
)
SELECT 1 AS approved FROM decided";

impl Storage {
    /// Records the decision and its login, if it is the first one on its page and fewer logins are pending than
    /// may be. `request` is the sealed login. Returns `false`, and changes nothing, if not, or if the step cannot
    /// be one statement.
    pub(in crate::storage) async fn approve_by_statement(
        &self,
        page: ApprovedPage<'_>,
        (new, request): (&NewLogin<'_>, &str),
        now: Timestamp,
        quota: LoginQuota,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let Some(mut step) = self.single_statement(event) else { return Ok(false) };
        let approve = sqlx::query(APPROVE)
            .bind(page.consent_id)
            .bind(page.expires_at.unix())
            .bind(CONSENTS)
            .bind(now.unix())
            .bind(i64::try_from(quota.in_all).unwrap_or(i64::MAX))
            .bind(i64::try_from(quota.per_network).unwrap_or(i64::MAX))
            .bind(new.network.as_deref())
            .bind(new.id)
            .bind(new.state.as_str())
            .bind(new.binding.as_str())
            .bind(&new.login.request.client_id)
            .bind(request)
            .bind(new.expires_at.unix());
        let approved = step.run(step.bind_line(approve)?).await?.is_some();
        if approved {
            step.done();
        }
        Ok(approved)
    }
}
