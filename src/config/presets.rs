//! What is known of each kind of identity provider, as plain data. `docs/identity-providers/`
//! says the same to administrators.
//!
//! A preset decides nothing by itself: it says how the issuer is put together, what is asked for, where
//! facts about a person stand, and what the provider's console calls things.

use super::ClaimSource::{self, AccessToken, IdToken, Userinfo};
use super::ClientAuth;
use crate::oauth::authorization_request::AccountPrompt::{self, Login, SelectAccount};
use crate::policy::ClaimShape;

/// A kind of identity provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// As in `provider = "…"`; also the first part of every `sub` we issue.
    pub name: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    /// The issuer, with the keys it is made of in braces.
    pub issuer: &'static str,
    /// The keys in `issuer`.
    pub keys: &'static [IssuerKey],
    /// Other spellings of the issuer in ID tokens.
    pub issuer_aliases: &'static [&'static str],
    /// Scopes asked for when none are configured, beside `openid`.
    pub scopes: &'static [&'static str],
    /// How a refresh token is asked for.
    pub offline: Offline,
    /// Sent with every authorization request.
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Optional keys that are sent as authorization parameters of the same name.
    pub param_keys: &'static [&'static str],
    /// How we prove ourselves when nothing else is configured.
    pub client_auth: ClientAuth,
    /// Where facts about a person are.
    pub claims: ClaimDefaults,
    /// What identifies a person.
    pub subject: SubjectForm,
    /// A key whose values a claim of the ID token must have: `(key, claim)`.
    pub restricted_by: Option<(&'static str, &'static str)>,
    /// Anybody in the world can have an account there.
    pub public_sign_up: bool,
    /// The addresses it tells are whatever somebody typed in: rules must not read them.
    pub emails_unverified: bool,
    /// Whether a refresh must name the scopes for an ID token to come back.
    pub refresh_names_scopes: bool,
    /// Errors at a refresh that end the session, beside those of the standards.
    pub ending_errors: &'static [&'static str],
    /// How a browser is signed out there as well; the first that the provider has counts.
    pub sign_out: &'static [SignOut],
    /// What the console calls things.
    pub console: ConsoleLabels,
    /// Parameters that make the provider ask for a proof anew; empty where it knows none.
    pub reauth_params: &'static [(&'static str, &'static str)],
    /// The choices of an account that it can be asked for, where its metadata does not say.
    pub account_prompts: &'static [AccountPrompt],
}

impl Preset {
    /// Our `sub` for a person of this kind of provider: stable, and never an e-mail address.
    pub fn our_subject(&self, upstream_subject: &str) -> String {
        format!("{}:{upstream_subject}", self.name)
    }
}

/// A way to sign a browser out at the provider (RP-initiated logout, or the provider's own kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignOut {
    /// Where.
    pub at: SignOutAt,
    /// What is sent along.
    pub form: SignOutForm,
}

/// Where a browser is signed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutAt {
    /// At the URL that this member of the provider's metadata names.
    Metadata(&'static str),
    /// At this path of the host that people sign in at.
    SignInHost(&'static str),
}

/// What is sent along when a browser is signed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutForm {
    /// `id_token_hint`, `client_id`, `post_logout_redirect_uri` (OpenID Connect RP-Initiated Logout 1.0).
    OpenId,
    /// Parameters under names of the provider's own.
    Own {
        /// Our client id.
        client_id: Option<&'static str>,
        /// Where to go afterwards.
        return_to: &'static str,
    },
}

const OPENID_SIGN_OUT: SignOut =
    SignOut { at: SignOutAt::Metadata("end_session_endpoint"), form: SignOutForm::OpenId };

/// PingFederate had one of its own before it had that of the standard.
const PING_SIGN_OUT: SignOut = SignOut {
    at: SignOutAt::Metadata("ping_end_session_endpoint"),
    form: SignOutForm::Own { client_id: None, return_to: "TargetResource" },
};

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OpenID Connect.
    Oidc,
    /// OAuth, and an API of its own that says who somebody is.
    GitHub,
}

/// A key that an issuer is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// Below `[upstream]`.
    pub name: &'static str,
    /// What a value looks like.
    pub example: &'static str,
    /// What a value may be.
    pub kind: KeyKind,
}

/// What the value of a [`IssuerKey`] may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A host name, perhaps with a port.
    Host,
    /// An https URL without a slash at the end.
    Url,
    /// Letters, digits, `.`, `_`, `-`.
    Word,
    /// A GUID.
    Guid,
    /// The whole issuer, byte for byte.
    Issuer,
}

/// How a provider is asked for a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// By the scope `offline_access`.
    Scope,
    /// By the scope `offline_access`, where the provider lists it.
    ScopeWhenListed,
    /// It comes by itself or by `authorize_params`; the scope would be refused.
    NoScope,
}

/// What identifies a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectForm {
    /// The claim `sub`.
    Sub,
    /// The claims `tid` and `oid`, joined by a dot: Entra's `sub` differs from application to application.
    TidOid,
}

/// Where facts about a person usually are, and how.
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
    /// How values stand in them.
    pub shape: ClaimShape,
    /// The first source that has a claim wins.
    pub sources: &'static [ClaimSource],
}

/// The provider's own words, for findings that say where to fix something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLabels {
    /// Where our redirect URI is registered.
    pub redirect_uri: &'static str,
    /// Where the client secret is.
    pub secret: &'static str,
    /// Where refresh tokens are switched on.
    pub refresh: &'static str,
    /// Where groups or roles are put into tokens.
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
    // Every provider must know `login` (OpenID Connect Core §15.1). GitLab and Logto refuse a sign-in for
    // `select_account`, and Keycloak knows one account in a browser.
    account_prompts: &[Login],
};

/// Presets of this version; the last one is the generic provider.
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
        // The endpoint of the standard is a switch of the tenant.
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
        // "Client no longer has requested consent from user"
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
        issuer: "https://github.com", // or the `url` of an own server
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
        // Its parameters are its own, whatever its metadata says.
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
        account_prompts: &[], // it has no sessions, and asks its connector each time
        ..GENERIC
    },
    GENERIC,
];

/// Other issuers at which anybody in the world can have an account.
pub(super) const OPEN_WORLDS: &[&str] = &[
    "https://accounts.google.com", // with provider = "oidc"
    "https://gitlab.com",
    "https://login.microsoftonline.com/common",
    "https://login.microsoftonline.com/organizations",
    "https://login.microsoftonline.com/consumers",
    "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad",
    "https://github.com",
];
