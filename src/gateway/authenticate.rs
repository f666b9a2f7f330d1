//! Authenticates the caller by its bearer token: RFC 6750 §2.1, RFC 9068 §4. Runs for every method except
//! `OPTIONS` (CORS preflight).

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::GetAll;

use super::challenge::GatewayRefused;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::storage::LiveGrant;
use crate::telemetry::log_throttle::LogThrottle;
use crate::web::live_token;

static UNKNOWN: LogThrottle = LogThrottle::new();

#[derive(Clone)]
pub(super) struct Caller {
    pub(super) grant: Arc<LiveGrant>,
    /// The scopes of the token.
    pub(super) scopes: ScopeSet,
    /// The effective scopes: those of the token and all that they imply.
    pub(super) may: ScopeSet,
    pub(super) token_expires_at: Timestamp,
}

/// Verifies the bearer token in the values of `Authorization`, and checks that its grant is live.
pub(super) async fn authenticate(
    app: &App,
    resource: &ResourceConfig,
    authorization: &GetAll<'_, HeaderValue>,
) -> Result<Caller, GatewayRefused> {
    let token = bearer(authorization)?;
    let live = live_token::verify(app, resource, token).await.map_err(|cause| {
        if let Some(left_out) = UNKNOWN.admit() {
            tracing::error!(%cause, left_out, "grant liveness cannot be looked up");
        }
        GatewayRefused::not_looked_up(&cause)
    })?;
    let live = live.ok_or(GatewayRefused::InvalidToken)?;
    Ok(Caller {
        token_expires_at: Timestamp::from_unix(live.claims.exp),
        scopes: live.claims.scope.clone(),
        grant: live.grant,
        may: live.may,
    })
}

/// Returns the token of the only `Authorization: Bearer` header. Tokens in query strings and bodies are
/// ignored.
fn bearer<'a>(authorization: &GetAll<'a, HeaderValue>) -> Result<&'a str, GatewayRefused> {
    let mut values = authorization.iter();
    let value = values.next().ok_or(GatewayRefused::NoToken)?;
    if values.next().is_some() {
        return Err(GatewayRefused::MalformedAuthorization);
    }
    let value = value.to_str().map_err(|_| GatewayRefused::MalformedAuthorization)?;
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(GatewayRefused::NoToken); // another scheme counts as no token
    }
    let token = token.trim();
    // No early exit: without a branch in the loop the compiler can check many bytes at once.
    let parted = token.bytes().fold(false, |any, byte| any | matches!(byte, b' ' | b',' | b'\t'));
    if token.is_empty() || parted {
        return Err(GatewayRefused::MalformedAuthorization);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, header};

    use super::*;

    fn read(values: &[&str]) -> Result<String, GatewayRefused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers.get_all(header::AUTHORIZATION)).map(str::to_owned)
    }

    #[test]
    fn gw_10_the_scheme_is_compared_without_case() {
        assert_eq!(read(&["bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(read(&["BEARER  abc"]), Ok("abc".to_owned()));
    }

    #[test]
    fn gw_04_two_tokens_are_malformed_and_none_is_a_plain_challenge() {
        assert_eq!(read(&[]), Err(GatewayRefused::NoToken));
        assert_eq!(read(&["Basic abc"]), Err(GatewayRefused::NoToken));
        assert_eq!(read(&["Bearer a", "Bearer b"]), Err(GatewayRefused::MalformedAuthorization));
        assert_eq!(read(&["Bearer a b"]), Err(GatewayRefused::MalformedAuthorization));
        assert_eq!(read(&["Bearer"]), Err(GatewayRefused::MalformedAuthorization));
    }
}
