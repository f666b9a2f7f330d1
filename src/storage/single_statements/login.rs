//! Ends a login by one statement: stores the person, the session at the identity provider and the code.

use crate::clock::Timestamp;
use crate::storage::authorization_codes::NewCode;
use crate::storage::upstream_sessions::{SessionUpdate, UpstreamTokens, session_id};
use crate::storage::{Storage, StorageError, column};
use crate::telemetry::audit::AuditEvent;

/// Lists of words and of marks are texts with spaces between them, which neither contains. Marks keep the order
/// in which all transactions lock them.
const FINISH: &str = "
WITH person AS (
    INSERT INTO people (subject, issuer, upstream_subject, first_seen_at, last_seen_at, words_digest,
                        upstream)
    SELECT $1, $2, $3, $4, $4, $5, $6
    WHERE NOT EXISTS (SELECT 1 FROM denied_clients WHERE client_id = $19)
      AND NOT EXISTS (SELECT 1 FROM upstream_sign_outs
                      WHERE id = ANY (string_to_array($8, ' ')) AND number > $9)
    ON CONFLICT (subject) DO UPDATE SET last_seen_at = $4
    WHERE people.blocked_at IS NULL AND people.issuer = excluded.issuer
      AND people.words_digest = excluded.words_digest
    RETURNING subject
), words AS (
    INSERT INTO people_words (word, subject)
    SELECT word, $1 FROM unnest(string_to_array($7, ' ')) AS word
    WHERE EXISTS (SELECT 1 FROM person) AND NOT EXISTS (SELECT 1 FROM people WHERE subject = $1)
    ON CONFLICT (word, subject) DO NOTHING
), sign_outs AS (
    INSERT INTO upstream_sign_outs (id, number, expires_at)
    SELECT mark, 0, $4 FROM unnest(string_to_array($8, ' ')) AS mark
    WHERE EXISTS (SELECT 1 FROM person)
    ON CONFLICT (id) DO UPDATE SET number = upstream_sign_outs.number
    RETURNING number
), session AS (
    INSERT INTO upstream_sessions
        (id, issuer, subject, sid, state, person, tokens, version, last_ok_at, created_at,
         facts_read_at, claim_sub, upstream)
    SELECT $10, $2, $3, $11, 'active', $12, $13, 1, $4, $4, $4, $14, $6
    WHERE EXISTS (SELECT 1 FROM person) AND NOT EXISTS (SELECT 1 FROM sign_outs WHERE number > $9)
    ON CONFLICT (id) DO UPDATE SET
        state = 'active', end_reason = NULL, person = $12, tokens = $13,
        version = upstream_sessions.version + 1, lease_owner = NULL, lease_until = NULL,
        last_ok_at = $4, facts_read_at = $4, claim_sub = $14, reused_facts = '', upstream = $6
    WHERE $15 IS NULL OR (upstream_sessions.state = 'active' AND upstream_sessions.tokens = $15)
    RETURNING id
), code AS (
    INSERT INTO authorization_codes
        (id, code_hash, client_id, redirect_uri, code_challenge, resource, consented_scopes, scopes,
         session_id, subject, created_at, expires_at, failures, trace)
    SELECT $16, $17, $19, $20, $21, $22, $23, $24, id, $1, $4, $18, 0, $25 FROM session
    RETURNING id
), told AS (
    INSERT INTO audit_events
        (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail, row_mac)
    SELECT $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36
    WHERE EXISTS (SELECT 1 FROM code) AND $26 IS NOT NULL
)
SELECT 1 / (SELECT COUNT(*) FROM code) AS finished FROM person";

impl Storage {
    /// Stores the session and the code of a person who may sign in and whose name and addresses have not
    /// changed. Returns `false`, and changes nothing, if not, or if the step cannot be one
    /// statement.
    pub(in crate::storage) async fn finish_login_by_statement(
        &self,
        update: &SessionUpdate,
        new: &NewCode<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let Some(mut step) = self.single_statement(event) else { return Ok(false) };
        let id = session_id(&update.issuer, &update.subject, update.sid.as_deref());
        let (tokens, replaced) = self.tokens_to_store(&id, &update.tokens).await?;
        let words = self.words_of(&update.person, &update.subject);
        let request = new.request;
        let finish = sqlx::query(FINISH)
            .bind(new.subject)
            .bind(&update.issuer)
            .bind(&update.subject)
            .bind(now.unix())
            .bind(words.digest())
            .bind(&update.upstream)
            .bind(self.hashes_of(&words).join(" "))
            .bind(self.marks_of(update).into_iter().collect::<Vec<_>>().join(" "))
            .bind(update.sign_outs_before)
            .bind(&id)
            .bind(update.sid.as_deref().unwrap_or("-"))
            .bind(self.seal_json("upstream_sessions.person", &id, &update.person)?)
            .bind(self.seal_json("upstream_sessions.tokens", &id, &tokens)?)
            .bind(update.claim_sub.as_deref())
            .bind(replaced)
            .bind(new.code.id())
            .bind(new.code.hash().as_str())
            .bind(new.expires_at.unix())
            .bind(request.client_id.as_str())
            .bind(request.redirect_uri.as_str())
            .bind(request.code_challenge.as_str())
            .bind(request.resource.as_str())
            .bind(request.scopes.to_string())
            .bind(new.scopes.to_string())
            .bind(request.trace.as_deref());
        let finished = step.run(step.bind_line(finish)?).await?.is_some();
        if finished {
            step.done();
        }
        Ok(finished)
    }

    /// Returns the tokens of a login as they are stored: Google and others issue a refresh token only at the
    /// first login, so without one the stored one is kept. Then also returns the sealed tokens that they replace,
    /// which must not have changed by then; an empty text if there are none.
    async fn tokens_to_store(
        &self,
        session_id: &str,
        tokens: &UpstreamTokens,
    ) -> Result<(UpstreamTokens, Option<String>), StorageError> {
        let mut tokens = tokens.clone();
        if tokens.refresh_token.is_some() {
            return Ok((tokens, None));
        }
        let query =
            sqlx::query("SELECT tokens FROM upstream_sessions WHERE id = $1 AND state = 'active'");
        let Some(row) = self.read_one(query.bind(session_id)).await? else {
            return Ok((tokens, Some(String::new())));
        };
        let sealed: String = column(&row, "tokens")?;
        let stored: UpstreamTokens =
            self.open_json("upstream_sessions.tokens", session_id, &sealed)?;
        tokens.refresh_token = stored.refresh_token;
        Ok((tokens, Some(sealed)))
    }
}
