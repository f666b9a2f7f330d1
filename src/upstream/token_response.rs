//! Responses of token endpoints: the provider's, and those of services that people connect. They are read
//! leniently, so that a rotated refresh token is not lost because of a detail. Failures are classified.

use std::fmt;
use std::time::Duration;

use axum::http::{Response, header};
use serde_json::{Map, Value};

use super::LoginFailed;
use super::values::{object_of, other_than_json, shown, time_of};
use crate::clock::Timestamp;
use crate::jose::jws;
use crate::storage::UpstreamTokens;

/// Longest lifetime of an access token that is believed: 10 years. A longer one is cut to this.
const LONGEST_LIFETIME: u64 = 10 * 365 * 24 * 60 * 60;

/// What is particular about the token responses of a provider or service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseForm<'a> {
    /// Member that contains the tokens; empty: the response itself.
    pub token_at: &'a str,
    /// Error codes that end a session or a connection, in addition to the standard ones.
    pub ending_errors: &'a [&'a str],
}

/// A token response with at least one token. `Debug` prints none of them.
#[derive(Default)]
pub struct TokenResponse {
    access_token: Option<String>,
    /// The refresh token, if there is one.
    pub refresh_token: Option<String>,
    id_token: IdToken,
    /// `token_type` as stated; empty: none.
    pub token_type: String,
    /// Lifetime of the access token; `None`: not stated, or stated as zero.
    pub expires_in: Option<Duration>,
    /// `scope` as stated.
    pub scope: Option<String>,
    /// The whole response.
    pub members: Map<String, Value>,
    /// Harmless deviations from the standard.
    pub tolerated: Vec<String>,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse").field("tolerated", &self.tolerated).finish_non_exhaustive()
    }
}

#[derive(Default)]
enum IdToken {
    #[default]
    None,
    Text(String),
    /// The member is present but not a text.
    Odd,
}

impl TokenResponse {
    /// Returns the access token. The error is for the administrator.
    pub fn access_token(&self) -> Result<&str, String> {
        self.access_token.as_deref().ok_or_else(|| {
            "access_token is missing in the token answer, or is not a text".to_owned()
        })
    }

    /// Returns the ID token. The error is for the administrator.
    pub fn id_token(&self) -> Result<&str, String> {
        match &self.id_token {
            IdToken::Text(text) => Ok(text),
            IdToken::None => Err("id_token is missing in the token answer".to_owned()),
            IdToken::Odd => Err("id_token is not a text".to_owned()),
        }
    }

    pub(super) fn has_id_token(&self) -> bool {
        !matches!(self.id_token, IdToken::None)
    }

    /// Returns the end of the access token, which was received at `now`: as stated, or as the token itself
    /// says if it is a JWT. `None`: unknown.
    pub fn access_until(&self, now: Timestamp) -> Option<Timestamp> {
        let stated = self.expires_in.map(|lifetime| now.plus(lifetime));
        let in_token = || {
            let claims = jws::unverified_claims(self.access_token.as_deref()?)?;
            claims.get("exp").and_then(time_of).map(Timestamp::from_unix)
        };
        stated.or_else(in_token)
    }

    /// Returns the tokens, received at `now`; `None` without an access token.
    pub(super) fn tokens(&self, now: Timestamp) -> Option<UpstreamTokens> {
        Some(UpstreamTokens {
            access_token: self.access_token.clone()?,
            refresh_token: self.refresh_token.clone(),
            id_token: self.id_token().ok().map(str::to_owned),
            nonce: None,
            access_until: self.access_until(now).map(Timestamp::unix),
            scope: self.scope.clone(),
        })
    }

    /// Returns the tokens after a refresh at `now`: those of this response, and those of `before` where it has
    /// none.
    pub(super) fn tokens_after(&self, before: &UpstreamTokens, now: Timestamp) -> UpstreamTokens {
        let access_until = match self.access_token {
            Some(_) => self.access_until(now).map(Timestamp::unix),
            None => before.access_until,
        };
        UpstreamTokens {
            access_token: self.access_token.clone().unwrap_or_else(|| before.access_token.clone()),
            refresh_token: self.refresh_token.clone().or_else(|| before.refresh_token.clone()),
            id_token: self.id_token().ok().map(str::to_owned).or_else(|| before.id_token.clone()),
            nonce: before.nonce.clone(),
            access_until,
            scope: self.scope.clone().or_else(|| before.scope.clone()),
        }
    }
}

/// Failure of a request to the token endpoint. The JSON `error` takes precedence over the status, because
/// providers send the same `error` with different statuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFailure {
    /// The provider definitely rejects this code or refresh token.
    #[error("refused: {0}")]
    Refused(String),
    /// The provider rejects our client: wrong secret or wrong client id.
    #[error("our client is refused: {0}")]
    Ours(String),
    /// An outage: no usable response.
    #[error("no usable answer: {0}")]
    Transient(String),
}

