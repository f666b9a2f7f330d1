//! Client authentication at the token and revocation endpoints: RFC 6749 §2.3 and §3.2.1, RFC 7523.
//!
//! Supports `none`, `client_secret_basic`, `client_secret_post` and `private_key_jwt`. A client with a
//! secret may use either secret method whatever it registered, because existing clients choose by the
//! server's list. A client with `private_key_jwt` may use nothing else.

use std::net::IpAddr;

use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::client_form::ClientForm;
use super::error::{ApiError, RequestRefused};
use crate::app::App;
use crate::config::paths;
use crate::oauth::client::assertion::{ASSERTION_TYPE, Assertion, Audience};
use crate::oauth::client::{AuthMethod, Client, Currency};
use crate::storage::AssertionUse;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::{KeyedLogThrottle, LogThrottle};

static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();
static OLD_AUDIENCE: LogThrottle = LogThrottle::new();

/// Logs a failed authentication. Throttled, because anybody can cause any number of failures.
fn tell_refused(client_id: Option<&str>, reason: &str) {
    if let Some(left_out) = REFUSED.admit(reason) {
        tracing::info!(client_id, reason, left_out, "client refused");
    }
}

/// Authenticates the client that posted this form. What must be fetched for the client counts towards the rate
/// limit of the request's address.
pub async fn authenticate_client(form: &ClientForm) -> Result<Client, ApiError> {
    let (app, from) = (&form.app, form.address());
    let presented = ClientCredentials::read(form)?;
    let refused = || ApiError::Client { basic: presented.basic, reason: None };
    let found = match app.clients().find(&presented.client_id, from).await? {
        Some(found) => Some(found),
        // Some clients percent-encode their id in the header and some do not. Both mean the same id.
        None if presented.basic => app.clients().find(&decoded(&presented.client_id), from).await?,
        None => None,
    };
    let Some(client) = found else {
        tell_refused(None, "unknown client");
        return Err(refused());
    };
    if client.metadata.token_endpoint_auth_method == AuthMethod::PrivateKeyJwt {
        return signed_by(app, client, &presented, from).await;
    }
    let proven = match (&client.secret_hash, &presented.proof) {
        (None, PresentedCredentials::Nothing) => true,
        (Some(_), PresentedCredentials::Secret(secret)) => {
            client.secret_is(secret) || (presented.basic && client.secret_is(&decoded(secret)))
        }
        // The credentials do not match the registration: a secret where none was issued, no secret where one
        // was, or an assertion from a client without keys.
        (None, PresentedCredentials::Secret(_))
        | (Some(_), PresentedCredentials::Nothing)
        | (_, PresentedCredentials::Assertion(_)) => false,
    };
    if !proven {
        tell_refused(Some(&client.id), "wrong or missing secret");
        return Err(refused());
    }
    Ok(client)
}

/// Authenticates a `private_key_jwt` client: only an assertion signed by one of its keys is accepted, and
/// each assertion only once.
async fn signed_by(
    app: &App,
    client: Client,
    presented: &ClientCredentials,
    from: Option<IpAddr>,
) -> Result<Client, ApiError> {
    let refused = |reason: &dyn std::fmt::Display| {
        tell_refused(Some(&client.id), &reason.to_string());
        ApiError::Client { basic: presented.basic, reason: None }
    };
    let proven_and_refused = |reason: &dyn std::fmt::Display| {
        let reason = reason.to_string();
        tell_refused(Some(&client.id), &reason);
        ApiError::Client { basic: presented.basic, reason: Some(reason) }
    };
    let PresentedCredentials::Assertion(assertion) = &presented.proof else {
        return Err(refused(&"it must prove itself with a signature"));
    };
    match client.currency(app.now()) {
        Currency::Good => {}
        // Its metadata document may have changed, and with it the keys. The credentials can be neither
        // accepted nor refused.
        Currency::Stale => return Err(ApiError::Unavailable),
        Currency::Gone => return Err(refused(&"its document is gone")),
    }
    let assertion = Assertion::parse(assertion).map_err(|reason| refused(&reason))?;
    let keys = app.clients().keys_for(&client, &assertion, from).await?;
    let keys = keys.ok_or_else(|| refused(&"it has no keys"))?;
    let token_endpoint = app.config().public_url.join(paths::TOKEN);
    let accepted = app.config().accept_token_endpoint_audience;
    let audience = Audience {
        issuer: app.issuer(),
        token_endpoint: accepted.then_some(token_endpoint.as_str()),
    };
    let proof = assertion.prove(&client.id, &keys, &audience, app.now()).map_err(|reason| {
        if reason.is_after_the_signature() { proven_and_refused(&reason) } else { refused(&reason) }
    })?;
    if proof.old_audience
        && let Some(left_out) = OLD_AUDIENCE.admit()
    {
        tracing::warn!(
            client_id = client.id,
            left_out,
            "an assertion was made for the token endpoint and not for the issuer"
        );
    }
    if app.storage().consume_assertion(&proof, &client.id, app.now()).await?
        == AssertionUse::Replayed
    {
        app.record(app.event("client_assertion_replayed", Actor::Client).client(&client.id)).await;
        return Err(proven_and_refused(&"the assertion was used before"));
    }
    Ok(client)
}

