//! Consent decisions, and pending logins: those under way at the identity provider.

mod eviction;

use serde::{Deserialize, Serialize};

use super::consents::find;
use super::{Storage, StorageError, Use, column, moment, moment_if_any};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::secret::{BrowserBinding, LoginState, RememberedConsent, Secret, SecretHash};
use crate::telemetry::audit::AuditEvent;

/// A pending login: the approved request, and the values to check the identity provider's response
/// against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingLogin {
    /// The client's request, as shown on the consent page.
    pub request: AuthorizationRequest,
    /// The `nonce` that the ID token must carry.
    pub nonce: String,
    /// The verifier of our own PKCE challenge to the identity provider.
    pub pkce_verifier: String,
    /// Hash of the client's registered metadata when the person approved.
    #[serde(default)]
    pub metadata_hash: String,
    /// Id of the remembered consent that was used; `None` when the person pressed Approve.
    #[serde(default)]
    pub remembered: Option<String>,
    /// Whether this is the second attempt, after the provider ended the first. There is no third.
    #[serde(default)]
    pub retried: bool,
    /// The number of sign-outs at the provider before it began. Storage fills it in.
    #[serde(skip)]
    pub sign_outs_before: i64,
    /// When it must be finished, in Unix seconds. Storage fills it in.
    #[serde(skip)]
    pub expires_at: i64,
}

/// A consent page on which somebody pressed Approve.
#[derive(Clone, Copy, Debug)]
pub struct ApprovedPage<'a> {
    /// The id sealed in the page. Each page can decide only once.
    pub consent_id: &'a str,
    pub expires_at: Timestamp,
}

/// A login to be started.
pub struct NewLogin<'a> {
    /// Row id; also part of `state`.
    pub id: &'a str,
    /// Hash of the secret in `state`, to verify the callback.
    pub state: SecretHash<LoginState>,
    /// Hash of the browser's cookie, to verify that the same browser returns.
    pub binding: SecretHash<BrowserBinding>,
    /// The login, with the approved request.
    pub login: &'a PendingLogin,
    /// The network of the person's address, if it belongs to a single customer.
    pub network: Option<String>,
    /// When the login must be finished.
    pub expires_at: Timestamp,
}

/// How many logins may be pending at a time.
#[derive(Clone, Copy, Debug)]
pub struct LoginQuota {
    pub in_all: u64,
    pub per_network: u64,
}

/// Proof that a person's approval is durable. Only storage can make one, and every redirect to the
/// identity provider requires one (threat CD-01).
#[derive(Debug)]
pub struct Approval(());

/// The outcome of a decision.
#[derive(Debug)]
pub enum Decided<T> {
    /// This decision is the first and counts.
    First(T),
    /// The page was decided before.
    Already,
    /// Too many logins are pending.
    Full,
}

/// The browser that arrives at the callback.
#[derive(Clone, Copy, Debug)]
pub struct Comer<'a> {
    /// Secret from its cookie.
    pub binding: Option<&'a Secret<BrowserBinding>>,
    /// The identity provider's code from the callback URL.
    pub code: Option<&'a str>,
    /// What to do if it is not the browser that approved.
    pub if_other: OtherBrowser,
}

/// What to do when the callback comes from another browser than the one that approved. The code is never
/// sent to the provider in this case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherBrowser {
    /// End the login: it was stolen or planted.
    BurnsLogin,
    /// Mark the code as spent, so that no browser can use it.
    SpendsCode,
    ChangesNothing,
}

/// The outcome of a callback.
#[derive(Debug)]
pub enum Claimed {
    /// The first callback from the browser that approved.
    First(Box<PendingLogin>),
    /// The login does not exist, or was already cleaned up.
    Unknown,
    /// The callback came from another browser.
    OtherBrowser,
    /// The right browser, with a code that another browser presented before.
    CodeCameElsewhere,
    /// A second callback.
    Already,
    Expired,
}

impl Storage {
    /// Records Approve, and the login that follows from it.
    pub async fn approve(
        &self,
        page: ApprovedPage<'_>,
        new: &NewLogin<'_>,
        now: Timestamp,
        quota: LoginQuota,
        event: AuditEvent,
    ) -> Result<Decided<Approval>, StorageError> {
        let request = self.seal_json("logins.request", new.id, new.login)?;
        if self.takes_single_statements()
            && self.approve_by_statement(page, (new, &request), now, quota, event.clone()).await?
        {
            return Ok(Decided::First(Approval(())));
        }
        let mut step = self.begin_for(Use::SignIns).await?;
        if !decide(&mut step, page.consent_id, "approved", page.expires_at).await? {
            return Ok(Decided::Already);
        }
        stop_point!("approve: decided");
        if !begin_login(&mut step, new, request, now, quota).await? {
            return Ok(Decided::Full); // rolled back: the page can still be approved later
        }
        stop_point!("approve: login stored");
        step.record(event).await?;
        step.commit().await?;
        stop_point!("approve: committed");
        Ok(Decided::First(Approval(())))
    }

