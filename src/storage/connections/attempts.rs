//! Attempts to connect a service: from the button on our page until the service sends the browser back.
//!
//! An attempt is bound to one browser, one person and one service, and can be used once. Whoever comes back
//! with it in another browser, as another person or at the callback of another service ends it (threats UT-01
//! and UT-02).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{joined, words};
use crate::clock::Timestamp;
use crate::oauth::secret::{BrowserBinding, ConnectState, Secret, SecretHash};
use crate::storage::{Storage, StorageError, Transaction, Use, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// Most open attempts of a person: 5.
const OPEN: i64 = 5;

const REQUEST: &str = "connection_attempts.request";

/// What an attempt needs when the browser comes back. Stored sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRequest {
    /// The verifier of our PKCE challenge to the service.
    pub verifier: String,
    /// The `nonce` that an ID token of the service must carry.
    pub nonce: String,
    /// The path of our page to which the person returns.
    pub return_to: String,
}

impl fmt::Debug for AttemptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptRequest")
    }
}

/// An attempt to be started.
#[derive(Clone, Debug)]
pub struct NewAttempt<'a> {
    /// The `state` for the service. Its id is the row id.
    pub state: &'a Secret<ConnectState>,
    /// Hash of the browser's cookie, to verify that the same browser returns.
    pub binding: SecretHash<BrowserBinding>,
    /// The person, by our `sub`.
    pub subject: &'a str,
    /// The person's session at our pages. When it ends with the sign-in, the attempt ends.
    pub web_session_id: &'a str,
    /// The service's name in the configuration.
    pub name: &'a str,
    /// The scopes to ask for.
    pub scopes: &'a BTreeSet<String>,
    /// The MCP server for which the person connects the service; empty: none.
    pub resource: &'a str,
    pub request: &'a AttemptRequest,
    /// When the attempt must be finished.
    pub expires_at: Timestamp,
}

/// The outcome of the start of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    Started,
    /// The person has five open attempts. Nothing was stored.
    TooMany {
        /// When the first of them expires.
        free_at: Timestamp,
    },
}

/// An attempt that came back and is now used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenAttempt {
    /// Row id, for [`Storage::put_connection`].
    pub id: String,
    /// The person, by our `sub`.
    pub subject: String,
    /// The service's name in the configuration.
    pub name: String,
    /// The scopes that were asked for.
    pub scopes: BTreeSet<String>,
    /// The MCP server for which the person connects the service; empty: none.
    pub resource: String,
    pub request: AttemptRequest,
}

/// The browser that arrives at a callback.
#[derive(Clone, Copy, Debug)]
pub struct AttemptComer<'a> {
    /// Secret from its cookie.
    pub binding: Option<&'a Secret<BrowserBinding>>,
    /// The person who is signed in there, by our `sub`.
    pub subject: &'a str,
    /// The service whose callback it is.
    pub name: &'a str,
}

/// The outcome of a callback.
#[derive(Debug)]
pub enum AttemptClaim {
    /// The first callback, in the right browser, by the right person, of the right service.
    First(Box<TakenAttempt>),
    /// The attempt does not exist, was ended with the sign-in, or was already cleaned up.
    Unknown,
    /// A second callback.
    Already,
    Expired,
    /// Another browser. The attempt is ended.
    OtherBrowser,
    /// Another person is signed in. The attempt is ended.
    OtherPerson,
    /// The callback of another service. The attempt is ended.
    OtherService,
}

/// An attempt as it is stored.
struct StoredAttempt {
    binding_hash: String,
    subject: String,
    name: String,
    scopes: String,
    resource: String,
    request: String,
    expires_at: Timestamp,
    is_used: bool,
}

/// What the sealed request of a row is bound to. A service's name has no space.
fn bound_to(id: &str, name: &str, subject: &str) -> String {
    format!("{id} {name} {subject}")
}