/// The credentials of a request.
enum PresentedCredentials {
    Nothing,
    Secret(String),
    Assertion(String),
}

struct ClientCredentials {
    client_id: String,
    proof: PresentedCredentials,
    basic: bool,
}

impl ClientCredentials {
    fn read(form: &ClientForm) -> Result<Self, ApiError> {
        let ClientForm { params, headers, .. } = form;
        let in_body = params.get("client_id")?;
        let secret_in_body = params.get("client_secret")?;
        let assertion = params.get("client_assertion")?;
        let assertion_type = params.get("client_assertion_type")?;
        let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
        if let Some(assertion) = assertion {
            if authorization.next().is_some() || secret_in_body.is_some() {
                return Err(two_ways());
            }
            return Self::with_assertion(in_body, assertion, assertion_type);
        }
        let Some(value) = authorization.next() else {
            let client_id = in_body
                .ok_or_else(|| RequestRefused("client_id is missing".to_owned()))?
                .to_owned();
            let proof = secret_in_body.map_or(PresentedCredentials::Nothing, |secret| {
                PresentedCredentials::Secret(secret.to_owned())
            });
            return Ok(Self { client_id, proof, basic: false });
        };
        if authorization.next().is_some() || secret_in_body.is_some() {
            return Err(two_ways());
        }
        let (client_id, secret) = value
            .to_str()
            .ok()
            .and_then(basic_credentials)
            .ok_or(ApiError::Client { basic: true, reason: None })?;
        if in_body.is_some_and(|in_body| in_body != client_id && in_body != decoded(&client_id)) {
            return Err(RequestRefused(
                "client_id differs from the Authorization header".to_owned(),
            )
            .into());
        }
        // Basic credentials `id:` without a secret identify a public client.
        let proof = if secret.is_empty() {
            PresentedCredentials::Nothing
        } else {
            PresentedCredentials::Secret(secret)
        };
        Ok(Self { client_id, proof, basic: true })
    }

    /// Reads the client from the assertion. `client_id` may be omitted, because the assertion names the
    /// client; if it is present, it must match (RFC 7521 §4.2).
    fn with_assertion(
        in_body: Option<&str>,
        assertion: &str,
        assertion_type: Option<&str>,
    ) -> Result<Self, ApiError> {
        let refused = |reason: &dyn std::fmt::Display| {
            tell_refused(None, &reason.to_string());
            ApiError::Client { basic: false, reason: None }
        };
        if assertion_type != Some(ASSERTION_TYPE) {
            return Err(refused(&"client_assertion_type is missing or unknown"));
        }
        let read = Assertion::parse(assertion).map_err(|reason| refused(&reason))?;
        let client_id = read.claimed_client();
        if in_body.is_some_and(|in_body| in_body != client_id) {
            return Err(refused(&"client_id is not the client of the assertion"));
        }
        let proof = PresentedCredentials::Assertion(assertion.to_owned());
        Ok(Self { client_id: client_id.to_owned(), proof, basic: false })
    }
}

fn two_ways() -> ApiError {
    RequestRefused("more than one way of client authentication was used".to_owned()).into()
}

fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2048 {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn decoded(encoded: &str) -> String {
    percent_decode_str(&encoded.replace('+', " ")).decode_utf8_lossy().into_owned()
}
