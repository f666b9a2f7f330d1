//! Ending sessions because the identity provider says so.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::authorization_codes::end_codes_of_session;
use super::upstream_sessions::Person;
use super::{Step, Storage, StorageError, column, forgotten};
use crate::clock::Timestamp;
use crate::telemetry::audit::AuditEvent;

/// Sessions opened at a time when one is looked for by e-mail address, which rests sealed.
const BATCH: i64 = 200;

/// Whose sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The session with this `sid`; of this subject, when it is named.
    Session {
        /// The provider's session id.
        sid: String,
        /// The person.
        subject: Option<String>,
    },
    /// Every session of this subject.
    Subject(String),
    /// Every session of whoever has this address.
    Email(String),
}

/// A message of the identity provider, verified.
#[derive(Clone, Debug)]
pub struct Notice {
    id: String,
    issuer: String,
    whom: Whom,
    forget_at: Timestamp,
}

impl Notice {
    /// A message known by `jti`, to be remembered until `forget_at`.
    pub fn new(issuer: String, jti: &str, whom: Whom, forget_at: Timestamp) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(issuer.as_bytes());
        context.update(b"\n");
        context.update(jti.as_bytes());
        Self { id: URL_SAFE_NO_PAD.encode(context.finish()), issuer, whom, forget_at }
    }
}

impl Storage {
    /// Ends the sessions a message is about, with all their grants, and answers how many. A message
    /// that came before changes nothing.
    pub async fn act_on_notice(
        &self,
        notice: &Notice,
        because: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<u64, StorageError> {
        let by_email = match &notice.whom {
            Whom::Email(email) => self.sessions_with_email(&notice.issuer, email).await?,
            _ => Vec::new(),
        };
        let mut step = self.begin_to_end().await?;
        let first = sqlx::query(
            "INSERT INTO upstream_notices (id, expires_at) SELECT $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&notice.id)
        .bind(notice.forget_at.unix())
        .bind(forgotten::NOTICES)
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if !first {
            return Ok(0);
        }
        let sessions = match &notice.whom {
            Whom::Email(_) => by_email,
            Whom::Session { sid, subject } => {
                let subject = subject.as_deref().unwrap_or_default();
                sessions_of(&mut step, &notice.issuer, subject, sid).await?
            }
            Whom::Subject(subject) => sessions_of(&mut step, &notice.issuer, subject, "").await?,
        };
        for session in &sessions {
            sqlx::query(
                "UPDATE upstream_sessions
                 SET state = 'dead', ended_because = $2, version = version + 1,
                     lease_owner = NULL, lease_until = NULL
                 WHERE id = $1",
            )
            .bind(session)
            .bind(because)
            .execute(&mut *step)
            .await?;
            end_codes_of_session(&mut step, session, now).await?;
            sqlx::query(
                "UPDATE grants SET revoked_at = $2, revoked_because = $3
                 WHERE session_id = $1 AND revoked_at IS NULL",
            )
            .bind(session)
            .bind(now.unix())
            .bind(because)
            .execute(&mut *step)
            .await?;
        }
        let event = event.with("because", because).with("ended", sessions.len());
        step.record(event).await?;
        if sessions.is_empty() {
            step.commit().await?;
        } else {
            self.commit_and_tell(step).await?;
        }
        Ok(sessions.len() as u64)
    }

    async fn sessions_with_email(
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
            .fetch_all(&self.pool)
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

/// Living sessions; an empty subject or sid means any.
async fn sessions_of(
    step: &mut Step,
    issuer: &str,
    subject: &str,
    sid: &str,
) -> Result<Vec<String>, StorageError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM upstream_sessions
         WHERE issuer = $1 AND state = 'active' AND (subject = $2 OR $2 = '')
           AND (sid = $3 OR $3 = '')",
    )
    .bind(issuer)
    .bind(subject)
    .bind(sid)
    .fetch_all(&mut **step)
    .await?)
}
