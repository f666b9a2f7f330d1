//! Registers a client by one statement.

use crate::storage::clients::{COUNTER_PARTS, Registered, StoredClient, found_by, read_client};
use crate::storage::{Storage, StorageError, column};
use crate::telemetry::audit::AuditEvent;

/// Room below the quota that the statement leaves: 1,000 clients. Replicas that register at the same moment do
/// not see each other's clients, so the last ones are counted one after the other, by the transaction.
const LAST: i64 = 1_000;

const REGISTER: &str = "
WITH known AS (
    UPDATE clients SET last_registered_at = $6 WHERE identity = $2
    RETURNING id, identity, secret_hash, management_hash, metadata, kind, issued_at
), added AS (
    INSERT INTO clients (id, identity, secret_hash, management_hash, metadata, issued_at,
                         last_registered_at, name_key, search_text, kind, network)
    SELECT $1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10
    WHERE NOT EXISTS (SELECT 1 FROM known)
      AND (SELECT SUM(value) FROM counters
             WHERE name = 'clients' OR name LIKE 'clients/%') < $11
    ON CONFLICT (identity) DO NOTHING
    RETURNING id, identity, secret_hash, management_hash, metadata, kind, issued_at
), counted AS (
    INSERT INTO counters (name, value) SELECT $12, 1 FROM added
    ON CONFLICT (name) DO UPDATE SET value = counters.value + 1
), told AS (
    INSERT INTO audit_events
        (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, row_mac)
    SELECT $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23
    WHERE EXISTS (SELECT 1 FROM added) AND $13 IS NOT NULL
)
SELECT CAST(0 AS BIGINT) AS is_new, known.* FROM known
UNION ALL SELECT CAST(1 AS BIGINT), added.* FROM added";

impl Storage {
    /// Registers a client, or finds the public client with the same metadata. Returns `None`, and changes
    /// nothing, close to the quota, or if the step cannot be one statement.
    pub(in crate::storage) async fn register_by_statement(
        &self,
        client: &StoredClient,
        quota: u64,
        event: AuditEvent,
    ) -> Result<Option<Registered>, StorageError> {
        let Some(mut step) = self.single_statement(event) else { return Ok(None) };
        let (name_key, search_text) = found_by(&client.metadata);
        let part = usize::from(client.id.bytes().last().unwrap_or_default()) % COUNTER_PARTS.len();
        let register = sqlx::query(REGISTER)
            .bind(&client.id)
            .bind(client.identity.as_deref())
            .bind(client.secret_hash.as_deref())
            .bind(client.management_hash.as_deref())
            .bind(&client.metadata)
            .bind(client.issued_at.unix())
            .bind(name_key)
            .bind(search_text)
            .bind(client.kind.as_str())
            .bind(client.network.as_deref())
            .bind(i64::try_from(quota).unwrap_or(i64::MAX).saturating_sub(LAST))
            .bind(COUNTER_PARTS[part]);
        let Some(row) = step.run(step.bind_line(register)?).await? else { return Ok(None) };
        if column::<i64>(&row, "is_new")? == 0 {
            return Ok(Some(Registered::Known(read_client(&row)?)));
        }
        step.done();
        Ok(Some(Registered::New))
    }
}
