//! The OAuth and OpenID Connect client of the identity provider: discovery, login, and re-checks of people.
//!
//! Portcullis is one ordinary confidential client of the provider. Every login sends PKCE S256, a `nonce` and
//! a `state` that we generate. We forward nothing that a client sends (`login_hint`, `resource` …), with one
//! exception: the client's wish that the person chooses an account (`account.rs`).

mod access_token;
mod account;
pub mod callback_error;
pub mod claims;
pub mod client_login;
mod endpoints;
#[cfg(test)]
mod fixtures;
mod github;
pub mod id_token;
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
pub mod service_metadata;
pub mod service_token;
mod sign_out;
mod signed;
pub mod test_login;
mod token_exchange;
pub mod token_lifetime;
pub mod token_memory;
pub mod token_response;
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
use access_token::SessionTokens;
pub use callback_error::CallbackParams;
use person_queries::QuerySemaphores;
pub use person_queries::{NoPermit, PersonQueries, QueryPermit};
use provider::{Provider, ProviderCache};
pub use recheck::Health;
use recheck::{Breaker, InFlight, RecheckPolicy};
use token_lifetime::LearnedLifetimes;

/// What the sign-in provider's own token is called where services are named.
pub const SIGN_IN: &str = "sign-in";

/// Errors of discovery and of requests to the provider. The texts are for the log, not for people.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The provider sent no usable response: network error, timeout or 5xx.
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
    /// The provider responds, but its response does not match our configuration.
    #[error("the identity provider does not fit the configuration: {0}")]
    Misconfigured(String),
}

/// Reasons why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginFailed {
    /// The provider rejected this person, or the person cancelled.
    #[error("the identity provider refused the person")]
    Refused,
    /// The provider ended the sign-in without rejecting the person. The login can be started again, with this
    /// `prompt`.
    #[error("the identity provider ended the sign-in: {reason}")]
    Again {
        /// The provider's `error`, for the log.
        reason: String,
        /// The `prompt` value that the next attempt has to send; `None`: none is needed.
        prompt: Option<&'static str>,
    },
    /// The provider reports that it cannot sign anybody in now.
    #[error("the identity provider answers that it cannot: {0}")]
    ProviderCannot(String),
    /// The provider cannot be reached.
    #[error("the identity provider is unavailable: {0}")]
    Unavailable(String),
    /// The provider rejects our client, not the person.
    #[error("sign-in is misconfigured: {0}")]
    Misconfigured(String),
    /// The provider's response fails a check that protects the person.
    #[error("the answer cannot be trusted: {0}")]
    Untrusted(String),
}

/// Which identity provider vouches for people, and how it is asked about them.
pub struct ProviderSettings {
    /// The provider, and our client at it.
    pub config: UpstreamConfig,
    /// Our redirect URI, to which the provider sends browsers back.
    pub redirect_uri: String,
    /// How often people are re-checked.
    pub recheck: RecheckPolicy,
    /// How many queries about people may run at once.
    pub at_once: PersonQueries,
}

/// Client of the identity provider. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<UpstreamInner>);

struct UpstreamInner {
    config: UpstreamConfig,
    redirect_uri: String,
    recheck: RecheckPolicy,
    clock: Clock,
    storage: Storage,
    http: HttpClient,
    semaphores: Arc<QuerySemaphores>,
    provider: Arc<ProviderCache>,
    in_flight: Arc<InFlight>,
    breaker: Arc<Breaker>,
    lifetimes: Arc<LearnedLifetimes>,
    session_tokens: Arc<SessionTokens>,
}

impl Upstream {
    /// Creates a client of the provider. Fetches metadata only when it is first needed, so that an outage of
    /// the provider does not prevent our start.
    pub fn new(settings: ProviderSettings, clock: Clock, storage: Storage) -> Self {
        let ProviderSettings { config, redirect_uri, recheck, at_once } = settings;
        let http = HttpClient::new(config.timeout, &config.proxies);
        let http = http.allowing_http(config.allow_http);
        let http = http.counting_in(storage.metrics().clone());
        Self(Arc::new(UpstreamInner {
            session_tokens: Arc::new(SessionTokens::new(&storage)),
            lifetimes: Arc::default(),
            config,
            redirect_uri,
            recheck,
            clock,
            storage,
            http,
            semaphores: Arc::new(QuerySemaphores::new(at_once)),
            provider: Arc::default(),
            in_flight: Arc::default(),
            breaker: Arc::default(),
        }))
    }

    /// Returns a client of the same provider with the new `config`. Keeps cached metadata, running re-checks
    /// and the state of the circuit breaker, because a reload during an outage must not lose the metadata.
    #[must_use]
    pub fn with_config(
        &self,
        config: UpstreamConfig,
        recheck: RecheckPolicy,
        at_once: PersonQueries,
    ) -> Self {
        let inner = &self.0;
        let (new, old) = (&config, &inner.config);
        // Metadata from another discovery address, or metadata that may have come over http, is not reused.
        let same = new.discovery_url == old.discovery_url && new.allow_http == old.allow_http;
        let http = inner.http.with_timeout(config.timeout);
        Self(Arc::new(UpstreamInner {
            http: http.allowing_http(config.allow_http),
            semaphores: inner.semaphores.with(at_once),
            config,
            redirect_uri: inner.redirect_uri.clone(),
            recheck,
            clock: inner.clock.clone(),
            storage: inner.storage.clone(),
            provider: if same { Arc::clone(&inner.provider) } else { Arc::default() },
            in_flight: Arc::clone(&inner.in_flight),
            breaker: Arc::clone(&inner.breaker),
            lifetimes: Arc::clone(&inner.lifetimes),
            session_tokens: Arc::clone(&inner.session_tokens),
        }))
    }