    /// Begins a login on a remembered consent to exactly this request. Returns `None` if there is no such
    /// consent or too many logins are pending; the caller then shows the consent page. The callback
    /// checks that the person who signs in is the one who consented ([`Storage::remembered_by`]).
    pub async fn approve_remembered(
        &self,
        token: &Secret<RememberedConsent>,
        new: &NewLogin<'_>,
        now: Timestamp,
        quota: LoginQuota,
        event: AuditEvent,
    ) -> Result<Option<Approval>, StorageError> {
        let login = PendingLogin { remembered: Some(token.id().to_owned()), ..new.login.clone() };
        let request = self.seal_json("logins.request", new.id, &login)?;
        let mut step = self.begin().await?;
        let found = find(&mut *step, token, &login.request, &login.metadata_hash, now).await?;
        let Some(subject) = found else { return Ok(None) };
        if !begin_login(&mut step, new, request, now, quota).await? {
            return Ok(None);
        }
        step.record(event.subject(&subject)).await?;
        step.commit().await?;
        Ok(Some(Approval(())))
    }

    /// Begins a login once more, after the provider ended it without a refusal. The approval and the
    /// deadline of the first attempt still apply. Returns `None` if too many logins are pending, or if
    /// this was the second attempt.
    pub async fn begin_again(
        &self,
        ended: &PendingLogin,
        new: &NewLogin<'_>,
        now: Timestamp,
        quota: LoginQuota,
        event: AuditEvent,
    ) -> Result<Option<Approval>, StorageError> {
        if ended.retried {
            return Ok(None);
        }
        let login = PendingLogin {
            retried: true,
            remembered: ended.remembered.clone(),
            ..new.login.clone()
        };
        let request = self.seal_json("logins.request", new.id, &login)?;
        let mut step = self.begin().await?;
        if !begin_login(&mut step, new, request, now, quota).await? {
            return Ok(None);
        }
        step.record(event).await?;
        step.commit().await?;
        Ok(Some(Approval(())))
    }

    pub async fn deny(
        &self,
        consent_id: &str,
        expires_at: Timestamp,
        event: AuditEvent,
    ) -> Result<Decided<()>, StorageError> {
        let mut step = self.begin_for(Use::Refusals).await?;
        let first = decide(&mut step, consent_id, "denied", expires_at).await?;
        if first {
            step.record(event).await?;
        }
        step.commit().await?;
        Ok(if first { Decided::First(()) } else { Decided::Already })
    }

    /// Uses up a login. Of concurrent callbacks from the right browser, one is the `First`.
    ///
    /// `comer` says what happens when the right `state` arrives from another browser. Only in that case
    /// `event` is used: it is recorded, or merely logged if nothing changed.
    pub async fn claim_login(
        &self,
        state: &Secret<LoginState>,
        comer: Comer<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Claimed, StorageError> {
        if let Some(pending) = self.claim_by_statement(state, comer, now).await? {
            return Ok(Claimed::First(Box::new(pending)));
        }
        // Read first: a made-up `state` must not occupy the writer.
        let known = sqlx::query("SELECT state_hash FROM logins WHERE id = $1").bind(state.id());
        let Some(known) = self.read_one(known).await? else { return Ok(Claimed::Unknown) };
        if !state.hash().is(&column::<String>(&known, "state_hash")?) {
            return Ok(Claimed::Unknown);
        }
        let mut step = self.begin().await?;
        let Some(login) = find_login(&mut step, state).await? else {
            return Ok(Claimed::Unknown);
        };
        if !comer.binding.is_some_and(|binding| binding.hash().is(&login.binding_hash)) {
            if let Some(burnt) = self.burn_for_another(&mut step, &login, comer, now).await? {
                step.record(event.with("burnt", burnt)).await?;
                step.commit().await?;
            } else {
                self.metrics().event(event.event);
                event.with("burnt", "nothing").log();
            }
            return Ok(Claimed::OtherBrowser);
        }
        if let Some(code) = comer.code
            && self.code_is_spent(&mut step, state.id(), code).await?
        {
            return Ok(Claimed::CodeCameElsewhere);
        }
        if login.has_ended {
            return Ok(Claimed::Already);
        }
        if now >= login.expires_at {
            return Ok(Claimed::Expired);
        }
        if !end(&mut step, state.id(), now).await? {
            return Ok(Claimed::Already);
        }
        let mut pending: PendingLogin =
            self.open_json("logins.request", state.id(), &login.request)?;
        pending.sign_outs_before = login.sign_outs;
        pending.expires_at = login.expires_at.unix();
        stop_point!("callback: login ended");
        step.commit().await?;
        stop_point!("callback: committed");
        Ok(Claimed::First(Box::new(pending)))
    }

    /// Ends the login, or spends the code, that another browser than the one that approved brings. Returns
    /// which of them; `None` if nothing changed.
    async fn burn_for_another(
        &self,
        step: &mut super::Transaction,
        login: &StoredLogin<'_>,
        comer: Comer<'_>,
        now: Timestamp,
    ) -> Result<Option<&'static str>, StorageError> {
        Ok(match (comer.if_other, comer.code) {
            (OtherBrowser::BurnsLogin, _) => end(step, login.id, now).await?.then_some("the login"),
            (OtherBrowser::SpendsCode, Some(code)) => {
                let first = self.spend_code_in(step, login.id, code, login.expires_at).await?;
                first.then_some("the code")
            }
            (OtherBrowser::SpendsCode, None) | (OtherBrowser::ChangesNothing, _) => None,
        })
    }
}

