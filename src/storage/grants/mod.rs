//! Grants: the gateway checks one at every request, and a revocation ends them.

mod list;
mod search;

use std::sync::Arc;
use std::time::Duration;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio::time::Instant;

use super::revocation::{self, RevocationScope};
use super::upstream_sessions::Person;
use super::{Storage, StorageError, column, moment, scopes};
use crate::clock::Timestamp;
use crate::oauth::random_key::RandomKeys;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::AuditEvent;

pub use list::{GrantFilter, GrantRow};

/// A live grant, with what is known of its person.
#[derive(Clone, Debug)]
pub struct LiveGrant {
    pub id: String,
    /// The client that received it.
    pub client_id: String,
    /// The upstream session (at the identity provider) on which it is based.
    pub session_id: String,
    /// Our `sub` for the person.
    pub subject: String,
    /// The audience: the URI of the protected resource.
    pub resource: String,
    /// The consented scopes, an upper bound for every token.
    pub consented_scopes: ScopeSet,
    /// The absolute end of the grant.
    pub expires_at: Timestamp,
    /// When the identity provider last confirmed the person.
    pub last_ok_at: Timestamp,
    /// Name, e-mail and other facts about the person.
    pub person: Person,
}

/// Whether a grant may be used now.
#[derive(Debug)]
pub enum GrantState {
    Live(Arc<LiveGrant>),
    /// It is revoked, expired or unknown, its upstream session has ended, or its client or person is
    /// denied.
    Ended,
}

/// Most grants in the cache: 10,000.
const REMEMBERED: usize = 10_000;
/// How long a cached grant counts as live: 1 second. Longer saves reads; but if a notification from
/// another process is lost, a revoked grant stays usable for this long.
const RECENT: Duration = Duration::from_secs(1);

/// Cache of live grants. Entries from before the latest notification of ended grants are not used.
pub(super) struct RecentGrants(Cache<String, Recent, UnitWeighter, RandomKeys>);

#[derive(Clone)]
struct Recent {
    grant: Arc<LiveGrant>,
    /// The value of [`Storage::grants_ended`] before the grant was read.
    before: u64,
    looked_up: Instant,
}

impl RecentGrants {
    pub(super) fn new() -> Self {
        let (keys, lifecycle) = (RandomKeys::default(), DefaultLifecycle::default());
        Self(Cache::with(REMEMBERED, REMEMBERED as u64, UnitWeighter, keys, lifecycle))
    }
}

impl Storage {
    /// Returns whether the grant may be used at `now`, from a cache where possible. A cached state is at
    /// most one second old, and newer than the last revocation that this process was notified of.
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

    /// Returns whether the grant may be used at `now`. An error means "unknown" and never counts as
    /// "yes".
    pub async fn grant(&self, id: &str, now: Timestamp) -> Result<GrantState, StorageError> {
        let query = sqlx::query(
            "SELECT g.id, g.client_id, g.session_id, g.subject, g.resource, g.consented_scopes, g.expires_at,
                    s.person, s.last_ok_at
             FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
             WHERE g.id = $1 AND g.revoked_at IS NULL AND g.expires_at > $2
               AND s.state = 'active'
               AND NOT EXISTS (SELECT 1 FROM denied_clients d WHERE d.client_id = g.client_id)
               AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = g.subject)",
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
            consented_scopes: scopes(&row, "consented_scopes")?,
            expires_at: moment(&row, "expires_at")?,
            last_ok_at: moment(&row, "last_ok_at")?,
            person: self.open_json("upstream_sessions.person", &session_id, &person)?,
            session_id,
        })))
    }

    /// Ends a grant and all its tokens. Repeating it changes nothing.
    pub async fn revoke_grant(
        &self,
        id: &str,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        if revocation::end(&mut step, RevocationScope::Grant(id), reason, now).await?.grants == 0 {
            return Ok(()); // already ended: nothing to notify
        }
        step.record(event.grant(id).with("because", reason)).await?;
        self.commit_and_notify(step).await?;
        Ok(())
    }
}
