//! Which of many names are stored: lists link to what has a page.

use std::collections::{BTreeSet, HashSet};

use super::select::SelectBuilder;
use super::{Storage, StorageError, column};

/// Names asked about in one statement.
const AT_ONCE: usize = 100;

impl Storage {
    /// Those of `subjects` who are stored.
    pub async fn stored_people(&self, subjects: &[&str]) -> Result<HashSet<String>, StorageError> {
        self.stored("SELECT p.subject AS name FROM people p", "p.subject IN (?", subjects).await
    }

    /// Those of `ids` that a stored client has.
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
            let rows = listing.fetch(&self.pool, "", i64::MAX).await?;
            for row in &rows {
                stored.insert(column(row, "name")?);
            }
        }
        Ok(stored)
    }
}
