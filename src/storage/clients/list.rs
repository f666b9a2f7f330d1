//! Lists of clients, for administrators.

use sqlx::any::AnyRow;

use super::{ClientNote, found_by, searchable};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::storage::client_reviews::read_client_review;
use crate::storage::clients::unused::UNUSED;
use crate::storage::retention::count_clients;
use crate::storage::revocation::{Counted, Ended, RevocationScope, end_as_counted};
use crate::storage::select::{SelectBuilder, after};
use crate::storage::{ClientReview, Storage, StorageError, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// The order of a list of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientOrder {
    /// The newest first.
    #[default]
    Newest,
    /// The last used first; those that were never used come last.
    LastUse,
    /// By name.
    Name,
}

impl ClientOrder {
    /// All orders.
    pub const ALL: [Self; 3] = [Self::Newest, Self::LastUse, Self::Name];

    /// Returns the name in links and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::LastUse => "last-use",
            Self::Name => "name",
        }
    }

    /// Returns the order with this name; the newest first if there is none.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|order| order.as_str() == text).unwrap_or_default()
    }
}

/// A filter for clients.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Any part of the name or of the host of the first redirect URI, or a whole `client_id`.
    pub search: String,
    /// `waiting`, `blocked`, `trusted` or `refused`. Anything else matches every client.
    pub standing: String,
    /// Only those that [`Storage::count_ending`] counts as unused since this time.
    pub unused_since: Option<Timestamp>,
    /// The order.
    pub order: ClientOrder,
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
    /// What administrators wrote about it.
    pub note: ClientNote,
    /// The decisions of administrators.
    pub standing: ClientReview,
    /// When the review last changed, if ever.
    pub decided_at: Option<Timestamp>,
}

/// Where a list continues, and how it is ordered.
struct ListOrder {
    /// Begins the condition on the rows after the cursor. It is continued with the id.
    after: &'static str,
    order: &'static str,
}

const DECIDED: ListOrder = ListOrder {
    after: "(s.changed_at, s.client_id) < (?",
    order: "ORDER BY s.changed_at DESC, s.client_id DESC",
};
const NEWEST: ListOrder =
    ListOrder { after: "(c.issued_at, c.id) < (?", order: "ORDER BY c.issued_at DESC, c.id DESC" };
const LAST_USE: ListOrder = ListOrder {
    after: "(COALESCE(c.last_used_at, 0), c.id) < (?",
    order: "ORDER BY COALESCE(c.last_used_at, 0) DESC, c.id DESC",
};
const NAME: ListOrder =
    ListOrder { after: "(c.name_key, c.id) > (?", order: "ORDER BY c.name_key, c.id" };

const CLIENT_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at, c.annotation,
            COALESCE(s.state, 'none') AS state, COALESCE(s.trusted, 0) AS trusted,
            COALESCE(s.blocked, 0) AS blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM clients c LEFT JOIN client_reviews s ON s.client_id = c.id";
const DECIDED_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at, c.annotation,
            s.state, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM client_reviews s JOIN clients c ON c.id = s.client_id";
/// The same columns, driven by the clients: SQLite keeps the order of tables in a CROSS JOIN.
const CLIENTS_DECIDED: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at, c.annotation,
            s.state, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at,
            s.approved_as, s.trusted_as, s.trusted_by
     FROM clients c CROSS JOIN client_reviews s";
/// Up to this many decisions of a kind, a list goes through all of them. Beyond, it goes through the
/// clients in the order of the list, and soon finds enough.
const FEW: i64 = 2000;

impl Storage {
    /// Lists clients. With a review state in the filter, and nothing else, the last decision comes first.
    pub async fn list_clients(
        &self,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let search = filter.search.trim();
        if search.contains('\0') {
            return Ok(Vec::new()); // PostgreSQL refuses a NUL in text
        }
        let begin = self.begin_list(filter).await?;
        if !search.is_empty() {
            let mut exact = begin();
            exact.and("c.id = ?", search);
            let rows = exact.fetch(self.pool(), "ORDER BY c.id", 1).await?;
            if !rows.is_empty() {
                return self.read_client_rows(&rows);
            }
        }
        let mut listing = begin();
        if !search.is_empty() {
            listing.and("c.search_text LIKE ? ESCAPE '\\'", like(search));
        }
        let list = order_of(filter);
        if filter.order == ClientOrder::Name {
            if let Some((name, id)) = filter.after.split_once(' ') {
                listing.and(list.after, name);
                listing.ends(", ?)", id);
            }
        } else if let Some((seconds, id)) = after(&filter.after) {
            listing.and(list.after, seconds);
            listing.ends(", ?)", id);
        }
        let rows = listing.fetch(self.pool(), list.order, limit).await?;
        self.read_client_rows(&rows)
    }

