//! Lists of grants, for administrators, and the ways to end many of them.

use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::storage::revocation::{
    Counted, Ended, RevocationScope, Selection, end_as_counted, first_id,
};
use crate::storage::select::SelectBuilder;
use crate::storage::upstream_sessions::Person;
use crate::storage::{
    NameSearch, Storage, StorageError, Transaction, column, moment, moment_if_any, scopes,
};
use crate::telemetry::audit::AuditEvent;

/// A filter for grants. Empty texts match every grant.
#[derive(Clone, Debug, Default)]
pub struct GrantFilter {
    /// Only this one, by its id.
    pub id: String,
    pub client_id: String,
    /// Only of this person, by `sub`.
    pub subject: String,
    /// Only for this MCP server.
    pub resource: String,
    /// Whether to include ended grants.
    pub ended: bool,
    /// Only created before this time.
    pub before: Option<Timestamp>,
    /// Only of the clients that are deleted together because nobody has used them since this time.
    pub unused_since: Option<Timestamp>,
    /// Only grants of people and clients that a search found, or with its id.
    pub search: Option<NameSearch>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// The page begins after this row, by id.
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
}

impl GrantFilter {
    /// Adds the conditions of the filter, except for those of its search and its place, to count the grants.
    pub(super) fn narrow(&self, listing: &mut SelectBuilder, now: Timestamp) {
        self.select(listing);
        if !self.ended {
            listing.only("g.revoked_at IS NULL").and("g.expires_at > ?", now.unix());
        }
    }

    /// The same, to read the grants in order. `+` stops SQLite from using the index of live grants, which
    /// would read all those of a client to sort them.
    pub(super) fn narrow_in_order(&self, listing: &mut SelectBuilder, now: Timestamp) {
        self.select(listing);
        if !self.ended {
            listing.only("g.revoked_at IS NULL").and("+g.expires_at > ?", now.unix());
        }
    }

    fn select(&self, listing: &mut SelectBuilder) {
        for (condition, value) in [
            ("g.id = ?", &self.id),
            ("g.client_id = ?", &self.client_id),
            ("g.subject = ?", &self.subject),
            ("g.resource = ?", &self.resource),
        ] {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        if let Some(moment) = self.before {
            listing.and("g.id < ?", first_id(moment));
        }
        if let Some(since) = self.unused_since {
            let (condition, value) = Selection::Unused(since).condition();
            listing.and(condition, value);
        }
    }

    /// Adds the condition that a grant is beyond the place where the page begins.
    pub(super) fn go_on(&self, listing: &mut SelectBuilder) {
        if !self.after.is_empty() {
            let beyond = if self.is_ascending() { "g.id > ?" } else { "g.id < ?" };
            listing.and(beyond, self.after.as_str());
        }
    }

    /// Returns in which order rows are read. Backwards, the rows nearest to the place come first.
    pub(super) const fn order(&self) -> &'static str {
        if self.is_ascending() { "ORDER BY g.id" } else { "ORDER BY g.id DESC" }
    }

    pub(super) const fn is_ascending(&self) -> bool {
        self.oldest_first != self.backwards
    }
}

/// A grant in a list: a person, a client and an MCP server.
#[derive(Clone, Debug)]
pub struct GrantRow {
    pub id: String,
    pub client_id: String,
    /// The client's metadata as JSON; `None` if the client was deleted.
    pub client_metadata: Option<String>,
    /// The person, by our `sub`.
    pub subject: String,
    /// The person's name and facts.
    pub person: Person,
    pub resource: String,
    pub consented_scopes: ScopeSet,
    pub created_at: Timestamp,
    /// When a token was last refreshed.
    pub last_used_at: Timestamp,
    /// The address of the last refresh, if known.
    pub last_used_from: Option<String>,
    /// Absolute end.
    pub expires_at: Timestamp,
    /// When and why it was revoked.
    pub revoked: Option<(Timestamp, String)>,
    /// When all facts that rules read were last read from the identity provider.
    pub facts_at: Timestamp,
    /// Whether its upstream session is active.
    pub session_alive: bool,
}

impl GrantRow {
    /// Returns whether it may be used.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.expires_at && self.session_alive
    }
}

impl Selection {
    /// Returns the corresponding filter for a list.
    pub fn filter(&self) -> GrantFilter {
        let mut filter = GrantFilter::default();
        match self {
            Self::One(id) => filter.id.clone_from(id),
            Self::Client(id) => filter.client_id.clone_from(id),
            Self::Person(subject) => filter.subject.clone_from(subject),
            Self::Before(moment) => filter.before = Some(*moment),
            Self::Unused(since) => filter.unused_since = Some(*since),
        }
        filter
    }
}

const GRANT_COLUMNS: &str =
    "SELECT g.id, g.client_id, c.metadata, g.subject, g.session_id, s.person, s.facts_read_at, s.state, g.resource,
            g.consented_scopes, g.created_at, g.last_used_at, g.last_used_from, g.expires_at, g.revoked_at, g.end_reason
     FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
     LEFT JOIN clients c ON c.id = g.client_id";
