//! What administrators decided about clients, and the people who wait for such a decision.

use serde::{Deserialize, Serialize};

use super::authorization_codes::{CodesOf, NewCode, end_codes, insert_code};
use super::browse::Selection;
use super::counted::{Counted, end_grants};
use super::upstream_sessions::SessionUpdate;
use super::{Storage, StorageError, Transaction, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::secret::{HeldLogin, Secret};
use crate::telemetry::audit::AuditEvent;

/// Who trusts what `[[client]] trusted = true` names, as stored.
pub(super) const CONFIGURATION: &str = "configuration";

/// Whether a client may receive anything, where an administrator decides that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReviewState {
    /// Nobody was asked.
    #[default]
    NotReviewed,
    /// A person waits.
    Waiting,
    /// Yes.
    Approved,
    /// No.
    Rejected,
}

impl ReviewState {
    const ALL: [Self; 4] = [Self::NotReviewed, Self::Waiting, Self::Approved, Self::Rejected];

    /// As stored, and as the command line writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReviewed => "none",
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Rejected => "refused",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StorageError> {
        Self::ALL
            .into_iter()
            .find(|approval| approval.as_str() == text)
            .ok_or_else(|| StorageError::Corrupt("approval".to_owned()))
    }
}

/// What was decided about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientReview {
    /// Digest of the client that was approved ([`ClientMetadata::digest`]).
    ///
    /// [`ClientMetadata::digest`]: crate::oauth::client::ClientMetadata::digest
    pub approved_as: Option<String>,
    /// Digest of the client that was trusted; none where the configuration trusts it.
    pub trusted_as: Option<String>,
    /// The configuration trusts it, whatever it looks like.
    pub trusted_by_configuration: bool,
    /// Whether it may receive anything, under `client_approval = "first_use"`.
    pub state: ReviewState,
    /// Whether approvals of people are remembered.
    pub trusted: bool,
    /// No authorization, no token.
    pub blocked: bool,
    /// When a person first waited for it.
    pub requested_at: Option<Timestamp>,
    /// Who that was.
    pub requested_by: Option<String>,
}

impl ClientReview {
    /// Whether nobody can connect it.
    pub fn is_denied(&self) -> bool {
        self.blocked || self.state == ReviewState::Rejected
    }

    /// What of this counts for the client as it is now: what was decided about something else does not.
    /// A block and a refusal stay.
    #[must_use]
    pub fn of_today(mut self, client: &Client) -> Self {
        let approved = self.state == ReviewState::Approved;
        let trusted_here = matches!(client.origin, Origin::Configured { trusted: true });
        if !approved && (!self.trusted || trusted_here) {
            return self;
        }
        // What registered itself loses its decisions in the step that changes it; the others change
        // outside, and a decision that does not say what it was about was about nobody knows what.
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

    /// Whether it was approved or trusted and is so no more because the client has changed.
    pub fn has_lapsed(&self) -> bool {
        let unapproved = matches!(self.state, ReviewState::NotReviewed | ReviewState::Waiting);
        (self.approved_as.is_some() && unapproved) || (self.trusted_as.is_some() && !self.trusted)
    }
}

/// A finished sign-in that waits for an administrator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginAwaitingApproval {
    /// What the person approved.
    pub request: AuthorizationRequest,
    /// Our `sub` for the person.
    pub subject: String,
    /// Their session at the identity provider; when that ends, so does the waiting.
    pub session_id: String,
    /// Digest of the client that the person approved; none for one that began under an earlier version.
    #[serde(default)]
    pub client_digest: Option<String>,
}

/// A finished sign-in about to wait.
pub struct NewLoginAwaitingApproval<'a> {
    /// The cookie.
    pub token: &'a Secret<HeldLogin>,
    /// What the person approved.
    pub request: &'a AuthorizationRequest,
    /// The person and their tokens.
    pub session: &'a SessionUpdate,
    /// Our `sub` for the person.
    pub subject: &'a str,
    /// Digest of the client as it is now.
    pub client_digest: &'a str,
    /// When it waits no longer.
    pub expires_at: Timestamp,
}

/// What became of a sign-in that waits.
#[derive(Debug)]
pub enum Waiting {
    /// No such sign-in in this browser, or too late.
    Unknown,
    /// It has ended: with a code, or without.
    Ended(Box<LoginAwaitingApproval>),
    /// It still waits, or may go on; what to go on with.
    Held(Box<LoginAwaitingApproval>),
}

impl Storage {
    /// What was decided about this client.
    pub async fn client_review(&self, client_id: &str) -> Result<ClientReview, StorageError> {
        let query = sqlx::query(
            "SELECT approval, trusted, blocked, requested_at, requested_by, approved_as, trusted_as,
                    trusted_by
             FROM client_standings WHERE client_id = $1",
        )
        .bind(client_id);
        let row = self.read_one(query).await?;
        row.as_ref().map_or_else(|| Ok(ClientReview::default()), read_client_review)
    }

