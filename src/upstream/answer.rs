//! Answers of the provider's token endpoint: read with patience, and failures told apart.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

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
}

impl Answer {
    pub(super) fn tokens(&self) -> UpstreamTokens {
        let response = &self.response;
        UpstreamTokens {
            access_token: response.access_token().secret().clone(),
            refresh_token: response.refresh_token().map(|token| token.secret().clone()),
            id_token: response.id_token().map(ToString::to_string),
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
}

impl Caller {
    pub(super) fn new(http: HttpClient) -> Self {
        Self { http, status: AtomicU16::new(0), unreadable: OnceLock::new() }
    }

    /// Status of the last answer; 0 when there was none.
    pub(super) fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, response: CoreTokenResponse) -> Answer {
        Answer { response, unreadable: self.unreadable.get().copied() }
    }

    /// Takes out of an answer with tokens what the library would refuse the whole answer for: a rotated
    /// refresh token must not be lost to a detail. `expires_in`, which some send as text, we never read;
    /// an ID token that is none is remembered and judged later.
    fn forgive(&self, body: Vec<u8>) -> Vec<u8> {
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(&body) else { return body };
        if !answer.contains_key("access_token") {
            return body;
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
        if !odd_time && unreadable.is_none() {
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

fn classify_code(code: &str, status: u16, preset: &Preset) -> TokenFailure {
    match code {
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
