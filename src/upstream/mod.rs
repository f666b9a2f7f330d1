//! The identity provider: discovery, login, and asking again.
//!
//! We are one ordinary confidential client of it. Every login carries PKCE S256, `nonce` and a state
//! of our own. Nothing a client sends (`login_hint`, `resource` …) is ever passed on, but for its wish that the
//! person chooses an account (`account.rs`).

mod account;
mod callback_error;
pub mod claims;
mod endpoints;
#[cfg(test)]
mod fixtures;
mod github;
mod id_token;
mod key_set;
pub mod logout_token;
mod metadata;
mod oidc;
pub mod pages;
mod person_queries;
pub mod probe;
mod provider;
pub mod provider_key;
pub mod recheck;
mod sign_out;
mod signed;
pub mod test_login;
mod token_response;
mod userinfo;
mod values;

use std::sync::Arc;

use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use url::Url;

use crate::clock::Clock;
use crate::config::{Protocol, UpstreamConfig};
use crate::http_client::HttpClient;
use crate::oauth::authorization_request::{AccountPrompt, AuthorizationRequest};
use crate::oauth::secret::{LoginState, Secret, random_text};
use crate::storage::{Approval, PendingLogin, SessionUpdate, Storage, UpstreamTokens};
pub use callback_error::CallbackParams;
use person_queries::Places;
pub use person_queries::{NoPlace, PersonQueries, QueryPermit};
use provider::{Provider, ProviderCache};
pub use recheck::Health;
use recheck::{Breaker, InFlight, RecheckPolicy};

/// The identity provider cannot be used now. Reasons are for the log.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No usable answer: network, time, 5xx.
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
    /// It answers, but not as configured.
    #[error("the identity provider does not fit the configuration: {0}")]
    Misconfigured(String),
}

/// Why a login did not end in a person.
#[derive(Debug, thiserror::Error)]
pub enum LoginFailed {
    /// The provider said no to this person, or the person cancelled.
    #[error("the identity provider refused the person")]
    Refused,
    /// The provider ended the sign-in without saying no: it may be begun again, with this `prompt`.
    #[error("the identity provider ended the sign-in: {reason}")]
    Again {
        /// Its error.
        reason: String,
        /// What it has to be asked for to go on.
        prompt: Option<&'static str>,
    },
    /// The provider answers that it cannot sign anybody in now.
    #[error("the identity provider answers that it cannot: {0}")]
    ProviderCannot(String),
    /// An outage.
    #[error("the identity provider is unavailable: {0}")]
    Unavailable(String),
    /// The provider refuses us, not the person.
    #[error("sign-in is misconfigured: {0}")]
    Misconfigured(String),
    /// The answer fails a check that protects the person.
    #[error("the answer cannot be trusted: {0}")]
    Untrusted(String),
}

/// The identity provider. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    config: UpstreamConfig,
    redirect_uri: String,
    recheck: RecheckPolicy,
    clock: Clock,
    storage: Storage,
    http: HttpClient,
    places: Arc<Places>,
    provider: Arc<ProviderCache>,
    in_flight: Arc<InFlight>,
    breaker: Arc<Breaker>,
}

impl Upstream {
    /// The provider of `config`, asked so much `at_once`; nothing is fetched before it is needed, so that an
    /// outage of the provider does not keep us from starting.
    pub fn new(
        config: UpstreamConfig,
        redirect_uri: String,
        recheck: RecheckPolicy,
        clock: Clock,
        storage: Storage,
        at_once: PersonQueries,
    ) -> Self {
        let http = HttpClient::new(config.timeout, &config.proxies);
        let http = http.allowing_http(config.allow_http);
        let http = http.counting_in(storage.metrics().clone());
        Self(Arc::new(Inner {
            config,
            redirect_uri,
            recheck,
            clock,
            storage,
            http,
            places: Arc::new(Places::new(at_once)),
            provider: Arc::default(),
            in_flight: Arc::default(),
            breaker: Arc::default(),
        }))
    }