    /// Returns the address of the proxy for requests to the provider, fit for display; `None`: requests go
    /// directly.
    pub fn proxy(&self) -> Option<String> {
        self.0.http.proxy_for(&self.0.first_address())
    }

    /// Returns whether metadata is cached. Sends no request, because a readiness probe must not wait for the
    /// provider.
    pub async fn is_known(&self) -> bool {
        self.0.is_known().await
    }

    /// Returns the provider's health as observed since the start.
    pub fn health(&self) -> Health {
        self.0.breaker.health(self.0.clock.now())
    }

    /// Asks the provider now whether it answers, past the cache. Returns why it does not.
    pub async fn answers(&self) -> Result<(), String> {
        self.0.probe_once().await
    }

    /// Returns whether metadata is cached or can be fetched now.
    pub async fn is_reachable(&self) -> bool {
        self.provider().await.is_ok()
    }

    /// Returns the provider's metadata and records success or failure for the admin overview.
    async fn provider(&self) -> Result<Arc<Provider>, UpstreamError> {
        let provider = self.0.provider().await;
        let now = self.0.clock.now();
        match &provider {
            Ok(_) => self.0.breaker.succeeded(now),
            Err(error) => self.0.breaker.troubled(now, &error.to_string()),
        }
        provider
    }

    /// Prepares a login at the provider, optionally with the request that the person chooses an account
    /// there. Fails before anything in the database is consumed.
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

    /// Exchanges the authorization code of the callback and returns the person and the tokens.
    ///
    /// Checks `iss` first, for error responses too (RFC 9207 §2.4).
    pub async fn finish_login(
        &self,
        login: &PendingLogin,
        answer: CallbackParams<'_>,
    ) -> Result<SessionUpdate, LoginFailed> {
        let (nonce, verifier) = (&login.nonce, &login.pkce_verifier);
        let SignedIn { session, .. } = self.finish(nonce, verifier, answer).await?;
        Ok(SessionUpdate { sign_outs_before: login.sign_outs_before, ..session })
    }

    /// Handles the provider's callback, for real logins and for test logins.
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
        inner.lifetimes.learn(SIGN_IN, answer.expires_in);
        let tokens = answer.tokens(inner.clock.now());
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
            // The login works without a refresh token, but we cannot re-check the person later.
            // Administrators should know.
            tracing::warn!(
                good_for = ?inner.config.max_without_refresh,
                hint = preset.console.refresh,
                "the identity provider issued no refresh token: a disabled person stays in for so long"
            );
        }
        let read = inner.read_person(&provider, &tokens.access_token, &identity, None).await;
        let recovered = inner.breaker.login(inner.clock.now(), tokens.refresh_token.is_none());
        inner.note_recovery(recovered);
        let proved_at = id_token::proved_at(&identity.claims);
        let session = SessionUpdate {
            upstream: preset.name.to_owned(),
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

/// Result of a completed sign-in.
struct SignedIn {
    session: SessionUpdate,
    /// Time at which the person authenticated, as the provider states it (Unix seconds).
    proved_at: Option<i64>,
    /// Harmless deviations from the standard in the token response.
    tolerated: Vec<String>,
    /// Why some facts about the person are unknown.
    trouble: Option<String>,
}

/// A prepared login that starts as soon as a person approves it.
pub struct LoginToStart {
    inner: Arc<UpstreamInner>,
    provider: Arc<Provider>,
    nonce: String,
    challenge: PkceCodeChallenge,
    verifier: PkceCodeVerifier,
    /// Replaces a configured `prompt`.
    prompt: Option<&'static str>,
    /// Adds to `prompt` that the person chooses an account.
    account: Option<AccountPrompt>,
}

impl LoginToStart {
    /// Sets a `prompt` that replaces a configured one.
    #[must_use]
    pub fn prompting(self, prompt: Option<&'static str>) -> Self {
        Self { prompt, ..self }
    }

    /// Returns the login state that must be stored until the callback; `metadata_hash` is the hash of the
    /// client's metadata.
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

    /// Returns the URL of the provider's authorization endpoint for the browser. The [`Approval`] proves that a
    /// person approved the client, and no other function produces this URL for a client's login. Sign-ins to
    /// our own pages, test logins and probes involve no client, so they build their URLs without it.
    pub fn url(&self, _: &Approval, state: &Secret<LoginState>) -> Url {
        let (nonce, challenge) = (&self.nonce, self.challenge.as_str());
        let metadata = &self.provider.metadata;
        let url = self.inner.authorization_request(metadata, state.expose(), nonce, challenge);
        account::with_choice(with_prompt(url, self.prompt), self.account)
    }
}

/// Returns `false` if the URL certainly has no `prompt`: then nothing has to be decoded and encoded again.
fn may_have_prompt(url: &Url) -> bool {
    let mut names =
        url.query().unwrap_or_default().split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => name,
            None => pair,
        });
    names.any(|name| name == "prompt" || name.contains('%'))
}

/// Replaces a configured `prompt` in the authorization request.
fn with_prompt(mut url: Url, prompt: Option<&str>) -> Url {
    let Some(prompt) = prompt else { return url };
    if !may_have_prompt(&url) {
        url.query_pairs_mut().append_pair("prompt", prompt);
        return url;
    }
    let others = url.query_pairs().filter(|(name, _)| name != "prompt");
    let others: Vec<(String, String)> =
        others.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair("prompt", prompt);
    url
}
