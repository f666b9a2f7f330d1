//! Sessions of people at the identity provider: their facts, their tokens, and who may ask again.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::authorization_codes::{CodesOf, end_codes};
use super::{Storage, StorageError, Transaction, column, moment};
use crate::clock::Timestamp;
use crate::policy::{FactSet, Facts};
use crate::telemetry::audit::AuditEvent;

/// What is known of a person: shown to MCP servers, read by rules. Rests sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Display name, where the provider tells one.
    pub name: Option<String>,
    /// E-mail address, where the provider tells one. Never an identity.
    pub email: Option<String>,
    /// What rules read.
    pub facts: Facts,
}

/// Tokens of the identity provider. They never leave us except towards that provider. Rest sealed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTokens {
    /// Access token.
    pub access_token: String,
    /// Refresh token; without one the session cannot be asked about again.
    pub refresh_token: Option<String>,
    /// The ID token as last received.
    pub id_token: Option<String>,
    /// The nonce of the login: an ID token at refresh that carries a nonce must repeat it.
    pub nonce: Option<String>,
}

impl fmt::Debug for UpstreamTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamTokens")
    }
}

/// A session as a login or a refresh leaves it.
#[derive(Clone, Debug)]
pub struct SessionUpdate {
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person, at that issuer.
    pub subject: String,
    /// The claim `sub`, where messages of the provider may name the person by another name than ours.
    pub claim_sub: Option<String>,
    /// Its session id, when it names one.
    pub sid: Option<String>,
    /// How many sign-outs there had been when the login began; see `sign_outs.rs`.
    pub sign_outs_before: i64,
    /// What is known of the person.
    pub person: Person,
    /// Its tokens.
    pub tokens: UpstreamTokens,
}

/// A session as stored.
#[derive(Clone, Debug)]
pub struct UpstreamSession {
    /// Row id: a hash of issuer, subject and sid.
    pub id: String,
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person, at that issuer.
    pub subject: String,
    /// Whether the provider still vouches for the session.
    pub alive: bool,
    /// What is known of the person.
    pub person: Person,
    /// Its tokens.
    pub tokens: UpstreamTokens,
    /// Grows with every change of tokens.
    pub version: i64,
    /// The last definite yes of the provider.
    pub last_ok_at: Timestamp,
    /// When everything that rules may read was last read, and not taken over from an earlier answer.
    pub facts_read_at: Timestamp,
    /// What is taken over from an earlier answer.
    pub taken_over: FactSet,
}

/// How fresh an answer of the identity provider is.
#[derive(Clone, Copy, Debug)]
pub struct Renewed {
    /// When it said yes.
    pub last_ok: Timestamp,
    /// When everything that rules may read was read.
    pub facts_read: Timestamp,
    /// What was not, and is as an earlier answer told it.
    pub taken_over: FactSet,
}

impl Renewed {
    /// The answer says nothing new.
    pub fn as_before(session: &UpstreamSession) -> Self {
        Self {
            last_ok: session.last_ok_at,
            facts_read: session.facts_read_at,
            taken_over: session.taken_over,
        }
    }
}

/// Whether this caller may ask the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Ask, and store the answer under this lease.
    Won,
    /// Another process is asking.
    Taken,
}

