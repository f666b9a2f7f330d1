//! What happens with clients now: how many connections they have, and who waits for a decision.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::storage::select::SelectBuilder;
use crate::storage::{Storage, StorageError, column, moment_if_any};

/// What happens with a client now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientActivity {
    /// Live grants.
    pub connections: i64,
    /// People who wait for a decision about it.
    pub waiting: i64,
    /// Since when the first of them waits.
    pub waiting_since: Option<Timestamp>,
}

impl Storage {
    /// Returns what happens with these clients now.
    pub async fn client_activity(
        &self,
        ids: &[&str],
        now: Timestamp,
    ) -> Result<HashMap<String, ClientActivity>, StorageError> {
        let mut found: HashMap<String, ClientActivity> = HashMap::new();
        if ids.is_empty() {
            return Ok(found);
        }
        let mut live =
            SelectBuilder::new("SELECT g.client_id AS id, COUNT(*) AS number FROM grants g");
        live.only("g.revoked_at IS NULL").and("g.expires_at > ?", now.unix());
        live.among("g.client_id IN (?", ids);
        for row in &live.fetch(self.pool(), "GROUP BY g.client_id", i64::MAX).await? {
            found.entry(column(row, "id")?).or_default().connections = column(row, "number")?;
        }
        let mut waiting = SelectBuilder::new(
            "SELECT l.client_id AS id, COUNT(DISTINCT l.subject) AS number,
                    MIN(l.created_at) AS since FROM logins_awaiting_approval l",
        );
        waiting.only("l.ended_at IS NULL").and("l.expires_at > ?", now.unix());
        waiting.among("l.client_id IN (?", ids);
        for row in &waiting.fetch(self.pool(), "GROUP BY l.client_id", i64::MAX).await? {
            let one = found.entry(column(row, "id")?).or_default();
            one.waiting = column(row, "number")?;
            one.waiting_since = moment_if_any(row, "since")?;
        }
        Ok(found)
    }

    /// Returns how many clients wait for approval, at most 100. Every admin page runs this query.
    pub async fn clients_waiting(&self) -> Result<i64, StorageError> {
        let waiting = "SELECT COUNT(*) FROM
                           (SELECT 1 AS one FROM client_reviews s JOIN clients c ON c.id = s.client_id
                            WHERE s.state = 'waiting' LIMIT 100) AS few";
        Ok(sqlx::query_scalar(waiting).fetch_one(self.pool()).await?)
    }
}
