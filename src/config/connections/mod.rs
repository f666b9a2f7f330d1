//! Services that MCP servers use as the person: the sign-in provider's own token (`[resource.upstream_token]`),
//! and further services that people connect (`[[connection]]`).

mod presets;

use std::collections::BTreeMap;

use axum::http::HeaderName;
use url::Url;

use super::presets::Offline;
use super::scope_texts::ScopeText;
use super::values::SecretText;
use super::{ClientAuth, Config, ResourceConfig};

pub use presets::{AccountLookup, AccountSource, ConnectionPreset, GrantedScopes, RevocationCall};
pub(in crate::config) use presets::{CONNECTION_PRESETS, find_preset};

/// `[[connection]]`: a further service that people can connect.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// 1 to 40 of `a-z`, `0-9` and `-`; part of the callback path.
    pub name: String,
    /// Display name for people: `title`, or that of the preset.
    pub title: String,
    /// What is particular about this kind of service. With `provider = "sign-in"`: the preset of the same
    /// name as that of `[upstream]`, or the one for OpenID providers.
    pub preset: &'static ConnectionPreset,
    /// Our client at the service. With `provider = "sign-in"`: that of `[upstream]`.
    pub client_id: String,
    /// Its secret; `None` with `provider = "sign-in"` only, where it is that of `[upstream]`.
    pub client_secret: Option<SecretText>,
    /// Client authentication method at the token endpoint; never `Auto` unless the endpoints are discovered
    /// or those of `[upstream]`.
    pub client_auth: ClientAuth,
    /// The most that any MCP server may ask for, in the configured order. May be empty: some services know no
    /// scopes. Those that we add ourselves ([`ConnectionPreset::extra_scopes`], `offline`) are not in it.
    pub scopes: Vec<String>,
    /// How to request a refresh token.
    pub offline: Offline,
    /// Additional parameters of every authorization request: those of the preset and of the configuration.
    pub authorize_params: Vec<(String, String)>,
    pub endpoints: ServiceEndpoints,
    /// Whether a token is revoked at the service after its person has disconnected. Not where that would end
    /// the tokens of another connection, or of the sign-in, with the same client
    /// ([`ConnectionPreset::one_grant`]).
    pub revokes: bool,
    /// What people read of the scopes, by scope.
    pub scope_texts: BTreeMap<String, ScopeText>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and they do not move")]
pub enum ServiceEndpoints {
    /// Known from the preset or the configuration.
    Stated {
        authorize: Url,
        token: Url,
        /// What it is called with: [`ConnectionPreset::revocation`].
        revoke: Option<Url>,
        /// What it answers: [`ConnectionPreset::account`].
        userinfo: Option<Url>,
        /// The issuer that `iss` in callbacks and ID tokens must have; `None`: not known.
        issuer: Option<String>,
    },
    /// Read from the issuer's discovery document when first needed.
    Discovered {
        /// Byte for byte as in the discovery document.
        issuer: String,
    },
    /// Those of `[upstream]` (`provider = "sign-in"`).
    SignIn,
}

/// `[[resource.connection]]`: a service that an MCP server uses as the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceConnection {
    pub name: String,
    /// The scopes that this MCP server needs: a subset of the connection's, all of them by default.
    pub scopes: Vec<String>,
    /// The tools that need the connection; empty: every request.
    pub tools: Vec<String>,
    /// Whether a request without the connection is refused; otherwise it passes without a token.
    pub required: bool,
    /// Header of requests to the target that carries the token. `authorization` gets `Bearer` before it, all
    /// others the bare token. `None`: the MCP server gets it by token exchange only.
    pub header: Option<HeaderName>,
}

/// `[resource.upstream_token]`: the sign-in provider's own token for an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTokenConfig {
    /// Header of requests to the target that carries the token, as in [`ResourceConnection::header`].
    pub header: Option<HeaderName>,
    /// How the token becomes one for the API behind.
    pub exchange: TokenExchange,
    /// The API that the exchanged token is for; `Some` unless `exchange` is `None`.
    pub audience: Option<String>,
    /// Scopes of the exchanged token; for [`TokenExchange::EntraObo`] never empty.
    pub scopes: Vec<String>,
}

/// How the sign-in provider's token becomes one for the API behind an MCP server.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
pub enum TokenExchange {
    /// Not at all: the MCP server gets the provider's access token itself.
    #[default]
    #[strum(serialize = "none")]
    None,
    /// By token exchange (RFC 8693).
    #[strum(serialize = "rfc8693")]
    Rfc8693,
    /// By Entra's on-behalf-of flow.
    #[strum(serialize = "entra_obo")]
    EntraObo,
}

impl ConnectionConfig {
    /// Returns what people read of a scope in this language ([`super::LANGUAGES`]): the configured text, or
    /// the scope itself.
    pub fn scope_text<'a>(&'a self, scope: &'a str, language: &str) -> &'a str {
        self.scope_texts.get(scope).map_or(scope, |text| text.in_language(language))
    }

    /// Returns whether this is another application of the sign-in provider (`provider = "sign-in"`).
    pub fn is_sign_in(&self) -> bool {
        self.endpoints == ServiceEndpoints::SignIn
    }
}

impl Config {
    /// Returns the connection with this name.
    pub fn connection(&self, name: &str) -> Option<&ConnectionConfig> {
        self.connections.iter().find(|connection| connection.name == name)
    }

    /// Returns whether any MCP server can exchange tokens of calls for tokens of services (RFC 8693).
    pub fn offers_token_exchange(&self) -> bool {
        self.resources
            .iter()
            .any(|resource| resource.introspection_secret.is_some() && resource.wants_upstream())
    }
}

impl ResourceConfig {
    /// Returns whether this MCP server uses any service as the person.
    pub fn wants_upstream(&self) -> bool {
        self.upstream_token.is_some() || !self.connections.is_empty()
    }

    /// Returns what this MCP server needs of the connection with this name.
    pub fn connection_to(&self, name: &str) -> Option<&ResourceConnection> {
        self.connections.iter().find(|connection| connection.name == name)
    }

    /// Returns the headers that carry tokens of the person to the targets, each once.
    pub fn token_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let own = self.upstream_token.as_ref().and_then(|token| token.header.as_ref());
        let others = self.connections.iter().filter_map(|connection| connection.header.as_ref());
        own.into_iter().chain(others)
    }
}
