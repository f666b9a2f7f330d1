//! Grants, as administrators look through them, and the ways to end many.

use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::storage::authorization_codes::{CodesOf, end_codes};
use crate::storage::listing::Listing;
use crate::storage::upstream_sessions::Person;
use crate::storage::{Step, Storage, StorageError, column, moment, moment_if_any, scopes};
use crate::telemetry::audit::AuditEvent;

/// Which grants are wanted; empty texts want all.
#[derive(Clone, Debug, Default)]
pub struct GrantFilter {
    /// Of this client.
    pub client_id: String,
    /// Of this person.
    pub subject: String,
    /// For this MCP server.
    pub resource: String,
    /// Ended ones as well.
    pub ended: bool,
    /// The next page begins after this row.
    pub after: String,
}

/// A grant in a list: person × client × MCP server.
#[derive(Clone, Debug)]
pub struct GrantRow {
    /// Row id.
    pub id: String,
    /// The client.
    pub client_id: String,
    /// What the client registered, JSON; `None` when it is gone.
    pub client_metadata: Option<String>,
    /// The person, by our `sub`.
    pub subject: String,
    /// The person's name and facts.
    pub person: Person,
    /// The MCP server.
    pub resource: String,
    /// Consented scopes.
    pub ceiling: ScopeSet,
    /// Since when.
    pub created_at: Timestamp,
    /// Last refresh.
    pub last_used_at: Timestamp,
    /// Where the last refresh came from.
    pub last_used_from: Option<String>,
    /// Absolute end.
    pub expires_at: Timestamp,
    /// When and why it was ended.
    pub revoked: Option<(Timestamp, String)>,
}

/// Which grants end at once.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of a client.
    Client(String),
    /// All of a person.
    Person(String),
    /// All that were given before this moment.
    Before(Timestamp),
}

const GRANT_COLUMNS: &str =
    "SELECT g.id, g.client_id, c.metadata, g.subject, g.session_id, s.person, g.resource,
            g.ceiling, g.created_at, g.last_used_at, g.last_used_from, g.expires_at, g.revoked_at, g.revoked_because
     FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
     LEFT JOIN clients c ON c.id = g.client_id";
impl Storage {
    /// Grants, newest first.
    pub async fn browse_grants(
        &self,
        filter: &GrantFilter,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<GrantRow>, StorageError> {
        let mut listing = Listing::new(GRANT_COLUMNS);
        for (condition, value) in [
            ("g.client_id = ?", &filter.client_id),
            ("g.subject = ?", &filter.subject),
            ("g.resource = ?", &filter.resource),
            ("g.id < ?", &filter.after),
        ] {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        if !filter.ended {
            listing.only("g.revoked_at IS NULL").and("g.expires_at > ?", now.unix());
        }
        let rows = listing.fetch(&self.pool, "ORDER BY g.id DESC", limit).await?;
        rows.iter().map(|row| self.read_grant_row(row)).collect()
    }

    /// One grant.
    pub async fn grant_row(&self, id: &str) -> Result<Option<GrantRow>, StorageError> {
        let mut listing = Listing::new(GRANT_COLUMNS);
        listing.and("g.id = ?", id);
        let rows = listing.fetch(&self.pool, "", 1).await?;
        rows.first().map(|row| self.read_grant_row(row)).transpose()
    }

    fn read_grant_row(&self, row: &AnyRow) -> Result<GrantRow, StorageError> {
        let session_id: String = column(row, "session_id")?;
        let sealed: String = column(row, "person")?;
        let because: Option<String> = column(row, "revoked_because")?;
        Ok(GrantRow {
            id: column(row, "id")?,
            client_id: column(row, "client_id")?,
            client_metadata: column(row, "metadata")?,
            subject: column(row, "subject")?,
            person: self.open_json("upstream_sessions.person", &session_id, &sealed)?,
            resource: column(row, "resource")?,
            ceiling: scopes(row, "ceiling")?,
            created_at: moment(row, "created_at")?,
            last_used_at: moment(row, "last_used_at")?,
            last_used_from: column(row, "last_used_from")?,
            expires_at: moment(row, "expires_at")?,
            revoked: moment_if_any(row, "revoked_at")?.map(|at| (at, because.unwrap_or_default())),
        })
    }

    /// Ends many grants in one step; answers how many.
    pub async fn revoke_grants(
        &self,
        which: &Selection,
        because: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_to_end().await?;
        let ended = match which {
            Selection::Client(id) => {
                forget_where(&mut step, "client_id = $1", id).await?;
                end_codes(&mut step, CodesOf::Client(id), now).await?;
                end_held(&mut step, "client_id = $1", id, now).await?;
                end_where(&mut step, "client_id = $3", id, because, now).await?
            }
            Selection::Person(subject) => {
                forget_where(&mut step, "subject = $1", subject).await?;
                end_codes(&mut step, CodesOf::Person(subject), now).await?;
                end_held(&mut step, "subject = $1", subject, now).await?;
                end_where(&mut step, "subject = $3", subject, because, now).await?
            }
            // Ids begin with their milliseconds.
            Selection::Before(moment) => {
                let first = format!("{:012x}", moment.unix().saturating_mul(1000).max(0));
                forget_where(&mut step, "id < $1", &first).await?;
                end_codes(&mut step, CodesOf::Before(&first), now).await?;
                end_held(&mut step, "id < $1", &first, now).await?;
                end_where(&mut step, "id < $3", &first, because, now).await?
            }
        };
        let event = match which {
            Selection::Client(id) => event.client(id),
            Selection::Person(subject) => event.subject(subject),
            Selection::Before(moment) => event.with("before", moment.unix()),
        };
        step.record(event.named("grants_revoked").with("because", because).with("ended", ended))
            .await?;
        self.commit_and_tell(step).await?;
        Ok(ended)
    }
}

async fn end_where(
    step: &mut Step,
    condition: &'static str,
    value: &str,
    because: &str,
    now: Timestamp,
) -> Result<u64, StorageError> {
    let sql = format!(
        "UPDATE grants SET revoked_at = $1, revoked_because = $2
         WHERE {condition} AND revoked_at IS NULL"
    );
    let ended = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(now.unix())
        .bind(because)
        .bind(value)
        .execute(&mut **step)
        .await?;
    Ok(ended.rows_affected())
}

/// Whoever's connections end is asked before they come back.
async fn forget_where(
    step: &mut Step,
    condition: &'static str,
    value: &str,
) -> Result<(), StorageError> {
    let sql = format!("DELETE FROM remembered_consents WHERE {condition}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).execute(&mut **step).await?;
    Ok(())
}

/// Sign-ins that wait for an administrator end with the grants.
async fn end_held(
    step: &mut Step,
    condition: &'static str,
    value: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    let sql =
        format!("UPDATE held_logins SET ended_at = $2 WHERE {condition} AND ended_at IS NULL");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).bind(now.unix()).execute(&mut **step).await?;
    Ok(())
}