    /// The same provider, dealt with as `config` says. What is known of it, and who is being asked about,
    /// stays: an outage is not the moment to forget its metadata.
    #[must_use]
    pub fn with_config(
        &self,
        config: UpstreamConfig,
        recheck: RecheckPolicy,
        at_once: PersonQueries,
    ) -> Self {
        let inner = &self.0;
        let (new, old) = (&config, &inner.config);
        // Asked at another place, or no longer over http: what it said before does not count.
        let same = new.discovery_url == old.discovery_url && new.allow_http == old.allow_http;
        let http = inner.http.with_timeout(config.timeout);
        Self(Arc::new(Inner {
            http: http.allowing_http(config.allow_http),
            places: inner.places.with(at_once),
            config,
            redirect_uri: inner.redirect_uri.clone(),
            recheck,
            clock: inner.clock.clone(),
            storage: inner.storage.clone(),
            provider: if same { Arc::clone(&inner.provider) } else { Arc::default() },
            in_flight: Arc::clone(&inner.in_flight),
            breaker: Arc::clone(&inner.breaker),
        }))
    }

    /// What may be said of the proxy that the provider is asked through; `None`: it is asked directly.
    pub fn proxy(&self) -> Option<String> {
        self.0.http.proxy_for(&self.0.first_address())
    }

    /// Whether the provider's metadata is at hand. Asks nobody: a probe must not wait for the provider.
    pub async fn is_known(&self) -> bool {
        self.0.is_known().await
    }

    /// How the provider has answered since the start.
    pub fn health(&self) -> Health {
        self.0.breaker.health(self.0.clock.now())
    }

    /// Whether the provider's metadata is at hand or can be had.
    pub async fn is_reachable(&self) -> bool {
        self.provider().await.is_ok()
    }

    /// The provider's metadata; the overview shows whether it could be had.
    async fn provider(&self) -> Result<Arc<Provider>, UpstreamError> {
        let provider = self.0.provider().await;
        let now = self.0.clock.now();
        match &provider {
            Ok(_) => self.0.breaker.succeeded(now),
            Err(error) => self.0.breaker.troubled(now, &error.to_string()),
        }
        provider
    }

    /// Makes ready to send a person to the provider, who may have to choose an account there; fails before anything
    /// is consumed.
    pub async fn prepare_login(
        &self,
        account: Option<AccountPrompt>,
    ) -> Result<LoginToStart, UpstreamError> {
        let provider = self.provider().await?;
        let verifier = PkceCodeVerifier::new(random_text());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let known = |wanted| self.0.account_prompt(wanted, Some(&provider.metadata));
        Ok(LoginToStart {
            inner: Arc::clone(&self.0),
            account: account.and_then(known),
            provider,
            nonce: random_text(),
            challenge,
            verifier,
            prompt: None,
        })
    }

    /// Turns the provider's answer into a person and tokens.
    ///
    /// `iss` is checked first, on errors too (RFC 9207 §2.4).
    pub async fn finish_login(
        &self,
        login: &PendingLogin,
        answer: CallbackParams<'_>,
    ) -> Result<SessionUpdate, LoginFailed> {
        let (nonce, verifier) = (&login.nonce, &login.pkce_verifier);
        let SignedIn { session, .. } = self.finish(nonce, verifier, answer).await?;
        Ok(SessionUpdate { sign_outs_before: login.sign_outs_before, ..session })
    }

