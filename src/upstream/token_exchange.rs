//! Exchange of the sign-in provider's access token for one of the API behind an MCP server: token exchange
//! (RFC 8693), or Entra's on-behalf-of flow. Results are kept in memory until shortly before their end.

use std::sync::Arc;
use std::time::Duration;

use super::service_token::{ServiceToken, TokenMissing};
use super::token_response::{TokenFailure, TokenResponse};
use super::{Upstream, UpstreamInner};
use crate::config::{TokenExchange, UpstreamTokenConfig};
use crate::telemetry::log_throttle::LogThrottle;

/// A token whose end is unknown is used for 5 minutes.
const UNKNOWN_LIFETIME: Duration = Duration::from_mins(5);

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

static NOT_EXCHANGED: LogThrottle = LogThrottle::new();

/// What an exchanged token is remembered by: the session, and everything that the request names.
fn key_of(session_id: &str, wanted: &UpstreamTokenConfig) -> String {
    let kind: &'static str = wanted.exchange.into();
    let audience = wanted.audience.as_deref().unwrap_or_default();
    format!("{session_id} {kind} {audience} {}", wanted.scopes.join(" "))
}

/// The parameters of the request (RFC 8693 §2.1; Entra: on-behalf-of flow).
fn form_of<'a>(
    own: &'a ServiceToken,
    wanted: &'a UpstreamTokenConfig,
    scope: &'a str,
) -> Vec<(&'static str, &'a str)> {
    let mut form = match wanted.exchange {
        TokenExchange::EntraObo => vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", own.text()),
            ("requested_token_use", "on_behalf_of"),
        ],
        TokenExchange::Rfc8693 | TokenExchange::None => vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", own.text()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
            ("audience", wanted.audience.as_deref().unwrap_or_default()),
        ],
    };
    if !scope.is_empty() {
        form.push(("scope", scope));
    }
    form
}

impl Upstream {
    /// Returns the token for the API behind: a remembered one, or a new one. One request at a time for each
    /// session and audience. The request goes on if the caller leaves.
    pub(super) async fn exchanged(
        &self,
        session_id: &str,
        own: &Arc<ServiceToken>,
        wanted: &UpstreamTokenConfig,
    ) -> Result<Arc<ServiceToken>, TokenMissing> {
        let inner = &self.0;
        let key = key_of(session_id, wanted);
        if let Some(known) = inner.known_exchange(&key) {
            return Ok(known);
        }
        let turn = inner.session_tokens.exchanging.turn(&key).await;
        if let Some(known) = inner.known_exchange(&key) {
            return Ok(known); // another call asked while we waited
        }
        let now = inner.clock.now();
        if inner.session_tokens.pauses.is_paused(&key, now) {
            return Err(TokenMissing::Unavailable);
        }
        let (inner, own, wanted) = (Arc::clone(inner), Arc::clone(own), wanted.clone());
        let session_id = session_id.to_owned();
        let asked = tokio::spawn(async move {
            let _turn = turn;
            inner.exchange(&session_id, &key, &own, &wanted).await
        });
        asked.await.unwrap_or(Err(TokenMissing::Unavailable))
    }

    /// Notes that the target refused an exchanged token: the next call exchanges again.
    pub(super) fn exchanged_refused(
        &self,
        session_id: &str,
        wanted: &UpstreamTokenConfig,
        version: i64,
    ) {
        let (tokens, key) = (&self.0.session_tokens, key_of(session_id, wanted));
        let Some((known, _)) = tokens.exchanged.get(&key) else { return };
        let now = self.0.clock.now();
        if known.version == version && tokens.refused.note(&key, now.unix(), now) {
            tokens.exchanged.remove(&key);
        }
    }
}

impl UpstreamInner {
    fn known_exchange(&self, key: &str) -> Option<Arc<ServiceToken>> {
        let (token, until) = self.session_tokens.exchanged.get(key)?;
        self.lifetimes
            .is_fresh(key_of_lifetime(key), Some(until), self.clock.now())
            .then_some(token)
    }

    async fn exchange(
        &self,
        session_id: &str,
        key: &str,
        own: &ServiceToken,
        wanted: &UpstreamTokenConfig,
    ) -> Result<Arc<ServiceToken>, TokenMissing> {
        let answer = self.ask_for_exchange(own, wanted).await;
        let now = self.clock.now();
        let answer = answer.and_then(|answer| {
            let token = self.exchanged_token(&answer, own, wanted)?;
            Ok((token, answer))
        });
        match answer {
            Ok((token, answer)) => {
                self.session_tokens.pauses.end(key);
                self.lifetimes.learn(key_of_lifetime(key), answer.expires_in);
                let until = token.expires_at.unwrap_or_else(|| now.plus(UNKNOWN_LIFETIME));
                let token = Arc::new(token);
                self.session_tokens.exchanged.insert(key.to_owned(), (Arc::clone(&token), until));
                Ok(token)
            }
            Err(failure) => {
                self.session_tokens.pauses.begin(key, now);
                Err(self.not_exchanged(session_id, own, &failure))
            }
        }
    }

    async fn ask_for_exchange(
        &self,
        own: &ServiceToken,
        wanted: &UpstreamTokenConfig,
    ) -> Result<TokenResponse, TokenFailure> {
        let provider = self.provider().await;
        let provider = provider.map_err(|error| TokenFailure::Transient(error.to_string()))?;
        let scope = wanted.scopes.join(" ");
        self.ask_for_tokens(&provider, &form_of(own, wanted, &scope)).await
    }

    fn exchanged_token(
        &self,
        answer: &TokenResponse,
        own: &ServiceToken,
        wanted: &UpstreamTokenConfig,
    ) -> Result<ServiceToken, TokenFailure> {
        let text = answer.access_token().map_err(TokenFailure::Transient)?;
        let until = answer.access_until(self.clock.now());
        let scopes = match &answer.scope {
            Some(stated) => stated.split_whitespace().map(str::to_owned).collect(),
            None => wanted.scopes.iter().cloned().collect(),
        };
        ServiceToken::new(text, until, scopes, own.version).ok_or_else(|| {
            TokenFailure::Transient("the token does not fit into a header".to_owned())
        })
    }

    fn not_exchanged(
        &self,
        session_id: &str,
        own: &ServiceToken,
        failure: &TokenFailure,
    ) -> TokenMissing {
        if let Some(left_out) = NOT_EXCHANGED.admit() {
            tracing::warn!(session_id, %failure, left_out, "the provider exchanges no token");
        }
        match failure {
            // The provider does not accept our token, although it has not ended: the next call has a new one.
            TokenFailure::Refused(code) if code == "invalid_grant" => {
                let now = self.clock.now();
                self.session_tokens.refused.note(session_id, own.version, now);
                TokenMissing::Unavailable
            }
            // The person has to consent or to prove who they are: only a new sign-in helps.
            TokenFailure::Refused(_) => TokenMissing::Broken,
            TokenFailure::Ours(_) | TokenFailure::Transient(_) => TokenMissing::Unavailable,
        }
    }
}

/// All sessions have tokens of one lifetime for one audience.
fn key_of_lifetime(key: &str) -> &str {
    key.split_once(' ').map_or(key, |(_, rest)| rest)
}
