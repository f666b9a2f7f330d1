//! The sign-in provider's own access token of a session, for MCP servers (`[resource.upstream_token]`).
//!
//! A fresh token is read from the session. One that ends soon is renewed by a re-check, which refreshes the
//! session's tokens anyway: exactly one place rotates the refresh token.

use std::sync::Arc;

use super::recheck::Goal;
use super::service_token::{ServiceToken, TokenMissing};
use super::token_memory::{OneAtATime, RecentTokens, RefusedTokens, ServicePauses};
use super::{SIGN_IN, Upstream, UpstreamInner};
use crate::clock::Timestamp;
use crate::config::{TokenExchange, UpstreamTokenConfig};
use crate::storage::{Storage, UpstreamSession};
use crate::telemetry::metrics::ServiceTokenOutcome;

/// What this process remembers of the access tokens of sessions.
pub(super) struct SessionTokens {
    pub(super) recent: RecentTokens,
    pub(super) refused: RefusedTokens,
    /// Exchanged tokens, with the time until which each may be used.
    pub(super) exchanged: quick_cache::sync::Cache<String, (Arc<ServiceToken>, Timestamp)>,
    pub(super) exchanging: OneAtATime,
    pub(super) pauses: ServicePauses,
}

/// Most exchanged tokens that are remembered: 10,000. More cost an exchange each.
const EXCHANGED: usize = 10_000;

impl SessionTokens {
    pub(super) fn new(storage: &Storage) -> Self {
        Self {
            recent: RecentTokens::new(storage.grants_ended()),
            refused: RefusedTokens::default(),
            exchanged: quick_cache::sync::Cache::new(EXCHANGED),
            exchanging: OneAtATime::default(),
            pauses: ServicePauses::default(),
        }
    }
}

impl Upstream {
    /// Returns the access token of the session's person, exchanged if `wanted` says so. A fresh one costs no
    /// access to the database. Counts the outcome in the metrics.
    ///
    /// [`TokenMissing::Broken`] means that the session has ended, or that the person has to sign in again.
    pub async fn access_token(
        &self,
        session_id: &str,
        wanted: &UpstreamTokenConfig,
    ) -> Result<Arc<ServiceToken>, TokenMissing> {
        let given = match self.session_token(session_id).await {
            Ok((own, outcome)) if wanted.exchange == TokenExchange::None => Ok((own, outcome)),
            Ok((own, outcome)) => {
                let exchanged = Box::pin(self.exchanged(session_id, &own, wanted)).await;
                exchanged.map(|token| (token, outcome))
            }
            Err(missing) => Err(missing),
        };
        let outcome = match &given {
            Ok((_, outcome)) => *outcome,
            Err(missing) => missing.outcome(),
        };
        self.0.storage.metrics().service_token(SIGN_IN, outcome);
        given.map(|(token, _)| token)
    }

    /// Notes that the target refused the token of this version although it had not ended: it is renewed
    /// before the next use, at most once a minute. Repeats nothing.
    pub fn access_token_refused(
        &self,
        session_id: &str,
        wanted: &UpstreamTokenConfig,
        version: i64,
    ) {
        let (tokens, now) = (&self.0.session_tokens, self.0.clock.now());
        if wanted.exchange == TokenExchange::None {
            tokens.refused.note(session_id, version, now);
        } else {
            self.exchanged_refused(session_id, wanted, version);
        }
    }

    /// Returns the session's own access token, and whether it had to be renewed.
    async fn session_token(
        &self,
        session_id: &str,
    ) -> Result<(Arc<ServiceToken>, ServiceTokenOutcome), TokenMissing> {
        let inner = &self.0;
        let tokens = &inner.session_tokens;
        let refused = tokens.refused.version(session_id);
        if let Some(token) = tokens.recent.get(session_id)
            && refused != Some(token.version)
            && inner.lifetimes.is_fresh(SIGN_IN, token.expires_at, inner.clock.now())
        {
            return Ok((token, ServiceTokenOutcome::Fresh));
        }
        // In a box: once a second, and every call would carry room for it.
        Box::pin(self.read_session_token(session_id, refused)).await
    }

    async fn read_session_token(
        &self,
        session_id: &str,
        refused: Option<i64>,
    ) -> Result<(Arc<ServiceToken>, ServiceTokenOutcome), TokenMissing> {
        let inner = &self.0;
        let tokens = &inner.session_tokens;
        let mut seen = tokens.recent.look();
        let mut outcome = ServiceTokenOutcome::Fresh;
        let session = inner.storage.upstream_session(session_id).await?;
        let mut session = session.ok_or(TokenMissing::Broken)?;
        if !inner.has_fresh_token(&session, refused) {
            outcome = ServiceTokenOutcome::Refreshed;
            self.recheck_for(session_id, Goal::Token { refused }).await?;
            seen = tokens.recent.look();
            let renewed = inner.storage.upstream_session(session_id).await?;
            session = renewed.ok_or(TokenMissing::Broken)?;
        }
        let token = Arc::new(inner.token_of(&session, refused)?);
        if inner.has_fresh_token(&session, refused) {
            tokens.recent.put(session_id, Arc::clone(&token), seen);
        }
        Ok((token, outcome))
    }
}

impl UpstreamInner {
    /// Returns the token of a session that was read after everything was tried to have a fresh one.
    fn token_of(
        &self,
        session: &UpstreamSession,
        refused: Option<i64>,
    ) -> Result<ServiceToken, TokenMissing> {
        // The tokens of a sign-in that nothing uses any more were given up.
        let is_given_up = session.tokens.access_token.is_empty();
        if !session.alive || session.issuer != self.config.issuer || is_given_up {
            return Err(TokenMissing::Broken);
        }
        let until = session.tokens.access_until.map(Timestamp::from_unix);
        if !self.has_fresh_token(session, refused) {
            let has_ended = until.is_some_and(|until| until <= self.clock.now());
            let can_be_renewed = session.tokens.refresh_token.is_some();
            let is_refused = refused == Some(session.version);
            if has_ended && !can_be_renewed {
                return Err(TokenMissing::Broken);
            }
            if has_ended || (can_be_renewed && is_refused) {
                return Err(TokenMissing::Unavailable);
            }
            // It has some seconds while the provider is away; or it was refused, perhaps for another reason,
            // and nobody can renew it.
        }
        let scopes = match &session.tokens.scope {
            Some(stated) => stated.split_whitespace().map(str::to_owned).collect(),
            None => self.config.scopes.iter().cloned().collect(),
        };
        ServiceToken::new(&session.tokens.access_token, until, scopes, session.version).ok_or_else(
            || {
                tracing::error!(
                    session_id = session.id,
                    "the identity provider's access token does not fit into a header"
                );
                TokenMissing::Unavailable
            },
        )
    }
}