/// The row id of a session.
pub fn session_id(issuer: &str, subject: &str, sid: Option<&str>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [issuer, subject, sid.unwrap_or("-")] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

impl Storage {
    /// Stores the session of a fresh login in the caller's step: the newest tokens win, a dead
    /// session lives again, and a refresh that is under way will find its version outdated. `subject` is
    /// our `sub` for the person.
    pub(super) async fn put_session(
        &self,
        step: &mut Transaction,
        update: &SessionUpdate,
        subject: &str,
        now: Timestamp,
    ) -> Result<String, StorageError> {
        let id = session_id(&update.issuer, &update.subject, update.sid.as_deref());
        // The person first, as a block does: the rows are locked in one order everywhere.
        self.note_person(step, update, subject, now).await?;
        self.refuse_signed_out(step, update, now).await?;
        let mut tokens = update.tokens.clone();
        if tokens.refresh_token.is_none() {
            // Google and others hand one out at the first login only: the one at hand is still good.
            tokens.refresh_token = self.refresh_token_of(step, &id).await?;
        }
        let dead: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM upstream_sessions WHERE id = $1 AND state <> 'active'",
        )
        .bind(&id)
        .fetch_optional(&mut **step)
        .await?;
        if dead.is_some() {
            end_what_stood_on(step, &id, subject, now).await?;
        }
        sqlx::query(
            "INSERT INTO upstream_sessions
                 (id, issuer, subject, sid, state, person, tokens, version, last_ok_at, created_at,
                  facts_read_at, claim_sub)
             VALUES ($1, $2, $3, $4, 'active', $5, $6, 1, $7, $7, $7, $8)
             ON CONFLICT (id) DO UPDATE SET
                 state = 'active', ended_because = NULL, person = $5, tokens = $6,
                 version = upstream_sessions.version + 1, lease_owner = NULL, lease_until = NULL,
                 last_ok_at = $7, facts_read_at = $7, claim_sub = $8, taken_over = ''",
        )
        .bind(&id)
        .bind(&update.issuer)
        .bind(&update.subject)
        .bind(update.sid.as_deref().unwrap_or("-"))
        .bind(self.seal_json("upstream_sessions.person", &id, &update.person)?)
        .bind(self.seal_json("upstream_sessions.tokens", &id, &tokens)?)
        .bind(now.unix())
        .bind(&update.claim_sub)
        .execute(&mut **step)
        .await?;
        Ok(id)
    }

    /// What was last known of a person, from whichever of their sessions is the freshest.
    pub async fn latest_person(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<Person>, StorageError> {
        let query = sqlx::query(
            "SELECT id, person FROM upstream_sessions WHERE issuer = $1 AND subject = $2
             ORDER BY last_ok_at DESC LIMIT 1",
        )
        .bind(issuer)
        .bind(subject);
        let row = self.read_one(query).await?;
        let Some(row) = row else { return Ok(None) };
        let id: String = column(&row, "id")?;
        self.open_json("upstream_sessions.person", &id, &column::<String>(&row, "person")?)
            .map(Some)
    }

    async fn refresh_token_of(
        &self,
        step: &mut Transaction,
        id: &str,
    ) -> Result<Option<String>, StorageError> {
        let sealed: Option<String> = sqlx::query_scalar(
            "SELECT tokens FROM upstream_sessions WHERE id = $1 AND state = 'active'",
        )
        .bind(id)
        .fetch_optional(&mut **step)
        .await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let tokens: UpstreamTokens = self.open_json("upstream_sessions.tokens", id, &sealed)?;
        Ok(tokens.refresh_token)
    }

    /// The session with this id.
    pub async fn upstream_session(
        &self,
        id: &str,
    ) -> Result<Option<UpstreamSession>, StorageError> {
        let query = sqlx::query(
            "SELECT id, issuer, subject, state, person, tokens, version, last_ok_at, facts_read_at,
                    taken_over
             FROM upstream_sessions WHERE id = $1",
        )
        .bind(id);
        let row = self.read_one(query).await?;
        row.as_ref().map(|row| self.read_session(row)).transpose()
    }

    fn read_session(&self, row: &AnyRow) -> Result<UpstreamSession, StorageError> {
        let id: String = column(row, "id")?;
        let (person, tokens): (String, String) = (column(row, "person")?, column(row, "tokens")?);
        Ok(UpstreamSession {
            issuer: column(row, "issuer")?,
            subject: column(row, "subject")?,
            alive: column::<String>(row, "state")? == "active",
            person: self.open_json("upstream_sessions.person", &id, &person)?,
            tokens: self.open_json("upstream_sessions.tokens", &id, &tokens)?,
            version: column(row, "version")?,
            last_ok_at: moment(row, "last_ok_at")?,
            facts_read_at: moment(row, "facts_read_at")?,
            taken_over: FactSet::parse(&column::<String>(row, "taken_over")?),
            id,
        })
    }

    /// Takes the right to ask the identity provider about this version of the session, for `lease`.
    pub async fn lease_session(
        &self,
        session: &UpstreamSession,
        owner: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Lease, StorageError> {
        let mut step = self.begin().await?;
        let won = sqlx::query(
            "UPDATE upstream_sessions SET lease_owner = $3, lease_until = $4
             WHERE id = $1 AND version = $2
               AND (lease_until IS NULL OR lease_until <= $5 OR lease_until > $6)",
        )
        .bind(&session.id)
        .bind(session.version)
        .bind(owner)
        .bind(now.plus(lease).unix())
        .bind(now.unix())
        // Nobody leases for so long: the clock went back, and the holder is long gone.
        .bind(now.plus(lease * 4).unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(if won.rows_affected() == 1 { Lease::Won } else { Lease::Taken })
    }

    /// Stores what the identity provider answered; `false` when a newer login came in between,
    /// whose tokens are then kept.
    pub async fn renew_session(
        &self,
        session: &UpstreamSession,
        owner: &str,
        person: &Person,
        tokens: &UpstreamTokens,
        at: Renewed,
    ) -> Result<bool, StorageError> {
        let person = self.seal_json("upstream_sessions.person", &session.id, person)?;
        let tokens = self.seal_json("upstream_sessions.tokens", &session.id, tokens)?;
        let mut step = self.begin().await?;
        let renewed = sqlx::query(
            "UPDATE upstream_sessions
             SET person = $4, tokens = $5, last_ok_at = $6, facts_read_at = $7, taken_over = $8,
                 version = version + 1,
                 lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND version = $2 AND lease_owner = $3",
        )
        .bind(&session.id)
        .bind(session.version)
        .bind(owner)
        .bind(person)
        .bind(tokens)
        .bind(at.last_ok.unix())
        .bind(at.facts_read.unix())
        .bind(at.taken_over.to_string())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Stores tokens under the lease as soon as they are there, before anything else is asked: a
    /// rotated token that is lost logs a person out. `false` when a newer login came in between;
    /// otherwise the session's version has grown by one.
    pub async fn store_tokens(
        &self,
        session: &UpstreamSession,
        owner: &str,
        tokens: &UpstreamTokens,
    ) -> Result<bool, StorageError> {
        let tokens = self.seal_json("upstream_sessions.tokens", &session.id, tokens)?;
        let mut step = self.begin().await?;
        let stored = sqlx::query(
            "UPDATE upstream_sessions SET tokens = $4, version = version + 1
             WHERE id = $1 AND version = $2 AND lease_owner = $3",
        )
        .bind(&session.id)
        .bind(session.version)
        .bind(owner)
        .bind(tokens)
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(stored.rows_affected() == 1)
    }

    /// Makes the lease last until `until`; `false` when it is no longer `owner`'s.
    pub async fn extend_lease(
        &self,
        session_id: &str,
        owner: &str,
        until: Timestamp,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let extended = sqlx::query(
            "UPDATE upstream_sessions SET lease_until = $3 WHERE id = $1 AND lease_owner = $2",
        )
        .bind(session_id)
        .bind(owner)
        .bind(until.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(extended.rows_affected() == 1)
    }

    /// Ends all leases: whoever held one was a process before this one, and is gone.
    pub(super) async fn free_leases(&self) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "UPDATE upstream_sessions SET lease_owner = NULL, lease_until = NULL
             WHERE lease_owner IS NOT NULL",
        )
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// Gives the lease back after an answer that settled nothing.
    pub async fn release_session(
        &self,
        session: &UpstreamSession,
        owner: &str,
    ) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "UPDATE upstream_sessions SET lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND lease_owner = $2",
        )
        .bind(&session.id)
        .bind(owner)
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// Ends the session and every grant and code that came from it; `false` when a newer login came in
    /// between, which the refusal was not about.
    pub async fn end_session(
        &self,
        session: &UpstreamSession,
        because: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin_revocation().await?;
        let ended = sqlx::query(
            "UPDATE upstream_sessions
             SET state = 'dead', ended_because = $3, lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND version = $2",
        )
        .bind(&session.id)
        .bind(session.version)
        .bind(because)
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if ended {
            end_codes(&mut step, CodesOf::Session(&session.id), now).await?;
            sqlx::query(
                "UPDATE grants SET revoked_at = $2, revoked_because = $3
                 WHERE session_id = $1 AND revoked_at IS NULL",
            )
            .bind(&session.id)
            .bind(now.unix())
            .bind(because)
            .execute(&mut *step)
            .await?;
            step.record(event.with("because", because)).await?;
        }
        if ended {
            self.commit_and_notify(step).await?;
        } else {
            step.commit().await?;
        }
        Ok(ended)
    }
}

/// A session that ended and begins anew takes nothing of its former life along: codes, sign-ins to the
/// pages, whoever waits.
async fn end_what_stood_on(
    step: &mut Transaction,
    session_id: &str,
    subject: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    end_codes(step, CodesOf::Session(session_id), now).await?;
    for (statement, key) in [
        (
            "UPDATE console_sessions SET ended_at = $2 WHERE session_id = $1 AND ended_at IS NULL",
            session_id,
        ),
        ("UPDATE held_logins SET ended_at = $2 WHERE subject = $1 AND ended_at IS NULL", subject),
    ] {
        sqlx::query(statement).bind(key).bind(now.unix()).execute(&mut **step).await?;
    }
    Ok(())
}
