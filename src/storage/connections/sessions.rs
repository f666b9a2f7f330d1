//! The tokens of sign-ins that have ended: they go to the queue of revocations.
//!
//! The transaction that ends grants or sessions adds a mark for each session that may have lost its last grant
//! (`revocation.rs`): an entry of the queue with the session's id and without tokens. Here each mark is checked
//! in a transaction of its own, which locks the session first, as a login does: so neither misses the other. If
//! nothing uses the session any more, its tokens move to the queue, and cannot be used from then on.

use std::time::Duration;

use sqlx::any::AnyRow;

use super::ServiceTokens;
use crate::clock::Timestamp;
use crate::storage::upstream_sessions::UpstreamTokens;
use crate::storage::{Storage, StorageError, Transaction, column, moment_if_any};

/// Marks that are read at once: 50.
const AT_ONCE: i64 = 50;
/// How long a mark waits for a question to the identity provider that is under way: 1 minute.
const ASKING: Duration = Duration::from_mins(1);

const TOKENS: &str = "upstream_sessions.tokens";

/// Breaks all connections: the statement of [`revocation`](crate::storage::revocation).
pub(in crate::storage) const BREAK_CONNECTIONS: &str =
    "UPDATE connections SET state = 'broken', reason = {reason}, state_at = {now},
         version = version + 1, lease_owner = NULL, lease_until = NULL
     WHERE state = 'active'";
/// Marks sessions of which nothing may be left.
pub(in crate::storage) const MARK_SESSIONS: &str = "INSERT INTO token_revocations
         (id, connection, provider_key, tokens, due_at, attempts, leased_until, created_at)
     SELECT id, '', '', '', {now}, 0, 0, {now} FROM upstream_sessions WHERE {condition}
     ON CONFLICT (id) DO NOTHING";
/// The same for the sessions of grants that have just ended, unless they have a live one.
pub(in crate::storage) const MARK_SESSIONS_OF_GRANTS: &str = "INSERT INTO token_revocations
         (id, connection, provider_key, tokens, due_at, attempts, leased_until, created_at)
     SELECT DISTINCT session_id, '', '', '', {now}, 0, 0, {now} FROM grants
     WHERE {condition} AND session_id IS NOT NULL AND revoked_at = {now}
       AND NOT EXISTS (SELECT 1 FROM grants l WHERE l.session_id = grants.session_id
                       AND l.revoked_at IS NULL AND l.expires_at > {now})
     ON CONFLICT (id) DO NOTHING";

/// At most `$2` sessions that nothing has used since `$1`. It reads the whole table, so it is no part of a
/// transaction: on SQLite, all writers would wait for it.
pub(in crate::storage) const SESSIONS_TO_REMOVE: &str =
    "SELECT s.id FROM upstream_sessions s WHERE s.last_ok_at < $1
       AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.session_id = s.id)
       AND NOT EXISTS (SELECT 1 FROM authorization_codes c WHERE c.session_id = s.id)
       AND NOT EXISTS (SELECT 1 FROM web_sessions w WHERE w.session_id = s.id)
     LIMIT $2";
/// Removes the session `$2`, if nothing has used it since `$1`.
pub(in crate::storage) const REMOVE_SESSION: &str =
    "DELETE FROM upstream_sessions WHERE last_ok_at < $1 AND id = $2
       AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.session_id = upstream_sessions.id)
       AND NOT EXISTS (SELECT 1 FROM authorization_codes c WHERE c.session_id = upstream_sessions.id)
       AND NOT EXISTS (SELECT 1 FROM web_sessions w WHERE w.session_id = upstream_sessions.id)
     RETURNING id, issuer, state, tokens";

enum SessionUse {
    /// A grant. A new mark comes with its end.
    Grant,
    /// Something that ends by itself: a code, a login that waits, a session at our pages, or a question to the
    /// identity provider.
    Until(Timestamp),
    Nothing,
}

impl Storage {
    /// Checks the marks of sessions that may have lost their last grant. `revoked` says whether their tokens
    /// are revoked; otherwise the marks are dropped.
    pub(super) async fn settle_ended_sessions(
        &self,
        revoked: bool,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        loop {
            let marks = sqlx::query(
                "SELECT id FROM token_revocations WHERE tokens = '' AND due_at <= $1
                 ORDER BY due_at, id LIMIT $2",
            );
            let marks = marks.bind(now.unix()).bind(AT_ONCE);
            let marks = self.read_all(marks).await?;
            for row in &marks {
                self.settle_ended_session(&column::<String>(row, "id")?, revoked, now).await?;
            }
            // Each mark is gone now, or due later.
            if i64::try_from(marks.len()).unwrap_or(i64::MAX) < AT_ONCE {
                return Ok(());
            }
        }
    }

