//! People who have signed in: recorded, blocked, signed out. The index to search them is in
//! `search.rs`.

mod list;
mod other_issuer;
mod search;

use super::revocation::{Counted, Ended, RevocationScope, end_as_counted};
use super::upstream_sessions::SessionUpdate;
use super::{Denied, Storage, StorageError, Transaction, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

pub use list::{PersonFilter, PersonRow};

/// Most sessions of each kind in a list: 20.
const LISTED: i64 = 20;

/// A person's session at the identity provider, for lists.
#[derive(Clone, Debug)]
pub struct ProviderSession {
    /// Whether the session is active.
    pub alive: bool,
    pub end_reason: Option<String>,
    /// First login.
    pub created_at: Timestamp,
    /// When the provider last confirmed it.
    pub last_ok_at: Timestamp,
}

/// A person's session at our pages, for lists.
#[derive(Clone, Debug)]
pub struct WebSessionRow {
    /// `admin` or `account`.
    pub realm: String,
    pub began_at: Timestamp,
    /// Last request, to the minute.
    pub seen_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

impl Storage {
    /// Records a login of the person in the caller's transaction. Fails if an administrator has blocked
    /// the person meanwhile.
    pub(super) async fn note_person(
        &self,
        step: &mut Transaction,
        session: &SessionUpdate,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let words = self.words_of(&session.person, &session.subject);
        // Locks the row, so that a concurrent block either waits or is already visible.
        let known = sqlx::query(
            "UPDATE people SET last_seen_at = $2 WHERE subject = $1
             RETURNING blocked_at, words_digest, issuer",
        );
        let known = known.bind(subject).bind(now.unix()).fetch_optional(&mut **step).await?;
        let is_new = known.is_none();
        let row = match known {
            Some(row) => row,
            None => {
                sqlx::query(
                    "INSERT INTO people
                         (subject, issuer, upstream_subject, first_seen_at, last_seen_at,
                          words_digest, upstream)
                     VALUES ($1, $2, $3, $4, $4, $5, $6)
                     ON CONFLICT (subject) DO UPDATE SET last_seen_at = $4
                     RETURNING blocked_at, words_digest, issuer",
                )
                .bind(subject)
                .bind(&session.issuer)
                .bind(&session.subject)
                .bind(now.unix())
                .bind(words.digest())
                .bind(&session.upstream)
                .fetch_one(&mut **step)
                .await?
            }
        };
        if column::<Option<i64>>(&row, "blocked_at")?.is_some() {
            return Err(StorageError::ShutOut(Denied::Person));
        }
        if column::<String>(&row, "issuer")? != session.issuer {
            self.take_over_person(step, session, subject, now).await?;
        }
        if column::<String>(&row, "words_digest")? != words.digest() {
            self.index_again(step, subject, &words).await?;
        } else if is_new {
            self.insert_words(step, subject, &words).await?;
        }
        Ok(())
    }

    /// Loads a person's sessions, newest first: those at the identity provider, and those at our pages.
    pub async fn sessions_of(
        &self,
        person: &PersonRow,
    ) -> Result<(Vec<ProviderSession>, Vec<WebSessionRow>), StorageError> {
        let rows = sqlx::query(
            "SELECT state, end_reason, created_at, last_ok_at FROM upstream_sessions
             WHERE issuer = $1 AND subject = $2 ORDER BY last_ok_at DESC, id LIMIT $3",
        )
        .bind(&person.issuer)
        .bind(&person.upstream_subject)
        .bind(LISTED)
        .fetch_all(self.pool())
        .await?;
        let at_provider = rows
            .iter()
            .map(|row| {
                Ok(ProviderSession {
                    alive: column::<String>(row, "state")? == "active",
                    end_reason: column(row, "end_reason")?,
                    created_at: moment(row, "created_at")?,
                    last_ok_at: moment(row, "last_ok_at")?,
                })
            })
            .collect::<Result<_, StorageError>>()?;
        let rows = sqlx::query(
            "SELECT id, realm, seen_at, expires_at, ended_at FROM web_sessions
             WHERE subject = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(&person.subject)
        .bind(LISTED)
        .fetch_all(self.pool())
        .await?;
        let at_pages = rows
            .iter()
            .map(|row| {
                Ok(WebSessionRow {
                    realm: column(row, "realm")?,
                    began_at: began_at(&column::<String>(row, "id")?),
                    seen_at: moment(row, "seen_at")?,
                    expires_at: moment(row, "expires_at")?,
                    ended_at: moment_if_any(row, "ended_at")?,
                })
            })
            .collect::<Result<_, StorageError>>()?;
        Ok((at_provider, at_pages))
    }

    /// Returns whether an administrator has blocked this person.
    pub async fn is_blocked(&self, subject: &str) -> Result<bool, StorageError> {
        let blocked = sqlx::query("SELECT 1 FROM denied_people WHERE subject = $1");
        Ok(self.read_one(blocked.bind(subject)).await?.is_some())
    }

    /// Blocks a person and ends everything they have. Returns `false` when they were blocked already.
    pub async fn block_person(
        &self,
        subject: &str,
        by: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let ended = self.block_person_as_counted(subject, by, None, now, event).await?;
        Ok(ended != Ended::Unchanged)
    }

    /// Like [`Self::block_person`], but only if it ends exactly the grants in `counted`.
    pub(super) async fn block_person_as_counted(
        &self,
        subject: &str,
        by: &str,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let mut step = self.begin_revocation().await?;
        let blocked = sqlx::query(
            "UPDATE people SET blocked_at = $2, blocked_by = $3
             WHERE subject = $1 AND blocked_at IS NULL",
        )
        .bind(subject)
        .bind(now.unix())
        .bind(by)
        .execute(&mut *step)
        .await?;
        if blocked.rows_affected() == 0 {
            return Ok(Ended::Unchanged);
        }
        let reason = "the person was blocked";
        let scope = RevocationScope::Person(subject);
        let ended = end_as_counted(&mut step, scope, reason, counted, now).await?;
        let Some(ended) = ended else { return Ok(Ended::Recounted) };
        step.record(
            event.named("person_blocked").subject(subject).with("grants_ended", ended.grants),
        )
        .await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended.grants))
    }

    /// Allows a person to sign in again. Returns `false` when they were not blocked.
    pub async fn unblock_person(
        &self,
        subject: &str,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let unblocked = sqlx::query(
            "UPDATE people SET blocked_at = NULL, blocked_by = NULL
             WHERE subject = $1 AND blocked_at IS NOT NULL",
        )
        .bind(subject)
        .execute(&mut *step)
        .await?;
        if unblocked.rows_affected() == 0 {
            return Ok(false);
        }
        step.record(event.named("person_unblocked").subject(subject)).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Ends every grant, upstream session and page session of a person. Returns the number of grants.
    pub async fn sign_out_everywhere(
        &self,
        subject: &str,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        match self.sign_out_as_counted(subject, reason, None, now, event).await? {
            Ended::Done(ended) => Ok(ended),
            Ended::Unchanged | Ended::Recounted => Ok(0),
        }
    }

    /// Like [`Self::sign_out_everywhere`], but only if it ends exactly the grants in `counted`.
    pub async fn sign_out_as_counted(
        &self,
        subject: &str,
        reason: &str,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let mut step = self.begin_revocation().await?;
        let scope = RevocationScope::Person(subject);
        let ended = end_as_counted(&mut step, scope, reason, counted, now).await?;
        let Some(ended) = ended else { return Ok(Ended::Recounted) };
        step.record(
            event.named("person_signed_out").subject(subject).with("grants_ended", ended.grants),
        )
        .await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended.grants))
    }
}

/// Reads the time from an id, which begins with its milliseconds.
fn began_at(id: &str) -> Timestamp {
    let millis = id.get(..12).and_then(|hex| i64::from_str_radix(hex, 16).ok());
    Timestamp::from_unix(millis.unwrap_or_default() / 1000)
}
