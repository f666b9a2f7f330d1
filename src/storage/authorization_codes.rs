//! Authorization codes: issued at the end of a login, redeemed once.

use std::net::IpAddr;
use std::time::Duration;

use super::grants::revoke;
use super::refresh_tokens::insert_refresh_token;
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

/// A code about to be issued.
pub struct NewCode<'a> {
    /// The code.
    pub code: &'a Secret<AuthorizationCode>,
    /// What the client asked for and the person approved.
    pub request: &'a AuthorizationRequest,
    /// What the rules leave of it.
    pub scopes: &'a ScopeSet,
    /// Our `sub` for the person.
    pub subject: &'a str,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// What a redemption leads to.
#[derive(Debug)]
pub enum Redeemed {
    /// The first and only success.
    First(RedeemedGrant),
    /// Refused; where the rules say so, the step revoked or counted.
    Refused(TokenRefused),
}

/// The grant a code became.
#[derive(Clone, Debug)]
pub struct RedeemedGrant {
    /// Row id of the grant.
    pub grant_id: String,
    /// Our `sub` for the person.
    pub subject: String,
    /// The audience.
    pub resource: String,
    /// What the rules left of the consented scopes at login.
    pub scopes: ScopeSet,
}

/// How long a grant and its first refresh token live, beside how many others, and how often a code may
/// be tried.
#[derive(Clone, Copy, Debug)]
pub struct GrantTerms {
    /// Absolute end of the grant.
    pub absolute: Duration,
    /// Idle end of the refresh token.
    pub idle: Duration,
    /// Wrong attempts that burn a code.
    pub attempts: u32,
    /// Live grants of one person to one client.
    pub per_client: u32,
    /// Live grants of one person.
    pub per_person: u32,
    /// Where the request came from, when that is known.
    pub from: Option<IpAddr>,
}

