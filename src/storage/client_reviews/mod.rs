//! Decisions of administrators about clients, and logins that wait for such a decision.

pub(super) mod decisions;
mod patterns;
mod waiting;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

use super::authorization_codes::{NewCode, insert_code};
use super::upstream_sessions::SessionUpdate;
use super::{Storage, StorageError, Transaction, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::secret::{HeldLogin, Secret};
use crate::telemetry::audit::AuditEvent;

pub use decisions::{ClientDecided, ClientDecision, ReviewDecision};
pub use patterns::{ApprovalPattern, NewApprovalPattern};
pub use waiting::WaitingPerson;

/// Stored as the source of trust for clients with `[[client]] trusted = true`.
pub(super) const CONFIGURATION: &str = "configuration";

/// The state of a client under `client_approval = "first_use"`, where an administrator decides about each
/// client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr)]
pub enum ReviewState {
    /// No administrator has been asked.
    #[default]
    #[strum(serialize = "none")]
    NotReviewed,
    /// A person waits for a decision.
    #[strum(serialize = "waiting")]
    Waiting,
    /// It may receive authorizations.
    #[strum(serialize = "approved")]
    Approved,
    /// It may not.
    #[strum(serialize = "refused")]
    Rejected,
}

impl ReviewState {
    /// Returns the name in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    fn parse(text: &str) -> Result<Self, StorageError> {
        text.parse().map_err(|_| StorageError::Corrupt("state".to_owned()))
    }
}

/// The decisions about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientReview {
    /// Digest of the metadata that was approved ([`ClientMetadata::digest`]).
    ///
    /// [`ClientMetadata::digest`]: crate::oauth::client::ClientMetadata::digest
    pub approved_as: Option<String>,
    /// Digest of the metadata that was trusted; `None` if the configuration trusts the client.
    pub trusted_as: Option<String>,
    /// Whether the configuration trusts it, whatever its metadata.
    pub trusted_by_configuration: bool,
    /// Whether it may receive authorizations, under `client_approval = "first_use"`.
    pub state: ReviewState,
    /// Whether people's consents to it are remembered.
    pub trusted: bool,
    /// Whether it is blocked: no authorization, no token.
    pub blocked: bool,
    /// When a person first waited for a decision.
    pub requested_at: Option<Timestamp>,
    /// Our `sub` for that person.
    pub requested_by: Option<String>,
}

impl ClientReview {
    /// Returns whether no person can connect it.
    pub fn is_denied(&self) -> bool {
        self.blocked || self.state == ReviewState::Rejected
    }

    /// Drops the decisions that were made about other metadata than the client has now. A block and a
    /// rejection stay.
    #[must_use]
    pub fn of_today(mut self, client: &Client) -> Self {
        let approved = self.state == ReviewState::Approved;
        let trusted_here = matches!(client.origin, Origin::Configured { trusted: true });
        if !approved && (!self.trusted || trusted_here) {
            return self;
        }
        // A registered client loses its decisions in the transaction that changes it. Other clients
        // change outside of the database, so for them a decision without a digest cannot be matched to
        // any metadata.
        let may_be_silent = matches!(client.origin, Origin::Registered | Origin::Created);
        let digest = client.metadata.digest();
        let fits = |about: &Option<String>| match about {
            Some(about) => *about == digest,
            None => may_be_silent,
        };
        if approved && !fits(&self.approved_as) {
            self.state = ReviewState::NotReviewed;
        }
        self.trusted &= trusted_here || fits(&self.trusted_as);
        self
    }

    /// Returns whether an approval or trust no longer applies because the client has changed.
    pub fn has_lapsed(&self) -> bool {
        let unapproved = matches!(self.state, ReviewState::NotReviewed | ReviewState::Waiting);
        (self.approved_as.is_some() && unapproved) || (self.trusted_as.is_some() && !self.trusted)
    }
}

