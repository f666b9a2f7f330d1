//! Error codes of OAuth, and the trait of every refusal. RFC 6749 §4.1.2.1 and §5.2, RFC 7591 §3.2.2,
//! RFC 8707 §2, RFC 6750 §3.1.

/// An `error` code in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    InvalidRequest,
    /// The client could not be authenticated, or is unknown.
    InvalidClient,
    /// The code or refresh token is not valid for this client.
    InvalidGrant,
    /// The client may not use this grant type or response type.
    UnauthorizedClient,
    /// The grant type is not offered.
    UnsupportedGrantType,
    /// The response type is not offered.
    UnsupportedResponseType,
    /// The scope is malformed or exceeds the grant.
    InvalidScope,
    /// The resource is unknown or exceeds the grant (RFC 8707).
    InvalidTarget,
    /// The person or the rules denied the request.
    AccessDenied,
    ServerError,
    /// The server cannot serve this now; the client may try again later.
    TemporarilyUnavailable,
    /// A redirect URI is not accepted (RFC 7591).
    InvalidRedirectUri,
    /// Another member of the metadata is not accepted (RFC 7591).
    InvalidClientMetadata,
    /// The access token is malformed, expired, revoked or for another server (RFC 6750).
    InvalidToken,
    /// The access token lacks a scope (RFC 6750).
    InsufficientScope,
    /// A person has to be asked, but `prompt=none` forbids it (OIDC Core §3.1.2.6).
    InteractionRequired,
    /// Request objects by value are not supported (OIDC Core §3.1.2.6).
    RequestNotSupported,
    /// Request objects by reference are not supported (OIDC Core §3.1.2.6).
    RequestUriNotSupported,
}

impl ErrorCode {
    /// Returns the code as it appears in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::AccessDenied => "access_denied",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::InteractionRequired => "interaction_required",
            Self::RequestNotSupported => "request_not_supported",
            Self::RequestUriNotSupported => "request_uri_not_supported",
        }
    }
}

/// Why a request was refused, for the caller.
///
/// `Display` becomes the `error_description`. It never contains a secret, or input that was not checked.
pub trait Refusal: std::error::Error + Send + Sync + 'static {
    /// Returns the error code of the response.
    fn code(&self) -> ErrorCode;

    /// Returns the URL of the page on which the person can connect the missing service, for the member
    /// `connect_url` of the response.
    fn connect_url(&self) -> Option<&str> {
        None
    }
}

/// Returns `Ok` if `condition` is true, otherwise the refusal. Lets a rule fit on one line.
pub fn ensure<R>(condition: bool, refusal: R) -> Result<(), R> {
    if condition { Ok(()) } else { Err(refusal) }
}
