//! Upstream sessions: sessions of people at the identity provider, with their facts, tokens and refresh
//! leases.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::revocation::{self, RevocationScope};
use super::{Storage, StorageError, Transaction, column, moment};
use crate::clock::Timestamp;
use crate::policy::{FactSet, Facts};
use crate::telemetry::audit::AuditEvent;

/// What is known of a person, for MCP servers and access rules. Stored sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Display name, if the provider gives one.
    pub name: Option<String>,
    /// E-mail address, if the provider gives one. Never used as an identity.
    pub email: Option<String>,
    /// Facts that access rules read.
    pub facts: Facts,
}

impl Person {
    /// Returns the name for lists: the display name, otherwise the e-mail address.
    pub fn shown_name(self) -> Option<String> {
        let name = self.name.filter(|name| !name.trim().is_empty());
        name.or(self.email).filter(|name| !name.trim().is_empty())
    }
}

/// Tokens of the identity provider. They are sent to that provider only. Stored sealed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTokens {
    pub access_token: String,
    /// Refresh token. Without it, the session cannot be checked again.
    pub refresh_token: Option<String>,
    /// The ID token as last received.
    pub id_token: Option<String>,
    /// The nonce of the login. An ID token from a refresh that carries a nonce must repeat it.
    pub nonce: Option<String>,
    /// End of the access token, in Unix seconds; `None`: the provider named none, or the tokens were stored
    /// before this was known.
    #[serde(default)]
    pub access_until: Option<i64>,
    /// The granted scopes as the provider stated them.
    #[serde(default)]
    pub scope: Option<String>,
}

impl fmt::Debug for UpstreamTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamTokens")
    }
}

/// A session as it is after a login or refresh.
#[derive(Clone, Debug)]
pub struct SessionUpdate {
    /// Key of the identity provider in the configuration. Our `sub` begins with it.
    pub upstream: String,
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person's id at that issuer.
    pub subject: String,
    /// The claim `sub`, if the provider's messages may use it instead of `subject`.
    pub claim_sub: Option<String>,
    /// The provider's session id (`sid`), if it gives one.
    pub sid: Option<String>,
    /// The number of sign-outs before the login began; see `sign_outs.rs`.
    pub sign_outs_before: i64,
    /// What is known of the person.
    pub person: Person,
    /// The person's tokens from the identity provider.
    pub tokens: UpstreamTokens,
}

/// A session as it is stored. `T` is `()` where its tokens were not read.
#[derive(Clone, Debug)]
pub struct UpstreamSession<T = UpstreamTokens> {
    /// Row id: a hash of issuer, subject and sid.
    pub id: String,
    /// Issuer of the identity provider.
    pub issuer: String,
    /// The person's id at that issuer.
    pub subject: String,
    /// Whether the session is active: neither the provider nor a sign-out here has ended it.
    pub alive: bool,
    /// What is known of the person.
    pub person: Person,
    /// The person's tokens from the identity provider.
    pub tokens: T,
    /// Grows with every change of the tokens.
    pub version: i64,
    /// When the provider last confirmed the session.
    pub last_ok_at: Timestamp,
    /// When all facts that rules may read were last read from the provider, without reuse of an earlier
    /// response.
    pub facts_read_at: Timestamp,
    /// Facts reused from an earlier response.
    pub reused_facts: FactSet,
}

/// How fresh the provider's data is.
#[derive(Clone, Copy, Debug)]
pub struct Renewed {
    /// When the provider last confirmed the session.
    pub last_ok: Timestamp,
    /// When all facts that rules may read were read.
    pub facts_read: Timestamp,
    /// Facts that were not read and are reused from an earlier response.
    pub reused_facts: FactSet,
}

impl Renewed {
    /// Keeps the freshness of `session`, for a response with no new data.
    pub fn as_before(session: &UpstreamSession) -> Self {
        Self {
            last_ok: session.last_ok_at,
            facts_read: session.facts_read_at,
            reused_facts: session.reused_facts,
        }
    }
}

/// Whether this caller may contact the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It may, and stores the response under this lease.
    Won,
    /// Another process holds the lease.
    Taken,
}

