//! Refresh tokens: rotation with reuse detection (RFC 9700 §4.14.2).
//!
//! A token has one successor ever. Within the grace window, a repeated request gets the same successor
//! again. Any other reuse revokes the whole family, that is, the grant (rules R1 to R10).

use std::net::IpAddr;
use std::time::Duration;

use super::revocation::{self, RevocationScope};
use super::{Attempts, Storage, StorageError, Transaction, column, moment, moment_if_any, scopes};
use crate::clock::{REPLICAS_APART, Timestamp};
use crate::oauth::grant::TokenRefused;
use crate::oauth::scope::ScopeSet;
use crate::oauth::sealed;
use crate::oauth::secret::{RefreshToken, Secret};
use crate::telemetry::audit::AuditEvent;

/// A refresh token as it was found, before anything is decided.
#[derive(Clone, Debug)]
pub struct FoundRefreshToken {
    /// The grant to which it belongs.
    pub grant_id: String,
    /// The client to which it was issued.
    pub client_id: String,
    /// The session at the identity provider.
    pub session_id: String,
    /// Our `sub` for the person.
    pub subject: String,
    /// The audience: the URI of the protected resource.
    pub resource: String,
    pub consented_scopes: ScopeSet,
    /// The absolute end of the grant.
    pub grant_expires_at: Timestamp,
    /// Whether the grant was live and the token unexpired when it was read. Rotation is not considered
    /// here.
    pub usable: Result<(), TokenRefused>,
    /// When it was rotated, if it was.
    pub used_at: Option<Timestamp>,
}

/// How rotation treats a token that was used before.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Grace window after the first use, in which the same successor is handed out again. Zero turns this
    /// off.
    pub grace: Duration,
    /// How many times the successor is handed out again.
    pub replays: u32,
    /// Idle lifetime of the successor.
    pub idle: Duration,
    /// The address from which the request came, if known.
    pub from: Option<IpAddr>,
}

impl Rotation {
    /// Returns whether a token used at `used_at` may get its successor again at `now`. A `now` shortly
    /// before `used_at` counts as well, because the clocks of replicas differ.
    pub fn in_grace(&self, used_at: Timestamp, now: Timestamp) -> bool {
        !self.grace.is_zero()
            && now >= used_at.minus(REPLICAS_APART)
            && now <= used_at.plus(self.grace)
    }
}

/// What a client exchanges in a refresh: the token that it presents, and the one that follows.
pub struct RefreshExchange<'a> {
    /// The token that the client presents.
    pub presented: &'a Secret<RefreshToken>,
    /// The same token as it was found. Only the fields that never change are used: the rest is read again
    /// inside the transaction.
    pub found: &'a FoundRefreshToken,
    /// The token that replaces it.
    pub successor: &'a Secret<RefreshToken>,
    /// How to treat a token that was used before.
    pub rotation: Rotation,
}

/// A refresh token to be inserted.
pub(super) struct NewRefreshToken<'a> {
    pub(super) token: &'a Secret<RefreshToken>,
    pub(super) grant_id: &'a str,
    /// The token that it replaces; `None` for the first one of a grant.
    pub(super) parent_id: Option<&'a str>,
    pub(super) issued_at: Timestamp,
    /// The end of its idle lifetime.
    pub(super) expires_at: Timestamp,
}

/// The outcome of a refresh.
#[derive(Debug)]
pub enum Rotated {
    /// First use: the successor was stored.
    First,
    /// A repeated use within the grace window: the successor of the first use.
    Replayed(Secret<RefreshToken>),
    /// Refused. In case of reuse, the family has been revoked.
    Refused(TokenRefused),
}

