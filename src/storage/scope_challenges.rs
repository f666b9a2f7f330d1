//! Scopes for which a client was sent a challenge (`insufficient_scope`), for step-up authorization
//! (MCP).

use std::time::Duration;

use super::{Storage, StorageError, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;

/// How long a challenge is remembered: 15 minutes. A client that reacts at all does so within that time.
const REMEMBERED: Duration = Duration::from_mins(15);
/// The same for a request that could also be the first one of a new installation: 2 minutes, because most
/// clients react at once.
const REMEMBERED_OF_A_FIRST_REQUEST: Duration = Duration::from_mins(2);
/// Pause before the same refusal is written again: 1 minute. A client that keeps calling only causes
/// reads.
const AGAIN: Duration = Duration::from_mins(1);

/// Most refusals remembered for a grant: 32, because a client can call tools in any combination.
const OF_A_GRANT: i64 = 32;

impl Storage {
    /// Records that a call under this grant lacked the scopes `needed`, and that the challenge named the
    /// scopes `asked`.
    pub async fn record_scope_challenge(
        &self,
        grant_id: &str,
        needed: &ScopeSet,
        asked: &ScopeSet,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let lately = sqlx::query(
            "SELECT challenged_at FROM scope_challenges WHERE grant_id = $1 AND needed = $2 AND challenged_at > $3",
        )
        .bind(grant_id)
        .bind(needed.to_string())
        .bind(now.minus(AGAIN).unix());
        if self.read_one(lately).await?.is_some() {
            return Ok(());
        }
        let mut step = self.begin().await?;
        sqlx::query("DELETE FROM scope_challenges WHERE challenged_at <= $1")
            .bind(now.minus(REMEMBERED).unix())
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "INSERT INTO scope_challenges (grant_id, needed, challenged_at, challenged) SELECT $1, $2, $3, $5
             WHERE (SELECT COUNT(*) FROM scope_challenges WHERE grant_id = $1) < $4
             ON CONFLICT (grant_id, needed) DO UPDATE SET challenged_at = $3, challenged = $5",
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

    /// Takes the recorded challenges that this authorization request responds to: for each refused call
    /// under a live grant of this person and client, the scopes it needed. A challenge matches if it
    /// named exactly `asked`, or if exactly `asked` was needed: one client id is shared by many
    /// installations, and a request for other scopes comes from an installation that received no
    /// challenge. `is_first` says that `asked` is what a client without any grant asks for.
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
            "DELETE FROM scope_challenges WHERE challenged_at > $5 AND (challenged = $6 OR needed = $6) AND grant_id IN
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

    /// Returns the scopes that this person has approved for this client at this MCP server, under live
    /// grants.
    pub async fn approved_scopes(
        &self,
        subject: &str,
        client_id: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<ScopeSet, StorageError> {
        let rows = sqlx::query(
            "SELECT g.consented_scopes FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
             WHERE g.subject = $1 AND g.client_id = $2 AND g.resource = $3
               AND g.revoked_at IS NULL AND g.expires_at > $4 AND s.state = 'active'
             ORDER BY g.id DESC LIMIT 10",
        )
        .bind(subject)
        .bind(client_id)
        .bind(resource)
        .bind(now.unix())
        .fetch_all(self.pool())
        .await?;
        rows.iter().try_fold(ScopeSet::default(), |all, row| {
            Ok(all.union(&scopes(row, "consented_scopes")?))
        })
    }
}
