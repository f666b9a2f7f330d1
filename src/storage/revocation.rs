//! The one place that ends things.
//!
//! A revocation names its [`RevocationScope`], and [`end`] ends everything in that scope, in the caller's
//! transaction and in the order of the columns. "-" means that nothing of this kind belongs to the scope.
//!
//! | scope | upstream sessions | codes | grants | pending logins | logins awaiting approval | web sessions | remembered consents | attempts to connect a service |
//! |---|---|---|---|---|---|---|---|---|
//! | `Grant` | - | - | the grant | - | - | - | of its person for its client at its MCP server | - |
//! | `SurplusGrant` | - | - | the grant | - | - | - | - | - |
//! | `Connection` | - | of the person for the client at the MCP server | same | - | same | - | same | - |
//! | `ClientGrants` | - | of the client | same | - | same | - | same | - |
//! | `Client` | - | of the client | same | same | same | - | same | - |
//! | `PersonGrants` | - | of the person | same | - | same | - | same | - |
//! | `Person` | of the person | same | same | - | same | same | same | same |
//! | `Session` | the session | that stand on it | same | - | same | same | - | that a web session of it began |
//! | `IssuedBefore` | - | issued before | same | - | same | - | same | - |
//! | `Everything` | - | all | all | all | all | all | all | all |
//!
//! `Everything` is for a database that lacks what happened since. It also breaks all connections of services:
//! one that was removed since would come back, and a refresh token that was rotated since would be used again.
//! Otherwise connections stay: a person who is blocked cannot use them, and finds them again afterwards.
//!
//! A session that ends, or that loses its last grant, is marked, so that its tokens are revoked at the identity
//! provider (`connections/sessions.rs`). `Everything` marks none: those tokens may be old ones.
//!
//! A pending login has no person yet, so only a client or everything ends it. A person who was blocked
//! meanwhile is refused at the callback.
//!
//! Sessions end first, since a login locks its session before it stores a code. Codes end before grants,
//! by `redeemed_at`: a concurrent redemption locks the row, so either it has created its grant by the
//! time that grants end, or it finds the code used. `expires_at` of a code is ignored on purpose: a code
//! that looks expired here would still be redeemed by a replica whose clock is behind.

use super::connections::{BREAK_CONNECTIONS, MARK_SESSIONS, MARK_SESSIONS_OF_GRANTS};
use super::select::BoundValue;
use super::{StorageError, Transaction};
use crate::clock::Timestamp;

/// Selects grants that end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One, by its id.
    One(String),
    /// All of a client.
    Client(String),
    /// All of a person, by `sub`.
    Person(String),
    /// All that were created before this time.
    Before(Timestamp),
    /// All of the clients that are deleted together because nobody has used them since this time.
    Unused(Timestamp),
}

/// Condition on the grants of those clients. It selects the clients as `clients/unused.rs` does, which
/// tests that.
pub(super) const GRANTS_OF_UNUSED: &str = "g.client_id IN
    (SELECT c.id FROM clients c
     WHERE COALESCE(c.last_used_at, 0) < ? AND c.last_registered_at < ?
       AND c.kind IN ('registered', 'document') ORDER BY c.id LIMIT 500)";

impl Selection {
    /// Returns a condition on grants, and the value for each `?`.
    pub(crate) fn condition(&self) -> (&'static str, BoundValue) {
        match self {
            Self::One(id) => ("g.id = ?", id.clone().into()),
            Self::Client(id) => ("g.client_id = ?", id.clone().into()),
            Self::Person(subject) => ("g.subject = ?", subject.clone().into()),
            Self::Before(moment) => ("g.id < ?", first_id(*moment).into()),
            Self::Unused(since) => (GRANTS_OF_UNUSED, since.unix().into()),
        }
    }
}

