//! Acts of administrators that end more than one thing: counted first, and done only while the count is what
//! was looked at.

use super::select::SelectBuilder;
use super::{ReviewDecision, Selection, Storage, StorageError, Transaction, column};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

const WAITING: &str = "SELECT COUNT(*) AS number FROM held_logins";
const SESSIONS: &str = "SELECT COUNT(*) AS number FROM console_sessions";
const OF_CLIENT: &str = "client_id = ?";
const OF_PERSON: &str = "subject = ?";

/// An act that ends more than one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Ends grants, and nothing else.
    Grants(Selection),
    /// Ends every grant and session of a person.
    SignOut(String),
    /// The same, and no sign-in until they are unblocked.
    BlockPerson(String),
    /// Ends what a client has, and lets nobody connect it.
    BlockClient(String),
    /// The same, for a client that waits for approval.
    RefuseClient(String),
    /// Ends what a client has, and removes it.
    DeleteClient(String),
}

/// What an act would end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Live grants.
    pub grants: u64,
    /// Whose they are.
    pub people: u64,
    /// What they were given to.
    pub clients: u64,
    /// Sign-ins that wait for an administrator.
    pub waiting: u64,
    /// Sessions at the pages.
    pub sessions: u64,
    /// The latest of the grants. Grants only end, and new ones are later than all: the same number and the
    /// same latest one are the same grants.
    latest: String,
}

/// What became of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Done; so many grants have ended.
    Done(u64),
    /// It had been done before.
    Unchanged,
    /// What it would end is no longer what was counted; nothing was done.
    Recounted,
}

impl Ending {
    /// The grants that it ends.
    pub fn selection(&self) -> Selection {
        match self {
            Self::Grants(which) => which.clone(),
            Self::SignOut(subject) | Self::BlockPerson(subject) => {
                Selection::Person(subject.clone())
            }
            Self::BlockClient(id) | Self::RefuseClient(id) | Self::DeleteClient(id) => {
                Selection::Client(id.clone())
            }
        }
    }

    /// The audit event that tells of it.
    pub const fn event(&self) -> &'static str {
        match self {
            Self::Grants(_) => "grants_revoked",
            Self::SignOut(_) => "person_signed_out",
            Self::BlockPerson(_) => "person_blocked",
            Self::BlockClient(_) => ReviewDecision::Block.event(),
            Self::RefuseClient(_) => ReviewDecision::Refuse.event(),
            Self::DeleteClient(_) => "client_deleted",
        }
    }
}

impl Counted {
    /// What stands for the grants that were counted.
    pub fn mark(&self) -> String {
        format!("{} {}", self.grants, self.latest)
    }
}

impl Storage {
    /// Counts what an act would end now.
    pub async fn count_ending(
        &self,
        ending: &Ending,
        now: Timestamp,
    ) -> Result<Counted, StorageError> {
        let which = ending.selection();
        let mut listing = SelectBuilder::new(
            "SELECT COUNT(*) AS number, COUNT(DISTINCT g.subject) AS people,
                    COUNT(DISTINCT g.client_id) AS clients, MAX(g.id) AS latest FROM grants g",
        );
        let (condition, value) = which.condition();
        listing.and(condition, value).only("g.revoked_at IS NULL");
        listing.and("g.expires_at > ?", now.unix());
        let rows = listing.fetch(&self.pool, "", 1).await?;
        let row = rows.first().ok_or_else(|| StorageError::Corrupt("no count".to_owned()))?;
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        let (waiting, sessions) = match (ending, which) {
            (_, Selection::Client(id)) => (self.count_live(WAITING, OF_CLIENT, &id, now).await?, 0),
            (Ending::Grants(_), Selection::Person(subject)) => {
                (self.count_live(WAITING, OF_PERSON, &subject, now).await?, 0)
            }
            (_, Selection::Person(subject)) => (
                self.count_live(WAITING, OF_PERSON, &subject, now).await?,
                self.count_live(SESSIONS, OF_PERSON, &subject, now).await?,
            ),
            (_, Selection::Before(_)) => (0, 0),
        };
        Ok(Counted {
            grants: number(column(row, "number")?),
            people: number(column(row, "people")?),
            clients: number(column(row, "clients")?),
            latest: column::<Option<String>>(row, "latest")?.unwrap_or_default(),
            waiting,
            sessions,
        })
    }

    async fn count_live(
        &self,
        table: &'static str,
        of: &'static str,
        value: &str,
        now: Timestamp,
    ) -> Result<u64, StorageError> {
        let mut listing = SelectBuilder::new(table);
        listing.and(of, value).and("ended_at IS NULL AND expires_at > ?", now.unix());
        let rows = listing.fetch(&self.pool, "", 1).await?;
        let number = rows.first().map(|row| column::<i64>(row, "number")).transpose()?;
        Ok(u64::try_from(number.unwrap_or(0)).unwrap_or(0))
    }

    /// Carries an act out, if it still ends what was `counted`; without a count, whatever it ends.
    pub async fn apply_counted(
        &self,
        ending: &Ending,
        counted: Option<&Counted>,
        by: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        match ending {
            Ending::Grants(which) => {
                let because = "ended by an administrator";
                self.revoke_grants_as_counted(which, because, counted, now, event).await
            }
            Ending::SignOut(subject) => {
                let because = "signed out by an administrator";
                self.sign_out_as_counted(subject, because, counted, now, event).await
            }
            Ending::BlockPerson(subject) => {
                self.block_person_as_counted(subject, by, counted, now, event).await
            }
            Ending::BlockClient(id) => {
                let decision = (ReviewDecision::Block, by);
                self.decide_client_as_counted(id, decision, counted, now, event).await
            }
            Ending::RefuseClient(id) => {
                let decision = (ReviewDecision::Refuse, by);
                self.decide_client_as_counted(id, decision, counted, now, event).await
            }
            Ending::DeleteClient(id) => {
                self.delete_client_as_counted(id, counted, now, event).await
            }
        }
    }
}

/// Ends the grants of a selection in the caller's step; answers how many were live. `None`: they are no
/// longer those that were counted, and the caller must let the step go.
pub(super) async fn end_grants(
    step: &mut Transaction,
    which: &Selection,
    because: &str,
    counted: Option<&Counted>,
    now: Timestamp,
) -> Result<Option<u64>, StorageError> {
    let (condition, value) = which.condition();
    let condition = condition.replace("g.", "").replace('?', "$3");
    if let Some(counted) = counted {
        let sql = format!(
            "SELECT MAX(id) FROM grants
             WHERE {} AND revoked_at IS NULL AND expires_at > $2",
            condition.replace("$3", "$1")
        );
        let latest: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(&value)
            .bind(now.unix())
            .fetch_one(&mut **step)
            .await?;
        if latest.unwrap_or_default() != counted.latest {
            return Ok(None);
        }
    }
    let mut ended = 0;
    // Those that have expired were not counted: they were no longer of use.
    for (state, counts) in [("expires_at > $1", true), ("expires_at <= $1", false)] {
        let sql = format!(
            "UPDATE grants SET revoked_at = $1, revoked_because = $2
             WHERE {condition} AND revoked_at IS NULL AND {state}"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(now.unix())
            .bind(because)
            .bind(&value)
            .execute(&mut **step)
            .await?
            .rows_affected();
        ended += if counts { rows } else { 0 };
    }
    let as_counted = counted.is_none_or(|counted| counted.grants == ended);
    Ok(as_counted.then_some(ended))
}