impl Storage {
    /// Ends a login: stores the upstream session and issues the code, both or neither.
    pub async fn finish_login(
        &self,
        session: &SessionUpdate,
        new: &NewCode<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
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

    /// Redeems a code: marks it used, creates the grant and stores its first refresh token, all or
    /// nothing. Of concurrent attempts one is the `First`; any later one by the same holder revokes
    /// the grant.
    ///
    /// A replay is an outcome, not an error: an error would roll the revocation back. `event` is told
    /// under the name of the outcome.
    pub async fn redeem_code(
        &self,
        code: &Secret<AuthorizationCode>,
        attempt: &Redemption<'_>,
        refresh_token: &Secret<RefreshToken>,
        terms: GrantTerms,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Redeemed, StorageError> {
        let mut step = self.begin().await?;
        let row = sqlx::query(
            "SELECT c.code_hash, c.client_id, c.redirect_uri, c.code_challenge, c.resource, c.ceiling,
                    c.scopes, c.session_id, c.subject, c.expires_at, c.failures, c.redeemed_at,
                    c.grant_id, s.state,
                    CASE WHEN EXISTS (SELECT 1 FROM client_standings b
                                      WHERE b.client_id = c.client_id
                                      AND (b.blocked = 1 OR b.approval = 'refused'))
                           OR EXISTS (SELECT 1 FROM people p WHERE p.subject = c.subject
                                      AND p.blocked_at IS NOT NULL) THEN 1 ELSE 0 END AS shut_out,
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
        .fetch_optional(&mut *step)
        .await?;
        let Some(row) = row else {
            return Ok(Redeemed::Refused(TokenRefused::UnknownCode));
        };
        if !code.hash().is(&column::<String>(&row, "code_hash")?) {
            return Ok(Redeemed::Refused(TokenRefused::UnknownCode));
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
        if column::<i64>(&row, "failures")? >= i64::from(terms.attempts) {
            return Ok(Redeemed::Refused(TokenRefused::BurntCode));
        }
        if let Err(refused) = issued.check_holder(attempt) {
            // Not the holder: count it, but neither use the code up nor revoke anything, or a leaked
            // code would be enough to log its owner out.
            count_failure(&mut step, code.id()).await?;
            step.commit().await?;
            return Ok(Redeemed::Refused(refused));
        }
        if moment_if_any(&row, "redeemed_at")?.is_some() {
            return self.replayed(step, code.id(), now, event).await;
        }
        let session_id: String = column(&row, "session_id")?;
        if column::<i64>(&row, "shut_out")? != 0
            || column::<String>(&row, "state")? != "active"
            || !self.still_active(&mut step, &session_id).await?
        {
            // The person signed out, or was cut off, in this very minute.
            return Ok(Redeemed::Refused(TokenRefused::UpstreamEnded));
        }
        if let Err(refused) = issued.check_use(attempt, now) {
            if refused == TokenRefused::ExpiredCode {
                // For good: a clock that goes back must not revive it.
                burn(&mut step, code.id(), terms.attempts).await?;
                step.commit().await?;
            }
            return Ok(Redeemed::Refused(refused));
        }

        let grant_id = refresh_token.id().to_owned();
        let used = sqlx::query(
            "UPDATE authorization_codes SET redeemed_at = $2, grant_id = $3
             WHERE id = $1 AND redeemed_at IS NULL AND expires_at > $2",
        )
        .bind(code.id())
        .bind(now.unix())
        .bind(&grant_id)
        .execute(&mut *step)
        .await?;
        if used.rows_affected() == 0 {
            return self.replayed(step, code.id(), now, event).await;
        }
        stop_point!("redeem: code used");
        let expires_at = now.plus(terms.absolute);
        let subject: String = column(&row, "subject")?;
        sqlx::query(
            "INSERT INTO grants (id, client_id, session_id, subject, resource, ceiling, created_at,
                                 expires_at, last_used_at, last_used_from)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7, $9)",
        )
        .bind(&grant_id)
        .bind(&issued.client_id)
        .bind(&session_id)
        .bind(&subject)
        .bind(&issued.resource)
        .bind(column::<String>(&row, "ceiling")?)
        .bind(now.unix())
        .bind(expires_at.unix())
        .bind(terms.from.map(|from| from.to_string()))
        .execute(&mut *step)
        .await?;
        stop_point!("redeem: grant stored");
        let idle_end = now.plus(terms.idle).min(expires_at);
        insert_refresh_token(&mut step, refresh_token, &grant_id, None, now, idle_end).await?;
        stop_point!("redeem: token stored");
        self.client_used(&mut step, &issued.client_id, now).await?;
        let scopes = scopes(&row, "scopes")?;
        let told = event.named("code_redeemed").grant(&grant_id).subject(&subject);
        let told = told.resource(&issued.resource).with("scopes", scopes.to_string());
        let also = told.clone();
        step.record(told).await?;
        let surplus = column::<i64>(&row, "grants_of_person")? >= i64::from(terms.per_person)
            || column::<i64>(&row, "grants_of_client")? >= i64::from(terms.per_client);
        let ended = surplus
            && end_surplus(&mut step, &subject, &issued.client_id, terms, &also, now).await?;
        stop_point!("redeem: told");
        if ended {
            self.commit_and_notify(step).await?;
        } else {
            step.commit().await?;
        }
        stop_point!("redeem: committed");
        Ok(Redeemed::First(RedeemedGrant { grant_id, subject, resource: issued.resource, scopes }))
    }

    /// Whether a sign-out that runs at the same time comes later. SQLite runs one step at a time; on
    /// PostgreSQL the row is locked, so that the sign-out waits, or has come first.
    async fn still_active(
        &self,
        step: &mut Transaction,
        session_id: &str,
    ) -> Result<bool, StorageError> {
        if self.engine == Engine::Sqlite {
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
            revoke(&mut step, &grant_id, "code replayed", now).await?;
            step.record(event.named("code_replayed").grant(&grant_id)).await?;
        }
        stop_point!("replay: revoked");
        self.commit_and_notify(step).await?;
        stop_point!("replay: committed");
        Ok(Redeemed::Refused(TokenRefused::ReplayedCode))
    }
}

/// Stores a code in the caller's step.
///
/// A client that was shut out while the person was signing in gets none.
pub(super) async fn insert_code(
    step: &mut Transaction,
    new: &NewCode<'_>,
    session_id: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    let shut_out: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM client_standings
         WHERE client_id = $1 AND (blocked = 1 OR approval = 'refused')",
    )
    .bind(&new.request.client_id)
    .fetch_optional(&mut **step)
    .await?;
    if shut_out.is_some() {
        return Err(StorageError::ShutOut(Denied::Client));
    }
    sqlx::query(
        "INSERT INTO authorization_codes
             (id, code_hash, client_id, redirect_uri, code_challenge, resource,
              ceiling, scopes, session_id, subject, created_at, expires_at, failures)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0)",
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
    .execute(&mut **step)
    .await?;
    Ok(())
}

/// Which codes end.
#[derive(Clone, Copy, Debug)]
pub(super) enum CodesOf<'a> {
    /// Of a session at the identity provider.
    Session(&'a str),
    /// Of a person: our `sub`.
    Person(&'a str),
    /// Of a client.
    Client(&'a str),
    /// Of a person for a client.
    Connection { subject: &'a str, client_id: &'a str },
    /// With an id before this one: issued earlier.
    Before(&'a str),
    /// All.
    Everybody,
}

/// Ends codes that are on their way, in the caller's step; answers how many.
///
/// The only way in which a code ends that is not redeemed: it counts as used. A redemption that runs at the
/// same time has the row, and has either made its grant when the grants end in this step, or finds the code
/// used. Nothing here looks at `expires_at`: a replica whose clock is behind would still redeem what
/// looks expired here.
pub(super) async fn end_codes(
    step: &mut Transaction,
    which: CodesOf<'_>,
    now: Timestamp,
) -> Result<u64, StorageError> {
    let (condition, one, two) = match which {
        CodesOf::Session(id) => ("session_id = $2", id, None),
        CodesOf::Person(subject) => ("subject = $2", subject, None),
        CodesOf::Client(id) => ("client_id = $2", id, None),
        CodesOf::Connection { subject, client_id } => {
            ("subject = $2 AND client_id = $3", subject, Some(client_id))
        }
        CodesOf::Before(id) => ("id < $2", id, None),
        CodesOf::Everybody => ("id >= $2", "", None),
    };
    let sql = format!(
        "UPDATE authorization_codes SET redeemed_at = $1 WHERE {condition} AND redeemed_at IS NULL"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now.unix()).bind(one);
    if let Some(two) = two {
        query = query.bind(two);
    }
    Ok(query.execute(&mut **step).await?.rows_affected())
}

/// Ends the least recently used grants of a person beyond the most that one may have, and says whether
/// there were any. The audit trail is told of each, beside `event`.
async fn end_surplus(
    step: &mut Transaction,
    subject: &str,
    client_id: &str,
    terms: GrantTerms,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<bool, StorageError> {
    const BECAUSE: &str = "more grants than a person may have";
    let mut ended = false;
    // An empty client id means any.
    for (client_id, most) in [(client_id, terms.per_client), ("", terms.per_person)] {
        let rows = sqlx::query(
            "UPDATE grants SET revoked_at = $4, revoked_because = $5
             WHERE id IN (SELECT id FROM grants WHERE subject = $1 AND revoked_at IS NULL
                          AND expires_at > $4 AND (client_id = $2 OR $2 = '')
                          ORDER BY last_used_at DESC, id DESC LIMIT 1000 OFFSET $3)
             RETURNING id, client_id, resource",
        )
        .bind(subject)
        .bind(client_id)
        .bind(i64::from(most))
        .bind(now.unix())
        .bind(BECAUSE)
        .fetch_all(&mut **step)
        .await?;
        for row in &rows {
            ended = true;
            let told = event.clone().again("grant_revoked").grant(&column::<String>(row, "id")?);
            let told = told.client(&column::<String>(row, "client_id")?);
            let told = told.resource(&column::<String>(row, "resource")?);
            step.record(told.with("because", BECAUSE)).await?;
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
