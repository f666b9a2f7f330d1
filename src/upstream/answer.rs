//! Answers of the provider's token endpoint: read with patience, and failures told apart.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth2::{
    AsyncHttpClient, HttpRequest, HttpResponse, RequestTokenError, StandardErrorResponse,
    TokenResponse as _,
};
use openidconnect::TokenResponse as _;
use openidconnect::core::{CoreErrorResponseType, CoreIdToken, CoreTokenResponse};
use serde_json::Value;

use super::LoginFailed;
use crate::config::Preset;
use crate::http_client::{HttpClient, HttpError};
use crate::storage::UpstreamTokens;

type TokenError = RequestTokenError<HttpError, StandardErrorResponse<CoreErrorResponseType>>;

/// The provider's answer at its token endpoint.
pub(super) struct Answer {
    pub(super) response: CoreTokenResponse,
    /// Why there is an ID token that cannot even be read.
    pub(super) unreadable: Option<&'static str>,
    /// The ID token as it came, where `response` has it with its issuer respelled: the signature is that
    /// of this one.
    pub(super) as_it_came: Option<String>,
}

impl Answer {
    pub(super) fn tokens(&self) -> UpstreamTokens {
        let response = &self.response;
        UpstreamTokens {
            access_token: response.access_token().secret().clone(),
            refresh_token: response.refresh_token().map(|token| token.secret().clone()),
            id_token: self
                .as_it_came
                .clone()
                .or_else(|| response.id_token().map(ToString::to_string)),
            nonce: None,
        }
    }

    pub(super) fn has_id_token(&self) -> bool {
        self.response.id_token().is_some() || self.unreadable.is_some()
    }
}

/// How a request to the token endpoint failed (identity-provider guide §8.4): by the JSON `error`
/// first, then by status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFailure {
    /// A definite no to this code or refresh token.
    #[error("refused: {0}")]
    Refused(String),
    /// It refuses us: wrong secret, wrong client.
    #[error("our client is refused: {0}")]
    Ours(String),
    /// An outage.
    #[error("no usable answer: {0}")]
    Transient(String),
}

impl From<TokenFailure> for LoginFailed {
    fn from(failure: TokenFailure) -> Self {
        match failure {
            // A code that the provider does not accept was not meant for this login.
            TokenFailure::Refused(reason) => Self::Untrusted(reason),
            TokenFailure::Ours(reason) => Self::Misconfigured(reason),
            TokenFailure::Transient(reason) => Self::Unavailable(reason),
        }
    }
}

/// Our HTTP client, as the library wants it.
pub(super) struct Caller {
    http: HttpClient,
    status: AtomicU16,
    unreadable: OnceLock<&'static str>,
    as_it_came: OnceLock<String>,
    /// Other spellings of the issuer, and the issuer.
    aliases: (&'static [&'static str], String),
}

