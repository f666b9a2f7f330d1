//! Built-in knowledge about each kind of identity provider, as plain data. `docs/identity-providers/`
//! describes the same for administrators.
//!
//! A preset contains no logic. It defines how the issuer is built, what we request, which claims describe a
//! person, and the terms of the provider's console.

use super::ClaimSource::{self, AccessToken, IdToken, Userinfo};
use super::ClientAuth;
use crate::oauth::authorization_request::AccountPrompt::{self, Login, SelectAccount};
use crate::policy::ClaimShape;

/// A kind of identity provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Value of `provider = "…"`, and the first part of every `sub` that we issue.
    pub name: &'static str,
    pub protocol: Protocol,
    /// The issuer, with placeholders in braces for the keys.
    pub issuer: &'static str,
    /// The keys of the placeholders in `issuer`.
    pub keys: &'static [IssuerKey],
    /// Other spellings of the issuer that ID tokens may contain.
    pub issuer_aliases: &'static [&'static str],
    /// Default scopes, in addition to `openid`.
    pub scopes: &'static [&'static str],
    /// How to request a refresh token.
    pub offline: Offline,
    /// Parameters of every authorization request.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Optional configuration keys that become authorization parameters of the same name.
    pub param_keys: &'static [&'static str],
    /// Default client authentication method.
    pub client_auth: ClientAuth,
    /// Where to find facts about a person.
    pub claims: ClaimDefaults,
    /// The claims that identify a person.
    pub subject: SubjectForm,
    /// Configuration key that restricts who can sign in, and the claim that must have one of its values:
    /// `(key, claim)`.
    pub restricted_by: Option<(&'static str, &'static str)>,
    /// Whether anybody in the world can have an account there.
    pub public_sign_up: bool,
    /// Whether email addresses are unverified input of users, so that rules must not read them.
    pub emails_unverified: bool,
    /// Whether a refresh must name the scopes so that the response contains an ID token.
    pub refresh_names_scopes: bool,
    /// Error codes of a refresh that end the session, in addition to the standard ones.
    pub ending_errors: &'static [&'static str],
    /// Methods to sign a browser out at the provider. The first one that the provider supports is used.
    pub sign_out: &'static [SignOut],
    /// Terms of the provider's console.
    pub console: ConsoleLabels,
    /// Parameters that make the provider authenticate the person again; empty if it supports none.
    pub reauth_params: &'static [(&'static str, &'static str)],
    /// Supported `prompt` values for choosing an account, used if the provider's metadata does not list them.
    pub account_prompts: &'static [AccountPrompt],
}

impl Preset {
    /// Returns our `sub` for a person of this provider: stable, and never an email address.
    pub fn our_subject(&self, upstream_subject: &str) -> String {
        format!("{}:{upstream_subject}", self.name)
    }

    /// Returns the keys of `[upstream]` that this provider has and not every provider.
    pub fn own_keys(&self) -> Vec<&'static str> {
        let special: &[&'static str] = match self.name {
            "okta" => &["authorization_server"],
            "keycloak" => &["role_client"],
            "github" => &["url"],
            _ => &[],
        };
        let mut keys: Vec<&'static str> = self.keys.iter().map(|key| key.name).collect();
        keys.extend(self.restricted_by.map(|(key, _)| key));
        keys.extend(special.iter().chain(self.param_keys));
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| seen.insert(*key));
        keys
    }
}

/// A method to sign a browser out at the provider: RP-initiated logout, or the provider's own equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignOut {
    /// The sign-out endpoint.
    pub at: SignOutAt,
    pub form: SignOutForm,
}

/// Location of the sign-out endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutAt {
    /// The URL in this member of the provider's metadata.
    Metadata(&'static str),
    /// This path on the host of the authorization endpoint.
    SignInHost(&'static str),
}

/// Parameters of a sign-out request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutForm {
    /// `id_token_hint`, `client_id`, `post_logout_redirect_uri` (OpenID Connect RP-Initiated Logout 1.0).
    OpenId,
    /// Parameters with the provider's own names.
    Own {
        /// Name of the parameter with our client id, if there is one.
        client_id: Option<&'static str>,
        /// Name of the parameter with the URL to return to.
        return_to: &'static str,
    },
}

const OPENID_SIGN_OUT: SignOut =
    SignOut { at: SignOutAt::Metadata("end_session_endpoint"), form: SignOutForm::OpenId };

