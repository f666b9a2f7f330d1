//! Maps refusals and errors to HTTP responses. The only place with the status codes of the client endpoints.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::params::{ParamsRefused, Repeated};
use crate::clients::FindError;
use crate::oauth::error::{ErrorCode, Refusal};
use crate::oauth::grant::TokenRefused;
use crate::signing::SigningError;
use crate::storage::StorageError;
use crate::telemetry::log_throttle::{KeyedLogThrottle, LogThrottle};

/// Seconds: `Retry-After` when the server cannot serve a request now.
const RETRY_AFTER: u64 = 2;

static NO_CLIENT: LogThrottle = LogThrottle::new();
static NOT_READ: LogThrottle = LogThrottle::new();
static CANNOT_SERVE: KeyedLogThrottle = KeyedLogThrottle::new();
static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();
static INTERNAL: KeyedLogThrottle = KeyedLogThrottle::new();

/// The description of every `invalid_grant`, whatever the cause.
const INVALID_GRANT: &str = "the authorization code or refresh token is invalid, expired, revoked or was issued to another client; sign in again";

/// Why an endpoint for clients refused or failed.
#[derive(Debug)]
pub enum ApiError {
    /// The caller made a mistake. The response has its code and description.
    Refused(Box<dyn Refusal>),
    /// The client could not be authenticated (401).
    Client {
        /// Whether the client used the Authorization header; then the response has a `Basic` challenge.
        basic: bool,
        /// The mistake. Disclosed only to a client that has proven its identity.
        reason: Option<String>,
    },
    /// A rate limit or quota is reached (429).
    Quota {
        /// `Retry-After` in seconds.
        retry_after: u64,
        /// Its key in `[limits]`, with the value if the caller knows it.
        limit: String,
    },
    /// The body is larger than the endpoint reads (413).
    TooLarge,
    /// The same, if the limit is configurable.
    LargerThan {
        /// Key in `[limits]`.
        limit: &'static str,
        /// The limit in bytes.
        most: usize,
    },
    /// The body did not arrive in time (408).
    TooSlow,
    /// A temporary failure, of ours or of the identity provider (503). Nothing was consumed.
    Unavailable,
    /// A bug or corruption on our side (500). The cause appears only in the log.
    Internal(Box<dyn std::error::Error + Send + Sync + 'static>),
}

impl<R: Refusal> From<R> for ApiError {
    fn from(refusal: R) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(_) => {
                if let Some(left_out) = CANNOT_SERVE.admit(&error.to_string()) {
                    tracing::error!(cause = %error, left_out, "the database cannot serve");
                }
                Self::Unavailable
            }
            StorageError::Busy | StorageError::NoConnection(_) => {
                if let Some(left_out) = CANNOT_SERVE.admit(&error.to_string()) {
                    tracing::warn!(cause = %error, left_out, "the database is busy: requests are answered 503");
                }
                Self::Unavailable
            }
            StorageError::Gone | StorageError::ClockBehind | StorageError::Full(_) => {
                if let Some(left_out) = CANNOT_SERVE.admit(&error.to_string()) {
                    tracing::warn!(cause = %error, left_out, "the database cannot serve");
                }
                Self::Unavailable
            }
            other => Self::Internal(other.into()),
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Storage(error) => error.into(),
            FindError::Document(reason) | FindError::Off(reason) => {
                if let Some(left_out) = NO_CLIENT.admit() {
                    tracing::info!(reason, left_out, "client refused");
                }
                Self::Client { basic: false, reason: None }
            }
            FindError::Later(reason) | FindError::NoNetwork(reason) => {
                if let Some(left_out) = NOT_READ.admit() {
                    tracing::warn!(reason, left_out, "what a client publishes cannot be read");
                }
                Self::Unavailable
            }
        }
    }
}

impl From<SigningError> for ApiError {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Storage(error) => error.into(),
            other => Self::Internal(other.into()),
        }
    }
}

impl From<ParamsRefused> for ApiError {
    fn from(refused: ParamsRefused) -> Self {
        Self::Refused(Box::new(RequestRefused(refused.to_string())))
    }
}

