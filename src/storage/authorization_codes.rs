//! Authorization codes: issued at the end of a login, redeemed once.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::{Any, Executor};

use super::refresh_tokens::{NewRefreshToken, insert_refresh_token};
use super::revocation::{self, RevocationScope};
use super::upstream_sessions::SessionUpdate;
use super::{
    Denied, Engine, Storage, StorageError, Transaction, column, moment, moment_if_any, scopes,
};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::grant::{IssuedCode, Redemption, TokenRefused};
use crate::oauth::pkce::CodeChallenge;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{AuthorizationCode, RefreshToken, Secret, made_at};
use crate::telemetry::audit::AuditEvent;

/// A code to be issued.
pub struct NewCode<'a> {
    pub code: &'a Secret<AuthorizationCode>,
    /// The request that the client made and the person approved.
    pub request: &'a AuthorizationRequest,
    /// The scopes that the access rules leave of it.
    pub scopes: &'a ScopeSet,
    /// Our `sub` for the person.
    pub subject: &'a str,
    pub expires_at: Timestamp,
}

/// The outcome of a redemption.
#[derive(Debug)]
pub enum Redeemed {
    /// The first redemption, the only successful one.
    First(RedeemedGrant),
    /// Refused. Depending on the reason, the grant was revoked or a failed attempt was counted.
    Refused(TokenRefused),
}

/// The grant that a code was exchanged for.
#[derive(Clone, Debug)]
pub struct RedeemedGrant {
    /// Row id of the grant.
    pub grant_id: String,
    /// Our `sub` for the person.
    pub subject: String,
    /// The audience: the URI of the protected resource.
    pub resource: String,
    /// The scopes that the access rules left of the consented ones at login.
    pub scopes: ScopeSet,
    /// The trace of the sign-in, which the redemption continues.
    pub trace: Option<String>,
}

/// Lifetimes and limits that apply to a redemption.
#[derive(Clone, Copy, Debug)]
pub struct GrantTerms {
    /// Absolute lifetime of the grant.
    pub absolute: Duration,
    /// Idle lifetime of the refresh token.
    pub idle: Duration,
    /// Wrong attempts after which a code is no longer accepted.
    pub attempts: u32,
    /// Most live grants of one person for one client. Beyond it, the least recently used ones end.
    pub per_client: u32,
    /// Most live grants of one person. Beyond it, the least recently used ones end.
    pub per_person: u32,
    /// The address from which the request came, if known.
    pub from: Option<IpAddr>,
}

/// What a client exchanges: the code, and the refresh token that its grant gets.
pub struct CodeExchange<'a> {
    /// The code that the client presents.
    pub code: &'a Secret<AuthorizationCode>,
    /// The parameters that prove its holder.
    pub attempt: Redemption<'a>,
    /// The first refresh token of the grant. Its id becomes that of the grant.
    pub refresh_token: &'a Secret<RefreshToken>,
    /// Lifetimes and limits.
    pub terms: GrantTerms,
}

/// A code as it is stored, with what decides whether it may be redeemed.
pub(super) struct StoredCode {
    pub(super) issued: IssuedCode,
    failures: i64,
    pub(super) redeemed_at: Option<Timestamp>,
    pub(super) session_id: String,
    /// The person signed out, or the person or the client was blocked.
    pub(super) login_ended: bool,
    subject: String,
    consented_scopes: String,
    scopes: ScopeSet,
    trace: Option<String>,
    grants_of_person: i64,
    grants_of_client: i64,
}

impl StoredCode {
    /// Whether the grant of this code is one more than the person may have.
    pub(super) fn reaches_a_limit(&self, terms: &GrantTerms) -> bool {
        self.grants_of_person >= i64::from(terms.per_person)
            || self.grants_of_client >= i64::from(terms.per_client)
    }

    /// Returns the grant that the code was exchanged for.
    pub(super) fn granted(self, grant_id: String) -> RedeemedGrant {
        let Self { issued, subject, scopes, trace, .. } = self;
        RedeemedGrant { grant_id, subject, resource: issued.resource, scopes, trace }
    }
}

