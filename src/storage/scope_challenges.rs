//! Scopes that a client was told to come back for: step-up authorization (MCP, scope challenges).

use std::time::Duration;

use super::{Storage, StorageError, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;

/// A client that comes back for a scope does so by then.
const REMEMBERED: Duration = Duration::from_mins(15);
/// A request that could as well be that of an installation which begins anew counts for this long: most clients come
/// back at once.
const REMEMBERED_OF_A_FIRST_REQUEST: Duration = Duration::from_mins(2);
/// The same refusal is written down again only after this: a client that insists costs reads.
const AGAIN: Duration = Duration::from_mins(1);

/// Refusals of one grant that are remembered: a client can call tools in any combination.
const OF_A_GRANT: i64 = 32;

impl Storage {
    /// Remembers that a call under this grant was refused for want of `needed`, and that the challenge said to ask
    /// for `asked`.
    pub async fn record_scope_challenge(
        &self,
        grant_id: &str,
        needed: &ScopeSet,
        asked: &ScopeSet,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let lately = sqlx::query(
            "SELECT refused_at FROM step_ups WHERE grant_id = $1 AND needed = $2 AND refused_at > $3",
        )
        .bind(grant_id)
        .bind(needed.to_string())
        .bind(now.minus(AGAIN).unix());
        if self.read_one(lately).await?.is_some() {
            return Ok(());
        }
        let mut step = self.begin().await?;
        sqlx::query("DELETE FROM step_ups WHERE refused_at <= $1")
            .bind(now.minus(REMEMBERED).unix())
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "INSERT INTO step_ups (grant_id, needed, refused_at, asked) SELECT $1, $2, $3, $5
             WHERE (SELECT COUNT(*) FROM step_ups WHERE grant_id = $1) < $4
             ON CONFLICT (grant_id, needed) DO UPDATE SET refused_at = $3, asked = $5",
        )
        .bind(grant_id)
        .bind(needed.to_string())
        .bind(now.unix())
        .bind(OF_A_GRANT)
        .bind(asked.to_string())
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// What calls under live grants of this person and client were lately refused for want of, call by call, where
    /// the challenge said to ask for exactly `asked`, or that is what was needed; forgotten by being answered. One client id stands for many
    /// installations: a request for other scopes comes from one that met no challenge. `is_first`: it asks for what a
    /// client asks for that has nothing yet.
    pub async fn take_scope_challenges(
        &self,
        (subject, client_id, resource): (&str, &str, &str),
        asked: &ScopeSet,
        is_first: bool,
        now: Timestamp,
    ) -> Result<Vec<ScopeSet>, StorageError> {
        let remembered = if is_first { REMEMBERED_OF_A_FIRST_REQUEST } else { REMEMBERED };
        let mut step = self.begin().await?;
        let rows = sqlx::query(
            "DELETE FROM step_ups WHERE refused_at > $5 AND (asked = $6 OR needed = $6) AND grant_id IN
                 (SELECT id FROM grants WHERE subject = $1 AND client_id = $2 AND resource = $3
                  AND revoked_at IS NULL AND expires_at > $4)
             RETURNING needed",
        )
        .bind(subject)
        .bind(client_id)
        .bind(resource)
        .bind(now.unix())
        .bind(now.minus(remembered).unix())
        .bind(asked.to_string())
        .fetch_all(&mut *step)
        .await?;
        step.commit().await?;
        rows.iter().map(|row| scopes(row, "needed")).collect()
    }

    /// Scopes that this person has approved for this client at this MCP server, under live grants.
    pub async fn approved_scopes(
        &self,
        subject: &str,
        client_id: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<ScopeSet, StorageError> {
        let rows = sqlx::query(
            "SELECT g.ceiling FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
             WHERE g.subject = $1 AND g.client_id = $2 AND g.resource = $3
               AND g.revoked_at IS NULL AND g.expires_at > $4 AND s.state = 'active'
             ORDER BY g.id DESC LIMIT 10",
        )
        .bind(subject)
        .bind(client_id)
        .bind(resource)
        .bind(now.unix())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .try_fold(ScopeSet::default(), |all, row| Ok(all.union(&scopes(row, "ceiling")?)))
    }
}
