//! The clients that a person has connected, for `/account`: one entry for each client and MCP server.

use std::collections::BTreeMap;

use super::revocation::{self, RevocationScope, Revoked};
use super::upstream_sessions::Person;
use super::{Storage, StorageError, column, moment, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;
use crate::telemetry::audit::AuditEvent;

/// Most grants of a person that are read for the page: 1000.
const MOST: i64 = 1000;

/// A client that a person has connected to an MCP server. Several grants make one entry.
#[derive(Clone, Debug)]
pub struct ConnectedClient {
    pub client_id: String,
    /// The client's metadata as JSON; `None` if the client was deleted.
    pub client_metadata: Option<String>,
    /// Whether the client is trusted, by an administrator or the configuration.
    pub trusted: bool,
    pub resource: String,
    /// All scopes to which the person consented.
    pub scopes: ScopeSet,
    /// The grants one by one.
    pub approvals: Vec<Approved>,
    /// When it was first connected.
    pub since: Timestamp,
    /// When a code was last redeemed, or a token last refreshed.
    pub last_used_at: Timestamp,
}

/// A single consent, with what is known of the person since.
#[derive(Clone, Debug)]
pub struct Approved {
    pub scopes: ScopeSet,
    /// The person's facts from the identity provider, in the upstream session of this grant.
    pub facts: Facts,
    /// When all facts that rules read were last read.
    pub facts_at: Timestamp,
}

impl Storage {
    /// Loads the live connections of a person, the last used first.
    pub async fn connected_clients(
        &self,
        subject: &str,
        now: Timestamp,
    ) -> Result<Vec<ConnectedClient>, StorageError> {
        let rows = sqlx::query(
            "SELECT g.client_id, c.metadata, COALESCE(s.trusted, 0) AS trusted, g.resource, g.consented_scopes,
                    g.created_at, g.last_used_at, g.session_id, u.person, u.facts_read_at
             FROM grants g JOIN upstream_sessions u ON u.id = g.session_id AND u.state = 'active'
             LEFT JOIN clients c ON c.id = g.client_id
             LEFT JOIN client_reviews s ON s.client_id = g.client_id
             WHERE g.subject = $1 AND g.revoked_at IS NULL AND g.expires_at > $2
             ORDER BY g.id DESC LIMIT $3",
        )
        .bind(subject)
        .bind(now.unix())
        .bind(MOST)
        .fetch_all(self.pool())
        .await?;
        let mut found: BTreeMap<(String, String), ConnectedClient> = BTreeMap::new();
        for row in &rows {
            let session_id: String = column(row, "session_id")?;
            let sealed: String = column(row, "person")?;
            let person: Person =
                self.open_json("upstream_sessions.person", &session_id, &sealed)?;
            let approved = Approved {
                scopes: scopes(row, "consented_scopes")?,
                facts: person.facts,
                facts_at: moment(row, "facts_read_at")?,
            };
            let one = ConnectedClient {
                client_id: column(row, "client_id")?,
                client_metadata: column(row, "metadata")?,
                trusted: column::<i64>(row, "trusted")? != 0,
                resource: column(row, "resource")?,
                scopes: approved.scopes.clone(),
                approvals: vec![approved],
                since: moment(row, "created_at")?,
                last_used_at: moment(row, "last_used_at")?,
            };
            let key = (one.client_id.clone(), one.resource.clone());
            match found.get_mut(&key) {
                None => {
                    found.insert(key, one);
                }
                Some(known) => {
                    known.scopes = known.scopes.union(&one.scopes);
                    known.approvals.extend(one.approvals);
                    known.since = known.since.min(one.since);
                    known.last_used_at = known.last_used_at.max(one.last_used_at);
                }
            }
        }
        let mut connections: Vec<ConnectedClient> = found.into_values().collect();
        connections.sort_by_key(|one| std::cmp::Reverse(one.last_used_at));
        Ok(connections)
    }

    /// Ends what this person has of a client at an MCP server: grants, codes, waiting logins and
    /// remembered consents. Returns the number of grants.
    pub async fn disconnect(
        &self,
        subject: &str,
        client_id: &str,
        resource: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        let reason = "disconnected by the person";
        let mut step = self.begin_revocation().await?;
        let scope = RevocationScope::Connection { subject, client_id, resource };
        let Revoked { grants: ended, others, .. } =
            revocation::end(&mut step, scope, reason, now).await?;
        if ended + others > 0 {
            let event = event.subject(subject).client(client_id).resource(resource);
            step.record(event.with("because", reason).with("ended", ended)).await?;
        }
        self.commit_and_notify(step).await?;
        Ok(ended)
    }
}
