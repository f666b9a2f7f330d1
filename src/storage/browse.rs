//! What administrators look through: clients, grants, people, and the numbers of the overview. Lists
//! are read past the writer, a page at a time, each page from an index.

use std::time::Duration;

use sqlx::any::AnyRow;

use super::clients::found_by;
use super::listing::{Listing, key};
use super::standings::read_standing;
use super::upstream_sessions::Person;
use super::{Standing, Step, Storage, StorageError, column, moment, moment_if_any, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::AuditEvent;

/// Which clients are wanted.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// What the name, the host of the redirect URI, or the id begins with.
    pub search: String,
    /// `waiting`, `blocked`, `trusted`, `refused`; anything else: all.
    pub standing: String,
    /// The next page begins after this row.
    pub after: String,
}

/// A client in a list.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// `client_id`.
    pub id: String,
    /// `registered`, `created`, `configured` or `document`.
    pub kind: String,
    /// What it registered, JSON.
    pub metadata: String,
    /// Whether it has a secret.
    pub confidential: bool,
    /// When it first registered.
    pub issued_at: Timestamp,
    /// Last code redeemed or token refreshed.
    pub last_used_at: Option<Timestamp>,
    /// What administrators decided.
    pub standing: Standing,
    /// When they did, if ever.
    pub decided_at: Option<Timestamp>,
}

/// Which grants are wanted; empty texts want all.
#[derive(Clone, Debug, Default)]
pub struct GrantFilter {
    /// Of this client.
    pub client_id: String,
    /// Of this person.
    pub subject: String,
    /// For this MCP server.
    pub resource: String,
    /// Ended ones as well.
    pub ended: bool,
    /// The next page begins after this row.
    pub after: String,
}

/// A grant in a list: person × client × MCP server.
#[derive(Clone, Debug)]
pub struct GrantRow {
    /// Row id.
    pub id: String,
    /// The client.
    pub client_id: String,
    /// What the client registered, JSON; `None` when it is gone.
    pub client_metadata: Option<String>,
    /// The person, by our `sub`.
    pub subject: String,
    /// The person's name and facts.
    pub person: Person,
    /// The MCP server.
    pub resource: String,
    /// Consented scopes.
    pub ceiling: ScopeSet,
    /// Since when.
    pub created_at: Timestamp,
    /// Last refresh.
    pub last_used_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
    /// When and why it was ended.
    pub revoked: Option<(Timestamp, String)>,
}

/// Which people are wanted.
#[derive(Clone, Debug, Default)]
pub struct PersonFilter {
    /// A word of the name, the whole e-mail address, or the whole `sub`.
    pub search: String,
    /// Only blocked ones.
    pub blocked: bool,
    /// The next page begins after this row: last sign-in and `sub`.
    pub after: String,
}

/// A person in a list.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Our `sub`.
    pub subject: String,
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person there.
    pub upstream_subject: String,
    /// First sign-in.
    pub first_seen_at: Timestamp,
    /// Last sign-in.
    pub last_seen_at: Timestamp,
    /// When and by whom blocked.
    pub blocked: Option<(Timestamp, String)>,
    /// What the freshest session knows.
    pub person: Option<Person>,
    /// Grants that are live.
    pub live_grants: i64,
}

/// Which grants end at once.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of a client.
    Client(String),
    /// All of a person.
    Person(String),
    /// All that were given before this moment.
    Before(Timestamp),
}

/// The numbers of the overview.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// People who have ever signed in.
    pub people: i64,
    /// Clients.
    pub clients: i64,
    /// Grants that are live.
    pub live_grants: i64,
    /// Clients that wait for approval.
    pub waiting: i64,
    /// Sign-ins by hour of the last week, hours since the epoch.
    pub logins: Vec<(i64, i64)>,
    /// Refused sign-ins and accesses by hour of the last week.
    pub refusals: Vec<(i64, i64)>,
    /// Bytes of the database.
    pub database_bytes: i64,
}

/// Numbers of the overview that took long.
#[derive(Debug)]
pub(super) struct RememberedOverview {
    numbers: Overview,
    /// [`Storage::grants_ended`] before they were counted.
    before: u64,
    until: tokio::time::Instant,
}

