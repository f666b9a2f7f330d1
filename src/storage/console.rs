//! Sessions of the pages for administrators and people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::upstream_sessions::SessionUpdate;
use super::{Storage, StorageError, column, moment, moment_if_any};
use crate::clock::{REPLICAS_APART, Timestamp};
use crate::oauth::secret::{ConsoleSession, Secret};
use crate::telemetry::audit::AuditEvent;

/// Which pages a session is for; one is never good for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Realm {
    /// The admin listener.
    Admin,
    /// `/account`.
    Account,
}

impl Realm {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Account => "account",
        }
    }
}

/// A session of the pages about to begin.
pub struct NewSignIn<'a> {
    /// The cookie.
    pub token: &'a Secret<ConsoleSession>,
    /// Which pages.
    pub realm: Realm,
    /// The session at the identity provider.
    pub session: &'a SessionUpdate,
    /// Our `sub`.
    pub subject: &'a str,
    /// When the person last proved who they are.
    pub proved_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
}

/// A session of the pages.
#[derive(Clone, Debug)]
pub struct WebSession {
    /// Row id.
    pub id: String,
    /// Our `sub`.
    pub subject: String,
    /// The session at the identity provider.
    pub session_id: String,
    /// When the identity provider last proved who this is.
    pub signed_in_at: Timestamp,
    /// Last request, to the minute.
    pub seen_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
}

impl Storage {
    /// Signs a person in to the pages; a session they had in this browser ends.
    pub async fn sign_in(
        &self,
        new: &NewSignIn<'_>,
        before: Option<&Secret<ConsoleSession>>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        // Few people are administrators, and on a full database they must get in to end something.
        let mut step = match new.realm {
            Realm::Admin => self.begin_revocation().await?,
            Realm::Account => self.begin().await?,
        };
        let session_id = self.put_session(&mut step, new.session, new.subject, now).await?;
        if let Some(before) = before {
            sqlx::query(
                "UPDATE console_sessions SET ended_at = $3
                 WHERE id = $1 AND token_hash = $2 AND ended_at IS NULL",
            )
            .bind(before.id())
            .bind(before.hash().as_str())
            .bind(now.unix())
            .execute(&mut *step)
            .await?;
        }
        sqlx::query(
            "INSERT INTO console_sessions
                 (id, token_hash, realm, subject, session_id, signed_in_at, seen_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $8, $6, $7)",
        )
        .bind(new.token.id())
        .bind(new.token.hash().as_str())
        .bind(new.realm.as_str())
        .bind(new.subject)
        .bind(session_id)
        .bind(now.unix())
        .bind(new.expires_at.unix())
        .bind(new.proved_at.unix())
        .execute(&mut *step)
        .await?;
        step.record(event).await?;
        step.commit().await
    }

    /// The session of this cookie, unless it has ended, expired, or was idle for longer than `idle`.
    pub async fn signed_in(
        &self,
        token: &Secret<ConsoleSession>,
        realm: Realm,
        idle: Duration,
        now: Timestamp,
    ) -> Result<Option<WebSession>, StorageError> {
        let session = sqlx::query(
            "SELECT id, token_hash, subject, session_id, signed_in_at, seen_at, expires_at, ended_at
             FROM console_sessions WHERE id = $1 AND realm = $2
               AND NOT EXISTS (SELECT 1 FROM people p WHERE p.subject = console_sessions.subject
                               AND p.blocked_at IS NOT NULL)",
        )
        .bind(token.id())
        .bind(realm.as_str());
        let row = self.read_row(session).await?;
        let Some(row) = row else { return Ok(None) };
        let session = WebSession {
            id: column(&row, "id")?,
            subject: column(&row, "subject")?,
            session_id: column(&row, "session_id")?,
            signed_in_at: moment(&row, "signed_in_at")?,
            seen_at: moment(&row, "seen_at")?,
            expires_at: moment(&row, "expires_at")?,
        };
        let good = token.hash().is(&column::<String>(&row, "token_hash")?)
            && moment_if_any(&row, "ended_at")?.is_none()
            && now < session.expires_at
            // Seen in the future: the clock went back, and nobody knows how long ago that was.
            && session.seen_at <= now.plus(REPLICAS_APART)
            && now.since(session.seen_at) < idle;
        Ok(good.then_some(session))
    }

    /// Notes that a session is in use.
    pub async fn seen(&self, session: &WebSession, now: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        sqlx::query("UPDATE console_sessions SET seen_at = $2 WHERE id = $1 AND ended_at IS NULL")
            .bind(&session.id)
            .bind(now.unix())
            .execute(&mut *step)
            .await?;
        step.commit().await
    }

    /// Ends a session of the pages.
    pub async fn sign_out(
        &self,
        session: &WebSession,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        let ended = sqlx::query(
            "UPDATE console_sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL",
        )
        .bind(&session.id)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        if ended.rows_affected() == 1 {
            step.record(event).await?;
        }
        step.commit().await
    }
}