/// A login as it is stored.
struct StoredLogin<'a> {
    id: &'a str,
    binding_hash: String,
    /// The sealed [`PendingLogin`].
    request: String,
    expires_at: Timestamp,
    has_ended: bool,
    /// How many sign-outs at the provider there had been when it began.
    sign_outs: i64,
}

/// Finds a login by its `state`; `None` if there is none.
async fn find_login<'a>(
    step: &mut super::Transaction,
    state: &'a Secret<LoginState>,
) -> Result<Option<StoredLogin<'a>>, StorageError> {
    let row = sqlx::query(
        "SELECT state_hash, binding_hash, request, expires_at, ended_at, sign_outs
         FROM logins WHERE id = $1",
    )
    .bind(state.id())
    .fetch_optional(&mut **step)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !state.hash().is(&column::<String>(&row, "state_hash")?) {
        return Ok(None);
    }
    Ok(Some(StoredLogin {
        id: state.id(),
        binding_hash: column(&row, "binding_hash")?,
        request: column(&row, "request")?,
        expires_at: moment(&row, "expires_at")?,
        has_ended: moment_if_any(&row, "ended_at")?.is_some(),
        sign_outs: column(&row, "sign_outs")?,
    }))
}

/// Inserts the login unless the quota is reached. Returns whether it was inserted.
async fn begin_login(
    step: &mut super::Transaction,
    new: &NewLogin<'_>,
    request: String,
    now: Timestamp,
    quota: LoginQuota,
) -> Result<bool, StorageError> {
    let written = sqlx::query(
        "INSERT INTO logins
             (id, state_hash, binding_hash, client_id, request, created_at, expires_at, network,
              sign_outs)
         SELECT $1, $2, $3, $4, $5, $6, $7, $10,
                COALESCE((SELECT value FROM counters WHERE name = 'sign_outs'), 0)
         WHERE (SELECT COUNT(*) FROM logins WHERE expires_at > $6 AND ended_at IS NULL) < $8
           AND (SELECT COUNT(*) FROM logins
                WHERE network = $10 AND expires_at > $6 AND ended_at IS NULL) < $9",
    )
    .bind(new.id)
    .bind(new.state.as_str())
    .bind(new.binding.as_str())
    .bind(&new.login.request.client_id)
    .bind(request)
    .bind(now.unix())
    .bind(new.expires_at.unix())
    .bind(i64::try_from(quota.in_all).unwrap_or(i64::MAX))
    .bind(i64::try_from(quota.per_network).unwrap_or(i64::MAX))
    .bind(new.network.as_deref())
    .execute(&mut **step)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Records a decision. Returns whether it is the first one on this page.
async fn decide(
    step: &mut super::Transaction,
    consent_id: &str,
    decision: &str,
    expires_at: Timestamp,
) -> Result<bool, StorageError> {
    let written = sqlx::query(
        "INSERT INTO consents (id, decision, expires_at) SELECT $1, $2, $3
         WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $4 AND value >= $3)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(consent_id)
    .bind(decision)
    .bind(expires_at.unix())
    .bind(super::replay_guard::CONSENTS)
    .execute(&mut **step)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Ends the login. Returns `false` when it had ended before.
async fn end(
    step: &mut super::Transaction,
    id: &str,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let written = sqlx::query("UPDATE logins SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL")
        .bind(id)
        .bind(now.unix())
        .execute(&mut **step)
        .await?;
    Ok(written.rows_affected() == 1)
}
