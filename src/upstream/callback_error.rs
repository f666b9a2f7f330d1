//! What the provider says at the callback when it brings no code (OIDC Core §3.1.2.6, threat UP-04).

use super::LoginFailed;
use super::token_response::shown_code;
use crate::telemetry::log_throttle::KeyedLogThrottle;

static ANSWERED_ERROR: KeyedLogThrottle = KeyedLogThrottle::new();

/// What the provider brings back through the browser; anybody may have written any of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallbackParams<'a> {
    /// `iss` (RFC 9207).
    pub iss: Option<&'a str>,
    /// Its code.
    pub code: Option<&'a str>,
    /// Or its error.
    pub error: Option<&'a str>,
    /// And what it says about that. Neither shown nor logged, except for `KNOWN_DESCRIPTIONS`.
    pub error_description: Option<&'a str>,
}

/// Descriptions that decide something, word for word. Keycloak says the first when its login page was open for
/// too long, or the person signed in meanwhile in another tab: nothing is wrong with it then.
const KNOWN_DESCRIPTIONS: [&str; 1] = [AUTHENTICATION_EXPIRED];
const AUTHENTICATION_EXPIRED: &str = "authentication_expired";

/// What an error means for the login. Only what is about the person is told as a refusal; what is about us must
/// alarm the administrator.
pub(super) fn classify(error: &str, description: Option<&str>) -> LoginFailed {
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
        // Something would have to be asked, and the provider believes that it must not: it is told to.
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