/// Counting that takes longer than this is not done for every visit.
const LONG: Duration = Duration::from_millis(30);
/// Times the time it took.
const FOR_SO_LONG: u32 = 100;
const AT_MOST: Duration = Duration::from_secs(30);

const CLIENT_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            COALESCE(s.approval, 'none') AS approval, COALESCE(s.trusted, 0) AS trusted,
            COALESCE(s.blocked, 0) AS blocked, s.requested_at, s.requested_by, s.changed_at
     FROM clients c LEFT JOIN client_standings s ON s.client_id = c.id";
const DECIDED_COLUMNS: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            s.approval, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at
     FROM client_standings s JOIN clients c ON c.id = s.client_id";
/// The same, walked through from the clients' side: SQLite keeps the order of a CROSS JOIN.
const CLIENTS_DECIDED: &str =
    "SELECT c.id, c.kind, c.metadata, c.secret_hash, c.issued_at, c.last_used_at,
            s.approval, s.trusted, s.blocked, s.requested_at, s.requested_by, s.changed_at
     FROM clients c CROSS JOIN client_standings s";
/// With so few decisions of a kind, all of them are looked through; with more, the search begins with
/// the names and soon finds enough.
const FEW: i64 = 2000;
const GRANT_COLUMNS: &str =
    "SELECT g.id, g.client_id, c.metadata, g.subject, g.session_id, s.person, g.resource,
            g.ceiling, g.created_at, g.last_used_at, g.expires_at, g.revoked_at, g.revoked_because
     FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
     LEFT JOIN clients c ON c.id = g.client_id";
const PERSON_COLUMNS: &str = "SELECT p.subject, p.issuer, p.upstream_subject, p.first_seen_at, p.last_seen_at,
            p.blocked_at, p.blocked_by,
            (SELECT COUNT(*) FROM grants g WHERE g.subject = p.subject AND g.revoked_at IS NULL) AS live
     FROM people p";

impl Storage {
    /// Clients, newest first; those with a standing by the latest decision, those found by name or host
    /// in the order of that.
    pub async fn browse_clients(
        &self,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let standing = standing_wanted(filter);
        if !filter.search.is_empty() {
            return self.search_clients(standing, filter, limit).await;
        }
        let place = after(&filter.after);
        let rows = if let Some(condition) = standing {
            let mut listing = Listing::new(DECIDED_COLUMNS);
            listing.only(condition);
            if let Some((changed_at, id)) = place {
                listing.and("(s.changed_at, s.client_id) < (?", changed_at);
                listing.ends(", ?)", id);
            }
            let order = "ORDER BY s.changed_at DESC, s.client_id DESC";
            listing.fetch(&self.pool, order, limit).await?
        } else {
            let mut listing = Listing::new(CLIENT_COLUMNS);
            if let Some((issued_at, id)) = place {
                listing.and("(c.issued_at, c.id) < (?", issued_at);
                listing.ends(", ?)", id);
            }
            listing.fetch(&self.pool, "ORDER BY c.issued_at DESC, c.id DESC", limit).await?
        };
        rows.iter().map(read_client_row).collect()
    }

