//! Error responses of the provider at the callback (OIDC Core §3.1.2.6, threat UP-04).

use super::LoginFailed;
use super::token_response::shown_code;
use crate::telemetry::log_throttle::KeyedLogThrottle;

static ANSWERED_ERROR: KeyedLogThrottle = KeyedLogThrottle::new();

/// Parameters of the callback. They arrive through the browser, so anybody may have written them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallbackParams<'a> {
    /// The issuer (RFC 9207).
    pub iss: Option<&'a str>,
    pub code: Option<&'a str>,
    /// The error code, in place of `code`.
    pub error: Option<&'a str>,
    /// Description of the error. Neither shown nor logged, except for `KNOWN_DESCRIPTIONS`.
    pub error_description: Option<&'a str>,
}

/// Exact descriptions that change how an error is classified. Keycloak sends `authentication_expired` when
/// its login page was open for too long, or when the person signed in meanwhile in another tab. Neither is
/// a fault of the provider.
const KNOWN_DESCRIPTIONS: [&str; 1] = [AUTHENTICATION_EXPIRED];
const AUTHENTICATION_EXPIRED: &str = "authentication_expired";

/// Classifies an error of the callback. Only errors about the person count as a rejection; errors about our
/// client must alarm the administrator.
pub fn classify(error: &str, description: Option<&str>) -> LoginFailed {
    let error = shown_code(error);
    let known = |said: &str| KNOWN_DESCRIPTIONS.into_iter().find(|known| *known == said);
    let description = description.and_then(known);
    if let Some(left_out) = ANSWERED_ERROR.admit(description.unwrap_or(error)) {
        let what = "the identity provider answers with an error";
        tracing::info!(error, description, left_out, "{what}");
    }
    let again = |prompt| LoginFailed::Again { reason: error.to_owned(), prompt };
    match (error, description) {
        ("temporarily_unavailable", Some(AUTHENTICATION_EXPIRED)) => again(None),
        // The provider needs to ask the person but believes that it must not. The next attempt asks for that
        // explicitly.
        ("login_required" | "interaction_required", _) => again(Some("login")),
        ("account_selection_required", _) => again(Some("select_account")),
        ("consent_required", _) => again(Some("consent")),
        ("temporarily_unavailable" | "server_error", _) => {
            LoginFailed::ProviderCannot(error.to_owned())
        }
        (
            "invalid_scope"
            | "unauthorized_client"
            | "invalid_request"
            | "unsupported_response_type"
            | "redirect_uri_mismatch"
            | "application_suspended"
            | "invalid_target"
            | "invalid_resource",
            _,
        ) => LoginFailed::Misconfigured(error.to_owned()),
        _ => LoginFailed::Refused,
    }
}