/// A completed login that waits for an administrator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginAwaitingApproval {
    /// The request that the person approved.
    pub request: AuthorizationRequest,
    /// Our `sub` for the person.
    pub subject: String,
    /// The person's session at the identity provider. When it ends, the waiting ends too.
    pub session_id: String,
    /// Digest of the client's metadata that the person saw; `None` for logins that an earlier version
    /// stored.
    #[serde(default)]
    pub client_digest: Option<String>,
}

/// A completed login to be stored until a decision.
pub struct NewLoginAwaitingApproval<'a> {
    /// The value of the cookie.
    pub token: &'a Secret<HeldLogin>,
    /// The request that the person approved.
    pub request: &'a AuthorizationRequest,
    /// The person, with their tokens from the identity provider.
    pub session: &'a SessionUpdate,
    /// Our `sub` for the person.
    pub subject: &'a str,
    /// Digest of the client's metadata now.
    pub client_digest: &'a str,
    pub expires_at: Timestamp,
}

/// The state of a waiting login.
#[derive(Debug)]
pub enum Waiting {
    /// No such login in this browser, or it has expired.
    Unknown,
    /// It has ended, with or without a code.
    Ended(Box<LoginAwaitingApproval>),
    /// It still waits, or the decision has been made and it can continue.
    Held {
        login: Box<LoginAwaitingApproval>,
        since: Timestamp,
        /// When it ends at the latest.
        until: Timestamp,
    },
}

impl Storage {
    /// Loads the decisions about a client.
    pub async fn client_review(&self, client_id: &str) -> Result<ClientReview, StorageError> {
        let query = sqlx::query(
            "SELECT state, trusted, blocked, requested_at, requested_by, approved_as, trusted_as,
                    trusted_by
             FROM client_reviews WHERE client_id = $1",
        )
        .bind(client_id);
        let row = self.read_one(query).await?;
        row.as_ref().map_or_else(|| Ok(ClientReview::default()), read_client_review)
    }

