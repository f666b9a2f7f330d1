//! What is known of each kind of identity provider, as plain data.

/// A kind of identity provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// As in `provider = "…"`; also the first part of every `sub` we issue.
    pub name: &'static str,
    /// How the issuer is made.
    pub issuer: IssuerForm,
    /// Scopes asked for when none are configured.
    pub scopes: &'static [&'static str],
    /// Default claims: name, e-mail, groups, roles, permissions.
    pub claims: ClaimDefaults,
    /// Whether roles stand in the access token only.
    pub reads_access_token: bool,
    /// Where the administrator registers our redirect URI, in the console's own words.
    pub redirect_uri_menu: &'static str,
}

/// How the issuer follows from the configured keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerForm {
    /// `https://{domain}`, or `https://{domain}/oauth2/{authorization_server}`.
    Okta,
    /// `https://{domain}/`: with the slash.
    Auth0,
    /// `{url}/realms/{realm}`.
    Keycloak,
    /// As written.
    Given,
}

/// Where facts usually are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimDefaults {
    /// Display name.
    pub name: &'static str,
    /// E-mail.
    pub email: &'static str,
    /// Groups.
    pub groups: &'static str,
    /// Roles.
    pub roles: &'static str,
    /// Permissions.
    pub permissions: &'static str,
}

const STANDARD: ClaimDefaults = ClaimDefaults {
    name: "name",
    email: "email",
    groups: "groups",
    roles: "roles",
    permissions: "permissions",
};

/// Presets of this version.
pub(super) static PRESETS: &[Preset] = &[
    Preset {
        name: "okta",
        issuer: IssuerForm::Okta,
        scopes: &["openid", "profile", "email", "offline_access"],
        claims: STANDARD,
        reads_access_token: false,
        redirect_uri_menu: "Applications > your app > General > Login > Sign-in redirect URIs",
    },
    Preset {
        name: "auth0",
        issuer: IssuerForm::Auth0,
        scopes: &["openid", "profile", "email", "offline_access"],
        claims: STANDARD,
        reads_access_token: true,
        redirect_uri_menu: "Applications > your app > Settings > Allowed Callback URLs",
    },
    Preset {
        name: "keycloak",
        issuer: IssuerForm::Keycloak,
        scopes: &["openid", "profile", "email"],
        claims: ClaimDefaults { roles: "/realm_access/roles", ..STANDARD },
        reads_access_token: true,
        redirect_uri_menu: "Clients > your client > Settings > Valid redirect URIs",
    },
    Preset {
        name: "oidc",
        issuer: IssuerForm::Given,
        scopes: &["openid", "profile", "email"],
        claims: STANDARD,
        reads_access_token: false,
        redirect_uri_menu: "the redirect URIs of the client you made for Portcullis",
    },
];

/// Names of the contract that are not presets of this version; they work as `oidc` with an issuer.
pub(super) const LATER: &[&str] = &[
    "entra",
    "google",
    "github",
    "gitlab",
    "logto",
    "cognito",
    "zitadel",
    "authentik",
    "authelia",
    "pingone",
    "onelogin",
    "jumpcloud",
    "workos",
    "descope",
    "dex",
];
