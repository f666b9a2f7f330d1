//! Ends sessions when the identity provider says so (back-channel logout and similar messages).

mod overtaken_logins;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::revocation::{self, RevocationScope};
use super::upstream_sessions::Person;
use super::{Storage, StorageError, Transaction, column, replay_guard};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

/// Sessions read at a time (200) in a search through sealed columns, each of which must be opened.
const BATCH: i64 = 200;

/// The sessions that end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoutSubject {
    /// The session with this `sid`, and with this subject if there is one.
    Session {
        sid: String,
        /// The person's id at the provider.
        subject: Option<String>,
    },
    /// Every session of this subject.
    Subject(String),
    /// Every session of people with this e-mail address.
    Email(String),
}

/// A verified message of the identity provider.
#[derive(Clone, Debug)]
pub struct LogoutNotice {
    id: String,
    issuer: String,
    subject: LogoutSubject,
    forget_at: Timestamp,
}

impl LogoutNotice {
    /// Makes a notice from a message with this `jti`, for replay protection until `forget_at`.
    pub fn new(issuer: String, jti: &str, whom: LogoutSubject, forget_at: Timestamp) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(issuer.as_bytes());
        context.update(b"\n");
        context.update(jti.as_bytes());
        Self { id: URL_SAFE_NO_PAD.encode(context.finish()), issuer, subject: whom, forget_at }
    }
}

impl Storage {
    /// Ends the sessions that a message is about, with all their grants. Returns their number. A repeated
    /// message changes nothing.
    pub async fn apply_logout_notice(
        &self,
        notice: &LogoutNotice,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        // Before the transaction, because opening sealed columns takes time.
        let by_email = match &notice.subject {
            LogoutSubject::Email(email) => self.sessions_by_email(&notice.issuer, email).await?,
            LogoutSubject::Session { .. } | LogoutSubject::Subject(_) => Vec::new(),
        };
        let mut step = self.begin_revocation().await?;
        let first = sqlx::query(
            "INSERT INTO replay_guard (purpose, id, expires_at) SELECT 'logout_token', $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
             ON CONFLICT (purpose, id) DO NOTHING",
        )
        .bind(&notice.id)
        .bind(notice.forget_at.unix())
        .bind(replay_guard::LOGOUT_TOKENS)
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if !first {
            return Ok(0);
        }
        self.remember_sign_out(&mut step, &notice.issuer, &notice.subject, now).await?;
        let mut sessions = match &notice.subject {
            LogoutSubject::Email(email) => {
                self.sessions_lately_with(&mut step, &notice.issuer, email).await?
            }
            LogoutSubject::Session { sid, subject } => {
                let subject = subject.as_deref().unwrap_or_default();
                sessions_of(&mut step, &notice.issuer, subject, sid).await?
            }
            LogoutSubject::Subject(subject) => {
                sessions_of(&mut step, &notice.issuer, subject, "").await?
            }
        };
        sessions.extend(by_email);
        sessions.sort_unstable();
        sessions.dedup();
        for session in &sessions {
            revocation::end(&mut step, RevocationScope::Session(session), reason, now).await?;
        }
        let event = event.with("because", reason).with("ended", sessions.len());
        step.record(event).await?;
        if sessions.is_empty() {
            step.commit().await?;
        } else {
            self.commit_and_notify(step).await?;
        }
        Ok(sessions.len() as u64)
    }

    /// Returns the active sessions of people with this e-mail address, by the search index. It also
    /// contains a login that was stored since the search through the sealed columns.
    async fn sessions_lately_with(
        &self,
        step: &mut Transaction,
        issuer: &str,
        email: &str,
    ) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query(
            "SELECT s.id, s.person FROM people_words w
             JOIN people p ON p.subject = w.subject
             JOIN upstream_sessions s ON s.issuer = p.issuer AND s.subject = p.upstream_subject
             WHERE w.word = $1 AND s.issuer = $2 AND s.state = 'active'",
        )
        .bind(self.word(email))
        .bind(issuer)
        .fetch_all(&mut **step)
        .await?;
        let mut found = Vec::new();
        for row in &rows {
            let id: String = column(row, "id")?;
            let sealed: String = column(row, "person")?;
            let person: Person = self.open_json("upstream_sessions.person", &id, &sealed)?;
            if person.email.is_some_and(|known| known.eq_ignore_ascii_case(email)) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Returns the active sessions of people with this e-mail address, by a search through the sealed
    /// column.
    async fn sessions_by_email(
        &self,
        issuer: &str,
        email: &str,
    ) -> Result<Vec<String>, StorageError> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let rows = sqlx::query(
                "SELECT id, person FROM upstream_sessions
                 WHERE issuer = $1 AND state = 'active' AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(issuer)
            .bind(&after)
            .bind(BATCH)
            .fetch_all(self.pool())
            .await?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = column(last, "id")?;
            for row in &rows {
                let id: String = column(row, "id")?;
                let sealed: String = column(row, "person")?;
                let person: Person = self.open_json("upstream_sessions.person", &id, &sealed)?;
                if person.email.is_some_and(|known| known.eq_ignore_ascii_case(email)) {
                    found.push(id);
                }
            }
        }
    }
}

/// Returns the ids of active sessions. An empty subject or sid matches all.
async fn sessions_of(
    step: &mut Transaction,
    issuer: &str,
    subject: &str,
    sid: &str,
) -> Result<Vec<String>, StorageError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM upstream_sessions
         WHERE issuer = $1 AND state = 'active' AND (subject = $2 OR claim_sub = $2 OR $2 = '')
           AND (sid = $3 OR $3 = '')",
    )
    .bind(issuer)
    .bind(subject)
    .bind(sid)
    .fetch_all(&mut **step)
    .await?)
}
