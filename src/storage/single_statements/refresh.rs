//! Rotates a refresh token by one statement.

use crate::clock::Timestamp;
use crate::storage::refresh_tokens::RefreshExchange;
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::AuditEvent;

const ROTATE: &str = "
WITH used AS (
    UPDATE refresh_tokens SET used_at = $3, successor_id = $4, successor = $5
    WHERE id = $1 AND token_hash = $2 AND grant_id = $6 AND used_at IS NULL AND expires_at > $3
    RETURNING id
), touched AS (
    UPDATE grants SET last_used_at = $3, last_used_from = $7
    WHERE id = $6 AND EXISTS (SELECT 1 FROM used)
      AND COALESCE(revoked_at, 0) = 0 AND expires_at > $3
      AND NOT EXISTS (SELECT 1 FROM denied_clients d WHERE d.client_id = grants.client_id)
      AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = grants.subject)
    RETURNING id
), successor AS (
    INSERT INTO refresh_tokens (id, token_hash, grant_id, parent_id, issued_at, expires_at, replays)
    SELECT $4, $8, id, $1, $3, $9, 0 FROM touched
), client_used AS (
    UPDATE clients SET last_used_at = $3 WHERE id = $10 AND EXISTS (SELECT 1 FROM touched)
), told AS (
    INSERT INTO audit_events
        (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, row_mac)
    SELECT $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
    WHERE EXISTS (SELECT 1 FROM touched) AND $11 IS NOT NULL
)
SELECT 1 / (SELECT COUNT(*) FROM touched) AS rotated FROM used";

impl Storage {
    /// Rotates the token if it is unused and its grant is live. Returns `false`, and changes nothing, if not,
    /// or if the step cannot be one statement.
    pub(in crate::storage) async fn rotate_by_statement(
        &self,
        exchange: &RefreshExchange<'_>,
        sealed_successor: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let RefreshExchange { presented, found, successor, rotation } = exchange;
        let Some(mut step) = self.single_statement(event) else { return Ok(false) };
        let client_used = self.client_use_is_due(&found.client_id, now);
        let rotate = sqlx::query(ROTATE)
            .bind(presented.id())
            .bind(presented.hash().as_str())
            .bind(now.unix())
            .bind(successor.id())
            .bind(sealed_successor)
            .bind(&found.grant_id)
            .bind(rotation.from.map(|from| from.to_string()))
            .bind(successor.hash().as_str())
            .bind(now.plus(rotation.idle).min(found.grant_expires_at).unix())
            .bind(client_used.then(|| found.client_id.clone()));
        if step.run(step.bind_line(rotate)?).await?.is_none() {
            return Ok(false);
        }
        if client_used {
            self.client_use_is_noted(&found.client_id, now);
        }
        step.done();
        Ok(true)
    }
}
