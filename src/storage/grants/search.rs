//! The grants of the people and clients that a search found.

use std::collections::BTreeSet;

use super::list::GrantFilter;
use crate::clock::Timestamp;
use crate::storage::select::{COUNTED, SelectBuilder};
use crate::storage::{NameSearch, Storage, StorageError, column};

const OF_PERSON: &str = "g.subject = ?";
const KEYS: [&str; 3] = [OF_PERSON, "g.client_id = ?", "g.id = ?"];

impl Storage {
    /// Returns the ids of the grants on a page of a search, in no order.
    pub(super) async fn ids_of_search(
        &self,
        filter: &GrantFilter,
        search: &NameSearch,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<String>, StorageError> {
        let mut ids: BTreeSet<String> = BTreeSet::new();
        for (condition, value) in search.keys(KEYS) {
            let mut listing = SelectBuilder::new("SELECT g.id FROM grants g");
            listing.and(condition, value);
            filter.narrow_in_order(&mut listing, now);
            filter.go_on(&mut listing);
            for row in &listing.fetch(self.pool(), filter.order(), limit).await? {
                ids.insert(column(row, "id")?);
            }
        }
        let most = usize::try_from(limit).unwrap_or_default();
        Ok(if filter.is_ascending() {
            ids.into_iter().take(most).collect()
        } else {
            ids.into_iter().rev().take(most).collect()
        })
    }

    /// Counts the grants of a search, up to [`COUNTED`] and one more.
    pub(super) async fn count_search(
        &self,
        filter: &GrantFilter,
        search: &NameSearch,
        now: Timestamp,
    ) -> Result<i64, StorageError> {
        let subjects = search.subjects();
        let mut number = 0;
        for (condition, value) in search.keys(KEYS) {
            let mut listing = SelectBuilder::new("SELECT g.id FROM grants g");
            listing.and(condition, value);
            if condition != OF_PERSON {
                // Those were counted for their people.
                listing.among("g.subject NOT IN (?", &subjects);
            }
            filter.narrow(&mut listing, now);
            number += listing.count(self.pool()).await?;
            if number > COUNTED {
                return Ok(COUNTED + 1);
            }
        }
        Ok(number)
    }
}