impl Storage {
    /// Starts an attempt, if the person has less than five open ones.
    pub async fn begin_connection(
        &self,
        new: &NewAttempt<'_>,
        now: Timestamp,
    ) -> Result<Begun, StorageError> {
        let id = new.state.id();
        let sealed = self.seal_json(REQUEST, &bound_to(id, new.name, new.subject), new.request)?;
        let mut step = self.begin_for(Use::SignIns).await?;
        // Locks the person, so that attempts which begin at the same time count each other.
        sqlx::query("UPDATE people SET last_seen_at = last_seen_at WHERE subject = $1")
            .bind(new.subject)
            .execute(&mut *step)
            .await?;
        let started = sqlx::query(
            "INSERT INTO connection_attempts
                 (id, state_hash, binding_hash, subject, web_session_id, name, scopes, resource,
                  request, created_at, expires_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
             WHERE (SELECT COUNT(*) FROM connection_attempts
                    WHERE subject = $4 AND used_at IS NULL AND expires_at > $10) < $12",
        )
        .bind(id)
        .bind(new.state.hash().as_str())
        .bind(new.binding.as_str())
        .bind(new.subject)
        .bind(new.web_session_id)
        .bind(new.name)
        .bind(joined(new.scopes))
        .bind(new.resource)
        .bind(sealed)
        .bind(now.unix())
        .bind(new.expires_at.unix())
        .bind(OPEN)
        .execute(&mut *step)
        .await?;
        if started.rows_affected() == 1 {
            step.commit().await?;
            return Ok(Begun::Started);
        }
        let first = sqlx::query(
            "SELECT MIN(expires_at) AS first FROM connection_attempts
             WHERE subject = $1 AND used_at IS NULL AND expires_at > $2",
        )
        .bind(new.subject)
        .bind(now.unix())
        .fetch_one(&mut *step)
        .await?;
        Ok(Begun::TooMany { free_at: moment_if_any(&first, "first")?.unwrap_or(now) })
    }

    /// Uses up an attempt. Of concurrent callbacks, one is the `First`.
    ///
    /// `event` is used if the right `state` arrives in another browser, as another person or at another
    /// callback: it is recorded with the `reason` if that ended the attempt, and merely logged otherwise.
    pub async fn take_attempt(
        &self,
        state: &Secret<ConnectState>,
        comer: AttemptComer<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<AttemptClaim, StorageError> {
        // Read first: a made-up `state` must not occupy the writer.
        let known = sqlx::query("SELECT state_hash FROM connection_attempts WHERE id = $1");
        let Some(known) = self.read_one(known.bind(state.id())).await? else {
            return Ok(AttemptClaim::Unknown);
        };
        if !state.hash().is(&column::<String>(&known, "state_hash")?) {
            return Ok(AttemptClaim::Unknown);
        }
        let mut step = self.begin().await?;
        let Some(attempt) = find(&mut step, state).await? else {
            return Ok(AttemptClaim::Unknown);
        };
        if let Some((wrong, reason)) = attempt.refuses(comer) {
            let event = event.with("connection", attempt.name).with("reason", reason);
            if end(&mut step, state.id(), now).await? {
                step.record(event).await?;
                step.commit().await?;
            } else {
                self.metrics().event(event.event);
                event.log();
            }
            return Ok(wrong);
        }
        if attempt.is_used {
            return Ok(AttemptClaim::Already);
        }
        if now >= attempt.expires_at {
            return Ok(AttemptClaim::Expired);
        }
        if !end(&mut step, state.id(), now).await? {
            return Ok(AttemptClaim::Already);
        }
        let bound = bound_to(state.id(), &attempt.name, &attempt.subject);
        let request = self.open_json(REQUEST, &bound, &attempt.request)?;
        step.commit().await?;
        Ok(AttemptClaim::First(Box::new(TakenAttempt {
            id: state.id().to_owned(),
            subject: attempt.subject,
            name: attempt.name,
            scopes: words(&attempt.scopes),
            resource: attempt.resource,
            request,
        })))
    }
}

impl StoredAttempt {
    /// Returns what is wrong with who comes back, with words for the audit trail; `None`: nothing.
    fn refuses(&self, comer: AttemptComer<'_>) -> Option<(AttemptClaim, &'static str)> {
        if !comer.binding.is_some_and(|binding| binding.hash().is(&self.binding_hash)) {
            return Some((AttemptClaim::OtherBrowser, "another browser"));
        }
        if comer.subject != self.subject {
            return Some((AttemptClaim::OtherPerson, "another person"));
        }
        (comer.name != self.name)
            .then_some((AttemptClaim::OtherService, "the callback of another service"))
    }
}

/// Finds an attempt by its `state`; `None` if there is none.
async fn find(
    step: &mut Transaction,
    state: &Secret<ConnectState>,
) -> Result<Option<StoredAttempt>, StorageError> {
    let row = sqlx::query(
        "SELECT state_hash, binding_hash, subject, name, scopes, resource, request, expires_at,
                used_at
         FROM connection_attempts WHERE id = $1",
    )
    .bind(state.id())
    .fetch_optional(&mut **step)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !state.hash().is(&column::<String>(&row, "state_hash")?) {
        return Ok(None);
    }
    Ok(Some(StoredAttempt {
        binding_hash: column(&row, "binding_hash")?,
        subject: column(&row, "subject")?,
        name: column(&row, "name")?,
        scopes: column(&row, "scopes")?,
        resource: column(&row, "resource")?,
        request: column(&row, "request")?,
        expires_at: moment(&row, "expires_at")?,
        is_used: moment_if_any(&row, "used_at")?.is_some(),
    }))
}

/// Uses up the attempt. Returns `false` when it was used before.
async fn end(step: &mut Transaction, id: &str, now: Timestamp) -> Result<bool, StorageError> {
    let written = sqlx::query(
        "UPDATE connection_attempts SET used_at = $2 WHERE id = $1 AND used_at IS NULL",
    )
    .bind(id)
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(written.rows_affected() == 1)
}