impl From<TokenFailure> for LoginFailed {
    fn from(failure: TokenFailure) -> Self {
        match failure {
            // The provider rejects a code that was not issued for this login.
            TokenFailure::Refused(reason) => Self::Untrusted(reason),
            TokenFailure::Ours(reason) => Self::Misconfigured(reason),
            TokenFailure::Transient(reason) => Self::Unavailable(reason),
        }
    }
}

/// Reads a response of the token endpoint.
pub fn read(
    response: &Response<Vec<u8>>,
    form: &ResponseForm<'_>,
) -> Result<TokenResponse, TokenFailure> {
    let status = response.status();
    let body = object_in(response);
    if status.is_success()
        && let Ok(members) = &body
    {
        let mut answer = match (form.token_at, members.get(form.token_at)) {
            ("", _) => tokens_in(members),
            (_, Some(Value::Object(inner))) => tokens_in(inner),
            // What lies beside the member is a token of somebody else, such as the application's own.
            _ => TokenResponse::default(),
        };
        let any = answer.access_token.is_some()
            || answer.refresh_token.is_some()
            || matches!(answer.id_token, IdToken::Text(_));
        // GitHub reports errors with status 200.
        if any && (answer.access_token.is_some() || error_in(members).is_none()) {
            if let Some(other) = other_than_json(response) {
                answer.tolerated.push(format!("the content type is {other}"));
            }
            answer.members.clone_from(members);
            return Ok(answer);
        }
    }
    match (body.as_ref().ok().and_then(error_in), status.as_u16()) {
        (Some(code), status) => Err(classify_code(code, status, form.ending_errors)),
        (None, 401) => Err(TokenFailure::Ours("401 without an error code".to_owned())),
        (None, status) => {
            let what = body.err().unwrap_or_else(|| "it holds no token and no error".to_owned());
            Err(TokenFailure::Transient(format!("an answer that makes no sense, {status}: {what}")))
        }
    }
}

/// Returns the members of a response: JSON, or a form, as servers sent it before RFC 6749.
fn object_in(response: &Response<Vec<u8>>) -> Result<Map<String, Value>, String> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_form = content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    match object_of(response.body()) {
        Err(_) if is_form => Ok(form_urlencoded::parse(response.body())
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect()),
        read => read,
    }
}

fn error_in(members: &Map<String, Value>) -> Option<&str> {
    members.get("error")?.as_str().filter(|code| !code.is_empty())
}

fn tokens_in(members: &Map<String, Value>) -> TokenResponse {
    let mut tolerated = Vec::new();
    let member = |name: &str| members.get(name).filter(|value| !value.is_null());
    let mut token = |name: &str| match member(name) {
        None => None,
        Some(Value::String(token)) if token.is_empty() => {
            tolerated.push(format!("{name} is empty"));
            None
        }
        Some(Value::String(token)) => Some(token.clone()),
        Some(_) => {
            tolerated.push(format!("{name} is not a text"));
            None
        }
    };
    let (access_token, refresh_token) = (token("access_token"), token("refresh_token"));
    let id_token = match member("id_token") {
        None => IdToken::None,
        Some(Value::String(token)) if token.is_empty() => IdToken::None,
        Some(Value::String(token)) => IdToken::Text(token.clone()),
        Some(_) => IdToken::Odd,
    };
    // An administrator may want to know about deviations.
    match member("token_type") {
        None => tolerated.push("token_type is missing".to_owned()),
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(Value::String(kind)) => tolerated.push(format!("token_type is {}", shown(kind))),
        Some(_) => tolerated.push("token_type is not a text".to_owned()),
    }
    if member("expires_in").is_some_and(|seconds| !seconds.is_u64()) {
        tolerated.push("expires_in is not a whole number".to_owned());
    }
    if member("scope").is_some_and(|scope| !scope.is_string()) {
        tolerated.push("scope is not a text".to_owned());
    }
    let text = |name: &str| member(name).and_then(Value::as_str).map(str::to_owned);
    TokenResponse {
        access_token,
        refresh_token,
        id_token,
        token_type: text("token_type").unwrap_or_default(),
        expires_in: member("expires_in").and_then(lifetime_of),
        scope: text("scope"),
        members: Map::new(),
        tolerated,
    }
}

/// Reads a lifetime in seconds: a number, or a text with a number, as some servers send it. Zero and negative
/// numbers mean nothing.
fn lifetime_of(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(_) => time_of(value),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let seconds = seconds.and_then(|seconds: i64| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.min(LONGEST_LIFETIME)))
}

