//! The authorization request: what a client may ask for and how it is turned down.
//! RFC 6749 §4.1.1 and §4.1.2.1, RFC 7636 §4.3, RFC 8707 §2.

use serde::{Deserialize, Serialize};

use super::error::{ErrorCode, Refusal};
use super::scope::ScopeSet;

/// Longest `state` accepted from a client, in bytes; it is echoed byte for byte.
pub const MAX_STATE: usize = 4096;

/// A request that passed every check: the client exists, the redirect URI is its own, the resource is
/// ours, the challenge is S256. It travels sealed through the consent page and the login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    /// Who asks.
    pub client_id: String,
    /// Where the answer goes: as presented, the loopback port included.
    pub redirect_uri: String,
    /// The client's `state`, echoed in every answer.
    pub state: Option<String>,
    /// The S256 challenge.
    pub code_challenge: String,
    /// The resource, in our own spelling: the audience of the tokens.
    pub resource: String,
    /// The scopes shown on the consent page: requested (or default) and declared by the resource.
    pub scopes: ScopeSet,
    /// What was asked for and is no scope of the resource, as the log shows it; mostly nothing. The page says that there
    /// was something. An earlier version stored none.
    #[serde(default)]
    pub unknown_scopes: String,
    /// The choice of an account that the provider is asked for.
    #[serde(default)]
    pub account: Option<AccountPrompt>,
}

/// What makes the identity provider ask who somebody is, in spite of a session that it has: the two values of
/// `prompt` (OpenID Connect Core §3.1.2.1) that a client may have passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountPrompt {
    /// The person signs in again.
    Login,
    /// The person chooses among the accounts that the provider knows in this browser.
    SelectAccount,
}

impl AccountPrompt {
    /// As it is spelled in `prompt`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::SelectAccount => "select_account",
        }
    }

    /// What a client's `prompt` asks for. Of both, `login`: not every provider takes two values, and whoever
    /// signs in again may do so with another account. Other values are not the client's to decide, or unknown.
    pub fn asked_by(prompt: &str) -> Option<Self> {
        let asks = |wanted: Self| prompt.split(' ').any(|value| value == wanted.as_str());
        [Self::Login, Self::SelectAccount].into_iter().find(|wanted| asks(*wanted))
    }
}

/// Why an authorization request was turned down after client and redirect URI were proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeRefused {
    /// A parameter came twice.
    #[error("a parameter was sent more than once")]
    RepeatedParameter,
    /// A required parameter is absent or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Only the code flow is offered.
    #[error("only response_type=code is offered")]
    ResponseType,
    /// Only `response_mode=query` is offered.
    #[error("only response_mode=query is offered")]
    ResponseMode,
    /// PKCE with S256 is required.
    #[error("code_challenge_method must be S256")]
    ChallengeMethod,
    /// The challenge is not a SHA-256 hash in base64url.
    #[error("code_challenge must be 43 base64url characters")]
    Challenge,
    /// `state` is longer than [`MAX_STATE`].
    #[error("state is too long")]
    StateTooLong,
    /// The resource is not one of ours.
    #[error("resource is not an MCP server behind this authorization server")]
    UnknownResource,
    /// No resource was named and none is the default.
    #[error("resource is required: this authorization server fronts several MCP servers")]
    ResourceRequired,
    /// More than one resource was named.
    #[error("only one resource can be asked for at a time")]
    SeveralResources,
    /// The scope parameter is malformed.
    #[error("scope is malformed")]
    Scope,
    /// The resource is set to refuse, not narrow, a scope it does not know.
    #[error(
        "`{0}` is not offered; an administrator can add it to the `scopes` of this MCP server, or set its `on_excess` to narrow"
    )]
    ScopeNotOffered(String),
    /// Request objects are not offered.
    #[error("the request parameter is not supported")]
    RequestObject,
    /// Request objects by reference are not offered, and never fetched.
    #[error("the request_uri parameter is not supported")]
    RequestUri,
    /// The client is not registered for the code flow.
    #[error("this client is not registered for the authorization_code grant")]
    GrantType,
    /// `prompt=none` cannot be met: a person is always asked.
    #[error("a person has to be asked")]
    InteractionRequired,
}

impl Refusal for AuthorizeRefused {
    fn code(&self) -> ErrorCode {
        match self {
            Self::RepeatedParameter
            | Self::Missing(_)
            | Self::ResponseMode
            | Self::ChallengeMethod
            | Self::Challenge
            | Self::StateTooLong => ErrorCode::InvalidRequest,
            Self::ResponseType => ErrorCode::UnsupportedResponseType,
            Self::UnknownResource | Self::ResourceRequired | Self::SeveralResources => {
                ErrorCode::InvalidTarget
            }
            Self::Scope | Self::ScopeNotOffered(_) => ErrorCode::InvalidScope,
            Self::RequestObject => ErrorCode::RequestNotSupported,
            Self::RequestUri => ErrorCode::RequestUriNotSupported,
            Self::GrantType => ErrorCode::UnauthorizedClient,
            Self::InteractionRequired => ErrorCode::InteractionRequired,
        }
    }
}