impl From<Repeated> for ApiError {
    fn from(_: Repeated) -> Self {
        TokenRefused::RepeatedParameter.into()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RequestRefused(pub String);

impl Refusal for RequestRefused {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidRequest
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidClient | ErrorCode::InvalidToken => StatusCode::UNAUTHORIZED,
        ErrorCode::InsufficientScope => StatusCode::FORBIDDEN,
        ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TemporarilyUnavailable => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::InvalidRequest
        | ErrorCode::InvalidGrant
        | ErrorCode::UnauthorizedClient
        | ErrorCode::UnsupportedGrantType
        | ErrorCode::UnsupportedResponseType
        | ErrorCode::InvalidScope
        | ErrorCode::InvalidTarget
        | ErrorCode::AccessDenied
        | ErrorCode::InvalidRedirectUri
        | ErrorCode::InvalidClientMetadata
        | ErrorCode::InteractionRequired
        | ErrorCode::RequestNotSupported
        | ErrorCode::RequestUriNotSupported => StatusCode::BAD_REQUEST,
    }
}

/// Returns a JSON response with status 200 that must not be cached.
pub fn ok(body: &serde_json::Value) -> Response {
    json(StatusCode::OK, body)
}

/// Returns a JSON response that must not be cached.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (
        status,
        [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::PRAGMA, HeaderValue::from_static("no-cache")),
        ],
        body.to_string(),
    )
        .into_response()
}

/// Returns the 404 for a path that we do not serve.
pub fn not_found(description: Option<&str>) -> Response {
    let mut body = json!({ "error": "not_found" });
    if let Some(description) = description {
        body["error_description"] = description.into();
    }
    json(StatusCode::NOT_FOUND, &body)
}

fn error(status: StatusCode, code: ErrorCode, description: Option<&str>) -> Response {
    json(status, &error_body(code, description))
}

fn error_body(code: ErrorCode, description: Option<&str>) -> serde_json::Value {
    let mut body = json!({ "error": code.as_str() });
    if let Some(description) = description {
        body["error_description"] = description.into();
    }
    body
}

fn retry(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn refused(refusal: &dyn Refusal) -> Response {
    let code = refusal.code();
    let reason = refusal.to_string();
    if let Some(left_out) = REFUSED.admit(&reason) {
        tracing::info!(code = code.as_str(), reason, left_out, "refused");
    }
    // All causes look the same, so that probing codes and tokens reveals nothing.
    let described = if code == ErrorCode::InvalidGrant { INVALID_GRANT } else { &reason };
    let mut body = error_body(code, Some(described));
    if let Some(url) = refusal.connect_url() {
        body["connect_url"] = url.into();
    }
    let answer = json(status(code), &body);
    if code == ErrorCode::TemporarilyUnavailable {
        return retry(answer, RETRY_AFTER);
    }
    answer
}

fn not_authenticated(basic: bool, reason: Option<&str>) -> Response {
    let told = reason.unwrap_or("the client is unknown or could not be authenticated");
    let mut answer = error(StatusCode::UNAUTHORIZED, ErrorCode::InvalidClient, Some(told));
    if basic {
        answer.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"portcullis\", charset=\"UTF-8\""),
        );
    }
    answer
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refused(&*refusal),
            Self::Client { basic, reason } => not_authenticated(basic, reason.as_deref()),
            Self::Quota { retry_after, limit } => {
                let told = format!(
                    "a limit of this server is reached ({limit}); try again in {retry_after} seconds, or ask an administrator to raise it"
                );
                let code = ErrorCode::TemporarilyUnavailable;
                retry(error(StatusCode::TOO_MANY_REQUESTS, code, Some(&told)), retry_after)
            }
            Self::LargerThan { limit, most } => {
                let told = format!(
                    "the body is larger than {most} bytes; an administrator can raise `limits.{limit}`"
                );
                tracing::info!(reason = told, "refused");
                error(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::InvalidRequest, Some(&told))
            }
            Self::TooLarge => error(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::InvalidRequest,
                Some("the body is too large"),
            ),
            Self::TooSlow => error(
                StatusCode::REQUEST_TIMEOUT,
                ErrorCode::InvalidRequest,
                Some("the body did not arrive in time"),
            ),
            Self::Unavailable => retry(
                error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ErrorCode::TemporarilyUnavailable,
                    Some("the server cannot serve this now; nothing was consumed, try again"),
                ),
                RETRY_AFTER,
            ),
            Self::Internal(cause) => {
                if let Some(left_out) = INTERNAL.admit(&cause.to_string()) {
                    tracing::error!(%cause, left_out, "internal error");
                }
                error(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ServerError, None)
            }
        }
    }
}
