//! Lists of clients, for administrators.

use std::collections::HashSet;

use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::storage::client_reviews::read_client_review;
use crate::storage::clients::found_by;
use crate::storage::retention::count_clients;
use crate::storage::revocation::{Counted, Ended, RevocationScope, end_as_counted};
use crate::storage::select::{SelectBuilder, after, key, stored};
use crate::storage::{ClientReview, Storage, StorageError, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// A filter for clients.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Prefix of the name or of the host of the redirect URI, or a whole `client_id`.
    pub search: String,
    /// `waiting`, `blocked`, `trusted` or `refused`. Anything else matches every client.
    pub standing: String,
    /// The next page begins after this row. See [`Storage::page_after_client`].
    pub after: String,
}

/// A client in a list.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// `client_id`.
    pub id: String,
    /// `registered`, `created`, `configured` or `document`.
    pub kind: String,
    /// Its metadata as JSON.
    pub metadata: String,
    /// Digest of the metadata to which decisions apply ([`ClientMetadata::digest`]).
    pub digest: String,
    /// Whether it has a secret.
    pub confidential: bool,
    /// When it was first registered.
    pub issued_at: Timestamp,
    /// When a code was last redeemed, or a token last refreshed.
    pub last_used_at: Option<Timestamp>,
    /// The decisions of administrators.
    pub standing: ClientReview,
    /// When the review last changed, if ever.
    pub decided_at: Option<Timestamp>,
}

const CLIENT_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            COALESCE(s.state, 'none') AS state, COALESCE(s.trusted, 0) AS trusted,
            COALESCE(s.blocked, 0) AS blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM clients c LEFT JOIN client_reviews s ON s.client_id = c.id";
const DECIDED_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            s.state, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM client_reviews s JOIN clients c ON c.id = s.client_id";
/// The same columns, driven by the clients: SQLite keeps the order of tables in a CROSS JOIN.
const CLIENTS_DECIDED: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            s.state, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM clients c CROSS JOIN client_reviews s";
/// Up to this many decisions of a kind, a search goes through all of them. Beyond, it goes through the
/// clients in the order of names, and soon finds enough.
const FEW: i64 = 2000;
impl Storage {
    /// Returns those of `ids` that belong to a stored client, so that lists link only to pages that exist.
    pub async fn stored_clients(&self, ids: &[&str]) -> Result<HashSet<String>, StorageError> {
        let select = "SELECT c.id AS name FROM clients c";
        stored(self.pool(), select, "c.id IN (?", ids).await
    }

    /// Lists clients, the newest first. With a review state in the filter, the last decision comes first;
    /// a search is ordered by what it matched, name or host.
    pub async fn list_clients(
        &self,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let standing = standing_wanted(filter);
        if !filter.search.is_empty() {
            return self.search_clients(standing, filter, limit).await;
        }
        let cursor = after(&filter.after);
        let rows = if let Some(condition) = standing {
            let mut listing = SelectBuilder::new(DECIDED_COLUMNS);
            listing.only(condition);
            if let Some((changed_at, id)) = cursor {
                listing.and("(s.changed_at, s.client_id) < (?", changed_at);
                listing.ends(", ?)", id);
            }
            let order = "ORDER BY s.changed_at DESC, s.client_id DESC";
            listing.fetch(self.pool(), order, limit).await?
        } else {
            let mut listing = SelectBuilder::new(CLIENT_COLUMNS);
            if let Some((issued_at, id)) = cursor {
                listing.and("(c.issued_at, c.id) < (?", issued_at);
                listing.ends(", ?)", id);
            }
            listing.fetch(self.pool(), "ORDER BY c.issued_at DESC, c.id DESC", limit).await?
        };
        rows.iter().map(read_client_row).collect()
    }