impl Caller {
    pub(super) fn new(http: HttpClient, aliases: &'static [&'static str], issuer: &str) -> Self {
        Self {
            http,
            status: AtomicU16::new(0),
            unreadable: OnceLock::new(),
            as_it_came: OnceLock::new(),
            aliases: (aliases, issuer.to_owned()),
        }
    }

    /// Status of the last answer; 0 when there was none.
    pub(super) fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, response: CoreTokenResponse) -> Answer {
        let unreadable = self.unreadable.get().copied();
        Answer { response, unreadable, as_it_came: self.as_it_came.get().cloned() }
    }

    /// An ID token whose issuer goes by another spelling, with the usual one: the library reads URLs only,
    /// and Google's other spelling is none.
    fn respelled(&self, id_token: &str) -> Option<String> {
        let (aliases, issuer) = &self.aliases;
        let parts: Vec<&str> = id_token.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else { return None };
        let mut claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        if !aliases.contains(&claims.get("iss")?.as_str()?) {
            return None;
        }
        claims["iss"] = issuer.as_str().into();
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        Some(format!("{header}.{payload}.{signature}"))
    }

    /// Takes out of an answer with tokens what the library would refuse the whole answer for: a rotated
    /// refresh token must not be lost to a detail. `expires_in`, which some send as text, we never read;
    /// an ID token that is none is remembered and judged later.
    fn forgive(&self, body: Vec<u8>) -> Vec<u8> {
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(&body) else { return body };
        if !answer.contains_key("access_token") {
            return body;
        }
        let came = answer.get("id_token").and_then(Value::as_str).map(str::to_owned);
        let respelled = came.as_deref().and_then(|token| self.respelled(token));
        let is_respelled = respelled.is_some();
        if let (Some(came), Some(respelled)) = (came, respelled) {
            let _ = self.as_it_came.set(came);
            answer.insert("id_token".to_owned(), respelled.into());
        }
        let odd_time = answer.get("expires_in").is_some_and(|time| !time.is_u64());
        let unreadable = match answer.get("id_token") {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) if token.matches('.').count() == 4 => {
                Some("it is encrypted (JWE): switch encryption of ID tokens off for this client")
            }
            Some(token) => serde_json::from_value::<CoreIdToken>(token.clone())
                .is_err()
                .then_some("it is not a signed JWT"),
        };
        if !odd_time && unreadable.is_none() && !is_respelled {
            return body;
        }
        if odd_time {
            answer.remove("expires_in");
        }
        if let Some(reason) = unreadable {
            let _ = self.unreadable.set(reason);
            answer.remove("id_token");
        }
        Value::Object(answer).to_string().into_bytes()
    }
}

impl<'c> AsyncHttpClient<'c> for Caller {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.http.send(request).await?;
            self.status.store(response.status().as_u16(), Ordering::Relaxed);
            Ok(response.map(|body| self.forgive(body)))
        })
    }
}

fn error_member(body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    Some(json.get("error")?.as_str()?.to_owned())
}

/// An error code as it may be logged: anybody can write into a callback, and a broken provider anything
/// into an answer. Only what looks like a code (RFC 6749 §5.2) is worth a line.
pub(super) fn shown_code(code: &str) -> &str {
    let is_code = code.len() <= 64
        && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_code { code } else { "(not a code)" }
}

fn classify_code(code: &str, status: u16, preset: &Preset) -> TokenFailure {
    match shown_code(code) {
        code if preset.ending_errors.contains(&code) => TokenFailure::Refused(code.to_owned()),
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "mfa_required"
        | "access_denied"
        | "bad_verification_code" => TokenFailure::Refused(code.to_owned()),
        "invalid_client"
        | "unauthorized_client"
        | "invalid_request"
        | "invalid_scope"
        | "unsupported_grant_type"
        | "incorrect_client_credentials"
        | "redirect_uri_mismatch" => TokenFailure::Ours(code.to_owned()),
        _ if status == 401 => TokenFailure::Ours(code.to_owned()),
        _ => TokenFailure::Transient(code.to_owned()),
    }
}

/// What the failure of a request to the token endpoint means.
pub(super) fn classify(error: &TokenError, status: u16, preset: &Preset) -> TokenFailure {
    match error {
        RequestTokenError::ServerResponse(response) => {
            classify_code(response.error().as_ref(), status, preset)
        }
        // GitHub reports errors with status 200.
        RequestTokenError::Parse(_, body) if error_member(body).is_some() => {
            classify_code(&error_member(body).unwrap_or_default(), status, preset)
        }
        RequestTokenError::Request(cause) => TokenFailure::Transient(cause.to_string()),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => match status {
            401 => TokenFailure::Ours("401 without an error code".to_owned()),
            status => TokenFailure::Transient(format!("an answer that makes no sense, {status}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_code_is_shown() {
        for code in ["invalid_grant", "mfa_required", "aadsts_50076", ""] {
            assert_eq!(shown_code(code), code);
        }
        let long = "x".repeat(65);
        for other in ["a\nb", "SECRET", "eyJhbGciOi.J9", "with space", "x=1", long.as_str()] {
            assert_eq!(shown_code(other), "(not a code)");
        }
    }
}