/// PingFederate's own endpoint, from before it supported the standard one.
const PING_SIGN_OUT: SignOut = SignOut {
    at: SignOutAt::Metadata("ping_end_session_endpoint"),
    form: SignOutForm::Own { client_id: None, return_to: "TargetResource" },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Oidc,
    /// OAuth, with GitHub's own API for the identity of the person.
    GitHub,
}

/// A configuration key that is part of an issuer.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// Name of the key in `[upstream]`.
    pub name: &'static str,
    pub example: &'static str,
    pub kind: KeyKind,
}

/// Format of the value of an [`IssuerKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A host name, optionally with a port.
    Host,
    /// An https URL without a trailing slash.
    Url,
    /// Letters, digits, `.`, `_`, `-`.
    Word,
    Guid,
    /// The whole issuer, byte for byte.
    Issuer,
}

/// How to request a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// With the scope `offline_access`.
    Scope,
    /// With the scope `offline_access`, if the provider lists it.
    ScopeWhenListed,
    /// Without the scope, which the provider would reject. It issues refresh tokens by itself or because of
    /// `authorize_params`.
    NoScope,
}

/// The claims that identify a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectForm {
    Sub,
    /// The claims `tid` and `oid`, joined by a dot, because Entra's `sub` differs between applications.
    TidOid,
}

/// Default locations of facts about a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimDefaults {
    /// Name of the claim with the display name, or a JSON pointer to it; likewise below.
    pub name: &'static str,
    pub email: &'static str,
    pub groups: &'static str,
    pub roles: &'static str,
    pub permissions: &'static str,
    /// How values are represented in these claims.
    pub shape: ClaimShape,
    /// The first source that has a claim wins.
    pub sources: &'static [ClaimSource],
}

/// Terms of the provider's console, for hints that say where to fix something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLabels {
    /// Where our redirect URI is registered.
    pub redirect_uri: &'static str,
    /// Where the client secret is found.
    pub secret: &'static str,
    /// Where refresh tokens are enabled.
    pub refresh: &'static str,
    /// Where groups or roles are added to tokens.
    pub roles: &'static str,
}

const STANDARD_CLAIMS: ClaimDefaults = ClaimDefaults {
    name: "name",
    email: "email",
    groups: "groups",
    roles: "roles",
    permissions: "permissions",
    shape: ClaimShape::Auto,
    sources: &[IdToken, Userinfo],
};

const ISSUER: IssuerKey =
    IssuerKey { name: "issuer", example: "https://id.example.com", kind: KeyKind::Issuer };

const PROFILE: &[&str] = &["profile", "email"];

const GENERIC: Preset = Preset {
    name: "oidc",
    protocol: Protocol::Oidc,
    issuer: "{issuer}",
    keys: &[ISSUER],
    issuer_aliases: &[],
    scopes: PROFILE,
    offline: Offline::ScopeWhenListed,
    authorize_params: &[],
    param_keys: &[],
    client_auth: ClientAuth::Auto,
    claims: STANDARD_CLAIMS,
    subject: SubjectForm::Sub,
    restricted_by: None,
    public_sign_up: false,
    emails_unverified: false,
    refresh_names_scopes: false,
    ending_errors: &[],
    sign_out: &[OPENID_SIGN_OUT, PING_SIGN_OUT],
    console: ConsoleLabels {
        redirect_uri: "the redirect URIs of the client you made for Portcullis",
        secret: "the client you made for Portcullis",
        refresh: "allow the refresh token grant, and the scope offline_access where there is one; a strict provider wants authorize_params = { prompt = \"consent\" } as well",
        roles: "put groups or roles into the ID token, and name the claim in [upstream.claims]",
    },
    reauth_params: &[("prompt", "login"), ("max_age", "0")],
    // Every provider must support `login` (OpenID Connect Core §15.1). `select_account` is left out: GitLab
    // and Logto reject a sign-in with it, and Keycloak has only one account per browser.
    account_prompts: &[Login],
};

