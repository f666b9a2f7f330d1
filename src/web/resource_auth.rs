//! Authentication of MCP servers at the introspection endpoint, and at the token endpoint for token exchange: RFC 7662
//! §2.1, §4.
//!
//! An MCP server authenticates with its resource identifier and `introspection_secret`, in the Authorization
//! header (Basic) or in the form. The identifier is a URL and so contains a colon. Some libraries
//! percent-encode it for Basic and some do not; both are accepted.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::client_form::ClientForm;
use super::error::{ApiError, RequestRefused};
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::secret::{ClientSecret, SecretHash};
use crate::telemetry::log_throttle::LogThrottle;

static REFUSED: LogThrottle = LogThrottle::new();

/// Longest Basic credentials that are read, in bytes of base64.
const MAX: usize = 4096;

/// Returns the resource that the sender of this form authenticates as.
pub fn authenticate_resource(form: &ClientForm) -> Result<&ResourceConfig, ApiError> {
    let ClientForm { app, params, headers, .. } = form;
    let (client_id, client_secret) = (params.get("client_id")?, params.get("client_secret")?);
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let presented = authorization.next();
    if authorization.next().is_some() || (presented.is_some() && client_secret.is_some()) {
        let reason = "more than one way of client authentication was used";
        return Err(RequestRefused(reason.to_owned()).into());
    }
    let found = match (presented, client_id, client_secret) {
        (Some(value), _, _) => {
            value.to_str().ok().and_then(basic).and_then(|pair| by_pair(app, &pair))
        }
        (None, Some(id), Some(secret)) => {
            app.resource(id).filter(|resource| proves(resource, secret))
        }
        (None, _, _) => None,
    };
    found.ok_or_else(|| {
        if let Some(left_out) = REFUSED.admit() {
            let reason = "unknown resource or wrong secret";
            tracing::info!(reason, left_out, "an MCP server could not be authenticated");
        }
        ApiError::Client { basic: true, reason: None }
    })
}

/// Returns whether the only Authorization header proves that the sender is a resource.
pub fn has_proof(app: &App, headers: &HeaderMap) -> bool {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(presented), None) = (authorization.next(), authorization.next()) else {
        return false;
    };
    let pair = presented.to_str().ok().and_then(basic);
    pair.is_some_and(|pair| by_pair(app, &pair).is_some())
}

fn basic(value: &str) -> Option<String> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX {
        return None;
    }
    String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()
}

/// Finds the resource for the pair `id:secret`, either plain or with both halves percent-encoded.
fn by_pair<'a>(app: &'a App, pair: &str) -> Option<&'a ResourceConfig> {
    let plain = app.config().resources.iter().find(|resource| {
        let secret = pair.strip_prefix(&resource.id).and_then(|rest| rest.strip_prefix(':'));
        secret.is_some_and(|secret| proves(resource, secret))
    });
    plain.or_else(|| {
        let (id, secret) = pair.split_once(':')?;
        app.resource(&decoded(id)?)
            .filter(|resource| decoded(secret).is_some_and(|secret| proves(resource, &secret)))
    })
}

fn decoded(encoded: &str) -> Option<String> {
    let spaced = encoded.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Compares hashes in constant time, so that the timing reveals neither the length nor a common prefix.
fn proves(resource: &ResourceConfig, presented: &str) -> bool {
    resource.introspection_secret.as_ref().is_some_and(|secret| {
        let ours = SecretHash::<ClientSecret>::of(secret.expose());
        SecretHash::<ClientSecret>::of(presented).is(ours.as_str())
    })
}
