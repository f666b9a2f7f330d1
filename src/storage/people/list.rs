//! Lists of people, for administrators.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::storage::select::{SelectBuilder, after, rows_of};
use crate::storage::upstream_sessions::Person;
use crate::storage::{Storage, StorageError, column, moment, moment_if_any};

#[derive(Clone, Debug, Default)]
pub struct PersonFilter {
    /// Words of the name or of the e-mail address before the `@`, or their prefixes; or a whole e-mail
    /// address, a whole `sub`, or the whole id at the identity provider.
    pub search: String,
    pub blocked: bool,
    /// Whether those who signed in longest ago come first.
    pub oldest_first: bool,
    /// The page begins after this row: last login and `sub`.
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
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
}

const PERSON_COLUMNS: &str =
    "SELECT p.subject, p.issuer, p.upstream_subject, p.first_seen_at, p.last_seen_at,
            p.blocked_at, p.blocked_by
     FROM people p";
/// People, each with the upstream session that was confirmed last. Lists ask for those of one page only.
const LATEST_SESSIONS: &str = "SELECT p.subject, s.id AS session_id, s.person
     FROM people p LEFT JOIN upstream_sessions s ON s.id =
         (SELECT l.id FROM upstream_sessions l
          WHERE l.issuer = p.issuer AND l.subject = p.upstream_subject
          ORDER BY l.last_ok_at DESC LIMIT 1)";

impl Storage {
    /// Returns the names of those of `subjects` that are stored, so that lists can name them and link only
    /// to pages that exist. `None`: no name is known.
    pub async fn names_of_people(
        &self,
        subjects: &[&str],
    ) -> Result<HashMap<String, Option<String>>, StorageError> {
        let people = self.latest_people(subjects).await?;
        let name = |(subject, person): (String, Option<Person>)| {
            (subject, person.and_then(Person::shown_name))
        };
        Ok(people.into_iter().map(name).collect())
    }

    /// Returns what is known of those of `subjects` that are stored, from the session that was confirmed
    /// last.
    async fn latest_people(
        &self,
        subjects: &[&str],
    ) -> Result<HashMap<String, Option<Person>>, StorageError> {
        let rows = rows_of(self.pool(), LATEST_SESSIONS, "p.subject IN (?", subjects).await?;
        let read = |row: &AnyRow| -> Result<(String, Option<Person>), StorageError> {
            let session: Option<String> = column(row, "session_id")?;
            let sealed: Option<String> = column(row, "person")?;
            let open = |(session, sealed): (String, String)| {
                self.open_json("upstream_sessions.person", &session, &sealed)
            };
            Ok((column(row, "subject")?, session.zip(sealed).map(open).transpose()?))
        };
        rows.iter().map(read).collect()
    }

    /// Returns how many live grants each of `subjects` has: those that are neither revoked nor expired. People
    /// without any are not in the result.
    pub async fn live_grants(
        &self,
        subjects: &[&str],
        now: Timestamp,
    ) -> Result<HashMap<String, i64>, StorageError> {
        let mut live = SelectBuilder::new("SELECT g.subject, COUNT(*) AS number FROM grants g");
        live.only("g.revoked_at IS NULL").and("g.expires_at > ?", now.unix());
        live.among("g.subject IN (?", subjects);
        let rows = live.fetch(self.pool(), "GROUP BY g.subject", i64::MAX).await?;
        rows.iter().map(|row| Ok((column(row, "subject")?, column(row, "number")?))).collect()
    }

    /// Lists people, the last login first.
    pub async fn browse_people(
        &self,
        filter: &PersonFilter,
        limit: i64,
    ) -> Result<Vec<PersonRow>, StorageError> {
        let mut listing = SelectBuilder::new(PERSON_COLUMNS);
        self.narrow_people(&mut listing, filter);
        // Backwards, the rows nearest to the place are read, and turned round.
        let ascending = filter.oldest_first != filter.backwards;
        if let Some((seen, subject)) = after(&filter.after) {
            let beyond = if ascending {
                "(p.last_seen_at, p.subject) > (?"
            } else {
                "(p.last_seen_at, p.subject) < (?"
            };
            listing.and(beyond, seen);
            listing.ends(", ?)", subject);
        }
        let order = if ascending {
            "ORDER BY p.last_seen_at, p.subject"
        } else {
            "ORDER BY p.last_seen_at DESC, p.subject DESC"
        };
        let rows = listing.fetch(self.pool(), order, limit).await?;
        let mut people = self.read_person_rows(&rows).await?;
        if filter.backwards {
            people.reverse();
        }
        Ok(people)
    }

    /// Counts the people that a filter lists, up to [`COUNTED`](crate::storage::COUNTED) and one more.
    pub async fn count_people(&self, filter: &PersonFilter) -> Result<i64, StorageError> {
        let mut listing = SelectBuilder::new("SELECT p.subject FROM people p");
        self.narrow_people(&mut listing, filter);
        listing.count(self.pool()).await
    }

    /// Returns the `sub` of at most `limit` people that a search finds.
    pub(crate) async fn subjects_found(
        &self,
        search: &str,
        limit: i64,
    ) -> Result<Vec<String>, StorageError> {
        let mut listing = SelectBuilder::new("SELECT p.subject FROM people p");
        let filter = PersonFilter { search: search.to_owned(), ..PersonFilter::default() };
        self.narrow_people(&mut listing, &filter);
        let order = "ORDER BY p.last_seen_at DESC, p.subject DESC";
        let rows = listing.fetch(self.pool(), order, limit).await?;
        rows.iter().map(|row| column(row, "subject")).collect()
    }

    fn narrow_people(&self, listing: &mut SelectBuilder, filter: &PersonFilter) {
        let search = filter.search.trim();
        if !search.is_empty() {
            listing.and("(p.subject = ?", search);
            let words = self.searched(search);
            for (index, word) in words.iter().enumerate() {
                let so_far = if index == 0 { " OR (" } else { " AND " };
                listing.text(so_far);
                listing.ends(
                    "p.subject IN (SELECT w.subject FROM people_words w WHERE w.word = ?)",
                    word.as_str(),
                );
            }
            listing.text(if words.is_empty() { ")" } else { "))" });
        }
        if filter.blocked {
            listing.only("p.blocked_at IS NOT NULL");
        }
    }

    pub async fn person_row(&self, subject: &str) -> Result<Option<PersonRow>, StorageError> {
        let mut listing = SelectBuilder::new(PERSON_COLUMNS);
        listing.and("p.subject = ?", subject);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        Ok(self.read_person_rows(&rows).await?.pop())
    }

    async fn read_person_rows(&self, rows: &[AnyRow]) -> Result<Vec<PersonRow>, StorageError> {
        let mut people = rows.iter().map(read_person_row).collect::<Result<Vec<_>, _>>()?;
        let subjects: Vec<&str> = people.iter().map(|row| row.subject.as_str()).collect();
        let mut known = self.latest_people(&subjects).await?;
        for row in &mut people {
            row.person = known.remove(&row.subject).flatten();
        }
        Ok(people)
    }
}

fn read_person_row(row: &AnyRow) -> Result<PersonRow, StorageError> {
    let by: Option<String> = column(row, "blocked_by")?;
    Ok(PersonRow {
        person: None,
        subject: column(row, "subject")?,
        first_seen_at: moment(row, "first_seen_at")?,
        last_seen_at: moment(row, "last_seen_at")?,
        blocked: moment_if_any(row, "blocked_at")?.map(|at| (at, by.unwrap_or_default())),
        issuer: column(row, "issuer")?,
        upstream_subject: column(row, "upstream_subject")?,
    })
}