/// Returns the error code if it looks like one (RFC 6749 §5.2), otherwise a placeholder for the log. Anybody
/// can write into a callback, and a broken provider may send anything.
pub(super) fn shown_code(code: &str) -> &str {
    let is_code = code.len() <= 64
        && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_code { code } else { "(not a code)" }
}

fn classify_code(code: &str, status: u16, ending_errors: &[&str]) -> TokenFailure {
    // Nothing else of what a server sends goes into the log.
    let code = shown_code(code);
    match code {
        code if ending_errors.contains(&code) => TokenFailure::Refused(code.to_owned()),
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "mfa_required"
        | "access_denied"
        | "bad_verification_code"
        | "invalid_code" => TokenFailure::Refused(code.to_owned()),
        "invalid_client"
        | "unauthorized_client"
        | "invalid_request"
        | "invalid_scope"
        | "unsupported_grant_type"
        | "incorrect_client_credentials"
        | "redirect_uri_mismatch"
        | "bad_client_secret"
        | "invalid_client_id"
        | "bad_redirect_uri" => TokenFailure::Ours(code.to_owned()),
        _ if status == 401 => TokenFailure::Ours(code.to_owned()),
        _ => TokenFailure::Transient(code.to_owned()),
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

    #[test]
    fn an_error_that_is_no_code_is_never_repeated() {
        for status in [400, 401, 503] {
            let body = r#"{"error":"Bearer SECRET"}"#;
            let response = Response::builder().status(status).body(body.into()).unwrap();
            let failure = read(&response, &ResponseForm::default()).unwrap_err().to_string();
            assert!(failure.contains("(not a code)") && !failure.contains("SECRET"), "{failure}");
        }
    }

    #[test]
    fn a_lifetime_is_read_in_each_form_it_comes_in() {
        for (body, seconds) in [
            (r#"{"access_token":"a","expires_in":3600}"#, Some(3600)),
            (r#"{"access_token":"a","expires_in":"28800"}"#, Some(28_800)),
            (r#"{"access_token":"a","expires_in":59.9}"#, Some(59)),
            (r#"{"access_token":"a","expires_in":99999999999999999999}"#, Some(LONGEST_LIFETIME)),
            (r#"{"access_token":"a","expires_in":0}"#, None),
            (r#"{"access_token":"a","expires_in":-1}"#, None),
            (r#"{"access_token":"a","expires_in":"soon"}"#, None),
            (r#"{"access_token":"a","expires_in":null}"#, None),
            (r#"{"access_token":"a"}"#, None),
        ] {
            let response = Response::new(body.into());
            let answer = read(&response, &ResponseForm::default()).unwrap();
            assert_eq!(answer.expires_in, seconds.map(Duration::from_secs), "{body}");
        }
    }

    #[test]
    fn without_a_stated_lifetime_a_token_tells_its_end_itself() {
        // {"alg":"none"}.{"exp":1795219500}.
        let body = r#"{"access_token":"eyJhbGciOiJub25lIn0.eyJleHAiOjE3OTUyMTk1MDB9.c2ln"}"#;
        let response = Response::new(body.into());
        let answer = read(&response, &ResponseForm::default()).unwrap();
        let now = Timestamp::from_unix(1_795_219_200);
        assert_eq!(answer.access_until(now), Some(Timestamp::from_unix(1_795_219_500)));
        let before = UpstreamTokens { access_until: Some(5), ..UpstreamTokens::default() };
        assert_eq!(answer.tokens_after(&before, now).access_until, Some(1_795_219_500));
        let response = Response::new(r#"{"refresh_token":"r"}"#.into());
        let answer = read(&response, &ResponseForm::default()).unwrap();
        assert_eq!(
            answer.tokens_after(&before, now).access_until,
            Some(5),
            "the same access token"
        );
    }

    #[test]
    fn a_status_of_success_is_enough() {
        let form = ResponseForm::default();
        for (status, body, works) in [
            (200, r#"{"access_token":"a"}"#, true),
            (201, r#"{"access_token":"a","token_type":"DPoP"}"#, true),
            (200, r#"{"refresh_token":"r"}"#, true),
            (200, r#"{"access_token":"a","error":"invalid_grant"}"#, true),
            (200, r#"{"refresh_token":"r","error":"invalid_grant"}"#, false),
            (200, r#"{"access_token":7}"#, false),
            (200, "{}", false),
            (302, r#"{"access_token":"a"}"#, false),
            (400, r#"{"access_token":"a"}"#, false),
        ] {
            let response = Response::builder().status(status).body(body.into()).unwrap();
            assert_eq!(read(&response, &form).is_ok(), works, "{status} {body}");
        }
    }
}