/// Returns the row id of a session.
pub fn session_id(issuer: &str, subject: &str, sid: Option<&str>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [issuer, subject, sid.unwrap_or("-")] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

impl Storage {
    /// Stores the session of a new login in the caller's transaction. Its tokens replace older ones, and
    /// an ended session becomes active again. A refresh in progress will find its version outdated.
    /// `subject` is our `sub` for the person.
    pub(super) async fn put_session(
        &self,
        step: &mut Transaction,
        update: &SessionUpdate,
        subject: &str,
        now: Timestamp,
    ) -> Result<String, StorageError> {
        let id = session_id(&update.issuer, &update.subject, update.sid.as_deref());
        // The person first, as when blocking: everything locks these rows in the same order.
        self.note_person(step, update, subject, now).await?;
        self.refuse_signed_out(step, update, now).await?;
        let mut tokens = update.tokens.clone();
        if tokens.refresh_token.is_none() {
            // Google and others issue a refresh token only at the first login: the stored one is still
            // valid.
            tokens.refresh_token = self.refresh_token_of(step, &id).await?;
        }
        sqlx::query(
            "INSERT INTO upstream_sessions
                 (id, issuer, subject, sid, state, person, tokens, version, last_ok_at, created_at,
                  facts_read_at, claim_sub, upstream)
             VALUES ($1, $2, $3, $4, 'active', $5, $6, 1, $7, $7, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET
                 state = 'active', end_reason = NULL, person = $5, tokens = $6,
                 version = upstream_sessions.version + 1, lease_owner = NULL, lease_until = NULL,
                 last_ok_at = $7, facts_read_at = $7, claim_sub = $8, reused_facts = '', upstream = $9",
        )
        .bind(&id)
        .bind(&update.issuer)
        .bind(&update.subject)
        .bind(update.sid.as_deref().unwrap_or("-"))
        .bind(self.seal_json("upstream_sessions.person", &id, &update.person)?)
        .bind(self.seal_json("upstream_sessions.tokens", &id, &tokens)?)
        .bind(now.unix())
        .bind(&update.claim_sub)
        .bind(&update.upstream)
        .execute(&mut **step)
        .await?;
        Ok(id)
    }

    /// Loads what was last known of a person, from the session that was confirmed last.
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
        // Locks the row: the token may be about to move to the queue of revocations.
        let sealed: Option<String> = sqlx::query_scalar(
            "UPDATE upstream_sessions SET state = state WHERE id = $1 AND state = 'active'
             RETURNING tokens",
        )
        .bind(id)
        .fetch_optional(&mut **step)
        .await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let tokens: UpstreamTokens = self.open_json("upstream_sessions.tokens", id, &sealed)?;
        Ok(tokens.refresh_token)
    }

    /// Loads the session with this id.
    pub async fn upstream_session(
        &self,
        id: &str,
    ) -> Result<Option<UpstreamSession>, StorageError> {
        let query = sqlx::query(
            "SELECT id, issuer, subject, state, person, tokens, version, last_ok_at, facts_read_at,
                    reused_facts
             FROM upstream_sessions WHERE id = $1",
        )
        .bind(id);
        let row = self.read_one(query).await?;
        let Some(row) = &row else { return Ok(None) };
        let sealed: String = column(row, "tokens")?;
        let open = |id: &str| self.open_json("upstream_sessions.tokens", id, &sealed);
        self.read_session(row, open).map(Some)
    }

    /// Loads the session with this id without its tokens. Opening those costs more than everything else
    /// here, and most callers need them only once the last confirmation is too old.
    pub async fn session_without_tokens(
        &self,
        id: &str,
    ) -> Result<Option<UpstreamSession<()>>, StorageError> {
        let query = sqlx::query(
            "SELECT id, issuer, subject, state, person, version, last_ok_at, facts_read_at,
                    reused_facts
             FROM upstream_sessions WHERE id = $1",
        )
        .bind(id);
        let row = self.read_one(query).await?;
        row.as_ref().map(|row| self.read_session(row, |_| Ok(()))).transpose()
    }

    /// Reads a session. `tokens` returns its tokens, from its id.
    fn read_session<T>(
        &self,
        row: &AnyRow,
        tokens: impl FnOnce(&str) -> Result<T, StorageError>,
    ) -> Result<UpstreamSession<T>, StorageError> {
        let (id, person): (String, String) = (column(row, "id")?, column(row, "person")?);
        Ok(UpstreamSession {
            issuer: column(row, "issuer")?,
            subject: column(row, "subject")?,
            alive: column::<String>(row, "state")? == "active",
            person: self.open_json("upstream_sessions.person", &id, &person)?,
            tokens: tokens(&id)?,
            version: column(row, "version")?,
            last_ok_at: moment(row, "last_ok_at")?,
            facts_read_at: moment(row, "facts_read_at")?,
            reused_facts: FactSet::parse(&column::<String>(row, "reused_facts")?),
            id,
        })
    }

    /// Acquires the lease for contacting the identity provider about this version of the session, for the
    /// duration `lease`.
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
        // No lease lasts this long: the clock was set back, so its holder no longer exists.
        .bind(now.plus(lease * 4).unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(if won.rows_affected() == 1 { Lease::Won } else { Lease::Taken })
    }

    /// Stores the provider's response and releases the lease. Returns `false` if a newer login replaced
    /// the session meanwhile; its tokens are kept.
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
             SET person = $4, tokens = $5, last_ok_at = $6, facts_read_at = $7, reused_facts = $8,
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
        .bind(at.reused_facts.to_string())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Stores new tokens under the lease as soon as they arrive, before the next call to the provider:
    /// losing a rotated token would log the person out. Returns `false` if a newer login replaced the
    /// session meanwhile. Otherwise the session's version has grown by one.
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

    /// Extends the lease to `until`. Returns `false` when `owner` no longer holds it.
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

    /// Releases all leases when a server on SQLite starts: their holders belonged to an earlier process
    /// and no longer exist.
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

    /// Releases the lease after a response without a definite result.
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

    /// Ends the session with all its grants and codes. Returns `false` if a newer login replaced the
    /// session meanwhile: the provider's refusal was not about that one.
    pub async fn end_session(
        &self,
        session: &UpstreamSession,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin_revocation().await?;
        // Locks the row, so that a concurrent login either waits or has already replaced the session.
        let current = sqlx::query(
            "UPDATE upstream_sessions SET state = state WHERE id = $1 AND version = $2",
        )
        .bind(&session.id)
        .bind(session.version)
        .execute(&mut *step)
        .await?;
        if current.rows_affected() == 0 {
            return Ok(false);
        }
        revocation::end(&mut step, RevocationScope::Session(&session.id), reason, now).await?;
        step.record(event.with("because", reason)).await?;
        self.commit_and_notify(step).await?;
        Ok(true)
    }
}