impl Storage {
    /// Ends a login: stores the upstream session and the code in one transaction.
    pub async fn finish_login(
        &self,
        session: &SessionUpdate,
        new: &NewCode<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        if self.takes_single_statements()
            && self.finish_login_by_statement(session, new, now, event.clone()).await?
        {
            return Ok(());
        }
        let mut step = self.begin().await?;
        let session_id = self.put_session(&mut step, session, new.subject, now).await?;
        stop_point!("login: session stored");
        insert_code(&mut step, new, &session_id, now).await?;
        step.record(event).await?;
        stop_point!("login: code stored");
        step.commit().await?;
        stop_point!("login: committed");
        Ok(())
    }

    /// Redeems a code in one transaction: marks it used, creates the grant and stores its first refresh
    /// token. Of concurrent attempts, one is the `First`; any later one by the same holder revokes the
    /// grant.
    ///
    /// A replay is an outcome and not an error, because an error would roll the revocation back. `event`
    /// is recorded under the name of the outcome.
    pub async fn redeem_code(
        &self,
        exchange: &CodeExchange<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Redeemed, StorageError> {
        let CodeExchange { code, attempt, refresh_token, terms } = exchange;
        if self.takes_single_statements()
            && let Some(grant) = self.redeem_by_statement(exchange, now, event.clone()).await?
        {
            return Ok(Redeemed::First(grant));
        }
        let mut step = self.begin().await?;
        let Some(stored) = find_code(&mut *step, code, now).await? else {
            return Ok(Redeemed::Refused(TokenRefused::UnknownCode));
        };
        if stored.failures >= i64::from(terms.attempts) {
            return Ok(Redeemed::Refused(TokenRefused::BurntCode));
        }
        if let Err(refused) = stored.issued.check_holder(attempt) {
            // Not the holder: the failure is counted, but the code is neither used up nor its grant
            // revoked. Otherwise a leaked code would suffice to log its owner out.
            count_failure(&mut step, code.id()).await?;
            step.commit().await?;
            return Ok(Redeemed::Refused(refused));
        }
        if stored.redeemed_at.is_some() {
            return self.replayed(step, code.id(), now, event).await;
        }
        if stored.login_ended || !self.still_active(&mut step, &stored.session_id).await? {
            // The person signed out, or was blocked, a moment ago.
            return Ok(Redeemed::Refused(TokenRefused::UpstreamEnded));
        }
        if let Err(refused) = stored.issued.check_use(attempt, now) {
            if refused == TokenRefused::ExpiredCode {
                // For good: a clock that is set back must not make the code valid again.
                burn(&mut step, code.id(), terms.attempts).await?;
                step.commit().await?;
            }
            return Ok(Redeemed::Refused(refused));
        }
        let grant_id = refresh_token.id().to_owned();
        if !use_up(&mut step, code.id(), &grant_id, now).await? {
            return self.replayed(step, code.id(), now, event).await;
        }
        stop_point!("redeem: code used");
        insert_grant(&mut step, &stored, exchange, now).await?;
        stop_point!("redeem: token stored");
        self.client_used(&mut step, &stored.issued.client_id, now).await?;
        let told = redeemed(event, &stored, &grant_id);
        step.record(told.clone()).await?;
        let ended = stored.reaches_a_limit(terms)
            && end_surplus(&mut step, &stored, terms, &told, now).await?;
        stop_point!("redeem: told");
        if ended {
            self.commit_and_notify(step).await?;
        } else {
            step.commit().await?;
        }
        stop_point!("redeem: committed");
        Ok(Redeemed::First(stored.granted(grant_id)))
    }

    /// Returns whether the upstream session is still active, and keeps it so until the end of this
    /// transaction. On PostgreSQL the row is locked: a concurrent sign-out either waits or has already
    /// won. SQLite runs one transaction at a time and needs no lock.
    pub(super) async fn still_active(
        &self,
        step: &mut Transaction,
        session_id: &str,
    ) -> Result<bool, StorageError> {
        if self.engine() == Engine::Sqlite {
            return Ok(true);
        }
        let locked = sqlx::query(
            "UPDATE upstream_sessions SET state = state WHERE id = $1 AND state = 'active'",
        )
        .bind(session_id)
        .execute(&mut **step)
        .await?;
        Ok(locked.rows_affected() == 1)
    }

    async fn replayed(
        &self,
        mut step: Transaction,
        code_id: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Redeemed, StorageError> {
        let grant_id: Option<String> =
            sqlx::query_scalar("SELECT grant_id FROM authorization_codes WHERE id = $1")
                .bind(code_id)
                .fetch_one(&mut *step)
                .await?;
        if let Some(grant_id) = grant_id {
            step.use_reserve().await?;
            revocation::end(&mut step, RevocationScope::Grant(&grant_id), "code replayed", now)
                .await?;
            step.record(event.named("code_replayed").grant(&grant_id)).await?;
        }
        stop_point!("replay: revoked");
        self.commit_and_notify(step).await?;
        stop_point!("replay: committed");
        Ok(Redeemed::Refused(TokenRefused::ReplayedCode))
    }
}

/// Inserts a code in the caller's transaction.
///
/// Fails for a client that was blocked or rejected while the person was signing in.
pub(super) async fn insert_code(
    step: &mut Transaction,
    new: &NewCode<'_>,
    session_id: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    let denied: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM denied_clients WHERE client_id = $1")
            .bind(&new.request.client_id)
            .fetch_optional(&mut **step)
            .await?;
    if denied.is_some() {
        return Err(StorageError::ShutOut(Denied::Client));
    }
    sqlx::query(
        "INSERT INTO authorization_codes
             (id, code_hash, client_id, redirect_uri, code_challenge, resource,
              consented_scopes, scopes, session_id, subject, created_at, expires_at, failures, trace)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13)",
    )
    .bind(new.code.id())
    .bind(new.code.hash().as_str())
    .bind(new.request.client_id.as_str())
    .bind(new.request.redirect_uri.as_str())
    .bind(new.request.code_challenge.as_str())
    .bind(new.request.resource.as_str())
    .bind(new.request.scopes.to_string())
    .bind(new.scopes.to_string())
    .bind(session_id)
    .bind(new.subject)
    .bind(now.unix())
    .bind(new.expires_at.unix())
    .bind(new.request.trace.as_deref())
    .execute(&mut **step)
    .await?;
    Ok(())
}

/// Names the event of a redemption, and adds what the code tells.
pub(super) fn redeemed(event: AuditEvent, code: &StoredCode, grant_id: &str) -> AuditEvent {
    let event = event.named("code_redeemed").grant(grant_id).subject(&code.subject);
    event.resource(&code.issued.resource).with("scopes", code.scopes.to_string())
}

/// Finds a code by its id and compares its hash; `None` if there is no such code.
pub(super) async fn find_code<'e>(
    database: impl Executor<'e, Database = Any>,
    code: &Secret<AuthorizationCode>,
    now: Timestamp,
) -> Result<Option<StoredCode>, StorageError> {
    let row = sqlx::query(
        "SELECT c.code_hash, c.client_id, c.redirect_uri, c.code_challenge, c.resource, c.consented_scopes,
                c.scopes, c.session_id, c.subject, c.expires_at, c.failures, c.redeemed_at,
                c.grant_id, c.trace, s.state,
                CASE WHEN EXISTS (SELECT 1 FROM denied_clients d WHERE d.client_id = c.client_id)
                       OR EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = c.subject)
                     THEN 1 ELSE 0 END AS denied,
                (SELECT COUNT(*) FROM grants g WHERE g.subject = c.subject
                 AND g.revoked_at IS NULL AND g.expires_at > $2) AS grants_of_person,
                (SELECT COUNT(*) FROM grants g WHERE g.subject = c.subject
                 AND g.client_id = c.client_id
                 AND g.revoked_at IS NULL AND g.expires_at > $2) AS grants_of_client
         FROM authorization_codes c JOIN upstream_sessions s ON s.id = c.session_id
         WHERE c.id = $1",
    )
    .bind(code.id())
    .bind(now.unix())
    .fetch_optional(database)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !code.hash().is(&column::<String>(&row, "code_hash")?) {
        return Ok(None);
    }
    let issued = IssuedCode {
        client_id: column(&row, "client_id")?,
        redirect_uri: column(&row, "redirect_uri")?,
        code_challenge: CodeChallenge::parse(&column::<String>(&row, "code_challenge")?)
            .map_err(|_| StorageError::Corrupt("code_challenge".to_owned()))?,
        resource: column(&row, "resource")?,
        expires_at: moment(&row, "expires_at")?,
        issued_at: made_at(code.id()),
    };
    Ok(Some(StoredCode {
        issued,
        failures: column(&row, "failures")?,
        redeemed_at: moment_if_any(&row, "redeemed_at")?,
        session_id: column(&row, "session_id")?,
        login_ended: column::<i64>(&row, "denied")? != 0
            || column::<String>(&row, "state")? != "active",
        subject: column(&row, "subject")?,
        consented_scopes: column(&row, "consented_scopes")?,
        scopes: scopes(&row, "scopes")?,
        trace: column(&row, "trace")?,
        grants_of_person: column(&row, "grants_of_person")?,
        grants_of_client: column(&row, "grants_of_client")?,
    }))
}

