//! Finds out which of many people or clients are stored, so that lists link only to pages that exist.

use std::collections::{BTreeSet, HashSet};

use super::select::SelectBuilder;
use super::{Storage, StorageError, column};

/// Most names in one statement: 100.
const AT_ONCE: usize = 100;

impl Storage {
    /// Returns those of `subjects` that are stored.
    pub async fn stored_people(&self, subjects: &[&str]) -> Result<HashSet<String>, StorageError> {
        self.stored("SELECT p.subject AS name FROM people p", "p.subject IN (?", subjects).await
    }

    /// Returns those of `ids` that belong to a stored client.
    pub async fn stored_clients(&self, ids: &[&str]) -> Result<HashSet<String>, StorageError> {
        self.stored("SELECT c.id AS name FROM clients c", "c.id IN (?", ids).await
    }

    async fn stored(
        &self,
        select: &'static str,
        among: &'static str,
        names: &[&str],
    ) -> Result<HashSet<String>, StorageError> {
        let names: Vec<&str> =
            names.iter().copied().collect::<BTreeSet<&str>>().into_iter().collect();
        let mut stored = HashSet::new();
        for names in names.chunks(AT_ONCE) {
            let Some((last, others)) = names.split_last() else { continue };
            let mut listing = SelectBuilder::new(select);
            listing.and(among, *last);
            for name in others {
                listing.ends(", ?", *name);
            }
            listing.text(")");
            let rows = listing.fetch(self.pool(), "", i64::MAX).await?;
            for row in &rows {
                stored.insert(column(row, "name")?);
            }
        }
        Ok(stored)
    }
}
