//! The authorization request: which parameters a client may send, and how a bad request is refused. RFC 6749
//! §4.1.1 and §4.1.2.1, RFC 7636 §4.3, RFC 8707 §2.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::error::{ErrorCode, Refusal};
use super::scope::ScopeSet;

/// Longest accepted `state`, in bytes. It is returned unchanged.
pub const MAX_STATE: usize = 4096;

/// A request that passed every check: the client exists, the redirect URI is registered, the resource is
/// ours, the challenge is S256. It travels sealed through the consent page and the login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    pub client_id: String,
    /// The redirect URI as presented, including the port of a loopback URI.
    pub redirect_uri: String,
    /// The client's `state`, returned with every response.
    pub state: Option<String>,
    /// The S256 challenge.
    pub code_challenge: String,
    /// The resource in our own spelling. It becomes the audience of the tokens.
    pub resource: String,
    /// The scopes shown on the consent page: requested (or default) and declared by the resource.
    pub scopes: ScopeSet,
    /// The requested scopes that the resource does not have, shortened for the log. Usually empty. The page
    /// only mentions that there are some. Absent in requests that an earlier version sealed.
    #[serde(default)]
    pub unknown_scopes: String,
    /// The services that the MCP server uses as the person, as shown on the consent page: the name of each connection
    /// (`github`), and each of its scopes after a colon (`github:repo`). Absent in requests that an earlier version
    /// sealed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub upstream: BTreeSet<String>,
    /// The `prompt` that is passed on to the identity provider.
    #[serde(default)]
    pub account: Option<AccountPrompt>,
    /// The trace that the next steps of the sign-in continue, as a `traceparent` of our own; `None` if it is not
    /// recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A prompt that makes the identity provider ask for the account despite an existing session: the two values
/// of `prompt` (OpenID Connect Core §3.1.2.1) that are passed on for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
pub enum AccountPrompt {
    /// The person signs in again.
    #[strum(serialize = "login")]
    Login,
    /// The person chooses among the accounts that the provider knows in this browser.
    #[strum(serialize = "select_account")]
    SelectAccount,
}

impl AccountPrompt {
    /// Returns the value as spelled in `prompt`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the prompt that a client's `prompt` parameter asks for. If it has both, returns `login`: not
    /// every provider accepts two values, and a person who signs in again can use another account. All other
    /// values are ignored.
    pub fn asked_by(prompt: &str) -> Option<Self> {
        let asks = |wanted: Self| prompt.split(' ').any(|value| value == wanted.as_str());
        [Self::Login, Self::SelectAccount].into_iter().find(|wanted| asks(*wanted))
    }
}

/// Why an authorization request was refused, after the client and the redirect URI were checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeRefused {
    /// A parameter occurs more than once.
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
    /// A requested scope is unknown, and the resource is configured to refuse such a request rather than
    /// narrow it.
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
    /// `prompt=none` cannot be satisfied, because a person is always asked.
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
