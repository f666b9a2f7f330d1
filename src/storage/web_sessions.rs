//! Sessions at our own pages, for administrators and for people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::upstream_sessions::SessionUpdate;
use super::{Storage, StorageError, column, moment, moment_if_any};
use crate::clock::{REPLICAS_APART, Timestamp};
use crate::oauth::secret::{ConsoleSession, Secret};
use crate::telemetry::audit::AuditEvent;

/// The pages for which a session is valid. A session for one is never valid for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Realm {
    /// The pages of the admin listener.
    Admin,
    /// `/account`.
    Account,
}

impl Realm {
    /// Returns the name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Account => "account",
        }
    }
}

/// A page session to be started.
pub struct NewSignIn<'a> {
    /// The value of the cookie.
    pub token: &'a Secret<ConsoleSession>,
    pub realm: Realm,
    /// The session at the identity provider.
    pub session: &'a SessionUpdate,
    /// Our `sub`.
    pub subject: &'a str,
    /// When the person last authenticated at the identity provider.
    pub proved_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
}

/// A session at our pages.
#[derive(Clone, Debug)]
pub struct WebSession {
    pub id: String,
    /// Our `sub`.
    pub subject: String,
    /// The session at the identity provider.
    pub session_id: String,
    /// When the person last authenticated at the identity provider.
    pub signed_in_at: Timestamp,
    /// Last request, to the minute.
    pub seen_at: Timestamp,
    /// Absolute end.
    pub expires_at: Timestamp,
}

impl Storage {
    /// Signs a person in to our pages. Ends the session that this browser had before.
    pub async fn sign_in(
        &self,
        new: &NewSignIn<'_>,
        before: Option<&Secret<ConsoleSession>>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        // Administrators may use the reserve: they are few, and must be able to sign in to a full
        // database to revoke access.
        let mut step = match new.realm {
            Realm::Admin => self.begin_revocation().await?,
            Realm::Account => self.begin().await?,
        };
        let session_id = self.put_session(&mut step, new.session, new.subject, now).await?;
        if let Some(before) = before {
            sqlx::query(
                "UPDATE web_sessions SET ended_at = $3
                 WHERE id = $1 AND token_hash = $2 AND ended_at IS NULL",
            )
            .bind(before.id())
            .bind(before.hash().as_str())
            .bind(now.unix())
            .execute(&mut *step)
            .await?;
        }
        sqlx::query(
            "INSERT INTO web_sessions
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

    /// Loads the session of a cookie. Returns `None` if it has ended, has expired, was idle for longer
    /// than `idle`, or its person is blocked.
    pub async fn signed_in(
        &self,
        token: &Secret<ConsoleSession>,
        realm: Realm,
        idle: Duration,
        now: Timestamp,
    ) -> Result<Option<WebSession>, StorageError> {
        let session = sqlx::query(
            "SELECT id, token_hash, subject, session_id, signed_in_at, seen_at, expires_at, ended_at
             FROM web_sessions WHERE id = $1 AND realm = $2
               AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = web_sessions.subject)",
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
            // Last seen in the future: the clock was set back, so the idle time is unknown.
            && session.seen_at <= now.plus(REPLICAS_APART)
            && now.since(session.seen_at) < idle;
        Ok(good.then_some(session))
    }

    /// Records the use of a session.
    pub async fn seen(&self, session: &WebSession, now: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        sqlx::query("UPDATE web_sessions SET seen_at = $2 WHERE id = $1 AND ended_at IS NULL")
            .bind(&session.id)
            .bind(now.unix())
            .execute(&mut *step)
            .await?;
        step.commit().await
    }

    /// Ends a session at our pages.
    pub async fn sign_out(
        &self,
        session: &WebSession,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_revocation().await?;
        let ended =
            sqlx::query("UPDATE web_sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL")
                .bind(&session.id)
                .bind(now.unix())
                .execute(&mut *step)
                .await?;
        if ended.rows_affected() == 1 {
            step.record(event).await?;
            // The tokens of a sign-in without grants waited for the end of this session.
            sqlx::query("UPDATE token_revocations SET due_at = $2 WHERE id = $1 AND tokens = ''")
                .bind(&session.session_id)
                .bind(now.unix())
                .execute(&mut *step)
                .await?;
        }
        step.commit().await
    }
}
