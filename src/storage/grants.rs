//! Grants: what the gateway asks about at every request, and how they end.

use super::consents::forget_of_grant;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::upstream_sessions::Person;
use super::{Storage, StorageError, Transaction, column, moment, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::AuditEvent;

/// A grant that is live now, with what is known of its person.
#[derive(Clone, Debug)]
pub struct LiveGrant {
    /// Row id.
    pub id: String,
    /// The client it was given to.
    pub client_id: String,
    /// The session at the identity provider it came from.
    pub session_id: String,
    /// Our `sub` for the person.
    pub subject: String,
    /// The audience.
    pub resource: String,
    /// Consented scopes.
    pub ceiling: ScopeSet,
    /// Absolute end.
    pub expires_at: Timestamp,
    /// When the identity provider last vouched for the person.
    pub last_ok_at: Timestamp,
    /// Name, e-mail, facts.
    pub person: Person,
}

/// Whether a grant may still be used.
#[derive(Debug)]
pub enum GrantState {
    /// It may.
    Live(Arc<LiveGrant>),
    /// Revoked, expired, or unknown.
    Ended,
}

/// Grants that are remembered.
const REMEMBERED: usize = 10_000;
/// How long one is taken for live without another look: bounds what a lost notice of another process
/// can cost.
const RECENT: Duration = Duration::from_secs(1);

/// Live grants as they were a moment ago. Whenever grants may have ended, all are looked up again.
pub(super) struct RecentGrants(Cache<String, Recent>);

#[derive(Clone)]
struct Recent {
    grant: Arc<LiveGrant>,
    /// [`Storage::grants_ended`] before it was looked up.
    before: u64,
    looked_up: Instant,
}

impl RecentGrants {
    pub(super) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Storage {
    /// Whether the grant may be used at `now`, without asking the database at every request: the answer
    /// is at most a second old, and younger than the last revocation that this process has heard of.
    pub async fn recent_grant(&self, id: &str, now: Timestamp) -> Result<GrantState, StorageError> {
        let before = *self.grants_ended.borrow();
        if let Some(recent) = self.recent_grants.0.get(id)
            && recent.before == before
            && recent.looked_up.elapsed() < RECENT
            && now < recent.grant.expires_at
        {
            return Ok(GrantState::Live(recent.grant));
        }
        let looked_up = Instant::now();
        // In a box: once a second, and every request would carry room for it.
        let state = Box::pin(self.grant(id, now)).await?;
        match &state {
            GrantState::Live(grant) => {
                let grant = Arc::clone(grant);
                let recent = Recent { grant, before, looked_up };
                self.recent_grants.0.insert(id.to_owned(), recent);
            }
            GrantState::Ended => {
                self.recent_grants.0.remove(id);
            }
        }
        Ok(state)
    }

    /// Whether the grant may be used at `now`. An error means "unknown", which is never "yes".
    pub async fn grant(&self, id: &str, now: Timestamp) -> Result<GrantState, StorageError> {
        let query = sqlx::query(
            "SELECT g.id, g.client_id, g.session_id, g.subject, g.resource, g.ceiling, g.expires_at,
                    s.person, s.last_ok_at
             FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
             WHERE g.id = $1 AND g.revoked_at IS NULL AND g.expires_at > $2
               AND s.state = 'active'
               AND NOT EXISTS (SELECT 1 FROM client_standings b WHERE b.client_id = g.client_id
                               AND (b.blocked = 1 OR b.approval = 'refused'))
               AND NOT EXISTS (SELECT 1 FROM people p WHERE p.subject = g.subject
                               AND p.blocked_at IS NOT NULL)",
        )
        .bind(id)
        .bind(now.unix());
        let row = self.read_one(query).await?;
        let Some(row) = row else {
            return Ok(GrantState::Ended);
        };
        let session_id: String = column(&row, "session_id")?;
        let person: String = column(&row, "person")?;
        Ok(GrantState::Live(Arc::new(LiveGrant {
            id: column(&row, "id")?,
            client_id: column(&row, "client_id")?,
            subject: column(&row, "subject")?,
            resource: column(&row, "resource")?,
            ceiling: scopes(&row, "ceiling")?,
            expires_at: moment(&row, "expires_at")?,
            last_ok_at: moment(&row, "last_ok_at")?,
            person: self.open_json("upstream_sessions.person", &session_id, &person)?,
            session_id,
        })))
    }

    /// Ends a grant and all its tokens; repeating it changes nothing.
    pub async fn revoke_grant(
        &self,
        id: &str,
        because: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        if !revoke(&mut step, id, because, now).await? {
            return Ok(()); // nobody needs to look again
        }
        step.record(event.grant(id).with("because", because)).await?;
        self.commit_and_notify(step).await?;
        Ok(())
    }
}

/// Ends a grant in the caller's step, and forgets the approval behind it; `false` when it had ended
/// before.
pub(super) async fn revoke(
    step: &mut Transaction,
    id: &str,
    because: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let ended = sqlx::query(
        "UPDATE grants SET revoked_at = $2, revoked_because = $3
         WHERE id = $1 AND revoked_at IS NULL",
    )
    .bind(id)
    .bind(now.unix())
    .bind(because)
    .execute(&mut **step)
    .await?;
    forget_of_grant(step, id).await?;
    Ok(ended.rows_affected() == 1)
}
