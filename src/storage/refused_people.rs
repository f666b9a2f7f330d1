//! People refused by the rules, with what the identity provider sent about each, so that an administrator can
//! see why (threat AD-06). One row for each person and MCP server, sealed, and kept for some days.
//!
//! Anybody with an account at the provider can be refused. A refusal that is repeated changes its row, and
//! beyond a number of rows the oldest go.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::select::{SelectBuilder, rows_of};
use super::upstream_sessions::Person;
use super::{Storage, StorageError, Use, column, moment};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::policy::{Fact, Facts};

/// Most bytes of facts that are stored about a refused person: 32 KiB, about 500 groups.
const LARGEST: usize = 32 << 10;
/// Values of a list that are kept if the facts are larger: 60. Three lists of them are within 32 KiB.
const KEPT_VALUES: usize = 60;
/// Longest value in such a list, in bytes: 128.
const KEPT_BYTES: usize = 128;

/// When the rules refused a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedAt {
    /// At the end of a sign-in.
    SignIn,
    /// When the person came back for more scopes.
    StepUp,
    /// At a re-check, when a client refreshed its token.
    Recheck,
}

/// A refusal to be stored.
pub struct NewRefusal<'a> {
    /// Our `sub` of the person.
    pub subject: &'a str,
    pub resource: &'a str,
    pub client_id: &'a str,
    /// When it happened in the life of a connection.
    pub step: RefusedAt,
    /// Reference of the page that the person saw.
    pub reference: Option<&'a str>,
    /// The scopes that the rules refused.
    pub asked: &'a ScopeSet,
    /// What the provider sent.
    pub person: &'a Person,
}

/// The last refusal of a person at an MCP server.
#[derive(Clone, Debug)]
pub struct RefusedPerson {
    /// Our `sub` of the person.
    pub subject: String,
    pub resource: String,
    pub client_id: String,
    /// When it happened in the life of a connection.
    pub step: RefusedAt,
    /// Reference of the page that the person saw.
    pub reference: Option<String>,
    /// The scopes that the rules refused.
    pub asked: ScopeSet,
    /// What the provider sent.
    pub person: Person,
    /// Whether lists were cut, because the provider sent too much.
    pub cut: bool,
    pub refused_at: Timestamp,
    /// The first of the refusals that this row counts.
    pub first_at: Timestamp,
    pub times: i64,
}

#[derive(Serialize, Deserialize)]
struct SealedRefusal {
    step: RefusedAt,
    asked: String,
    person: Person,
    #[serde(default)]
    cut: bool,
}

/// A filter for refused people.
#[derive(Clone, Debug, Default)]
pub struct RefusedFilter {
    /// Our whole `sub`; empty: everybody.
    pub subject: String,
    /// The MCP server; empty: all.
    pub resource: String,
    /// The page begins after this row: time, `sub` and MCP server, separated by spaces.
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
}

const COLUMNS: &str =
    "SELECT r.subject, r.resource, r.client_id, r.reference, r.person, r.refused_at,
            r.first_at, r.times
     FROM refused_people r";

