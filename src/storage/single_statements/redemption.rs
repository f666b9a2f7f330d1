//! Redeems an authorization code by one read and one statement.

use crate::clock::Timestamp;
use crate::storage::authorization_codes::{CodeExchange, RedeemedGrant, find_code, redeemed};
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::AuditEvent;

const REDEEM: &str = "
WITH session AS (
    SELECT id FROM upstream_sessions WHERE id = $4 AND state = 'active' FOR SHARE
), used AS (
    UPDATE authorization_codes SET redeemed_at = $2, grant_id = $3
    WHERE id = $1 AND redeemed_at IS NULL AND expires_at > $2 AND failures < $5
      AND EXISTS (SELECT 1 FROM session)
      AND NOT EXISTS (SELECT 1 FROM denied_clients d WHERE d.client_id = authorization_codes.client_id)
      AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = authorization_codes.subject)
    RETURNING client_id, session_id, subject, resource, consented_scopes
), granted AS (
    INSERT INTO grants (id, client_id, session_id, subject, resource, consented_scopes, created_at,
                        expires_at, last_used_at, last_used_from)
    SELECT $3, client_id, session_id, subject, resource, consented_scopes, $2, $6, $2, $7 FROM used
    RETURNING id
), token AS (
    INSERT INTO refresh_tokens (id, token_hash, grant_id, issued_at, expires_at, replays)
    SELECT $3, $8, id, $2, $9, 0 FROM granted
), client_used AS (
    UPDATE clients SET last_used_at = $2 WHERE id = $10 AND EXISTS (SELECT 1 FROM used)
), told AS (
    INSERT INTO audit_events
        (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, row_mac)
    SELECT $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
    WHERE EXISTS (SELECT 1 FROM used) AND $11 IS NOT NULL
)
SELECT 1 AS redeemed FROM used";

impl Storage {
    /// Redeems the code if its holder presents it for the first time and the person has room for another
    /// grant. Returns `None`, and changes nothing, if not, or if the step cannot be one statement.
    pub(in crate::storage) async fn redeem_by_statement(
        &self,
        exchange: &CodeExchange<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<RedeemedGrant>, StorageError> {
        let CodeExchange { code, attempt, refresh_token, terms } = exchange;
        if !self.takes_single_statements() {
            return Ok(None);
        }
        let mut connection = self.database.read_connection().await?;
        let stored = find_code(&mut *connection, code, now).await?;
        drop(connection);
        let usable = stored.filter(|stored| {
            stored.redeemed_at.is_none()
                && !stored.login_ended
                && !stored.reaches_a_limit(terms)
                && stored.issued.check_holder(attempt).is_ok()
                && stored.issued.check_use(attempt, now).is_ok()
        });
        let Some(stored) = usable else { return Ok(None) };
        let (grant_id, client_id) = (refresh_token.id(), &stored.issued.client_id);
        let event = redeemed(event, &stored, grant_id);
        let Some(mut step) = self.single_statement(event) else { return Ok(None) };
        let client_used = self.client_use_is_due(client_id, now);
        let expires_at = now.plus(terms.absolute);
        let redeem = sqlx::query(REDEEM)
            .bind(code.id())
            .bind(now.unix())
            .bind(grant_id)
            .bind(&stored.session_id)
            .bind(i64::from(terms.attempts))
            .bind(expires_at.unix())
            .bind(terms.from.map(|from| from.to_string()))
            .bind(refresh_token.hash().as_str())
            .bind(now.plus(terms.idle).min(expires_at).unix())
            .bind(client_used.then(|| client_id.clone()));
        if step.run(step.bind_line(redeem)?).await?.is_none() {
            return Ok(None);
        }
        if client_used {
            self.client_use_is_noted(client_id, now);
        }
        step.done();
        Ok(Some(stored.granted(grant_id.to_owned())))
    }
}