/// What an action would end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Number of live grants.
    pub grants: u64,
    /// Number of people to whom they belong.
    pub people: u64,
    /// Number of clients that received them.
    pub clients: u64,
    /// Number of logins that wait for an administrator.
    pub waiting: u64,
    /// Number of sessions at our pages.
    pub sessions: u64,
    /// Number of unused clients that are deleted together.
    pub deleted: u64,
    /// Identifies these clients.
    pub(super) unused: String,
    /// Number of connected services that are removed together.
    pub services: u64,
    /// Identifies these services.
    pub(super) services_mark: String,
    /// Id of the newest of the grants. Grants only end, and new ones have higher ids. So the same number
    /// and the same newest id mean the same grants.
    pub(super) latest: String,
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Done. Contains the number of grants that ended.
    Done(u64),
    /// It had been done before.
    Unchanged,
    /// The action would end something else than was counted. Nothing was done.
    Recounted,
}

impl Counted {
    /// Returns a text that identifies the counted grants, clients and services.
    pub fn mark(&self) -> String {
        format!("{} {} {} {}", self.grants, self.latest, self.unused, self.services_mark)
    }
}

/// Returns the lowest id of this second: ids begin with the time in milliseconds.
pub(super) fn first_id(moment: Timestamp) -> String {
    format!("{:012x}", moment.unix().saturating_mul(1000).max(0))
}

