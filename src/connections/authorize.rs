//! The authorization request to a service.

use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use url::Url;

use super::service::ResolvedService;
use super::{ConnectFailed, Connections};
use crate::config::{ConnectionConfig, Offline};
use crate::oauth::secret::{ConnectState, Secret};

/// The scope with which OpenID providers issue refresh tokens.
pub(super) const OFFLINE_ACCESS: &str = "offline_access";

/// The start of a connection: what the browser carries to the service.
pub struct ConnectStart<'a> {
    pub name: &'a str,
    /// All scopes that the connection shall have afterwards: those that it has, and the new ones.
    pub scopes: &'a [String],
    pub state: &'a Secret<ConnectState>,
    /// The PKCE verifier: 43 to 128 characters (RFC 7636 §4.1).
    pub verifier: &'a str,
    /// The nonce; sent to OpenID providers only.
    pub nonce: &'a str,
    /// Our redirect URI for this connection.
    pub redirect_uri: &'a str,
    /// Whether a refresh token of this connection is stored already.
    pub has_refresh: bool,
}

impl Connections {
    /// Returns the URL at the service that starts a connection. It contains nothing that a client sent.
    pub async fn authorize_url(&self, start: &ConnectStart<'_>) -> Result<Url, ConnectFailed> {
        let config = self.0.service(start.name).ok_or_else(|| unknown(start.name))?;
        let service = self.0.resolve(config).await?;
        Ok(authorization_request(&service, start))
    }
}

/// The failure for a name that the configuration does not have.
pub(super) fn unknown(name: &str) -> ConnectFailed {
    ConnectFailed::Misconfigured(format!("no [[connection]] is named {name:?}"))
}

fn authorization_request(service: &ResolvedService<'_>, start: &ConnectStart<'_>) -> Url {
    let config = service.config;
    let scopes = scopes_to_ask(config, start.scopes, service.lists_offline);
    let mut url = service.authorize.clone();
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &config.client_id)
        .append_pair("redirect_uri", start.redirect_uri)
        .append_pair("state", start.state.expose());
    if !scopes.is_empty() {
        let separator = config.preset.scope_separator;
        query.append_pair(config.preset.scope_param, &scopes.join(separator));
    }
    if is_openid(&scopes) {
        query.append_pair("nonce", start.nonce);
    }
    if config.preset.pkce {
        let verifier = PkceCodeVerifier::new(start.verifier.to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        query
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
    }
    query.extend_pairs(&config.authorize_params);
    if !start.has_refresh {
        let is_set = |name: &str| config.authorize_params.iter().any(|(set, _)| set == name);
        query.extend_pairs(config.preset.first_params.iter().filter(|(name, _)| !is_set(name)));
    }
    drop(query);
    url
}

/// Returns all scopes of the request: ours, the wanted ones, and the one for a refresh token.
pub(super) fn scopes_to_ask<'a>(
    config: &'a ConnectionConfig,
    wanted: &'a [String],
    lists_offline: bool,
) -> Vec<&'a str> {
    let offline = match config.offline {
        Offline::Scope => true,
        Offline::ScopeWhenListed => lists_offline,
        Offline::NoScope => false,
    };
    let extra = config.preset.extra_scopes.iter().copied();
    let offline = offline.then_some(OFFLINE_ACCESS);
    let mut scopes = Vec::new();
    for scope in extra.chain(wanted.iter().map(String::as_str)).chain(offline) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// Whether a request with these scopes is one of OpenID Connect, so that an ID token comes back.
pub(super) fn is_openid(scopes: &[&str]) -> bool {
    scopes.contains(&"openid")
}