    /// Keeps a finished sign-in until an administrator has decided about its client. The session is
    /// stored as after any sign-in, so that a sign-out anywhere ends the waiting as well.
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
        let sealed = self.seal_json("held_logins.login", token.id(), &held)?;
        let asked = sqlx::query(
            "INSERT INTO client_standings
                 (client_id, approval, trusted, blocked, requested_at, requested_by, changed_at, changed_by)
             VALUES ($1, 'waiting', 0, 0, $2, $3, $2, $3)
             ON CONFLICT (client_id) DO UPDATE
             SET approval = 'waiting', requested_at = $2, requested_by = $3
             WHERE client_standings.approval = 'none'",
        )
        .bind(client_id)
        .bind(now.unix())
        .bind(*subject)
        .execute(&mut *step)
        .await?;
        sqlx::query(
            "INSERT INTO held_logins
                 (id, token_hash, client_id, subject, login, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id())
        .bind(token.hash().as_str())
        .bind(client_id)
        .bind(*subject)
        .bind(sealed)
        .bind(now.unix())
        .bind(expires_at.unix())
        .execute(&mut *step)
        .await?;
        // The clean-up must not take the client away from under a person who waits for it.
        sqlx::query(
            "UPDATE clients SET last_registered_at = $2
             WHERE id = $1 AND kind = 'registered' AND last_registered_at < $2",
        )
        .bind(client_id)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        if asked.rows_affected() == 1 {
            step.record(event.clone().named("client_waits")).await?;
        }
        step.record(event.again("login_held")).await?;
        step.commit().await
    }

    /// The sign-in that waits in the browser with this cookie.
    pub async fn login_awaiting_approval(
        &self,
        token: &Secret<HeldLogin>,
        now: Timestamp,
    ) -> Result<Waiting, StorageError> {
        let held = sqlx::query(
            "SELECT token_hash, login, expires_at, ended_at FROM held_logins WHERE id = $1",
        )
        .bind(token.id());
        let Some(row) = self.read_one(held).await? else { return Ok(Waiting::Unknown) };
        let fits = token.hash().is(&column::<String>(&row, "token_hash")?);
        if !fits || now >= moment(&row, "expires_at")? {
            return Ok(Waiting::Unknown);
        }
        let sealed: String = column(&row, "login")?;
        let held = Box::new(self.open_json("held_logins.login", token.id(), &sealed)?);
        let ended = moment_if_any(&row, "ended_at")?.is_some();
        Ok(if ended { Waiting::Ended(held) } else { Waiting::Held(held) })
    }

    /// Ends the waiting with a code, once: `false` when it had ended before, and then no code exists.
    pub async fn release_awaiting_login(
        &self,
        token: &Secret<HeldLogin>,
        new: &NewCode<'_>,
        session_id: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        if !end_awaiting_login(&mut step, token, now).await? {
            return Ok(false);
        }
        insert_code(&mut step, new, session_id, now).await?;
        step.record(event).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Ends the waiting without anything; `false` when it had ended before.
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

async fn end_awaiting_login(
    step: &mut Transaction,
    token: &Secret<HeldLogin>,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let ended = sqlx::query(
        "UPDATE held_logins SET ended_at = $3
         WHERE id = $1 AND token_hash = $2 AND ended_at IS NULL AND expires_at > $3",
    )
    .bind(token.id())
    .bind(token.hash().as_str())
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Ends every grant, code and waiting sign-in of a client; answers how many grants. `None`: they are not
/// those that were counted.
///
/// Codes end before the grants: see [`end_codes`].
pub(super) async fn end_all_of_client(
    step: &mut Transaction,
    client_id: &str,
    because: &str,
    counted: Option<&Counted>,
    now: Timestamp,
) -> Result<Option<u64>, StorageError> {
    for statement in [
        "UPDATE logins SET ended_at = $2 WHERE client_id = $1 AND ended_at IS NULL",
        "UPDATE held_logins SET ended_at = $2 WHERE client_id = $1 AND ended_at IS NULL",
    ] {
        sqlx::query(statement).bind(client_id).bind(now.unix()).execute(&mut **step).await?;
    }
    end_codes(step, CodesOf::Client(client_id), now).await?;
    let which = Selection::Client(client_id.to_owned());
    end_grants(step, &which, because, counted, now).await
}

pub(super) fn read_client_review(row: &sqlx::any::AnyRow) -> Result<ClientReview, StorageError> {
    Ok(ClientReview {
        state: ReviewState::parse(&column::<String>(row, "approval")?)?,
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
