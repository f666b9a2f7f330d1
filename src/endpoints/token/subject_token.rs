//! The subject of a token exchange: finds the grant of the call that an MCP server answers.

use std::sync::Arc;

use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::exchange::SubjectKind;
use crate::signing::{CallerAssertion, TokenInvalid};
use crate::storage::{GrantState, LiveGrant, StorageError};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::web::live_token;

static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();

/// Returns the live grant behind a token that a call carried to this MCP server. `None` if there is none, for
/// whatever reason: the log has it. An error means "unknown", and must never be treated as live.
pub(super) async fn grant_of(
    app: &App,
    resource: &ResourceConfig,
    kind: SubjectKind,
    token: &str,
) -> Result<Option<Arc<LiveGrant>>, StorageError> {
    match kind {
        SubjectKind::AccessToken => {
            Ok(live_token::verify(app, resource, token).await?.map(|live| live.grant))
        }
        SubjectKind::Assertion => asserted(app, resource, token).await,
    }
}

/// The same for an assertion. Its audience is a target of this MCP server. Two MCP servers may have the same
/// target, so its grant must be for this one, too.
async fn asserted(
    app: &App,
    resource: &ResourceConfig,
    token: &str,
) -> Result<Option<Arc<LiveGrant>>, StorageError> {
    let mut verified = app.keys().verify_assertion(token, app.now());
    if verified.as_ref().err() == Some(&TokenInvalid::UnknownKey) {
        Box::pin(app.keys().refresh_keys()).await; // rare, and large
        verified = app.keys().verify_assertion(token, app.now());
    }
    let claims = match verified {
        Ok(claims) => claims,
        Err(reason) => return Ok(refused(resource, &reason.to_string())),
    };
    if !resource.targets.iter().any(|target| target.as_str() == claims.aud) {
        return Ok(refused(resource, &TokenInvalid::Audience.to_string()));
    }
    let GrantState::Live(grant) = app.storage().recent_grant(&claims.grant_id, app.now()).await?
    else {
        return Ok(refused(resource, "the grant has ended"));
    };
    if !agrees(&claims, &grant, resource) {
        return Ok(refused(resource, "the grant is for another MCP server"));
    }
    Ok(Some(grant))
}

fn agrees(claims: &CallerAssertion, grant: &LiveGrant, resource: &ResourceConfig) -> bool {
    grant.resource == resource.id
        && grant.subject == claims.sub
        && grant.client_id == claims.client_id
}

fn refused<T>(resource: &ResourceConfig, reason: &str) -> Option<T> {
    if let Some(left_out) = REFUSED.admit(reason) {
        tracing::info!(reason, resource = resource.id, left_out, "assertion refused");
    }
    None
}