    async fn settle_ended_session(
        &self,
        id: &str,
        revoked: bool,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        // Locks the session: a login either waits, or has already stored its code.
        let session = sqlx::query(
            "UPDATE upstream_sessions SET state = state WHERE id = $1
             RETURNING issuer, tokens, lease_until",
        )
        .bind(id)
        .fetch_optional(&mut *step)
        .await?;
        let used = match &session {
            Some(session) if revoked => use_of(&mut step, id, session, now).await?,
            _ => SessionUse::Grant,
        };
        if let SessionUse::Until(end) = used {
            sqlx::query("UPDATE token_revocations SET due_at = $2 WHERE id = $1 AND tokens = ''")
                .bind(id)
                .bind(end.unix())
                .execute(&mut *step)
                .await?;
            return step.commit().await;
        }
        let removed = sqlx::query("DELETE FROM token_revocations WHERE id = $1 AND tokens = ''")
            .bind(id)
            .execute(&mut *step)
            .await?;
        if let (SessionUse::Nothing, Some(session), 1) = (used, session, removed.rows_affected()) {
            self.move_tokens(&mut step, id, &session, now).await?;
        }
        step.commit().await
    }

    /// Moves the tokens of a session to the queue. The ID token stays, for the sign-out at the provider.
    async fn move_tokens(
        &self,
        step: &mut Transaction,
        id: &str,
        session: &AnyRow,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let sealed: String = column(session, "tokens")?;
        let tokens: UpstreamTokens = self.open_json(TOKENS, id, &sealed)?;
        let rest = UpstreamTokens {
            id_token: tokens.id_token.clone(),
            nonce: tokens.nonce.clone(),
            ..UpstreamTokens::default()
        };
        sqlx::query(
            "UPDATE upstream_sessions SET tokens = $2, version = version + 1 WHERE id = $1",
        )
        .bind(id)
        .bind(self.seal_json(TOKENS, id, &rest)?)
        .execute(&mut **step)
        .await?;
        let issuer: String = column(session, "issuer")?;
        self.queue_revocation(step, ("", &issuer), id, &of_session(tokens), now).await
    }

    /// Removes sessions that nothing has used since `before`, at most `rows`, and queues the tokens of those that
    /// were never ended. Returns how many.
    pub(in crate::storage) async fn remove_sessions(
        &self,
        before: Timestamp,
        rows: i64,
        now: Timestamp,
    ) -> Result<u64, StorageError> {
        let unused = sqlx::query(SESSIONS_TO_REMOVE).bind(before.unix()).bind(rows);
        let unused = self.read_all(unused).await?;
        if unused.is_empty() {
            return Ok(0);
        }
        let mut step = self.begin_cleanup().await?;
        let mut removed = Vec::with_capacity(unused.len());
        for row in &unused {
            let one = sqlx::query(REMOVE_SESSION);
            let one = one.bind(before.unix()).bind(column::<String>(row, "id")?);
            removed.extend(one.fetch_optional(&mut *step).await?);
        }
        for row in &removed {
            let (id, issuer): (String, String) = (column(row, "id")?, column(row, "issuer")?);
            if column::<String>(row, "state")? != "active" {
                continue;
            }
            // What cannot be opened is of no use to anybody.
            if let Ok(tokens) = self.open_json(TOKENS, &id, &column::<String>(row, "tokens")?) {
                self.queue_revocation(&mut step, ("", &issuer), &id, &of_session(tokens), now)
                    .await?;
            }
        }
        step.commit().await?;
        Ok(removed.len() as u64)
    }
}

/// Finds out what uses a session.
async fn use_of(
    step: &mut Transaction,
    id: &str,
    session: &AnyRow,
    now: Timestamp,
) -> Result<SessionUse, StorageError> {
    // Codes first: one that is redeemed meanwhile is then seen as a grant.
    let others = sqlx::query(
        "SELECT MAX(expires_at) AS last FROM
             (SELECT expires_at FROM authorization_codes
              WHERE session_id = $1 AND redeemed_at IS NULL AND expires_at > $2
              UNION ALL
              SELECT expires_at FROM logins_awaiting_approval
              WHERE session_id = $1 AND ended_at IS NULL AND expires_at > $2
              UNION ALL
              SELECT expires_at FROM web_sessions
              WHERE session_id = $1 AND ended_at IS NULL AND expires_at > $2) AS others",
    )
    .bind(id)
    .bind(now.unix())
    .fetch_one(&mut **step)
    .await?;
    let grant = sqlx::query(
        "SELECT 1 AS one FROM grants WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > $2
         LIMIT 1",
    )
    .bind(id)
    .bind(now.unix())
    .fetch_optional(&mut **step)
    .await?;
    if grant.is_some() {
        return Ok(SessionUse::Grant);
    }
    let asking = moment_if_any(session, "lease_until")?.filter(|until| *until > now);
    let until = moment_if_any(&others, "last")?.max(asking.map(|_| now.plus(ASKING)));
    Ok(until.map_or(SessionUse::Nothing, SessionUse::Until))
}

fn of_session(tokens: UpstreamTokens) -> ServiceTokens {
    ServiceTokens {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        token_type: String::new(),
    }
}