/// Marks a code used, by the grant that it is exchanged for. Returns `false` if it was used before or has
/// expired.
async fn use_up(
    step: &mut Transaction,
    code_id: &str,
    grant_id: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let used = sqlx::query(
        "UPDATE authorization_codes SET redeemed_at = $2, grant_id = $3
         WHERE id = $1 AND redeemed_at IS NULL AND expires_at > $2",
    )
    .bind(code_id)
    .bind(now.unix())
    .bind(grant_id)
    .execute(&mut **step)
    .await?;
    Ok(used.rows_affected() != 0)
}

/// Inserts the grant that a code is exchanged for, with its first refresh token.
async fn insert_grant(
    step: &mut Transaction,
    code: &StoredCode,
    exchange: &CodeExchange<'_>,
    now: Timestamp,
) -> Result<(), StorageError> {
    let CodeExchange { refresh_token, terms, .. } = exchange;
    let (grant_id, expires_at) = (refresh_token.id(), now.plus(terms.absolute));
    sqlx::query(
        "INSERT INTO grants (id, client_id, session_id, subject, resource, consented_scopes, created_at,
                             expires_at, last_used_at, last_used_from)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7, $9)",
    )
    .bind(grant_id)
    .bind(&code.issued.client_id)
    .bind(&code.session_id)
    .bind(&code.subject)
    .bind(&code.issued.resource)
    .bind(&code.consented_scopes)
    .bind(now.unix())
    .bind(expires_at.unix())
    .bind(terms.from.map(|from| from.to_string()))
    .execute(&mut **step)
    .await?;
    stop_point!("redeem: grant stored");
    let first = NewRefreshToken {
        token: refresh_token,
        grant_id,
        parent_id: None,
        issued_at: now,
        expires_at: now.plus(terms.idle).min(expires_at),
    };
    insert_refresh_token(step, &first).await
}