impl Storage {
    /// Finds a refresh token by its id and compares its hash. Changes nothing.
    pub async fn find_refresh_token(
        &self,
        presented: &Secret<RefreshToken>,
        now: Timestamp,
    ) -> Result<Option<FoundRefreshToken>, StorageError> {
        let query = sqlx::query(
            "SELECT r.token_hash, r.grant_id, r.expires_at, r.used_at, g.client_id, g.session_id,
                    g.subject, g.resource, g.consented_scopes, g.expires_at AS grant_expires_at, g.revoked_at
             FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id WHERE r.id = $1",
        )
        .bind(presented.id());
        let row = self.read_one(query).await?;
        let Some(row) = row else { return Ok(None) };
        if !presented.hash().is(&column::<String>(&row, "token_hash")?) {
            return Ok(None);
        }
        let used_at = moment_if_any(&row, "used_at")?;
        let grant_expires_at = moment(&row, "grant_expires_at")?;
        let usable = if moment_if_any(&row, "revoked_at")?.is_some() {
            Err(TokenRefused::EndedGrant)
        } else if now >= grant_expires_at
            || (used_at.is_none() && now >= moment(&row, "expires_at")?)
        {
            Err(TokenRefused::ExpiredRefreshToken)
        } else {
            Ok(())
        };
        Ok(Some(FoundRefreshToken {
            grant_id: column(&row, "grant_id")?,
            client_id: column(&row, "client_id")?,
            session_id: column(&row, "session_id")?,
            subject: column(&row, "subject")?,
            resource: column(&row, "resource")?,
            consented_scopes: scopes(&row, "consented_scopes")?,
            grant_expires_at,
            usable,
            used_at,
        }))
    }