impl Storage {
    /// Stores a refusal. Of the same person at the same MCP server only the last one is kept; of all, the
    /// newest `most`. A full database stores none.
    pub async fn note_refusal(
        &self,
        new: &NewRefusal<'_>,
        most: u64,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        if most == 0 {
            return Ok(());
        }
        let (person, cut) = within_limit(new.person)?;
        let sealed = SealedRefusal { step: new.step, asked: new.asked.to_string(), person, cut };
        let row = row_of(new.subject, new.resource);
        let sealed = self.seal_json("refused_people.person", &row, &sealed)?;
        let mut step = self.begin_for(Use::Refusals).await?;
        sqlx::query(
            "INSERT INTO refused_people
                 (subject, resource, client_id, reference, person, first_at, refused_at, times)
             VALUES ($1, $2, $3, $4, $5, $6, $6, 1)
             ON CONFLICT (subject, resource) DO UPDATE SET client_id = $3, reference = $4, person = $5,
                 refused_at = $6, times = refused_people.times + 1",
        )
        .bind(new.subject)
        .bind(new.resource)
        .bind(new.client_id)
        .bind(new.reference)
        .bind(sealed)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        sqlx::query(
            "DELETE FROM refused_people WHERE (subject, resource) IN
                 (SELECT subject, resource FROM refused_people
                  ORDER BY refused_at DESC, subject DESC, resource DESC LIMIT $2 OFFSET $1)",
        )
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .bind(EVICTED)
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// Lists refused people, the last refusal first.
    pub async fn refused_people(
        &self,
        filter: &RefusedFilter,
        limit: i64,
    ) -> Result<Vec<RefusedPerson>, StorageError> {
        let mut listing = SelectBuilder::new(COLUMNS);
        if !filter.subject.is_empty() {
            listing.and("r.subject = ?", filter.subject.as_str());
        }
        if !filter.resource.is_empty() {
            listing.and("r.resource = ?", filter.resource.as_str());
        }
        if let Some((at, subject, resource)) = after(&filter.after) {
            let beyond = if filter.backwards {
                "(r.refused_at, r.subject, r.resource) > (?"
            } else {
                "(r.refused_at, r.subject, r.resource) < (?"
            };
            listing.and(beyond, at);
            listing.ends(", ?", subject);
            listing.ends(", ?)", resource);
        }
        // Backwards, the rows nearest to the place are read, and turned round.
        let order = if filter.backwards {
            "ORDER BY r.refused_at, r.subject, r.resource"
        } else {
            "ORDER BY r.refused_at DESC, r.subject DESC, r.resource DESC"
        };
        let rows = listing.fetch(self.pool(), order, limit).await?;
        let read = rows.iter().map(|row| self.read_refused_person(row));
        let mut people = read.collect::<Result<Vec<_>, StorageError>>()?;
        if filter.backwards {
            people.reverse();
        }
        Ok(people)
    }

    /// Loads the last refusal of a person at an MCP server.
    pub async fn refused_person(
        &self,
        subject: &str,
        resource: &str,
    ) -> Result<Option<RefusedPerson>, StorageError> {
        let mut listing = SelectBuilder::new(COLUMNS);
        listing.and("r.subject = ?", subject);
        listing.and("r.resource = ?", resource);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        rows.first().map(|row| self.read_refused_person(row)).transpose()
    }

    /// Loads the refusals of these people, in no order, so that lists can name people who are stored nowhere
    /// else.
    pub async fn refusals_of(&self, subjects: &[&str]) -> Result<Vec<RefusedPerson>, StorageError> {
        let rows = rows_of(self.pool(), COLUMNS, "r.subject IN (?", subjects).await?;
        rows.iter().map(|row| self.read_refused_person(row)).collect()
    }

    fn read_refused_person(&self, row: &AnyRow) -> Result<RefusedPerson, StorageError> {
        let (subject, resource): (String, String) =
            (column(row, "subject")?, column(row, "resource")?);
        let sealed: SealedRefusal = self.open_json(
            "refused_people.person",
            &row_of(&subject, &resource),
            &column::<String>(row, "person")?,
        )?;
        Ok(RefusedPerson {
            client_id: column(row, "client_id")?,
            step: sealed.step,
            reference: column(row, "reference")?,
            asked: ScopeSet::parse(&sealed.asked)
                .map_err(|refused| StorageError::Corrupt(format!("asked: {refused}")))?,
            person: sealed.person,
            cut: sealed.cut,
            refused_at: moment(row, "refused_at")?,
            first_at: moment(row, "first_at")?,
            times: column(row, "times")?,
            subject,
            resource,
        })
    }
}

/// Most rows that one refusal evicts: 100. There are more only after the limit was lowered.
const EVICTED: i64 = 100;

/// Returns the name of a row, to which its sealed column is bound.
fn row_of(subject: &str, resource: &str) -> String {
    format!("{subject} {resource}")
}

/// Splits the row after which a page begins. A `sub` may contain spaces, an MCP server cannot.
fn after(text: &str) -> Option<(i64, &str, &str)> {
    let (at, rest) = text.split_once(' ')?;
    let (subject, resource) = rest.rsplit_once(' ')?;
    Some((at.parse().ok()?, subject, resource))
}

/// Returns the person, with shorter lists if the facts are too large, and whether lists were cut.
fn within_limit(person: &Person) -> Result<(Person, bool), StorageError> {
    if serde_json::to_vec(person)?.len() <= LARGEST {
        return Ok((person.clone(), false));
    }
    let cut = |fact: &Fact| match fact {
        Fact::Known(values) => {
            let short = values.iter().filter(|value| value.len() <= KEPT_BYTES);
            Fact::Known(short.take(KEPT_VALUES).cloned().collect())
        }
        other => other.clone(),
    };
    let facts = &person.facts;
    let mut cut = Person {
        facts: Facts {
            groups: cut(&facts.groups),
            roles: cut(&facts.roles),
            permissions: cut(&facts.permissions),
            ..facts.clone()
        },
        ..person.clone()
    };
    if serde_json::to_vec(&cut)?.len() > LARGEST {
        // The claims are too large. Without them, the page says that they are unknown.
        let claims = std::mem::take(&mut cut.facts.claims);
        cut.facts.unknown_claims.extend(claims.into_iter().map(|(path, _)| path));
    }
    Ok((cut, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn person(groups: Vec<String>, claim: &str) -> Person {
        Person {
            name: Some("Mallory".to_owned()),
            email: None,
            facts: Facts {
                groups: Fact::Known(groups),
                claims: json!({ "/org": claim }).as_object().unwrap().clone(),
                ..Facts::default()
            },
        }
    }

    #[test]
    fn ad_06_what_is_stored_of_a_person_is_bounded() {
        let size = |person: &Person| serde_json::to_vec(person).unwrap().len();
        let small = person(vec!["staff".to_owned()], "x");
        assert_eq!(within_limit(&small).unwrap(), (small, false));
        let groups = |length: usize| (0..2000).map(|n| format!("{n:0length$}")).collect();
        for large in [
            person(groups(40), "x"),
            person(groups(400), "x"),
            person(vec!["y".repeat(100_000)], "x"),
            person(Vec::new(), &"z".repeat(100_000)),
        ] {
            let (kept, cut) = within_limit(&large).unwrap();
            assert!(cut && size(&kept) <= LARGEST, "{}", size(&kept));
            assert_eq!(kept.name.as_deref(), Some("Mallory"));
        }
    }

    #[test]
    fn a_page_begins_after_a_row() {
        let row = "1700000000 okta:a b https://mcp.example.com/mcp";
        let expected = (1_700_000_000, "okta:a b", "https://mcp.example.com/mcp");
        assert_eq!(after(row), Some(expected));
        assert_eq!(after("x y z"), None);
        assert_eq!(after("1"), None);
    }
}
