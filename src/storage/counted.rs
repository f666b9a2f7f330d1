//! Actions of administrators that end several things at once: they are counted first, and carried out
//! only if the count is still what the administrator saw.

use super::revocation::{Counted, Ended, Selection};
use super::select::SelectBuilder;
use super::{ClientDecision, ReviewDecision, Storage, StorageError, column};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

const WAITING: &str = "SELECT COUNT(*) AS number FROM logins_awaiting_approval";
const SESSIONS: &str = "SELECT COUNT(*) AS number FROM web_sessions";
const OF_CLIENT: &str = "client_id = ?";
const OF_PERSON: &str = "subject = ?";

/// An action that ends several things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Ends grants, with the codes, waiting logins and remembered consents that belong to them.
    Grants(Selection),
    /// Ends every grant and session of a person.
    SignOut(String),
    /// Like [`Self::SignOut`], and blocks new logins until the person is unblocked.
    BlockPerson(String),
    /// Ends everything of a client, and blocks it.
    BlockClient(String),
    /// Ends everything of a client that waits for approval, and rejects it.
    RefuseClient(String),
    /// Ends everything of a client, and deletes it.
    DeleteClient(String),
    /// Deletes the clients that nobody has used since this time, as many as one transaction takes.
    DeleteUnused(Timestamp),
}

impl Ending {
    /// Returns the grants that the action ends.
    pub fn selection(&self) -> Selection {
        match self {
            Self::Grants(which) => which.clone(),
            Self::SignOut(subject) | Self::BlockPerson(subject) => {
                Selection::Person(subject.clone())
            }
            Self::BlockClient(id) | Self::RefuseClient(id) | Self::DeleteClient(id) => {
                Selection::Client(id.clone())
            }
            Self::DeleteUnused(since) => Selection::Unused(*since),
        }
    }

    /// Returns the name of its audit event.
    pub const fn event(&self) -> &'static str {
        match self {
            Self::Grants(Selection::One(_)) => "grant_revoked",
            Self::Grants(_) => "grants_revoked",
            Self::SignOut(_) => "person_signed_out",
            Self::BlockPerson(_) => "person_blocked",
            Self::BlockClient(_) => ReviewDecision::Block.event(),
            Self::RefuseClient(_) => ReviewDecision::Refuse.event(),
            Self::DeleteClient(_) | Self::DeleteUnused(_) => "client_deleted",
        }
    }
}

impl Storage {
    /// Counts what an action would end now.
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
        let rows = listing.fetch(self.pool(), "", 1).await?;
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
            (_, Selection::One(_) | Selection::Before(_) | Selection::Unused(_)) => (0, 0),
        };
        let (deleted, unused) = match ending {
            Ending::DeleteUnused(since) => {
                let unused = self.unused_clients(*since).await?;
                (unused.number(), unused.mark())
            }
            _ => (0, String::new()),
        };
        Ok(Counted {
            grants: number(column(row, "number")?),
            people: number(column(row, "people")?),
            clients: number(column(row, "clients")?),
            latest: column::<Option<String>>(row, "latest")?.unwrap_or_default(),
            waiting,
            sessions,
            deleted,
            unused,
            ..Counted::default()
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
        let rows = listing.fetch(self.pool(), "", 1).await?;
        let number = rows.first().map(|row| column::<i64>(row, "number")).transpose()?;
        Ok(u64::try_from(number.unwrap_or(0)).unwrap_or(0))
    }

    /// Carries out an action if it still ends what was `counted`. Without a count, carries it out in any
    /// case.
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
                let reason = "ended by an administrator";
                self.revoke_grants_as_counted(which, reason, counted, now, event).await
            }
            Ending::SignOut(subject) => {
                let reason = "signed out by an administrator";
                self.sign_out_as_counted(subject, reason, counted, now, event).await
            }
            Ending::BlockPerson(subject) => {
                self.block_person_as_counted(subject, by, counted, now, event).await
            }
            Ending::BlockClient(id) => {
                let decision = ClientDecision::new(id, ReviewDecision::Block, by);
                self.decide_client_as_counted(decision, counted, now, event).await
            }
            Ending::RefuseClient(id) => {
                let decision = ClientDecision::new(id, ReviewDecision::Refuse, by);
                self.decide_client_as_counted(decision, counted, now, event).await
            }
            Ending::DeleteClient(id) => {
                self.delete_client_as_counted(id, counted, now, event).await
            }
            Ending::DeleteUnused(since) => {
                self.delete_unused_as_counted(*since, counted, now, event).await
            }
        }
    }
}