    /// Stores a completed login until an administrator has decided about its client. The upstream session
    /// is stored as after every login, so that a sign-out also ends the waiting.
    pub async fn await_approval(
        &self,
        new: &NewLoginAwaitingApproval<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let NewLoginAwaitingApproval {
            token,
            request,
            session,
            subject,
            client_digest,
            expires_at,
        } = new;
        let client_id = &request.client_id;
        let mut step = self.begin().await?;
        let session_id = self.put_session(&mut step, session, subject, now).await?;
        let held = LoginAwaitingApproval {
            request: (*request).clone(),
            subject: (*subject).to_owned(),
            session_id,
            client_digest: Some((*client_digest).to_owned()),
        };
        let sealed = self.seal_json("logins_awaiting_approval.login", token.id(), &held)?;
        let is_new = request_review(&mut step, client_id, subject, now).await?;
        sqlx::query(
            "INSERT INTO logins_awaiting_approval
                 (id, token_hash, client_id, subject, login, created_at, expires_at, resource,
                  session_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id())
        .bind(token.hash().as_str())
        .bind(client_id)
        .bind(*subject)
        .bind(sealed)
        .bind(now.unix())
        .bind(expires_at.unix())
        .bind(&request.resource)
        .bind(&held.session_id)
        .execute(&mut *step)
        .await?;
        // Keeps retention from removing the client while a person waits for it.
        sqlx::query(
            "UPDATE clients SET last_registered_at = $2
             WHERE id = $1 AND kind = 'registered' AND last_registered_at < $2",
        )
        .bind(client_id)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        if is_new {
            step.record(event.clone().named("client_waits")).await?;
        }
        step.record(event.again("login_held")).await?;
        step.commit().await
    }

    /// Loads the login that waits in the browser with this cookie.
    pub async fn login_awaiting_approval(
        &self,
        token: &Secret<HeldLogin>,
        now: Timestamp,
    ) -> Result<Waiting, StorageError> {
        let held = sqlx::query(
            "SELECT token_hash, login, created_at, expires_at, ended_at
             FROM logins_awaiting_approval WHERE id = $1",
        )
        .bind(token.id());
        let Some(row) = self.read_one(held).await? else { return Ok(Waiting::Unknown) };
        let fits = token.hash().is(&column::<String>(&row, "token_hash")?);
        let (since, until) = (moment(&row, "created_at")?, moment(&row, "expires_at")?);
        if !fits || now >= until {
            return Ok(Waiting::Unknown);
        }
        let sealed: String = column(&row, "login")?;
        let login =
            Box::new(self.open_json("logins_awaiting_approval.login", token.id(), &sealed)?);
        let ended = moment_if_any(&row, "ended_at")?.is_some();
        Ok(if ended { Waiting::Ended(login) } else { Waiting::Held { login, since, until } })
    }

    /// Ends the waiting and issues the code, once. Returns `false`, without a code, when it had ended
    /// before.
    pub async fn release_awaiting_login(
        &self,
        token: &Secret<HeldLogin>,
        new: &NewCode<'_>,
        session_id: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        // Locks the session before the waiting login, as revocations do: one that runs at the same time
        // either ends this code too, or has already ended the waiting.
        if !self.still_active(&mut step, session_id).await?
            || !end_awaiting_login(&mut step, token, now).await?
        {
            return Ok(false);
        }
        insert_code(&mut step, new, session_id, now).await?;
        step.record(event).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Ends the waiting because the person cancels it, and records that. Returns `false` when it had ended before.
    pub async fn cancel_awaiting_login(
        &self,
        token: &Secret<HeldLogin>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        if !end_awaiting_login(&mut step, token, now).await? {
            return Ok(false);
        }
        step.record(event).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Ends the waiting without a code. Returns `false` when it had ended before.
    pub async fn drop_awaiting_login(
        &self,
        token: &Secret<HeldLogin>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let ended = end_awaiting_login(&mut step, token, now).await?;
        step.commit().await?;
        Ok(ended)
    }
}

/// Marks a client as waiting for a decision, if nothing was decided about it. Returns whether it was
/// marked now.
async fn request_review(
    step: &mut Transaction,
    client_id: &str,
    requested_by: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let asked = sqlx::query(
        "INSERT INTO client_reviews
             (client_id, state, trusted, blocked, requested_at, requested_by, changed_at, changed_by)
         VALUES ($1, 'waiting', 0, 0, $2, $3, $2, $3)
         ON CONFLICT (client_id) DO UPDATE
         SET state = 'waiting', requested_at = $2, requested_by = $3
         WHERE client_reviews.state = 'none'",
    )
    .bind(client_id)
    .bind(now.unix())
    .bind(requested_by)
    .execute(&mut **step)
    .await?;
    Ok(asked.rows_affected() == 1)
}

async fn end_awaiting_login(
    step: &mut Transaction,
    token: &Secret<HeldLogin>,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let ended = sqlx::query(
        "UPDATE logins_awaiting_approval SET ended_at = $3
         WHERE id = $1 AND token_hash = $2 AND ended_at IS NULL AND expires_at > $3",
    )
    .bind(token.id())
    .bind(token.hash().as_str())
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(ended.rows_affected() == 1)
}

pub(super) fn read_client_review(row: &sqlx::any::AnyRow) -> Result<ClientReview, StorageError> {
    Ok(ClientReview {
        state: ReviewState::parse(&column::<String>(row, "state")?)?,
        trusted: column::<i64>(row, "trusted")? != 0,
        blocked: column::<i64>(row, "blocked")? != 0,
        requested_at: moment_if_any(row, "requested_at")?,
        requested_by: column(row, "requested_by")?,
        approved_as: column(row, "approved_as")?,
        trusted_as: column(row, "trusted_as")?,
        trusted_by_configuration: column::<Option<String>>(row, "trusted_by")?.as_deref()
            == Some(CONFIGURATION),
    })
}