    /// Whether there are many clients with this standing; counts no further than it must.
    async fn many_with(&self, condition: &'static str) -> Result<bool, StorageError> {
        let mut listing = Listing::new("SELECT 1 AS one FROM client_standings s");
        listing.only(condition);
        let rows = listing.fetch(&self.pool, "", FEW + 1).await?;
        Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX) > FEW)
    }

    /// By id when it looks like one, else by name, else by host; each answered by an index.
    async fn search_clients(
        &self,
        standing: Option<&'static str>,
        filter: &ClientFilter,
        limit: i64,
    ) -> Result<Vec<ClientRow>, StorageError> {
        let many = match standing {
            Some(condition) => self.many_with(condition).await?,
            None => false,
        };
        let begin = || {
            let Some(condition) = standing else { return Listing::new(CLIENT_COLUMNS) };
            let mut listing = Listing::new(if many { CLIENTS_DECIDED } else { DECIDED_COLUMNS });
            if many {
                listing.only("s.client_id = c.id");
            }
            listing.only(condition);
            listing
        };
        let search = filter.search.trim();
        let mut exact = begin();
        exact.and("c.id = ?", search);
        let rows = exact.fetch(&self.pool, "ORDER BY c.id", 1).await?;
        if !rows.is_empty() {
            return rows.iter().map(read_client_row).collect();
        }
        let (by, after_key) = match filter.after.split_once(' ') {
            Some(("host", id)) => ("host", id),
            Some(("name", id)) => ("name", id),
            _ => ("", ""),
        };
        let wanted = key(search);
        if by != "host" {
            let mut named = begin();
            named.begins("c.name_key >= ?", "c.name_key < ?", &wanted);
            if let Some((name, id)) = after_key.split_once(' ') {
                named.and("(c.name_key, c.id) > (?", name);
                named.ends(", ?)", id);
            }
            let rows = named.fetch(&self.pool, "ORDER BY c.name_key, c.id", limit).await?;
            if !rows.is_empty() || by == "name" {
                return rows.iter().map(read_client_row).collect();
            }
        }
        let mut hosted = begin();
        hosted.begins("c.host_key >= ?", "c.host_key < ?", &wanted);
        if let Some((host, id)) = after_key.split_once(' ') {
            hosted.and("(c.host_key, c.id) > (?", host);
            hosted.ends(", ?)", id);
        }
        let rows = hosted.fetch(&self.pool, "ORDER BY c.host_key, c.id", limit).await?;
        rows.iter().map(read_client_row).collect()
    }

    /// Where the page after this row begins.
    pub fn page_after_client(filter: &ClientFilter, last: &ClientRow) -> String {
        if filter.search.is_empty() {
            let decided = standing_wanted(filter).and(last.decided_at);
            return format!("{} {}", decided.unwrap_or(last.issued_at).unix(), last.id);
        }
        let (name, host) = found_by(&last.metadata);
        if name.starts_with(&key(filter.search.trim())) {
            return format!("name {name} {}", last.id);
        }
        format!("host {host} {}", last.id)
    }

    /// How many clients wait for approval.
    pub async fn clients_waiting(&self) -> Result<i64, StorageError> {
        let waiting = "SELECT COUNT(*) FROM client_standings s JOIN clients c ON c.id = s.client_id
                       WHERE s.approval = 'waiting'";
        Ok(sqlx::query_scalar(waiting).fetch_one(&self.pool).await?)
    }

    /// One client as administrators see it.
    pub async fn client_row(&self, id: &str) -> Result<Option<ClientRow>, StorageError> {
        let mut listing = Listing::new(CLIENT_COLUMNS);
        listing.and("c.id = ?", id);
        let rows = listing.fetch(&self.pool, "", 1).await?;
        rows.first().map(read_client_row).transpose()
    }

    /// Deletes a client with everything that was given to it; `false` when it was gone.
    pub async fn delete_client(
        &self,
        id: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let ended =
            super::standings::end_all_of_client(&mut step, id, "the client was deleted", now)
                .await?;
        for statement in [
            "DELETE FROM remembered_consents WHERE client_id = $1",
            "DELETE FROM client_standings WHERE client_id = $1",
        ] {
            sqlx::query(statement).bind(id).execute(&mut *step).await?;
        }
        let deleted =
            sqlx::query("DELETE FROM clients WHERE id = $1").bind(id).execute(&mut *step).await?;
        super::sweep::count_clients(&mut step).await?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        step.record(event.named("client_deleted").client(id).with("grants_ended", ended)).await?;
        step.commit().await?;
        self.tell_grants_ended();
        Ok(true)
    }

    /// Grants, newest first.
    pub async fn browse_grants(
        &self,
        filter: &GrantFilter,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<GrantRow>, StorageError> {
        let mut listing = Listing::new(GRANT_COLUMNS);
        for (condition, value) in [
            ("g.client_id = ?", &filter.client_id),
            ("g.subject = ?", &filter.subject),
            ("g.resource = ?", &filter.resource),
            ("g.id < ?", &filter.after),
        ] {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        if !filter.ended {
            listing.only("g.revoked_at IS NULL").and("g.expires_at > ?", now.unix());
        }
        let rows = listing.fetch(&self.pool, "ORDER BY g.id DESC", limit).await?;
        rows.iter().map(|row| self.read_grant_row(row)).collect()
    }

    /// One grant.
    pub async fn grant_row(&self, id: &str) -> Result<Option<GrantRow>, StorageError> {
        let mut listing = Listing::new(GRANT_COLUMNS);
        listing.and("g.id = ?", id);
        let rows = listing.fetch(&self.pool, "", 1).await?;
        rows.first().map(|row| self.read_grant_row(row)).transpose()
    }

    fn read_grant_row(&self, row: &AnyRow) -> Result<GrantRow, StorageError> {
        let session_id: String = column(row, "session_id")?;
        let sealed: String = column(row, "person")?;
        let because: Option<String> = column(row, "revoked_because")?;
        Ok(GrantRow {
            id: column(row, "id")?,
            client_id: column(row, "client_id")?,
            client_metadata: column(row, "metadata")?,
            subject: column(row, "subject")?,
            person: self.open_json("upstream_sessions.person", &session_id, &sealed)?,
            resource: column(row, "resource")?,
            ceiling: scopes(row, "ceiling")?,
            created_at: moment(row, "created_at")?,
            last_used_at: moment(row, "last_used_at")?,
            expires_at: moment(row, "expires_at")?,
            revoked: moment_if_any(row, "revoked_at")?.map(|at| (at, because.unwrap_or_default())),
        })
    }

    /// Ends many grants in one step; answers how many.
    pub async fn revoke_grants(
        &self,
        which: &Selection,
        because: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin().await?;
        let ended = match which {
            Selection::Client(id) => {
                forget_where(&mut step, "client_id = $1", id).await?;
                end_where(&mut step, "client_id = $3", id, because, now).await?
            }
            Selection::Person(subject) => {
                forget_where(&mut step, "subject = $1", subject).await?;
                end_where(&mut step, "subject = $3", subject, because, now).await?
            }
            // Ids begin with their milliseconds.
            Selection::Before(moment) => {
                let first = format!("{:012x}", moment.unix().saturating_mul(1000).max(0));
                forget_where(&mut step, "id < $1", &first).await?;
                end_where(&mut step, "id < $3", &first, because, now).await?
            }
        };
        let event = match which {
            Selection::Client(id) => event.client(id),
            Selection::Person(subject) => event.subject(subject),
            Selection::Before(moment) => event.with("before", moment.unix()),
        };
        step.record(event.named("grants_revoked").with("because", because).with("ended", ended))
            .await?;
        step.commit().await?;
        self.tell_grants_ended();
        Ok(ended)
    }

    /// People, last sign-in first.
    pub async fn browse_people(
        &self,
        filter: &PersonFilter,
        limit: i64,
    ) -> Result<Vec<PersonRow>, StorageError> {
        let search = filter.search.trim();
        let mut listing = Listing::new(PERSON_COLUMNS);
        if !search.is_empty() {
            listing.and(
                "(p.subject IN (SELECT w.subject FROM people_words w WHERE w.word = ?)",
                self.word(search),
            );
            listing.ends(" OR p.subject = ?)", search);
        }
        if filter.blocked {
            listing.only("p.blocked_at IS NOT NULL");
        }
        if let Some((seen, subject)) = after(&filter.after) {
            listing.and("(p.last_seen_at, p.subject) < (?", seen);
            listing.ends(", ?)", subject);
        }
        let rows = listing
            .fetch(&self.pool, "ORDER BY p.last_seen_at DESC, p.subject DESC", limit)
            .await?;
        let mut people = Vec::with_capacity(rows.len());
        for row in &rows {
            people.push(self.read_person_row(row).await?);
        }
        Ok(people)
    }

    /// One person.
    pub async fn person_row(&self, subject: &str) -> Result<Option<PersonRow>, StorageError> {
        let mut listing = Listing::new(PERSON_COLUMNS);
        listing.and("p.subject = ?", subject);
        let rows = listing.fetch(&self.pool, "", 1).await?;
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

    /// The numbers of the overview. Numbers that took long to count are remembered for a while, or
    /// until grants end.
    pub async fn overview(&self, now: Timestamp) -> Result<Overview, StorageError> {
        let before = *self.grants_ended.borrow();
        let mut remembered = self.remembered_overview.lock().await;
        if let Some(known) = remembered.as_ref()
            && known.before == before
            && tokio::time::Instant::now() < known.until
        {
            return Ok(known.numbers.clone());
        }
        let begun = tokio::time::Instant::now();
        let numbers = self.count_overview(now).await?;
        let took = begun.elapsed();
        *remembered = (took > LONG).then(|| RememberedOverview {
            numbers: numbers.clone(),
            before,
            until: begun + took.saturating_mul(FOR_SO_LONG).min(AT_MOST),
        });
        Ok(numbers)
    }

    async fn count_overview(&self, now: Timestamp) -> Result<Overview, StorageError> {
        let count = async |sql: &'static str| -> Result<i64, StorageError> {
            Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
        };
        let live_grants = sqlx::query_scalar(
            "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL AND expires_at > $1",
        )
        .bind(now.unix())
        .fetch_one(&self.pool)
        .await?;
        let database_bytes = match self.engine {
            super::Engine::Sqlite => {
                count("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
                    .await?
            }
            super::Engine::Postgres => count("SELECT pg_database_size(current_database())").await?,
        };
        Ok(Overview {
            people: count("SELECT COUNT(*) FROM people").await?,
            clients: count("SELECT COUNT(*) FROM clients").await?,
            waiting: self.clients_waiting().await?,
            live_grants,
            logins: self.by_hour(&["code_issued"], now).await?,
            refusals: self
                .by_hour(
                    &[
                        "access_denied",
                        "access_lost",
                        "login_refused_by_provider",
                        "login_untrusted",
                        "login_failed",
                        "person_is_blocked",
                    ],
                    now,
                )
                .await?,
            database_bytes,
        })
    }

    async fn by_hour(
        &self,
        events: &[&'static str],
        now: Timestamp,
    ) -> Result<Vec<(i64, i64)>, StorageError> {
        // Ids begin with their milliseconds.
        let week = now.minus(Duration::from_hours(7 * 24)).unix().saturating_mul(1000).max(0);
        let week = format!("{week:012x}");
        let mut hours: std::collections::BTreeMap<i64, i64> = std::collections::BTreeMap::new();
        for event in events {
            let rows = sqlx::query(
                "SELECT at / 3600000 AS hour, COUNT(*) AS n FROM audit_events
                 WHERE event = $1 AND id >= $2 GROUP BY at / 3600000",
            )
            .bind(*event)
            .bind(&week)
            .fetch_all(&self.pool)
            .await?;
            for row in &rows {
                *hours.entry(column(row, "hour")?).or_default() += column::<i64>(row, "n")?;
            }
        }
        Ok(hours.into_iter().collect())
    }
}

async fn end_where(
    step: &mut Step,
    condition: &'static str,
    value: &str,
    because: &str,
    now: Timestamp,
) -> Result<u64, StorageError> {
    let sql = format!(
        "UPDATE grants SET revoked_at = $1, revoked_because = $2
         WHERE {condition} AND revoked_at IS NULL"
    );
    let ended = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(now.unix())
        .bind(because)
        .bind(value)
        .execute(&mut **step)
        .await?;
    Ok(ended.rows_affected())
}

/// Whoever's connections end is asked before they come back.
async fn forget_where(
    step: &mut Step,
    condition: &'static str,
    value: &str,
) -> Result<(), StorageError> {
    let sql = format!("DELETE FROM remembered_consents WHERE {condition}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).execute(&mut **step).await?;
    Ok(())
}

/// The condition of a list of clients with a standing.
fn standing_wanted(filter: &ClientFilter) -> Option<&'static str> {
    Some(match filter.standing.as_str() {
        "waiting" => "s.approval = 'waiting'",
        "refused" => "s.approval = 'refused'",
        "blocked" => "s.blocked = 1",
        "trusted" => "s.trusted = 1",
        _ => return None,
    })
}

/// `seconds key` of a page's beginning.
fn after(text: &str) -> Option<(i64, &str)> {
    let (seconds, key) = text.split_once(' ')?;
    Some((seconds.parse().ok()?, key))
}

fn read_client_row(row: &AnyRow) -> Result<ClientRow, StorageError> {
    Ok(ClientRow {
        id: column(row, "id")?,
        kind: column(row, "kind")?,
        metadata: column(row, "metadata")?,
        confidential: column::<Option<String>>(row, "secret_hash")?.is_some(),
        issued_at: moment(row, "issued_at")?,
        last_used_at: moment_if_any(row, "last_used_at")?,
        standing: read_standing(row)?,
        decided_at: moment_if_any(row, "changed_at")?,
    })
}
