//! Built-in knowledge about each kind of service, as plain data. `docs/connections/` describes the same for
//! administrators, with the sources.

use std::collections::BTreeSet;

use crate::config::ClientAuth;
use crate::config::presets::Offline;

/// A kind of service.
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectionPreset {
    /// Value of `provider = "…"`.
    pub name: &'static str,
    /// Display name for people, unless the configuration sets `title`; empty: it must.
    pub title: &'static str,
    /// The endpoints, with `{tenant}` and `{client_id}` as placeholders; empty: none, or to be configured.
    pub authorize_url: &'static str,
    pub token_url: &'static str,
    pub revoke_url: &'static str,
    pub userinfo_url: &'static str,
    /// The issuer in ID tokens and in `iss` of callbacks, with the same placeholders; empty: not known.
    pub issuer: &'static str,
    /// Parameters of every authorization request.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Parameters of an authorization request while no refresh token is stored.
    pub first_params: &'static [(&'static str, &'static str)],
    /// Name of the parameter with the scopes in authorization requests.
    pub scope_param: &'static str,
    /// Separates the scopes in authorization requests.
    pub scope_separator: &'static str,
    /// Scopes that every authorization request has in addition to the configured ones. They are not shown to
    /// people, and an answer that does not list them is complete.
    pub extra_scopes: &'static [&'static str],
    /// How to request a refresh token.
    pub offline: Offline,
    /// How to know the granted scopes.
    pub granted: GrantedScopes,
    /// Scopes that other scopes include: `(granted, those in it)`.
    pub includes: &'static [(&'static str, &'static [&'static str])],
    /// Default client authentication method.
    pub client_auth: ClientAuth,
    /// Member of the response to a code that contains the tokens; empty: the response itself.
    pub token_at: &'static str,
    /// Whether errors of the token endpoint may come with status 200 (`error`, or `ok: false`).
    pub errors_with_200: bool,
    /// Error codes of a refresh that end the connection, in addition to `invalid_grant`.
    pub ending_errors: &'static [&'static str],
    /// How a token is revoked at the `revoke` endpoint.
    pub revocation: RevocationCall,
    pub account: AccountLookup,
    /// Whether authorization requests use PKCE (RFC 7636).
    pub pkce: bool,
    /// Where the callback is registered in the service's console.
    pub console: &'static str,
}

/// How to know which scopes a service granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantedScopes {
    /// `scope` of the token response, separated by spaces or commas. If it is absent, those that were asked
    /// for (RFC 6749 §5.1).
    Stated,
    /// Those that were asked for: the service grants all or none, and spells them in other ways.
    AsAsked,
}

/// How a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationCall {
    /// `POST` with `token` and client authentication (RFC 7009).
    Rfc7009,
    /// `DELETE` with Basic authentication and JSON `{"access_token": "…"}`: status 204, or 404 or 422 for a
    /// token that is not valid.
    GitHub,
    /// `POST` with the access token as bearer token: JSON with `ok`.
    Slack,
    /// `POST` with `token`, without client authentication; status 400 for a token that is not valid.
    Google,
    /// Not at all.
    None,
}

/// How to find out which account of the service was connected. An account that cannot be found out is no
/// error: the connection has no label then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountLookup {
    pub from: AccountSource,
    /// JSON pointers; the first one that exists is the stable key of the account, a text or a number.
    pub key: &'static [&'static str],
    /// JSON pointers; the first one that exists is the label that the person reads.
    pub label: &'static [&'static str],
    /// Userinfo is requested if one of these scopes was granted; empty: always.
    pub needs: &'static [&'static str],
}

/// The document that describes the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountSource {
    /// The whole token response.
    TokenResponse,
    /// The claims of the ID token; without one, userinfo if it has a URL.
    IdToken,
    /// The response to `GET` with the bearer token at the `userinfo` endpoint.
    Userinfo,
}

impl ConnectionPreset {
    /// Returns whether the granted scopes include this one.
    pub fn covers(&self, granted: &BTreeSet<String>, wanted: &str) -> bool {
        granted.contains(wanted)
            || self
                .includes
                .iter()
                .any(|(scope, included)| included.contains(&wanted) && granted.contains(*scope))
    }
}
