//! Why a registration, replacement or management request is refused: RFC 7591 §3.2.2, RFC 7592 §2.

use super::keys::KeysRefused;
use crate::oauth::error::{ErrorCode, Refusal};
use crate::oauth::redirect_uri::RedirectUriRefused;
use crate::oauth::web_url::WebUrlRefused;

/// Why a registration was refused: the member, and its mistake. If a configuration key decides, the text
/// names the value and that key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationRefused {
    /// Not JSON, or not an object.
    #[error("the body must be a JSON object sent as application/json")]
    NotJson,
    /// A member has the wrong type or is repeated.
    #[error("{0} is repeated or has the wrong type")]
    Malformed(&'static str),
    /// Too many members, or nested too deeply.
    #[error("the registration has too many members or is nested too deeply")]
    TooLarge,
    /// A text or list is too long.
    #[error("{0} is too long")]
    TooLong(&'static str),
    #[error("redirect_uris must hold at least one URI")]
    NoRedirectUri,
    /// More than [`super::RegistrationLimits::redirect_uris`].
    #[error(
        "redirect_uris holds {found} URIs and may hold {most}; an administrator can raise `limits.redirect_uris`"
    )]
    TooManyRedirectUris { found: usize, most: usize },
    /// A redirect URI breaks a rule.
    #[error("{0}")]
    RedirectUri(#[from] RedirectUriRefused),
    #[error(
        "token_endpoint_auth_method must be none, client_secret_basic, client_secret_post or private_key_jwt"
    )]
    AuthMethod,
    /// A list contains nothing that this server offers.
    #[error("{0} holds nothing that this server offers")]
    NothingOffered(&'static str),
    #[error("application_type must be web or native")]
    ApplicationType,
    /// RFC 7591 §2 forbids both.
    #[error("jwks and jwks_uri must not both be present")]
    TwoKeySets,
    /// A client that signs has no usable key.
    #[error("private_key_jwt needs jwks with a usable public key, or jwks_uri")]
    NoKeys,
    /// The keys break a rule.
    #[error("jwks: {0}")]
    Keys(#[from] KeysRefused),
    /// The URL of the keys breaks a rule.
    #[error("jwks_uri: {0}")]
    JwksUri(#[from] WebUrlRefused),
    #[error("scope is malformed")]
    Scope,
    /// The replacement names another client or a wrong secret.
    #[error("client_id and client_secret must be those of the client itself")]
    OtherClient,
    /// The replacement would change how the client authenticates.
    #[error("token_endpoint_auth_method cannot change between secrets, keys and none")]
    OtherProof,
}

impl Refusal for RegistrationRefused {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NoRedirectUri | Self::TooManyRedirectUris { .. } | Self::RedirectUri(_) => {
                ErrorCode::InvalidRedirectUri
            }
            Self::NotJson
            | Self::Malformed(_)
            | Self::TooLarge
            | Self::TooLong(_)
            | Self::AuthMethod
            | Self::NothingOffered(_)
            | Self::ApplicationType
            | Self::TwoKeySets
            | Self::NoKeys
            | Self::Keys(_)
            | Self::JwksUri(_)
            | Self::Scope
            | Self::OtherClient
            | Self::OtherProof => ErrorCode::InvalidClientMetadata,
        }
    }
}

/// The registration access token is missing or wrong, or the client does not exist (RFC 7592 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registration access token is missing or wrong")]
pub struct ManagementRefused;

impl Refusal for ManagementRefused {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidToken
    }
}
