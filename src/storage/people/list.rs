//! Lists of people, for administrators.

use std::collections::HashSet;

use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::storage::select::{SelectBuilder, after, stored};
use crate::storage::upstream_sessions::Person;
use crate::storage::{Storage, StorageError, column, moment, moment_if_any};

/// A filter for people.
#[derive(Clone, Debug, Default)]
pub struct PersonFilter {
    /// Words of the name or their prefixes, a whole e-mail address, or a whole `sub`.
    pub search: String,
    /// Only blocked people.
    pub blocked: bool,
    /// The next page begins after this row: last login and `sub`.
    pub after: String,
}

/// A person in a list.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Our `sub`.
    pub subject: String,
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person's id at that issuer.
    pub upstream_subject: String,
    /// First login.
    pub first_seen_at: Timestamp,
    /// Last login.
    pub last_seen_at: Timestamp,
    /// When they were blocked, and by whom.
    pub blocked: Option<(Timestamp, String)>,
    /// What is known of the person, from the upstream session that was confirmed last.
    pub person: Option<Person>,
    /// Grants that are not revoked. Expired ones count until retention deletes them.
    pub live_grants: i64,
}

const PERSON_COLUMNS: &str = "SELECT p.subject, p.issuer, p.upstream_subject, p.first_seen_at, p.last_seen_at,
            p.blocked_at, p.blocked_by,
            (SELECT COUNT(*) FROM grants g WHERE g.subject = p.subject AND g.revoked_at IS NULL) AS live
     FROM people p";

impl Storage {
    /// Returns those of `subjects` that are stored, so that lists link only to pages that exist.
    pub async fn stored_people(&self, subjects: &[&str]) -> Result<HashSet<String>, StorageError> {
        let select = "SELECT p.subject AS name FROM people p";
        stored(self.pool(), select, "p.subject IN (?", subjects).await
    }

    /// Lists people, the last login first.
    pub async fn browse_people(
        &self,
        filter: &PersonFilter,
        limit: i64,
    ) -> Result<Vec<PersonRow>, StorageError> {
        let search = filter.search.trim();
        let mut listing = SelectBuilder::new(PERSON_COLUMNS);
        if !search.is_empty() {
            listing.and("(p.subject = ?", search);
            for (index, word) in self.searched(search).into_iter().enumerate() {
                let so_far = if index == 0 { " OR (" } else { " AND " };
                listing.text(so_far);
                listing.ends(
                    "p.subject IN (SELECT w.subject FROM people_words w WHERE w.word = ?)",
                    word,
                );
            }
            listing.text("))");
        }
        if filter.blocked {
            listing.only("p.blocked_at IS NOT NULL");
        }
        if let Some((seen, subject)) = after(&filter.after) {
            listing.and("(p.last_seen_at, p.subject) < (?", seen);
            listing.ends(", ?)", subject);
        }
        let rows = listing
            .fetch(self.pool(), "ORDER BY p.last_seen_at DESC, p.subject DESC", limit)
            .await?;
        let mut people = Vec::with_capacity(rows.len());
        for row in &rows {
            people.push(self.read_person_row(row).await?);
        }
        Ok(people)
    }

    /// Loads a person.
    pub async fn person_row(&self, subject: &str) -> Result<Option<PersonRow>, StorageError> {
        let mut listing = SelectBuilder::new(PERSON_COLUMNS);
        listing.and("p.subject = ?", subject);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        match rows.first() {
            Some(row) => self.read_person_row(row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_person_row(&self, row: &AnyRow) -> Result<PersonRow, StorageError> {
        let issuer: String = column(row, "issuer")?;
        let upstream_subject: String = column(row, "upstream_subject")?;
        let by: Option<String> = column(row, "blocked_by")?;
        Ok(PersonRow {
            person: self.latest_person(&issuer, &upstream_subject).await?,
            subject: column(row, "subject")?,
            first_seen_at: moment(row, "first_seen_at")?,
            last_seen_at: moment(row, "last_seen_at")?,
            blocked: moment_if_any(row, "blocked_at")?.map(|at| (at, by.unwrap_or_default())),
            live_grants: column(row, "live")?,
            issuer,
            upstream_subject,
        })
    }
}