impl Storage {
    /// Lists grants, the newest first.
    pub async fn browse_grants(
        &self,
        filter: &GrantFilter,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<GrantRow>, StorageError> {
        let mut listing = SelectBuilder::new(GRANT_COLUMNS);
        if let Some(search) = &filter.search {
            let ids = self.ids_of_search(filter, search, now, limit).await?;
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            listing.among("g.id IN (?", &ids);
        } else {
            filter.narrow_in_order(&mut listing, now);
            filter.go_on(&mut listing);
        }
        let rows = listing.fetch(self.pool(), filter.order(), limit).await?;
        let read = rows.iter().map(|row| self.read_grant_row(row));
        let mut grants = read.collect::<Result<Vec<_>, StorageError>>()?;
        if filter.backwards {
            grants.reverse();
        }
        Ok(grants)
    }

    /// Counts the grants that a filter lists, up to [`COUNTED`](crate::storage::COUNTED) and one more.
    pub async fn count_grants(
        &self,
        filter: &GrantFilter,
        now: Timestamp,
    ) -> Result<i64, StorageError> {
        if let Some(search) = &filter.search {
            return self.count_search(filter, search, now).await;
        }
        let mut listing = SelectBuilder::new("SELECT g.id FROM grants g");
        filter.narrow(&mut listing, now);
        listing.count(self.pool()).await
    }

    pub async fn grant_row(&self, id: &str) -> Result<Option<GrantRow>, StorageError> {
        let mut listing = SelectBuilder::new(GRANT_COLUMNS);
        listing.and("g.id = ?", id);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        rows.first().map(|row| self.read_grant_row(row)).transpose()
    }

    fn read_grant_row(&self, row: &AnyRow) -> Result<GrantRow, StorageError> {
        let session_id: String = column(row, "session_id")?;
        let sealed: String = column(row, "person")?;
        let reason: Option<String> = column(row, "end_reason")?;
        Ok(GrantRow {
            id: column(row, "id")?,
            client_id: column(row, "client_id")?,
            client_metadata: column(row, "metadata")?,
            subject: column(row, "subject")?,
            person: self.open_json("upstream_sessions.person", &session_id, &sealed)?,
            resource: column(row, "resource")?,
            consented_scopes: scopes(row, "consented_scopes")?,
            created_at: moment(row, "created_at")?,
            last_used_at: moment(row, "last_used_at")?,
            last_used_from: column(row, "last_used_from")?,
            expires_at: moment(row, "expires_at")?,
            revoked: moment_if_any(row, "revoked_at")?.map(|at| (at, reason.unwrap_or_default())),
            facts_at: moment(row, "facts_read_at")?,
            session_alive: column::<String>(row, "state")? == "active",
        })
    }

    /// Ends the selected grants in one transaction. Returns their number.
    pub async fn revoke_grants(
        &self,
        which: &Selection,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        match self.revoke_grants_as_counted(which, reason, None, now, event).await? {
            Ended::Done(ended) => Ok(ended),
            Ended::Unchanged | Ended::Recounted => Ok(0),
        }
    }

    /// Like [`Self::revoke_grants`], but only if the grants are still the ones in `counted`.
    pub(crate) async fn revoke_grants_as_counted(
        &self,
        which: &Selection,
        reason: &str,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let mut step = self.begin_revocation().await?;
        let first = match which {
            Selection::Before(moment) => first_id(*moment),
            _ => String::new(),
        };
        let Some(scope) = RevocationScope::of_grants(which, &first) else {
            return Ok(Ended::Unchanged);
        };
        let Some(ended) = end_as_counted(&mut step, scope, reason, counted, now).await? else {
            return Ok(Ended::Recounted);
        };
        let ended = ended.grants;
        let event = event.with("because", reason);
        let event = match which {
            Selection::One(id) => {
                if ended == 0 {
                    return Ok(Ended::Unchanged); // it had ended before
                }
                about_grant(&mut step, id, event.named("grant_revoked")).await?
            }
            Selection::Client(id) => event.named("grants_revoked").client(id).with("ended", ended),
            Selection::Person(subject) => {
                event.named("grants_revoked").subject(subject).with("ended", ended)
            }
            Selection::Before(moment) => {
                let event = event.named("grants_revoked").with("before", moment.unix());
                event.with("ended", ended)
            }
            Selection::Unused(_) => event.with("ended", ended),
        };
        step.record(event).await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended))
    }
}

/// Names the grant, and whose it is, in an audit event.
async fn about_grant(
    step: &mut Transaction,
    id: &str,
    event: AuditEvent,
) -> Result<AuditEvent, StorageError> {
    let row = sqlx::query("SELECT client_id, subject, resource FROM grants WHERE id = $1")
        .bind(id)
        .fetch_one(&mut **step)
        .await?;
    let event = event.grant(id).client(&column::<String>(&row, "client_id")?);
    let event = event.subject(&column::<String>(&row, "subject")?);
    Ok(event.resource(&column::<String>(&row, "resource")?))
}
