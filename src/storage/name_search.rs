//! The names of clients in lists, and what a name or an id in a search box may mean: people, clients, or a
//! grant. Lists of grants and of audit lines then read the rows of each of these by an index. So a page costs
//! the same whether a client has ten grants or a million.

use std::collections::HashMap;

use super::select::rows_of;
use super::{ClientFilter, Storage, StorageError, column};

/// Most people, and most clients, that a search finds: 100. Each costs a query.
const FOUND: i64 = 100;

/// The people and clients that a text may mean.
#[derive(Clone, Debug, Default)]
pub struct NameSearch {
    subjects: Vec<String>,
    client_ids: Vec<String>,
    text: String,
    /// Whether more people or clients match, which are left out.
    pub is_cut: bool,
}

impl NameSearch {
    /// Returns the people, by `sub`.
    pub(super) fn subjects(&self) -> Vec<&str> {
        self.subjects.iter().map(String::as_str).collect()
    }

    /// Returns the conditions that find rows of these people, of these clients, and of the grant with this
    /// id, each with its value.
    pub(super) fn keys(
        &self,
        [of_person, of_client, of_grant]: [&'static str; 3],
    ) -> Vec<(&'static str, &str)> {
        let subjects = self.subjects.iter().map(|subject| (of_person, subject.as_str()));
        let clients = self.client_ids.iter().map(|id| (of_client, id.as_str()));
        subjects.chain(clients).chain([(of_grant, self.text.as_str())]).collect()
    }
}

impl Storage {
    /// Returns the metadata of those of `ids` that belong to a stored client, so that lists can name them and
    /// link only to pages that exist.
    pub async fn metadata_of_clients(
        &self,
        ids: &[&str],
    ) -> Result<HashMap<String, String>, StorageError> {
        let select = "SELECT c.id, c.metadata FROM clients c";
        let rows = rows_of(self.pool(), select, "c.id IN (?", ids).await?;
        rows.iter().map(|row| Ok((column(row, "id")?, column(row, "metadata")?))).collect()
    }

    /// Returns the ids of at most `limit` clients that a search finds.
    pub async fn clients_found(
        &self,
        text: &str,
        searched: u64,
        limit: i64,
    ) -> Result<Vec<String>, StorageError> {
        let filter = ClientFilter { search: text.to_owned(), searched, ..ClientFilter::default() };
        let found = self.browse_clients(&filter, limit).await?;
        Ok(found.rows.into_iter().map(|client| client.id).collect())
    }

    /// Finds the people and clients that a text may mean: by name, by the beginning of it, or by id. Rows may
    /// be left of people and clients that are not stored; those are found by the whole id.
    /// Of clients, `searched` are looked at ([`ClientFilter::searched`]).
    pub async fn find_names(&self, text: &str, searched: u64) -> Result<NameSearch, StorageError> {
        let mut subjects = self.subjects_found(text, FOUND + 1).await?;
        let mut client_ids = self.clients_found(text, searched, FOUND + 1).await?;
        let more_people = cut(&mut subjects, text);
        let more_clients = cut(&mut client_ids, text);
        let is_cut = more_people || more_clients;
        Ok(NameSearch { subjects, client_ids, text: text.to_owned(), is_cut })
    }
}

/// Cuts a list to [`FOUND`], adds the text itself, and returns whether the list was longer.
fn cut(found: &mut Vec<String>, text: &str) -> bool {
    let most = usize::try_from(FOUND).unwrap_or(usize::MAX);
    let longer = found.len() > most;
    found.truncate(most);
    if !found.iter().any(|id| id == text) {
        found.push(text.to_owned());
    }
    longer
}
