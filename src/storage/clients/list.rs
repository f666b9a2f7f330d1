//! Lists of clients, for administrators.

use sqlx::any::AnyRow;

use super::order::{ClientFilter, ClientOrder, direction_of, is_by_decision, standing_wanted};
use super::{ClientNote, found_by, searchable};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::storage::client_reviews::read_client_review;
use crate::storage::clients::unused::UNUSED;
use crate::storage::retention::count_clients;
use crate::storage::revocation::{Counted, Ended, RevocationScope, end_as_counted};
use crate::storage::select::{SelectBuilder, key};
use crate::storage::{ClientReview, Storage, StorageError, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// A page of a list of clients.
#[derive(Clone, Debug)]
pub struct ClientPage {
    pub rows: Vec<ClientRow>,
    /// The place up to which clients were searched, from which the next page searches on, if this page has
    /// room for more rows.
    pub searched_to: Option<String>,
    /// Whether clients that match may be missing, because not all were searched.
    pub is_partial: bool,
}

impl From<Vec<ClientRow>> for ClientPage {
    fn from(rows: Vec<ClientRow>) -> Self {
        Self { rows, searched_to: None, is_partial: false }
    }
}

/// A client in a list.
#[derive(Clone, Debug)]
pub struct ClientRow {
    pub id: String,
    /// `registered`, `created`, `configured` or `document`.
    pub kind: String,
    /// Its metadata as JSON.
    pub metadata: String,
    /// Digest of the metadata to which decisions apply ([`ClientMetadata::digest`]).
    pub digest: String,
    /// Hash of its secret, if it has one.
    pub secret_hash: Option<String>,
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
/// Most clients that a search finds before the list is read in its order: 1000, and as many by the beginning
/// of their name alone.
const MATCHING: i64 = 1000;
const FOUND: &str = "c.search_text LIKE ? ESCAPE '\\'";

/// The clients that a search finds, if they are few.
struct FewMatching {
    ids: Vec<String>,
    /// Whether not all clients were searched.
    is_partial: bool,
}

impl ClientRow {
    /// Returns whether it has a secret.
    pub fn is_confidential(&self) -> bool {
        self.secret_hash.is_some()
    }
}

impl Storage {
    /// Lists clients. With a review state in the filter, and nothing else, the last decision comes first.
    /// A search looks at the newest `filter.searched` clients, and at further ones whose names begin with the
    /// text.
    pub async fn browse_clients(
        &self,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<ClientPage, StorageError> {
        let search = filter.search.trim();
        if search.contains('\0') {
            return Ok(Vec::new().into()); // PostgreSQL refuses a NUL in text
        }
        let begin = self.begin_list(filter).await?;
        let mut listing = begin();
        let mut is_partial = false;
        if !search.is_empty() {
            let mut exact = begin();
            exact.and("c.id = ?", search);
            let rows = exact.fetch(self.pool(), "ORDER BY c.id", 1).await?;
            if !rows.is_empty() {
                return Ok(self.read_client_rows(&rows)?.into());
            }
            listing.and(FOUND, like(search));
            if is_bounded(filter) {
                if filter.order == ClientOrder::Newest {
                    return self.search_newest(filter, begin, limit).await;
                }
                if let Some(few) = self.few_matching(filter).await? {
                    let ids: Vec<&str> = few.ids.iter().map(String::as_str).collect();
                    listing.among("c.id IN (?", &ids);
                    is_partial = few.is_partial;
                }
            }
        }
        let direction = direction_of(filter);
        direction.go_on(&mut listing, &filter.after);
        let rows = listing.fetch(self.pool(), direction.order, limit).await?;
        let mut rows = self.read_client_rows(&rows)?;
        if filter.backwards {
            rows.reverse();
        }
        Ok(ClientPage { rows, searched_to: None, is_partial })
    }

    /// Searches the next clients in the order of the registrations, whose index has the text.
    async fn search_newest(
        &self,
        filter: &ClientFilter,
        begin: impl Fn() -> SelectBuilder,
        limit: i64,
    ) -> Result<ClientPage, StorageError> {
        let (direction, pattern) = (direction_of(filter), like(filter.search.trim()));
        let end = self.end_of_search(filter).await?;
        let mut listing = begin();
        listing.and(FOUND, pattern.as_str());
        direction.go_on(&mut listing, &filter.after);
        if let Some(end) = &end {
            direction.stop_at(&mut listing, end);
        }
        let rows = listing.fetch(self.pool(), direction.order, limit).await?;
        let mut rows = self.read_client_rows(&rows)?;
        let room = limit - i64::try_from(rows.len()).unwrap_or(limit);
        let searched_to = end.filter(|_| room > 0);
        if let Some(end) = searched_to.as_ref().filter(|_| filter.after.is_empty()) {
            let ids = self.clients_beginning_with(filter.search.trim()).await?;
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut further = begin();
            further.among("c.id IN (?", &ids).and(FOUND, pattern.as_str());
            direction.go_on(&mut further, end);
            let found = further.fetch(self.pool(), direction.order, room).await?;
            rows.extend(self.read_client_rows(&found)?);
        }
        if filter.backwards {
            rows.reverse();
        }
        Ok(ClientPage { rows, is_partial: searched_to.is_some(), searched_to })
    }

    /// Returns the clients that match, of those that a search looks at. `None`: they are many, and a list in
    /// another order soon finds enough of them.
    async fn few_matching(
        &self,
        filter: &ClientFilter,
    ) -> Result<Option<FewMatching>, StorageError> {
        let (after, order) = (String::new(), ClientOrder::Newest);
        let newest = ClientFilter { order, after, backwards: false, ..filter.clone() };
        let (direction, search) = (direction_of(&newest), filter.search.trim());
        let end = self.end_of_search(&newest).await?;
        let mut listing = SelectBuilder::new("SELECT c.id FROM clients c");
        listing.and(FOUND, like(search));
        if let Some(end) = &end {
            direction.stop_at(&mut listing, end);
        }
        let rows = listing.fetch(self.pool(), direction.order, MATCHING + 1).await?;
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > MATCHING {
            return Ok(None);
        }
        let mut ids = self.clients_beginning_with(search).await?;
        for row in &rows {
            ids.push(column(row, "id")?);
        }
        Ok(Some(FewMatching { ids, is_partial: end.is_some() }))
    }

    /// Lists clients, however many have to be searched.
    pub async fn list_clients(
        &self,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let filter = ClientFilter { searched: 0, ..filter.clone() };
        Ok(self.browse_clients(&filter, limit).await?.rows)
    }

    /// Returns the place of the last client that a search of the newest looks at; `None` if it looks at all.
    async fn end_of_search(&self, filter: &ClientFilter) -> Result<Option<String>, StorageError> {
        let direction = direction_of(filter);
        let mut listing = SelectBuilder::new("SELECT c.issued_at AS at, c.id FROM clients c");
        direction.go_on(&mut listing, &filter.after);
        let last = i64::try_from(filter.searched).unwrap_or(i64::MAX).saturating_sub(1);
        let rows = listing.fetch_from(self.pool(), direction.order, (2, last)).await?;
        // One row: it is the last of all clients.
        let [last, _] = rows.as_slice() else { return Ok(None) };
        Ok(Some(format!("{} {}", column::<i64>(last, "at")?, column::<String>(last, "id")?)))
    }

    /// Returns the ids of the clients whose name begins with a text; none if there are many.
    async fn clients_beginning_with(&self, text: &str) -> Result<Vec<String>, StorageError> {
        let key = key(text);
        let mut listing = SelectBuilder::new("SELECT c.id FROM clients c");
        // `g` follows every hexadecimal digit.
        listing.and("c.name_key >= ?", key.as_str()).and("c.name_key < ?", format!("{key}g"));
        let rows = listing.fetch(self.pool(), "ORDER BY c.name_key", MATCHING + 1).await?;
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > MATCHING {
            return Ok(Vec::new());
        }
        rows.iter().map(|row| column(row, "id")).collect()
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
            secret_hash: column(row, "secret_hash")?,
            issued_at: moment(row, "issued_at")?,
            last_used_at: moment_if_any(row, "last_used_at")?,
            note: self.read_note(&id, column(row, "annotation")?)?,
            standing: read_client_review(row)?,
            decided_at: moment_if_any(row, "changed_at")?,
            id,
        })
    }
}

/// Returns whether a search looks at so many clients only. With a review state, the list is read by the
/// reviews, which are few or soon found.
fn is_bounded(filter: &ClientFilter) -> bool {
    filter.searched > 0 && standing_wanted(filter).is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_is_text_and_no_pattern() {
        assert_eq!(like("Aude"), "%aude%");
        assert_eq!(like(r"50%_\"), r"%50\%\_\\%");
    }
}
