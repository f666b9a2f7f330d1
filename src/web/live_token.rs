//! Decides whether an access token is valid now. The gateway and the introspection endpoint share this one
//! definition.

use std::sync::Arc;

use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::signing::{AccessToken, TokenInvalid};
use crate::storage::{GrantState, LiveGrant, StorageError};
use crate::telemetry::log_throttle::KeyedLogThrottle;

static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();

/// An access token that we signed, for this resource, unexpired, and with a live grant.
pub struct LiveToken {
    /// The claims of the token.
    pub claims: Arc<AccessToken>,
    /// The grant that it was issued under.
    pub grant: Arc<LiveGrant>,
    /// The token's scopes and all that they imply.
    pub may: ScopeSet,
}

/// Verifies a token for `resource`. Returns `None` if it is invalid, and logs why. An error means "unknown",
/// and must never be treated as valid.
pub async fn verify(
    app: &App,
    resource: &ResourceConfig,
    token: &str,
) -> Result<Option<LiveToken>, StorageError> {
    let now = app.now();
    let mut verified = app.keys().verify(token, &resource.id, now);
    if verified == Err(TokenInvalid::UnknownKey) {
        Box::pin(app.keys().refresh_keys()).await; // rare, and large
        verified = app.keys().verify(token, &resource.id, now);
    }
    let claims = match verified {
        Ok(claims) => claims,
        Err(reason) => {
            if let Some(left_out) = REFUSED.admit(&reason.to_string()) {
                // Logged because a wrong clock makes valid tokens look expired.
                let clock_ahead = app.compared().clock_off();
                tracing::info!(%reason, resource = resource.id, clock_ahead, left_out, "access token refused");
            }
            return Ok(None);
        }
    };
    let GrantState::Live(grant) = app.storage().recent_grant(&claims.grant_id, now).await? else {
        let reason = "the grant has ended";
        if let Some(left_out) = REFUSED.admit(reason) {
            tracing::info!(grant_id = claims.grant_id, reason, left_out, "access token refused");
        }
        return Ok(None);
    };
    let agrees = grant.client_id == claims.client_id
        && grant.subject == claims.sub
        && grant.resource == claims.aud;
    if !agrees {
        tracing::error!(grant_id = claims.grant_id, "token and grant disagree");
        return Ok(None);
    }
    let may = resource.policy.hierarchy.with_implied(&claims.scope);
    Ok(Some(LiveToken { claims, grant, may }))
}