/// Selects what ends. See the table of the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum RevocationScope<'a> {
    /// A grant, by its id.
    Grant(&'a str),
    /// A grant beyond the limit of a person. The person is not asked again because of it.
    SurplusGrant(&'a str),
    /// What a person has of a client at an MCP server.
    Connection {
        subject: &'a str,
        client_id: &'a str,
        resource: &'a str,
    },
    /// What a client has received, without the logins that are under way.
    ClientGrants(&'a str),
    /// Everything of a client.
    Client(&'a str),
    /// What clients have received for a person. The person stays signed in.
    PersonGrants(&'a str),
    /// Everything of a person, by our `sub`.
    Person(&'a str),
    /// An upstream session, by its id, with what stands on it.
    Session(&'a str),
    /// What was issued before the row id. Row ids begin with their time.
    IssuedBefore(&'a str),
    Everything,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked {
    /// Upstream sessions that were active.
    pub(super) sessions: u64,
    /// Grants that could still be used. A single grant also counts when it had expired.
    pub(super) grants: u64,
    /// Everything else: codes, logins, web sessions and remembered consents.
    pub(super) others: u64,
}

/// The condition of each table, with the keys of the scope as `$1`, `$2` and `$3`. `None`: nothing of
/// this table belongs to the scope.
struct TableConditions {
    upstream_sessions: Option<&'static str>,
    codes: Option<&'static str>,
    grants: &'static str,
    logins: Option<&'static str>,
    awaiting_approval: Option<&'static str>,
    web_sessions: Option<&'static str>,
    consents: Option<&'static str>,
    attempts: Option<&'static str>,
}

const ALL: &str = "1 = 1";
const OF_CLIENT: &str = "client_id = $1";
const OF_PERSON: &str = "subject = $1";
const OF_SESSION: &str = "session_id = $1";
const OF_CONNECTION: &str = "subject = $1 AND client_id = $2 AND resource = $3";
const BEFORE: &str = "id < $1";
const ATTEMPTS_OF_SESSION: &str = "EXISTS
    (SELECT 1 FROM web_sessions w
     WHERE w.id = connection_attempts.web_session_id AND w.session_id = $1)";
const SESSIONS_OF_PERSON: &str = "EXISTS
    (SELECT 1 FROM people p WHERE p.subject = $1 AND p.issuer = upstream_sessions.issuer
     AND p.upstream_subject = upstream_sessions.subject)";
const CONSENTS_OF_GRANT: &str = "EXISTS
    (SELECT 1 FROM grants g WHERE g.id = $1 AND g.subject = remembered_consents.subject
     AND g.client_id = remembered_consents.client_id
     AND g.resource = remembered_consents.resource)";

impl<'a> RevocationScope<'a> {
    /// Returns the scope of grants that an administrator selected. `first` is the first row id after the
    /// moment of [`Selection::Before`]. `None`: these grants end with their clients only.
    pub(super) fn of_grants(which: &'a Selection, first: &'a str) -> Option<Self> {
        Some(match which {
            Selection::One(id) => Self::Grant(id),
            Selection::Client(id) => Self::ClientGrants(id),
            Selection::Person(subject) => Self::PersonGrants(subject),
            Selection::Before(_) => Self::IssuedBefore(first),
            Selection::Unused(_) => return None,
        })
    }

    /// Returns the keys that the conditions use. Each condition uses all of them.
    fn keys(&self) -> [Option<&'a str>; 3] {
        match *self {
            Self::Connection { subject, client_id, resource } => {
                [Some(subject), Some(client_id), Some(resource)]
            }
            Self::Grant(key)
            | Self::SurplusGrant(key)
            | Self::ClientGrants(key)
            | Self::Client(key)
            | Self::PersonGrants(key)
            | Self::Person(key)
            | Self::Session(key)
            | Self::IssuedBefore(key) => [Some(key), None, None],
            Self::Everything => [None; 3],
        }
    }

    fn is_one_grant(&self) -> bool {
        matches!(self, Self::Grant(_) | Self::SurplusGrant(_))
    }

    fn conditions(&self) -> TableConditions {
        let only = |grants| TableConditions {
            upstream_sessions: None,
            codes: None,
            grants,
            logins: None,
            awaiting_approval: None,
            web_sessions: None,
            consents: None,
            attempts: None,
        };
        let issued = |of| TableConditions {
            codes: Some(of),
            awaiting_approval: Some(of),
            consents: Some(of),
            ..only(of)
        };
        match self {
            Self::Grant(_) => {
                TableConditions { consents: Some(CONSENTS_OF_GRANT), ..only("id = $1") }
            }
            Self::SurplusGrant(_) => only("id = $1"),
            Self::Connection { .. } => issued(OF_CONNECTION),
            Self::ClientGrants(_) => issued(OF_CLIENT),
            Self::Client(_) => TableConditions { logins: Some(OF_CLIENT), ..issued(OF_CLIENT) },
            Self::PersonGrants(_) => issued(OF_PERSON),
            Self::Person(_) => TableConditions {
                upstream_sessions: Some(SESSIONS_OF_PERSON),
                web_sessions: Some(OF_PERSON),
                attempts: Some(OF_PERSON),
                ..issued(OF_PERSON)
            },
            Self::Session(_) => TableConditions {
                upstream_sessions: Some("id = $1"),
                web_sessions: Some(OF_SESSION),
                consents: None,
                attempts: Some(ATTEMPTS_OF_SESSION),
                ..issued(OF_SESSION)
            },
            Self::IssuedBefore(_) => issued(BEFORE),
            Self::Everything => TableConditions {
                logins: Some(ALL),
                web_sessions: Some(ALL),
                attempts: Some(ALL),
                ..issued(ALL)
            },
        }
    }
}

/// Ends everything in `scope`, in the caller's transaction. `reason` is stored with sessions and grants.
pub(super) async fn end(
    step: &mut Transaction,
    scope: RevocationScope<'_>,
    reason: &str,
    now: Timestamp,
) -> Result<Revoked, StorageError> {
    let of = scope.conditions();
    let mut ended = Revoked::default();
    if let Some(condition) = of.upstream_sessions {
        let change = "UPDATE upstream_sessions SET state = 'dead', end_reason = {reason},
                          version = version + 1, lease_owner = NULL, lease_until = NULL
                      WHERE state = 'active'";
        ended.sessions = run(step, &scope, change, condition, (now, reason)).await?;
    }
    if let Some(condition) = of.codes {
        let change = "UPDATE authorization_codes SET redeemed_at = {now} WHERE redeemed_at IS NULL";
        ended.others += run(step, &scope, change, condition, (now, reason)).await?;
    }
    let change = "UPDATE grants SET revoked_at = {now}, end_reason = {reason}
                  WHERE revoked_at IS NULL";
    if scope.is_one_grant() {
        ended.grants = run(step, &scope, change, of.grants, (now, reason)).await?;
    } else {
        // Expired grants end as well, but do not count, because nobody could use them any more.
        for (which, counts) in [("expires_at > {now}", true), ("expires_at <= {now}", false)] {
            let change = format!("{change} AND {which}");
            let rows = run(step, &scope, &change, of.grants, (now, reason)).await?;
            ended.grants += if counts { rows } else { 0 };
        }
    }
    for (change, condition) in [
        ("UPDATE logins SET ended_at = {now} WHERE ended_at IS NULL", of.logins),
        (
            "UPDATE logins_awaiting_approval SET ended_at = {now} WHERE ended_at IS NULL",
            of.awaiting_approval,
        ),
        ("UPDATE web_sessions SET ended_at = {now} WHERE ended_at IS NULL", of.web_sessions),
        ("DELETE FROM remembered_consents WHERE 1 = 1", of.consents),
        ("DELETE FROM connection_attempts WHERE 1 = 1", of.attempts),
    ] {
        if let Some(condition) = condition {
            ended.others += run(step, &scope, change, condition, (now, reason)).await?;
        }
    }
    if matches!(scope, RevocationScope::Everything) {
        run(step, &scope, BREAK_CONNECTIONS, ALL, (now, reason)).await?;
    } else if let Some(condition) = of.upstream_sessions {
        run(step, &scope, MARK_SESSIONS, condition, (now, reason)).await?;
    } else {
        run(step, &scope, MARK_SESSIONS_OF_GRANTS, of.grants, (now, reason)).await?;
    }
    Ok(ended)
}

/// The same, if the grants are still those that were `counted` before. Returns `None` if they are not; the
/// caller must then roll back. Without a count, ends the scope in any case.
pub(super) async fn end_as_counted(
    step: &mut Transaction,
    scope: RevocationScope<'_>,
    reason: &str,
    counted: Option<&Counted>,
    now: Timestamp,
) -> Result<Option<Revoked>, StorageError> {
    let Some(counted) = counted else { return end(step, scope, reason, now).await.map(Some) };
    let (condition, parameter) =
        (scope.conditions().grants, scope.keys().iter().flatten().count() + 1);
    let sql = format!(
        "SELECT MAX(id) FROM grants
         WHERE revoked_at IS NULL AND expires_at > ${parameter} AND {condition}"
    );
    let mut query = sqlx::query_scalar::<_, Option<String>>(sqlx::AssertSqlSafe(sql));
    for key in scope.keys().into_iter().flatten() {
        query = query.bind(key);
    }
    let latest = query.bind(now.unix()).fetch_one(&mut **step).await?;
    if latest.unwrap_or_default() != counted.latest {
        return Ok(None);
    }
    let ended = end(step, scope, reason, now).await?;
    Ok((ended.grants == counted.grants).then_some(ended))
}

/// Runs one statement: `change` with the condition of the scope at `{condition}` or at its end, and with
/// `{now}` and `{reason}` as the parameters after the keys. Returns the number of rows.
async fn run(
    step: &mut Transaction,
    scope: &RevocationScope<'_>,
    change: &str,
    condition: &str,
    (now, reason): (Timestamp, &str),
) -> Result<u64, StorageError> {
    let mut next = scope.keys().iter().flatten().count();
    // A parameter that the statement does not use would be an error of PostgreSQL.
    let (uses_now, uses_reason) = (change.contains("{now}"), change.contains("{reason}"));
    let mut parameter = |used: bool| {
        next += usize::from(used);
        format!("${next}")
    };
    let sql = if change.contains("{condition}") {
        change.replace("{condition}", condition)
    } else {
        format!("{change} AND {condition}")
    };
    let sql =
        sql.replace("{now}", &parameter(uses_now)).replace("{reason}", &parameter(uses_reason));
    // The text has constants of this program only.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for key in scope.keys().into_iter().flatten() {
        query = query.bind(key);
    }
    if uses_now {
        query = query.bind(now.unix());
    }
    if uses_reason {
        query = query.bind(reason);
    }
    Ok(query.execute(&mut **step).await?.rows_affected())
}
