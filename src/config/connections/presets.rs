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
    /// Authorization endpoint, with `{tenant}` as placeholder; empty: to be configured or discovered.
    pub authorize_url: &'static str,
    /// Token endpoint, likewise.
    pub token_url: &'static str,
    /// Where tokens are revoked, with `{client_id}` as placeholder; empty: nowhere, unless configured.
    pub revoke_url: &'static str,
    /// Where the account is described; empty: nowhere, unless configured or discovered.
    pub userinfo_url: &'static str,
    /// The issuer in ID tokens and in `iss` of callbacks, with `{tenant}` as placeholder; empty: not known.
    pub issuer: &'static str,
    /// Parameters of every authorization request.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Parameters of every authorization request if no other connection and not the sign-in has the same client
    /// at the service.
    pub alone_params: &'static [(&'static str, &'static str)],
    /// Parameters of an authorization request while no refresh token is stored.
    pub first_params: &'static [(&'static str, &'static str)],
    /// Name of the parameter with the scopes in authorization requests.
    pub scope_param: &'static str,
    /// Separates the scopes in authorization requests.
    pub scope_separator: &'static str,
    /// Whether a connection may have no scopes.
    pub scopes_optional: bool,
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
    /// Member of the response to a code that contains the tokens; empty: the response itself. The response to
    /// a refresh has them at the top.
    pub token_at: &'static str,
    /// Error codes of a refresh that end the connection, in addition to `invalid_grant`.
    pub ending_errors: &'static [&'static str],
    /// How a token is revoked, where there is an endpoint for it.
    pub revocation: RevocationCall,
    /// Whether the service has one grant for a client and an account: revoking one token ends all of them.
    pub one_grant: bool,
    /// How to find out which account was connected.
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
}

/// How to find out which account of the service was connected. An account that cannot be found out is no
/// error: the connection has no label then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountLookup {
    /// The document that is read.
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