    /// Reads the answer of the provider to a sign-in, whatever it is for.
    async fn finish(
        &self,
        nonce: &str,
        pkce_verifier: &str,
        came: CallbackParams<'_>,
    ) -> Result<SignedIn, LoginFailed> {
        let inner = &self.0;
        let provider = inner.provider().await.map_err(|error| match error {
            UpstreamError::Unreachable(reason) => LoginFailed::Unavailable(reason),
            UpstreamError::Misconfigured(reason) => LoginFailed::Misconfigured(reason),
        })?;
        provider.check_iss(came.iss)?;
        if let Some(error) = came.error {
            return Err(callback_error::classify(error, came.error_description));
        }
        let code = came.code.ok_or_else(|| LoginFailed::Untrusted("no code".to_owned()))?;
        let answer = inner.redeem(&provider, code, pkce_verifier).await?;
        let tokens = answer.tokens();
        let tokens = tokens.ok_or_else(|| {
            LoginFailed::Misconfigured(answer.access_token().err().unwrap_or_default())
        })?;
        let identity = match inner.config.preset.protocol {
            Protocol::Oidc => inner.verify_id_token(&provider, &answer, Some(nonce)).await?,
            Protocol::GitHub => inner.github_identity(&tokens.access_token).await?,
        };
        if !inner.is_one_of_ours(&identity) {
            tracing::info!("the person is of another domain, tenant or organisation");
            return Err(LoginFailed::Refused);
        }
        let preset = inner.config.preset;
        if preset.protocol == Protocol::Oidc && tokens.refresh_token.is_none() {
            // It works, and hides that nobody can be asked about again: an administrator should know.
            tracing::warn!(
                good_for = ?inner.config.max_without_refresh,
                hint = preset.console.refresh,
                "the identity provider issued no refresh token: a disabled person stays in for so long"
            );
        }
        let read = inner.read_person(&provider, &tokens.access_token, &identity, None).await;
        inner.breaker.login(inner.clock.now(), tokens.refresh_token.is_none());
        let proved_at = id_token::proved_at(&identity.claims);
        let session = SessionUpdate {
            issuer: inner.config.issuer.clone(),
            subject: identity.subject,
            claim_sub: Some(identity.sub),
            sid: identity.sid,
            person: read.person,
            sign_outs_before: 0,
            tokens: UpstreamTokens { nonce: Some(nonce.to_owned()), ..tokens },
        };
        Ok(SignedIn { session, proved_at, tolerated: answer.tolerated, trouble: read.trouble })
    }
}

/// What came of a sign-in.
struct SignedIn {
    session: SessionUpdate,
    /// When the provider says that the person proved themselves (Unix seconds).
    proved_at: Option<i64>,
    /// Details of the token answer that do no harm.
    tolerated: Vec<String>,
    /// Why something of the person is not known.
    trouble: Option<String>,
}

/// A login that can start as soon as a person has approved it.
pub struct LoginToStart {
    inner: Arc<Inner>,
    provider: Arc<Provider>,
    nonce: String,
    challenge: PkceCodeChallenge,
    verifier: PkceCodeVerifier,
    /// In place of a configured `prompt`.
    prompt: Option<&'static str>,
    /// Beside it.
    account: Option<AccountPrompt>,
}

impl LoginToStart {
    /// The same, asking the provider for this `prompt` in place of a configured one.
    #[must_use]
    pub fn prompting(self, prompt: Option<&'static str>) -> Self {
        Self { prompt, ..self }
    }

    /// What must be remembered until the person comes back; `metadata_hash` is that of the client.
    pub fn pending(&self, request: AuthorizationRequest, metadata_hash: String) -> PendingLogin {
        PendingLogin {
            request,
            nonce: self.nonce.clone(),
            pkce_verifier: self.verifier.secret().clone(),
            metadata_hash,
            remembered: None,
            retried: false,
            sign_outs_before: 0,
            expires_at: 0,
        }
    }

    /// Where to send the browser. Beside the trial of `check --login`, which leads nowhere, the only
    /// function that names the provider's authorization endpoint; the [`Approval`] is the proof that
    /// a person approved.
    pub fn url(&self, _: &Approval, state: &Secret<LoginState>) -> Url {
        let (nonce, challenge) = (&self.nonce, self.challenge.as_str());
        let metadata = &self.provider.metadata;
        let url = self.inner.authorization_request(metadata, state.expose(), nonce, challenge);
        account::with_choice(with_prompt(url, self.prompt), self.account)
    }
}

/// The authorization request with this `prompt` in place of a configured one.
fn with_prompt(mut url: Url, prompt: Option<&str>) -> Url {
    let Some(prompt) = prompt else { return url };
    let others = url.query_pairs().filter(|(name, _)| name != "prompt");
    let others: Vec<(String, String)> =
        others.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair("prompt", prompt);
    url
}
