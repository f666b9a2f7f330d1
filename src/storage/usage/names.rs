//! Names of the people and clients in lists of usage.

use std::collections::{BTreeSet, HashMap};

use crate::storage::select::SelectBuilder;
use crate::storage::upstream_sessions::Person;
use crate::storage::{Storage, StorageError, column};

/// Most names in one statement: 100.
const AT_ONCE: usize = 100;

impl Storage {
    /// Returns the names of those of these people who are stored; `None` if the name is not known.
    pub async fn names_of_people(
        &self,
        subjects: &[&str],
    ) -> Result<HashMap<String, Option<String>>, StorageError> {
        let mut names = HashMap::new();
        let select = "SELECT p.subject, s.id, s.person FROM people p LEFT JOIN upstream_sessions s
                      ON s.issuer = p.issuer AND s.subject = p.upstream_subject";
        for subjects in distinct(subjects).chunks(AT_ONCE) {
            let listing = among(select, "p.subject IN (?", subjects);
            // The session that was confirmed last comes last, and stays.
            let order = "ORDER BY COALESCE(s.last_ok_at, 0)";
            for row in &listing.fetch(self.pool(), order, i64::MAX).await? {
                let (session, sealed): (Option<String>, Option<String>) =
                    (column(row, "id")?, column(row, "person")?);
                let name = match session.zip(sealed) {
                    Some((id, sealed)) => {
                        let column = "upstream_sessions.person";
                        self.open_json::<Person>(column, &id, &sealed)?.name
                    }
                    None => None,
                };
                names.insert(column(row, "subject")?, name.filter(|name| !name.trim().is_empty()));
            }
        }
        Ok(names)
    }

    /// Returns the metadata (JSON) of those of these clients that are stored.
    pub async fn metadata_of_clients(
        &self,
        ids: &[&str],
    ) -> Result<HashMap<String, String>, StorageError> {
        let mut found = HashMap::new();
        let select = "SELECT c.id, c.metadata FROM clients c";
        for ids in distinct(ids).chunks(AT_ONCE) {
            let listing = among(select, "c.id IN (?", ids);
            for row in &listing.fetch(self.pool(), "", i64::MAX).await? {
                found.insert(column(row, "id")?, column(row, "metadata")?);
            }
        }
        Ok(found)
    }
}

fn distinct<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the query with the condition that a column is one of `names`.
fn among(select: &'static str, condition: &'static str, names: &[&str]) -> SelectBuilder {
    let mut listing = SelectBuilder::new(select);
    if let Some((first, others)) = names.split_first() {
        listing.and(condition, *first);
        for name in others {
            listing.ends(", ?", *name);
        }
        listing.text(")");
    }
    listing
}