/// The presets of this version; the last one is for other OpenID providers.
pub(super) static PRESETS: &[Preset] = &[
    Preset {
        name: "okta",
        issuer: "https://{domain}",
        keys: &[IssuerKey { name: "domain", example: "acme.okta.com", kind: KeyKind::Host }],
        offline: Offline::Scope,
        param_keys: &["idp"],
        refresh_names_scopes: true,
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "Applications > your app > General > Login > Sign-in redirect URIs",
            secret: "Applications > your app > General > Client Credentials",
            refresh: "Applications > your app > General > Grant type > Refresh Token",
            roles: "Applications > your app > Sign On > OpenID Connect ID Token > Group claims filter: groups",
        },
        ..GENERIC
    },
    Preset {
        name: "auth0",
        issuer: "https://{domain}/",
        keys: &[IssuerKey { name: "domain", example: "acme.eu.auth0.com", kind: KeyKind::Host }],
        offline: Offline::Scope,
        param_keys: &["audience", "organization", "connection"],
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults { sources: &[IdToken, AccessToken, Userinfo], ..STANDARD_CLAIMS },
        restricted_by: Some(("organization", "org_id")),
        ending_errors: &["unauthorized"],
        // The standard endpoint must be enabled in the tenant.
        sign_out: &[
            OPENID_SIGN_OUT,
            SignOut {
                at: SignOutAt::SignInHost("/v2/logout"),
                form: SignOutForm::Own { client_id: Some("client_id"), return_to: "returnTo" },
            },
        ],
        console: ConsoleLabels {
            redirect_uri: "Applications > your app > Settings > Allowed Callback URLs",
            secret: "Applications > your app > Settings > Client Secret, and Credentials for the method",
            refresh: "Applications > your app > Advanced Settings > Grant Types > Refresh Token; Applications > APIs > your API > Allow Offline Access",
            roles: "a Post-Login Action that sets a namespaced claim, or APIs > your API > RBAC Settings > Add Permissions in the Access Token",
        },
        ..GENERIC
    },
    Preset {
        name: "keycloak",
        issuer: "{url}/realms/{realm}",
        keys: &[
            IssuerKey { name: "url", example: "https://sso.example.com", kind: KeyKind::Url },
            IssuerKey { name: "realm", example: "acme", kind: KeyKind::Word },
        ],
        offline: Offline::ScopeWhenListed,
        client_auth: ClientAuth::Basic,
        claims: ClaimDefaults {
            roles: "/realm_access/roles",
            sources: &[IdToken, AccessToken, Userinfo],
            ..STANDARD_CLAIMS
        },
        // Keycloak's description: "Client no longer has requested consent from user"
        ending_errors: &["invalid_scope"],
        console: ConsoleLabels {
            redirect_uri: "Clients > your client > Settings > Valid redirect URIs",
            secret: "Clients > your client > Credentials",
            refresh: "Clients > your client > Client scopes: offline_access as Optional",
            roles: "Client scopes > roles > Mappers; for groups a Group Membership mapper named groups",
        },
        ..GENERIC
    },
    Preset {
        name: "entra",
        issuer: "https://login.microsoftonline.com/{tenant}/v2.0",
        keys: &[IssuerKey {
            name: "tenant",
            example: "11111111-2222-3333-4444-555555555555",
            kind: KeyKind::Guid,
        }],
        offline: Offline::Scope,
        param_keys: &["domain_hint"],
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults { sources: &[IdToken], ..STANDARD_CLAIMS },
        subject: SubjectForm::TidOid,
        restricted_by: Some(("tenant", "tid")),
        emails_unverified: true,
        console: ConsoleLabels {
            redirect_uri: "App registrations > your app > Authentication > Web > Redirect URIs",
            secret: "App registrations > your app > Certificates & secrets",
            refresh: "nothing to switch on; the platform must be Web",
            roles: "App registrations > your app > App roles, assigned in Enterprise applications > Users and groups",
        },
        account_prompts: &[Login, SelectAccount],
        ..GENERIC
    },
    Preset {
        name: "google",
        issuer: "https://accounts.google.com",
        keys: &[],
        issuer_aliases: &["accounts.google.com"],
        offline: Offline::NoScope,
        authorize_params: &[("access_type", "offline"), ("prompt", "consent")],
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults { sources: &[IdToken], ..STANDARD_CLAIMS },
        restricted_by: Some(("hosted_domains", "hd")),
        public_sign_up: true,
        sign_out: &[],
        console: ConsoleLabels {
            redirect_uri: "APIs & Services > Credentials > your OAuth client > Authorized redirect URIs",
            secret: "APIs & Services > Credentials > your OAuth client",
            refresh: "OAuth consent screen > Publishing status: in production",
            roles: "Google tells no groups: use subjects or email_domains in rules",
        },
        reauth_params: &[],
        account_prompts: &[SelectAccount],
        ..GENERIC
    },
    Preset {
        name: "github",
        protocol: Protocol::GitHub,
        issuer: "https://github.com", // or the `url` of a GitHub Enterprise Server
        keys: &[],
        scopes: &["read:user", "user:email", "read:org"],
        offline: Offline::NoScope,
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults { sources: &[IdToken], ..STANDARD_CLAIMS },
        restricted_by: Some(("organizations", "organizations")),
        public_sign_up: true,
        ending_errors: &["bad_refresh_token"],
        sign_out: &[],
        console: ConsoleLabels {
            redirect_uri: "your organization > Settings > Developer settings > OAuth Apps > your app > Authorization callback URL",
            secret: "your organization > Settings > Developer settings > OAuth Apps > your app",
            refresh: "nothing to switch on: GitHub is asked with the access token",
            roles: "nothing to switch on: groups are organisations, and teams as organisation/team",
        },
        reauth_params: &[],
        account_prompts: &[SelectAccount],
        ..GENERIC
    },
    Preset {
        name: "gitlab",
        issuer: "https://{host}",
        keys: &[IssuerKey { name: "host", example: "gitlab.com", kind: KeyKind::Host }],
        offline: Offline::NoScope,
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults { groups: "groups_direct", ..STANDARD_CLAIMS },
        console: ConsoleLabels {
            redirect_uri: "Settings > Applications > your application > Redirect URI",
            secret: "Settings > Applications > your application",
            refresh: "nothing to switch on",
            roles: "nothing to switch on: groups_direct is in the ID token",
        },
        ..GENERIC
    },
    Preset {
        name: "logto",
        issuer: "https://{domain}/oidc",
        keys: &[IssuerKey { name: "domain", example: "acme.logto.app", kind: KeyKind::Host }],
        scopes: &["profile", "email", "roles"],
        offline: Offline::Scope,
        authorize_params: &[("prompt", "consent")],
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "Applications > your app > Redirect URIs",
            secret: "Applications > your app > App secrets",
            refresh: "Applications > your app > Always issue refresh token",
            roles: "Roles: assign them to people",
        },
        ..GENERIC
    },
    Preset {
        name: "cognito",
        issuer: "https://cognito-idp.{region}.amazonaws.com/{user_pool_id}",
        keys: &[
            IssuerKey { name: "region", example: "eu-central-1", kind: KeyKind::Word },
            IssuerKey {
                name: "user_pool_id",
                example: "eu-central-1_AbCdEfGhI",
                kind: KeyKind::Word,
            },
        ],
        offline: Offline::NoScope,
        param_keys: &["identity_provider"],
        client_auth: ClientAuth::Basic,
        claims: ClaimDefaults { groups: "cognito:groups", ..STANDARD_CLAIMS },
        // The endpoint expects Cognito's own parameters, even if the metadata lists the standard one.
        sign_out: &[SignOut {
            at: SignOutAt::SignInHost("/logout"),
            form: SignOutForm::Own { client_id: Some("client_id"), return_to: "logout_uri" },
        }],
        console: ConsoleLabels {
            redirect_uri: "User pools > your pool > App clients > your client > Login pages > Allowed callback URLs",
            secret: "User pools > your pool > App clients > your client",
            refresh: "nothing to switch on",
            roles: "User pools > your pool > Groups",
        },
        ..GENERIC
    },
    Preset {
        name: "zitadel",
        issuer: "https://{domain}",
        keys: &[IssuerKey { name: "domain", example: "acme.zitadel.cloud", kind: KeyKind::Host }],
        scopes: &["profile", "email", "urn:zitadel:iam:org:projects:roles"],
        offline: Offline::Scope,
        client_auth: ClientAuth::Basic,
        claims: ClaimDefaults {
            roles: "urn:zitadel:iam:org:project:roles",
            shape: ClaimShape::Keys,
            ..STANDARD_CLAIMS
        },
        console: ConsoleLabels {
            redirect_uri: "Projects > your project > your application > Redirect Settings",
            secret: "Projects > your project > your application > Actions > Regenerate Client Secret",
            refresh: "your application > OIDC Configuration > Grant Types > Refresh Token",
            roles: "Projects > your project > General > Assert Roles on Authentication",
        },
        account_prompts: &[Login, SelectAccount],
        ..GENERIC
    },
    Preset {
        name: "authentik",
        issuer: "{url}/application/o/{application}/",
        keys: &[
            IssuerKey { name: "url", example: "https://auth.example.com", kind: KeyKind::Url },
            IssuerKey { name: "application", example: "portcullis", kind: KeyKind::Word },
        ],
        offline: Offline::Scope,
        client_auth: ClientAuth::Basic,
        emails_unverified: true,
        console: ConsoleLabels {
            redirect_uri: "Applications > Providers > your provider > Redirect URIs/Origins (Strict)",
            secret: "Applications > Providers > your provider",
            refresh: "Advanced protocol settings > Scopes: add offline_access",
            roles: "nothing to switch on: groups come with the scope profile; choose a Signing Key",
        },
        ..GENERIC
    },
    Preset {
        name: "authelia",
        scopes: &["profile", "email", "groups"],
        offline: Offline::Scope,
        authorize_params: &[("prompt", "consent")],
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "identity_providers.oidc.clients[].redirect_uris",
            secret: "identity_providers.oidc.clients[].client_secret",
            refresh: "clients[].scopes: offline_access, and lifespans.custom for more than 90 minutes",
            roles: "nothing to switch on: groups come from userinfo",
        },
        ..GENERIC
    },
    Preset {
        name: "pingone",
        issuer: "https://auth.pingone.{region}/{environment_id}/as",
        keys: &[
            IssuerKey { name: "region", example: "eu", kind: KeyKind::Word },
            IssuerKey {
                name: "environment_id",
                example: "11111111-2222-3333-4444-555555555555",
                kind: KeyKind::Guid,
            },
        ],
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "Applications > your application > Configuration > Redirect URIs",
            secret: "Applications > your application > Overview",
            refresh: "Applications > your application > Configuration > Grant Type > Refresh Token",
            roles: "Applications > your application > Attribute Mappings",
        },
        ..GENERIC
    },
    Preset {
        name: "onelogin",
        issuer: "https://{subdomain}.onelogin.com/oidc/2",
        keys: &[IssuerKey { name: "subdomain", example: "acme", kind: KeyKind::Word }],
        scopes: &["profile", "groups"],
        offline: Offline::NoScope,
        console: ConsoleLabels {
            redirect_uri: "Applications > your app > Configuration > Redirect URIs",
            secret: "Applications > your app > SSO",
            refresh: "Applications > your app > SSO > Refresh token timeout",
            roles: "Applications > your app > Parameters > Groups",
        },
        ..GENERIC
    },
    Preset {
        name: "jumpcloud",
        issuer: "https://oauth.id.jumpcloud.com/",
        keys: &[],
        offline: Offline::Scope,
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "SSO Applications > your app > SSO > Redirect URIs",
            secret: "shown once, when the application is activated",
            refresh: "SSO Applications > your app > SSO > Grant Types > Refresh Token",
            roles: "SSO Applications > your app > SSO > Attribute Mapping > include group attribute",
        },
        ..GENERIC
    },
    Preset {
        name: "workos",
        offline: Offline::Scope,
        client_auth: ClientAuth::Post,
        claims: ClaimDefaults {
            roles: "role",
            sources: &[IdToken, AccessToken, Userinfo],
            ..STANDARD_CLAIMS
        },
        ..GENERIC
    },
    Preset {
        name: "descope",
        offline: Offline::Scope,
        claims: ClaimDefaults { sources: &[IdToken, AccessToken, Userinfo], ..STANDARD_CLAIMS },
        ..GENERIC
    },
    Preset {
        name: "dex",
        scopes: &["profile", "email", "groups"],
        offline: Offline::Scope,
        param_keys: &["connector_id"],
        client_auth: ClientAuth::Basic,
        console: ConsoleLabels {
            redirect_uri: "staticClients[].redirectURIs",
            secret: "staticClients[].secret",
            refresh: "nothing to switch on, if the connector supports it",
            roles: "the connector's own settings",
        },
        account_prompts: &[], // Dex has no sessions; it asks its connector at every sign-in
        ..GENERIC
    },
    GENERIC,
];

/// Further issuers at which anybody in the world can have an account.
pub(super) const OPEN_WORLDS: &[&str] = &[
    "https://accounts.google.com", // with provider = "oidc"
    "https://gitlab.com",
    "https://login.microsoftonline.com/common",
    "https://login.microsoftonline.com/organizations",
    "https://login.microsoftonline.com/consumers",
    "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad",
    "https://github.com",
];