    /// Returns a function that begins a query with the conditions of the filter, without the search.
    async fn begin_list(
        &self,
        filter: &ClientFilter,
    ) -> Result<impl Fn() -> SelectBuilder, StorageError> {
        let standing = standing_wanted(filter);
        let by_decision = is_by_decision(filter);
        let many = match standing {
            Some(condition) if !by_decision => self.many_with(condition).await?,
            _ => false,
        };
        let unused_since = filter.unused_since;
        Ok(move || {
            let mut listing = match standing {
                None => SelectBuilder::new(CLIENT_COLUMNS),
                Some(_) if many => SelectBuilder::new(CLIENTS_DECIDED),
                Some(_) => SelectBuilder::new(DECIDED_COLUMNS),
            };
            if many {
                listing.only("s.client_id = c.id");
            }
            if let Some(condition) = standing {
                listing.only(condition);
            }
            if let Some(since) = unused_since {
                listing.and(UNUSED, since.unix());
            }
            listing
        })
    }

    /// Returns whether more than [`FEW`] clients match a condition on reviews. Stops counting there.
    async fn many_with(&self, condition: &'static str) -> Result<bool, StorageError> {
        let mut listing = SelectBuilder::new("SELECT 1 AS one FROM client_reviews s");
        listing.only(condition);
        let rows = listing.fetch(self.pool(), "", FEW + 1).await?;
        Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX) > FEW)
    }

    /// Returns the position after `last` for the next page.
    pub fn page_after_client(filter: &ClientFilter, last: &ClientRow) -> String {
        let at = match filter.order {
            ClientOrder::Name => return format!("{} {}", found_by(&last.metadata).0, last.id),
            ClientOrder::LastUse => last.last_used_at.map_or(0, Timestamp::unix),
            ClientOrder::Newest if is_by_decision(filter) => {
                last.decided_at.unwrap_or(last.issued_at).unix()
            }
            ClientOrder::Newest => last.issued_at.unix(),
        };
        format!("{at} {}", last.id)
    }

    /// Loads a client for administrators.
    pub async fn client_details(&self, id: &str) -> Result<Option<ClientRow>, StorageError> {
        let mut listing = SelectBuilder::new(CLIENT_COLUMNS);
        listing.and("c.id = ?", id);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        rows.first().map(|row| self.read_client_row(row)).transpose()
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
        if !super::unused::delete(&mut step, id).await? {
            return Ok(Ended::Unchanged);
        }
        count_clients(&mut step).await?;
        step.record(event.named("client_deleted").client(id).with("grants_ended", ended)).await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended))
    }

    fn read_client_rows(&self, rows: &[AnyRow]) -> Result<Vec<ClientRow>, StorageError> {
        rows.iter().map(|row| self.read_client_row(row)).collect()
    }

    fn read_client_row(&self, row: &AnyRow) -> Result<ClientRow, StorageError> {
        let id: String = column(row, "id")?;
        let metadata: String = column(row, "metadata")?;
        let digest = ClientMetadata::from_stored_json(&metadata).map(|metadata| metadata.digest());
        Ok(ClientRow {
            kind: column(row, "kind")?,
            digest: digest.unwrap_or_default(),
            metadata,
            confidential: column::<Option<String>>(row, "secret_hash")?.is_some(),
            issued_at: moment(row, "issued_at")?,
            last_used_at: moment_if_any(row, "last_used_at")?,
            note: self.read_note(&id, column(row, "annotation")?)?,
            standing: read_client_review(row)?,
            decided_at: moment_if_any(row, "changed_at")?,
            id,
        })
    }
}

/// Returns whether the last decision comes first.
fn is_by_decision(filter: &ClientFilter) -> bool {
    filter.order == ClientOrder::Newest
        && filter.search.trim().is_empty()
        && standing_wanted(filter).is_some()
}

fn order_of(filter: &ClientFilter) -> &'static ListOrder {
    match filter.order {
        ClientOrder::Newest if is_by_decision(filter) => &DECIDED,
        ClientOrder::Newest => &NEWEST,
        ClientOrder::LastUse => &LAST_USE,
        ClientOrder::Name => &NAME,
    }
}

/// Returns the pattern of `LIKE` that finds a text anywhere.
fn like(search: &str) -> String {
    let mut pattern = String::from("%");
    for c in searchable(search).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_is_text_and_no_pattern() {
        assert_eq!(like("Aude"), "%aude%");
        assert_eq!(like(r"50%_\"), r"%50\%\_\\%");
    }
}