    /// Rotates a refresh token, hands out the same successor again, or revokes the family.
    ///
    /// Reuse is an outcome and not an error, because an error would roll the revocation back. `event` is
    /// recorded under the name of the outcome.
    pub async fn rotate_refresh_token(
        &self,
        exchange: &RefreshExchange<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Rotated, StorageError> {
        let mut attempts = Attempts::new();
        loop {
            match self.try_to_rotate(exchange, now, event.clone()).await {
                Err(cause) if attempts.again(&cause).await => {}
                rotated => return rotated,
            }
        }
    }

    /// Rotates once. Fails if another transaction changed the same rows meanwhile.
    async fn try_to_rotate(
        &self,
        exchange: &RefreshExchange<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Rotated, StorageError> {
        let RefreshExchange { presented, found, successor, rotation } = exchange;
        // Sealed and hashed before the transaction begins, because other callers wait for its end.
        let sealed = sealed::seal_under(presented, successor);
        if self.takes_single_statements() {
            let event = event.clone().named("refresh_rotated");
            if self.rotate_by_statement(exchange, &sealed, now, event).await? {
                return Ok(Rotated::First);
            }
        }
        let hash = presented.hash();
        let from = rotation.from.map(|from| from.to_string());
        let mut step = self.begin().await?;
        let used = sqlx::query(
            "UPDATE refresh_tokens SET used_at = $3, successor_id = $4, successor = $5
             WHERE id = $1 AND token_hash = $2 AND grant_id = $6 AND used_at IS NULL
               AND expires_at > $3",
        )
        .bind(presented.id())
        .bind(hash.as_str())
        .bind(now.unix())
        .bind(successor.id())
        .bind(sealed)
        .bind(&found.grant_id)
        .execute(&mut *step)
        .await?;
        if used.rows_affected() == 0 {
            return self.used_before(step, exchange, now, event).await;
        }
        stop_point!("refresh: token used");
        // A revocation wins every race: the grant must be live in this same transaction.
        if !touch_grant(&mut step, &found.grant_id, from, now).await? {
            return Ok(Rotated::Refused(TokenRefused::EndedGrant));
        }
        stop_point!("refresh: grant touched");
        let next = NewRefreshToken {
            token: successor,
            grant_id: &found.grant_id,
            parent_id: Some(presented.id()),
            issued_at: now,
            expires_at: now.plus(rotation.idle).min(found.grant_expires_at),
        };
        insert_refresh_token(&mut step, &next).await?;
        stop_point!("refresh: successor stored");
        self.client_used(&mut step, &found.client_id, now).await?;
        step.record(event.named("refresh_rotated")).await?;
        stop_point!("refresh: told");
        step.commit().await?;
        stop_point!("refresh: committed");
        Ok(Rotated::First)
    }

    /// Decides about a token that was used before: hands out its successor again, or revokes the family.
    async fn used_before(
        &self,
        mut step: Transaction,
        exchange: &RefreshExchange<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Rotated, StorageError> {
        let RefreshExchange { presented, rotation, .. } = exchange;
        let row = sqlx::query(
            "SELECT r.token_hash, r.grant_id, r.used_at, r.successor, n.used_at AS successor_used_at,
                    g.revoked_at, g.expires_at AS grant_expires_at
             FROM refresh_tokens r
             JOIN grants g ON g.id = r.grant_id
             LEFT JOIN refresh_tokens n ON n.id = r.successor_id
             WHERE r.id = $1",
        )
        .bind(presented.id())
        .fetch_optional(&mut *step)
        .await?;
        let Some(row) = row else {
            return Ok(Rotated::Refused(TokenRefused::UnknownRefreshToken));
        };
        if !presented.hash().is(&column::<String>(&row, "token_hash")?) {
            return Ok(Rotated::Refused(TokenRefused::UnknownRefreshToken));
        }
        if moment_if_any(&row, "revoked_at")?.is_some() {
            return Ok(Rotated::Refused(TokenRefused::EndedGrant));
        }
        let Some(used_at) = moment_if_any(&row, "used_at")? else {
            return Ok(Rotated::Refused(TokenRefused::ExpiredRefreshToken));
        };
        if now >= moment(&row, "grant_expires_at")? {
            return Ok(Rotated::Refused(TokenRefused::ExpiredRefreshToken));
        }
        let successor_is_fresh = moment_if_any(&row, "successor_used_at")?.is_none();
        if successor_is_fresh && rotation.in_grace(used_at, now) {
            let sealed: Option<String> = column(&row, "successor")?;
            return hand_out_again(step, exchange, sealed, event).await;
        }
        step.use_reserve().await?;
        let grant_id: String = column(&row, "grant_id")?;
        revocation::end(&mut step, RevocationScope::Grant(&grant_id), "refresh token reused", now)
            .await?;
        step.record(event.named("refresh_reused")).await?;
        stop_point!("reuse: revoked");
        self.commit_and_notify(step).await?;
        stop_point!("reuse: committed");
        Ok(Rotated::Refused(TokenRefused::ReusedRefreshToken))
    }
}

/// Notes the use of a live grant. Returns `false` if it is not live.
async fn touch_grant(
    step: &mut Transaction,
    grant_id: &str,
    from: Option<String>,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let touched = sqlx::query(
        "UPDATE grants SET last_used_at = $2, last_used_from = $3
         WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2
           AND NOT EXISTS (SELECT 1 FROM denied_clients d WHERE d.client_id = grants.client_id)
           AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = grants.subject)",
    )
    .bind(grant_id)
    .bind(now.unix())
    .bind(from)
    .execute(&mut **step)
    .await?;
    Ok(touched.rows_affected() != 0)
}

/// Returns the successor that the first use of the token got. `sealed` is the successor as it is stored.
async fn hand_out_again(
    mut step: Transaction,
    exchange: &RefreshExchange<'_>,
    sealed: Option<String>,
    event: AuditEvent,
) -> Result<Rotated, StorageError> {
    let RefreshExchange { presented, rotation, .. } = exchange;
    let counted = sqlx::query(
        "UPDATE refresh_tokens SET replays = replays + 1 WHERE id = $1 AND replays < $2",
    )
    .bind(presented.id())
    .bind(i64::from(rotation.replays))
    .execute(&mut *step)
    .await?;
    if counted.rows_affected() == 0 {
        return Ok(Rotated::Refused(TokenRefused::TooManyReplays));
    }
    let sealed = sealed.ok_or_else(|| StorageError::Corrupt("no successor".to_owned()))?;
    let successor = sealed::open_under(presented, &sealed)?;
    step.record(event.named("refresh_grace_replayed")).await?;
    stop_point!("again: counted");
    step.commit().await?;
    stop_point!("again: committed");
    Ok(Rotated::Replayed(successor))
}

/// Inserts a refresh token in the caller's transaction.
pub(super) async fn insert_refresh_token(
    step: &mut Transaction,
    new: &NewRefreshToken<'_>,
) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO refresh_tokens
             (id, token_hash, grant_id, parent_id, issued_at, expires_at, replays)
         VALUES ($1, $2, $3, $4, $5, $6, 0)",
    )
    .bind(new.token.id())
    .bind(new.token.hash().as_str())
    .bind(new.grant_id)
    .bind(new.parent_id)
    .bind(new.issued_at.unix())
    .bind(new.expires_at.unix())
    .execute(&mut **step)
    .await?;
    Ok(())
}