impl RevocationCall {
    /// Returns how tokens of a sign-in provider are revoked: as those of the service with the same name.
    pub fn of_provider(name: &str) -> Self {
        find_preset(name).map_or(Self::Rfc7009, |preset| preset.revocation)
    }
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

const ACCOUNT_KEYS: &[&str] = &["/sub", "/id", "/user_id", "/account_id"];
const ACCOUNT_LABELS: &[&str] =
    &["/email", "/preferred_username", "/login", "/username", "/nickname", "/name"];

/// A service that is described by its configuration alone.
const GENERIC: ConnectionPreset = ConnectionPreset {
    name: "oauth2",
    title: "",
    authorize_url: "",
    token_url: "",
    revoke_url: "",
    userinfo_url: "",
    issuer: "",
    authorize_params: &[],
    alone_params: &[],
    first_params: &[],
    scope_param: "scope",
    scope_separator: " ",
    scopes_optional: false,
    extra_scopes: &[],
    offline: Offline::NoScope,
    granted: GrantedScopes::Stated,
    includes: &[],
    client_auth: ClientAuth::Basic,
    token_at: "",
    ending_errors: &[],
    revocation: RevocationCall::Rfc7009,
    one_grant: false,
    account: AccountLookup {
        from: AccountSource::Userinfo,
        key: ACCOUNT_KEYS,
        label: ACCOUNT_LABELS,
        needs: &[],
    },
    pkce: true,
    console: "the redirect URIs of the client you made for Portcullis",
};

/// GitHub answers with the shortest list that means the same as what was granted.
const GITHUB_INCLUDES: &[(&str, &[&str])] = &[
    ("repo", &["repo:status", "repo_deployment", "public_repo", "repo:invite", "security_events"]),
    ("admin:repo_hook", &["write:repo_hook", "read:repo_hook"]),
    ("write:repo_hook", &["read:repo_hook"]),
    ("admin:org", &["write:org", "read:org", "manage_runners:org"]),
    ("write:org", &["read:org"]),
    ("admin:public_key", &["write:public_key", "read:public_key"]),
    ("write:public_key", &["read:public_key"]),
    ("admin:gpg_key", &["write:gpg_key", "read:gpg_key"]),
    ("write:gpg_key", &["read:gpg_key"]),
    ("user", &["read:user", "user:email", "user:follow"]),
    ("project", &["read:project"]),
    ("write:packages", &["read:packages"]),
    ("write:discussion", &["read:discussion"]),
    ("codespace", &["codespace:secrets"]),
    ("audit_log", &["read:audit_log"]),
];

/// The presets of this version. `provider = "sign-in"` has none of its own.
pub(in crate::config) static CONNECTION_PRESETS: &[ConnectionPreset] = &[
    ConnectionPreset {
        name: "github", // OAuth Apps and GitHub Apps
        title: "GitHub",
        authorize_url: "https://github.com/login/oauth/authorize",
        token_url: "https://github.com/login/oauth/access_token",
        revoke_url: "https://api.github.com/applications/{client_id}/token",
        userinfo_url: "https://api.github.com/user",
        // The rights of a GitHub App come from the app.
        scopes_optional: true,
        includes: GITHUB_INCLUDES,
        client_auth: ClientAuth::Post,
        ending_errors: &["bad_refresh_token"],
        revocation: RevocationCall::GitHub,
        account: AccountLookup { key: &["/id"], label: &["/login"], ..GENERIC.account },
        console: "Settings > Developer settings > GitHub Apps (or OAuth Apps) > your app > Callback URL (or Authorization callback URL)",
        ..GENERIC
    },
    ConnectionPreset {
        name: "google",
        title: "Google",
        authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
        token_url: "https://oauth2.googleapis.com/token",
        revoke_url: "https://oauth2.googleapis.com/revoke",
        issuer: "https://accounts.google.com",
        authorize_params: &[("access_type", "offline")],
        // People see only what is new. With a client that others share, the token would have their scopes, too.
        alone_params: &[("include_granted_scopes", "true")],
        first_params: &[("prompt", "consent")],
        extra_scopes: &["openid", "email"],
        includes: &[
            ("https://www.googleapis.com/auth/userinfo.email", &["email"]),
            ("https://www.googleapis.com/auth/userinfo.profile", &["profile"]),
        ],
        client_auth: ClientAuth::Post,
        revocation: RevocationCall::Google,
        one_grant: true,
        account: AccountLookup {
            from: AccountSource::IdToken,
            key: &["/sub"],
            label: &["/email"],
            needs: &[],
        },
        console: "APIs & Services > Credentials > your OAuth client > Authorized redirect URIs",
        ..GENERIC
    },
    ConnectionPreset {
        name: "entra",
        title: "Microsoft",
        authorize_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        token_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        issuer: "https://login.microsoftonline.com/{tenant}/v2.0",
        extra_scopes: &["openid", "profile"],
        offline: Offline::Scope,
        granted: GrantedScopes::AsAsked,
        client_auth: ClientAuth::Post,
        ending_errors: &["interaction_required", "consent_required", "login_required"],
        account: AccountLookup {
            from: AccountSource::IdToken,
            key: &["/oid", "/sub"],
            label: &["/preferred_username", "/email", "/name"],
            needs: &[],
        },
        console: "App registrations > your app > Authentication > Web > Redirect URIs",
        ..GENERIC
    },
    ConnectionPreset {
        name: "slack",
        title: "Slack",
        authorize_url: "https://slack.com/oauth/v2/authorize",
        token_url: "https://slack.com/api/oauth.v2.access",
        revoke_url: "https://slack.com/api/auth.revoke",
        scope_param: "user_scope",
        scope_separator: ",",
        client_auth: ClientAuth::Post,
        token_at: "authed_user",
        ending_errors: &[
            "invalid_refresh_token",
            "token_expired",
            "token_revoked",
            "invalid_auth",
            "account_inactive",
        ],
        revocation: RevocationCall::Slack,
        account: AccountLookup {
            from: AccountSource::TokenResponse,
            key: &["/authed_user/id"],
            label: &["/team/name"],
            needs: &[],
        },
        // An app must opt in to PKCE, and counts as a public client then.
        pkce: false,
        console: "your app > OAuth & Permissions > Redirect URLs",
        ..GENERIC
    },
    ConnectionPreset {
        name: "atlassian",
        title: "Atlassian",
        authorize_url: "https://auth.atlassian.com/authorize",
        token_url: "https://auth.atlassian.com/oauth/token",
        userinfo_url: "https://api.atlassian.com/me",
        authorize_params: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
        offline: Offline::Scope,
        client_auth: ClientAuth::Post,
        ending_errors: &["unauthorized_client"],
        account: AccountLookup {
            from: AccountSource::Userinfo,
            key: &["/account_id"],
            label: &["/email", "/name"],
            needs: &["read:me"],
        },
        // Its documentation has no PKCE.
        pkce: false,
        console: "your app > Authorization > OAuth 2.0 (3LO) > Callback URL; an app has one, so an app of its own for each connection",
        ..GENERIC
    },
    ConnectionPreset {
        name: "gitlab",
        title: "GitLab",
        authorize_url: "https://gitlab.com/oauth/authorize",
        token_url: "https://gitlab.com/oauth/token",
        revoke_url: "https://gitlab.com/oauth/revoke",
        userinfo_url: "https://gitlab.com/api/v4/user",
        client_auth: ClientAuth::Post,
        account: AccountLookup {
            from: AccountSource::Userinfo,
            key: &["/id"],
            label: &["/username"],
            needs: &["read_user", "read_api", "api"],
        },
        console: "Applications > your application > Redirect URI, with every scope of the connection selected",
        ..GENERIC
    },
    ConnectionPreset {
        name: "oidc",
        extra_scopes: &["openid"],
        offline: Offline::ScopeWhenListed,
        client_auth: ClientAuth::Auto,
        account: AccountLookup { from: AccountSource::IdToken, ..GENERIC.account },
        ..GENERIC
    },
    ConnectionPreset { scopes_optional: true, ..GENERIC },
];

/// Returns the preset with this name.
pub(in crate::config) fn find_preset(name: &str) -> Option<&'static ConnectionPreset> {
    CONNECTION_PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests;