    /// Returns whether more than [`FEW`] clients match a condition on reviews. Stops counting there.
    async fn many_with(&self, condition: &'static str) -> Result<bool, StorageError> {
        let mut listing = SelectBuilder::new("SELECT 1 AS one FROM client_reviews s");
        listing.only(condition);
        let rows = listing.fetch(self.pool(), "", FEW + 1).await?;
        Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX) > FEW)
    }

    /// Searches by id, then by name, then by host. Each query uses an index.
    async fn search_clients(
        &self,
        standing: Option<&'static str>,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let many = match standing {
            Some(condition) => self.many_with(condition).await?,
            None => false,
        };
        let begin = || {
            let Some(condition) = standing else { return SelectBuilder::new(CLIENT_COLUMNS) };
            let mut listing =
                SelectBuilder::new(if many { CLIENTS_DECIDED } else { DECIDED_COLUMNS });
            if many {
                listing.only("s.client_id = c.id");
            }
            listing.only(condition);
            listing
        };
        let search = filter.search.trim();
        let mut exact = begin();
        exact.and("c.id = ?", search);
        let rows = exact.fetch(self.pool(), "ORDER BY c.id", 1).await?;
        if !rows.is_empty() {
            return rows.iter().map(read_client_row).collect();
        }
        let (by, after_key) = match filter.after.split_once(' ') {
            Some(("host", id)) => ("host", id),
            Some(("name", id)) => ("name", id),
            _ => ("", ""),
        };
        let wanted = key(search);
        if by != "host" {
            let mut named = begin();
            named.begins("c.name_key >= ?", "c.name_key < ?", &wanted);
            if let Some((name, id)) = after_key.split_once(' ') {
                named.and("(c.name_key, c.id) > (?", name);
                named.ends(", ?)", id);
            }
            let rows = named.fetch(self.pool(), "ORDER BY c.name_key, c.id", limit).await?;
            if !rows.is_empty() || by == "name" {
                return rows.iter().map(read_client_row).collect();
            }
        }
        let mut hosted = begin();
        hosted.begins("c.host_key >= ?", "c.host_key < ?", &wanted);
        if let Some((host, id)) = after_key.split_once(' ') {
            hosted.and("(c.host_key, c.id) > (?", host);
            hosted.ends(", ?)", id);
        }
        let rows = hosted.fetch(self.pool(), "ORDER BY c.host_key, c.id", limit).await?;
        rows.iter().map(read_client_row).collect()
    }

    /// Returns the position after `last` for the next page.
    pub fn page_after_client(filter: &ClientFilter, last: &ClientRow) -> String {
        if filter.search.is_empty() {
            let decided = standing_wanted(filter).and(last.decided_at);
            return format!("{} {}", decided.unwrap_or(last.issued_at).unix(), last.id);
        }
        let (name, host) = found_by(&last.metadata);
        if name.starts_with(&key(filter.search.trim())) {
            return format!("name {name} {}", last.id);
        }
        format!("host {host} {}", last.id)
    }

    /// Returns how many clients wait for approval, at most 100. Every admin page runs this query.
    pub async fn clients_waiting(&self) -> Result<i64, StorageError> {
        let waiting = "SELECT COUNT(*) FROM
                           (SELECT 1 AS one FROM client_reviews s JOIN clients c ON c.id = s.client_id
                            WHERE s.state = 'waiting' LIMIT 100) AS few";
        Ok(sqlx::query_scalar(waiting).fetch_one(self.pool()).await?)
    }

    /// Loads a client for administrators.
    pub async fn client_details(&self, id: &str) -> Result<Option<ClientRow>, StorageError> {
        let mut listing = SelectBuilder::new(CLIENT_COLUMNS);
        listing.and("c.id = ?", id);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        rows.first().map(read_client_row).transpose()
    }

    /// Deletes a client and ends everything that it received. Returns `false` when it did not exist.
    pub async fn delete_client(
        &self,
        id: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let ended = self.delete_client_as_counted(id, None, now, event).await?;
        Ok(ended != Ended::Unchanged)
    }

    /// Like [`Self::delete_client`], but only if it ends exactly the grants in `counted`.
    pub(crate) async fn delete_client_as_counted(
        &self,
        id: &str,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let mut step = self.begin_revocation().await?;
        let reason = "the client was deleted";
        let ended =
            end_as_counted(&mut step, RevocationScope::Client(id), reason, counted, now).await?;
        let Some(ended) = ended else { return Ok(Ended::Recounted) };
        let ended = ended.grants;
        // A denial stays: the client could be registered again under the same id.
        let review = "DELETE FROM client_reviews WHERE client_id = $1
                      AND client_id NOT IN (SELECT client_id FROM denied_clients)";
        sqlx::query(review).bind(id).execute(&mut *step).await?;
        let deleted =
            sqlx::query("DELETE FROM clients WHERE id = $1").bind(id).execute(&mut *step).await?;
        count_clients(&mut step).await?;
        if deleted.rows_affected() == 0 {
            return Ok(Ended::Unchanged);
        }
        step.record(event.named("client_deleted").client(id).with("grants_ended", ended)).await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended))
    }
}

/// Returns the SQL condition for the review state in the filter.
fn standing_wanted(filter: &ClientFilter) -> Option<&'static str> {
    Some(match filter.standing.as_str() {
        "waiting" => "s.state = 'waiting'",
        "refused" => "s.state = 'refused'",
        "blocked" => "s.blocked = 1",
        "trusted" => "s.trusted = 1",
        _ => return None,
    })
}

fn read_client_row(row: &AnyRow) -> Result<ClientRow, StorageError> {
    let metadata: String = column(row, "metadata")?;
    let digest = ClientMetadata::from_stored_json(&metadata).map(|metadata| metadata.digest());
    Ok(ClientRow {
        id: column(row, "id")?,
        kind: column(row, "kind")?,
        digest: digest.unwrap_or_default(),
        metadata,
        confidential: column::<Option<String>>(row, "secret_hash")?.is_some(),
        issued_at: moment(row, "issued_at")?,
        last_used_at: moment_if_any(row, "last_used_at")?,
        standing: read_client_review(row)?,
        decided_at: moment_if_any(row, "changed_at")?,
    })
}
