//! Signs a JWT for the MCP server that says who is calling (`assertion = true`), for backends that do not
//! want to trust plain headers: RFC 7519, with its own type and audience.

use std::time::Duration;

use axum::http::HeaderValue;
use serde::Serialize;

use super::authenticate::Caller;
use super::challenge::GatewayRefused;
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::secret::new_id;
use crate::signing::TokenType;

/// The header that carries the assertion.
pub(super) const ASSERTION: &str = "x-portcullis-assertion";
/// Lifetime of an assertion: one minute, enough for clocks that differ a little.
const LIFETIME: Duration = Duration::from_mins(1);

#[derive(Serialize)]
struct CallerClaims<'a> {
    iss: &'a str,
    /// The URL of this target; other servers must refuse the assertion.
    aud: &'a str,
    sub: &'a str,
    client_id: &'a str,
    /// The caller's grant, so that a token exchange ends with it.
    grant_id: &'a str,
    /// The caller's effective scopes: those of the token and all that they imply.
    scope: String,
    jti: String,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
}

/// Returns the value of the header for the target with this audience; `None` if assertions are off.
pub(super) fn header(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    audience: &str,
) -> Result<Option<HeaderValue>, GatewayRefused> {
    if !resource.assertion {
        return Ok(None);
    }
    let (now, grant) = (app.now(), &caller.grant);
    let claims = CallerClaims {
        iss: app.issuer(),
        aud: audience,
        sub: &grant.subject,
        client_id: &grant.client_id,
        grant_id: &grant.id,
        scope: caller.may.to_string(),
        jti: new_id(app.clock()),
        iat: now.unix(),
        exp: now.plus(LIFETIME).unix(),
        name: grant.person.name.as_deref(),
        email: grant.person.email.as_deref(),
        email_verified: grant.person.facts.email.as_ref().map(|email| email.verified),
    };
    let failed = |cause: &dyn std::fmt::Display| {
        tracing::error!(%cause, "an assertion could not be signed");
        GatewayRefused::Unavailable
    };
    let signed = app.keys().sign_claims(resource.token_alg, TokenType::Assertion, &claims);
    let signed = signed.map_err(|cause| failed(&cause))?;
    HeaderValue::from_str(&signed).map(Some).map_err(|cause| failed(&cause))
}
