//! The people who wait for a decision about a client, for administrators.

use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::storage::upstream_sessions::Person;
use crate::storage::{LoginAwaitingApproval, Storage, StorageError, column, moment};

/// A person who waits for a decision about a client, for one MCP server.
#[derive(Clone, Debug)]
pub struct WaitingPerson {
    /// Our `sub`.
    pub subject: String,
    pub person: Person,
    pub resource: String,
    /// The scopes to which the person consented.
    pub scopes: ScopeSet,
    pub since: Timestamp,
}

impl Storage {
    /// Loads the people who wait for a decision about a client, who waits longest first. A person who
    /// waits in several browsers for the same MCP server is one entry. `limit`: most logins that are read.
    pub async fn people_waiting_for(
        &self,
        client_id: &str,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<WaitingPerson>, StorageError> {
        let rows = sqlx::query(
            "SELECT l.id, l.login, l.created_at, l.session_id, s.person
             FROM logins_awaiting_approval l JOIN upstream_sessions s ON s.id = l.session_id
             WHERE l.client_id = $1 AND l.ended_at IS NULL AND l.expires_at > $2
             ORDER BY l.created_at, l.id LIMIT $3",
        )
        .bind(client_id)
        .bind(now.unix())
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        let mut people: Vec<WaitingPerson> = Vec::new();
        for row in &rows {
            let (id, session_id): (String, String) =
                (column(row, "id")?, column(row, "session_id")?);
            let (login, person): (String, String) = (column(row, "login")?, column(row, "person")?);
            let login: LoginAwaitingApproval =
                self.open_json("logins_awaiting_approval.login", &id, &login)?;
            let same = |known: &&mut WaitingPerson| {
                known.subject == login.subject && known.resource == login.request.resource
            };
            if let Some(known) = people.iter_mut().find(same) {
                known.scopes = known.scopes.union(&login.request.scopes);
                continue;
            }
            people.push(WaitingPerson {
                subject: login.subject,
                person: self.open_json("upstream_sessions.person", &session_id, &person)?,
                resource: login.request.resource,
                scopes: login.request.scopes,
                since: moment(row, "created_at")?,
            });
        }
        Ok(people)
    }
}