/// Ends the least recently used grants beyond the limits of the person to whom `code` was issued, and
/// records each of them in addition to `event`. Returns whether there were any.
async fn end_surplus(
    step: &mut Transaction,
    code: &StoredCode,
    terms: &GrantTerms,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<bool, StorageError> {
    const REASON: &str = "more grants than a person may have";
    let mut ended = false;
    // An empty client id matches every client.
    for (client_id, most) in
        [(code.issued.client_id.as_str(), terms.per_client), ("", terms.per_person)]
    {
        let rows = sqlx::query(
            "SELECT id, client_id, resource FROM grants
             WHERE subject = $1 AND revoked_at IS NULL AND expires_at > $4
               AND (client_id = $2 OR $2 = '')
             ORDER BY last_used_at DESC, id DESC LIMIT 1000 OFFSET $3",
        )
        .bind(&code.subject)
        .bind(client_id)
        .bind(i64::from(most))
        .bind(now.unix())
        .fetch_all(&mut **step)
        .await?;
        for row in &rows {
            let id: String = column(row, "id")?;
            let surplus = RevocationScope::SurplusGrant(&id);
            if revocation::end(step, surplus, REASON, now).await?.grants == 0 {
                continue;
            }
            ended = true;
            let told = event.clone().again("grant_revoked").grant(&id);
            let told = told.client(&column::<String>(row, "client_id")?);
            let told = told.resource(&column::<String>(row, "resource")?);
            step.record(told.with("because", REASON)).await?;
        }
    }
    Ok(ended)
}

async fn burn(step: &mut Transaction, code_id: &str, attempts: u32) -> Result<(), StorageError> {
    sqlx::query("UPDATE authorization_codes SET failures = $2 WHERE id = $1")
        .bind(code_id)
        .bind(i64::from(attempts))
        .execute(&mut **step)
        .await?;
    Ok(())
}

async fn count_failure(step: &mut Transaction, code_id: &str) -> Result<(), StorageError> {
    sqlx::query("UPDATE authorization_codes SET failures = failures + 1 WHERE id = $1")
        .bind(code_id)
        .execute(&mut **step)
        .await?;
    Ok(())
}
