//! The rules of a token exchange by an MCP server: its parameters and its refusals. RFC 8693 §2.1 and §2.2.2.

use super::error::{ErrorCode, Refusal};

/// The `grant_type` of a token exchange.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The token type of an access token (RFC 8693 §3).
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The token type of another JWT (RFC 8693 §3).
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The `audience` that means the identity provider's own token.
pub const SIGN_IN: &str = "sign-in";

/// What an MCP server presents as proof that a person's call has reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// The access token of the call, which names this MCP server as audience.
    AccessToken,
    /// The signed assertion that the gateway adds to a call.
    Assertion,
}

impl SubjectKind {
    /// Reads `subject_token_type`.
    pub fn parse(token_type: &str) -> Result<Self, ExchangeRefused> {
        match token_type {
            ACCESS_TOKEN => Ok(Self::AccessToken),
            JWT => Ok(Self::Assertion),
            _ => Err(ExchangeRefused::SubjectType),
        }
    }
}

/// Why a token exchange was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeRefused {
    /// Not a live token of a call to this MCP server. All causes have this one description, so that an MCP
    /// server learns nothing about the tokens of others.
    #[error(
        "subject_token is not the live token of a call to this MCP server: it may be invalid, expired or revoked, or be for another server"
    )]
    Subject,
    #[error(
        "subject_token_type is neither urn:ietf:params:oauth:token-type:access_token nor urn:ietf:params:oauth:token-type:jwt (for the gateway's assertion)"
    )]
    SubjectType,
    #[error("requested_token_type can only be urn:ietf:params:oauth:token-type:access_token")]
    RequestedType,
    /// `actor_token` or `actor_token_type` was sent.
    #[error("actor_token is not supported: the MCP server that authenticates is the actor")]
    Actor,
    /// `resource` was sent.
    #[error("resource is not supported here: name the service in audience")]
    Resource,
    /// No connection of this MCP server has this name. It does not matter whether others have one.
    #[error("this MCP server has no service of the name in audience")]
    UnknownTarget,
    /// `scope` has more than the configuration gives this MCP server.
    #[error("scope exceeds what this MCP server may use of the service")]
    WiderScope,
    #[error("the person has not connected this service: ask them to open connect_url")]
    NotConnected {
        /// The page on which they can connect it.
        connect_url: String,
    },
    /// The person connected the service with fewer scopes.
    #[error("the connection lacks the scopes {scopes}: ask the person to open connect_url")]
    LacksScopes {
        /// The page on which they can allow more.
        connect_url: String,
        /// The missing scopes, separated by spaces.
        scopes: String,
    },
    /// The service refuses to renew the token.
    #[error(
        "the service has ended this connection: ask the person to open connect_url and connect again"
    )]
    Broken {
        /// The page on which they can connect it again.
        connect_url: String,
    },
    /// The identity provider issued no token for this person, or refuses to renew it.
    #[error("the identity provider has no token for this person now: they have to sign in again")]
    SignInAgain,
    /// The identity provider's token lacks scopes.
    #[error("the identity provider's token lacks the scopes {0}")]
    SignInLacks(String),
}

impl ExchangeRefused {
    /// Returns the reason for the audit trail, in one word.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Subject => "subject_token",
            Self::SubjectType | Self::RequestedType | Self::Actor => "request",
            Self::Resource | Self::UnknownTarget => "audience",
            Self::WiderScope => "scope",
            Self::NotConnected { .. } => "not_connected",
            Self::LacksScopes { .. } | Self::SignInLacks(_) => "lacks_scopes",
            Self::Broken { .. } | Self::SignInAgain => "broken",
        }
    }
}

impl Refusal for ExchangeRefused {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Subject | Self::SubjectType | Self::RequestedType | Self::Actor => {
                ErrorCode::InvalidRequest
            }
            Self::WiderScope => ErrorCode::InvalidScope,
            Self::Resource
            | Self::UnknownTarget
            | Self::NotConnected { .. }
            | Self::LacksScopes { .. }
            | Self::Broken { .. }
            | Self::SignInAgain
            | Self::SignInLacks(_) => ErrorCode::InvalidTarget,
        }
    }

    fn connect_url(&self) -> Option<&str> {
        match self {
            Self::NotConnected { connect_url }
            | Self::LacksScopes { connect_url, .. }
            | Self::Broken { connect_url } => Some(connect_url),
            _ => None,
        }
    }
}
