//! Builds a checked [`Config`] from file and environment. All problems are reported at once, each with key,
//! value, reason and hint.
//!
//! Precedence: environment, file, preset, default. The code in `check/` reads the keys; a key that it does
//! not read is reported as unknown, with a "did you mean" hint.

mod branding;
mod changes;
mod check;
pub mod connections;
mod files;
mod fingerprint;
mod in_force;
mod keys;
mod limits;
mod notify;
pub mod paths;
mod presets;
mod proxies;
mod public_url;
mod reader;
mod reference;
mod scope_texts;
mod service_links;
mod show;
mod source;
mod targets;
mod telemetry;
mod tls;
mod value_type;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use strum::{EnumString, IntoStaticStr, VariantArray};
use url::{Host, Url};

use crate::clock::Timestamp;
use crate::jose::alg::Alg;
use crate::oauth::client::ClientMetadata;
use crate::oauth::redirect_uri::RedirectPolicy;
use crate::oauth::scope::ScopeSet;
use crate::policy::{ClaimPath, ClaimShape, Fact, FactSet, Facts, Policy};

pub use branding::{BrandLink, Branding, Logo, UNBRANDED};
pub use changes::ReloadPlan;
pub use check::read_rule;
pub use connections::{
    AccountLookup, AccountSource, ConnectionConfig, ConnectionPreset, GrantedScopes,
    ResourceConnection, RevocationCall, ServiceEndpoints, TokenExchange, UpstreamTokenConfig,
};
pub use files::{Unread, text_of};
pub use fingerprint::ConfigFingerprint;
pub use in_force::InForce;
pub use limits::{Limit, LimitTrait, Limits, RateLimits, limits};
pub use notify::{
    Hook, HookFormat, HookUrl, MailSecurity, MailServer, NotifyChannel, NotifyEvent, NotifyEvents,
    NotifyTarget, SigningSecret,
};
pub use presets::{
    ClaimDefaults, ConsoleLabels, IssuerKey, KeyKind, Offline, Preset, Protocol, SignOut,
    SignOutAt, SignOutForm, SubjectForm,
};
pub use proxies::{Proxies, Proxy};
pub use public_url::PublicUrl;
pub use reader::{Problem, Problems};
pub use reference::{Applies, ConfigKey, reference, schema};
pub use scope_texts::{LANGUAGES, ScopeConfig, ScopeText, scope_texts};
pub use source::{ConfigPlace, ConfigSource};
pub use targets::{ClientIdentity, TargetConnection, TargetTag};
pub use telemetry::{TelemetryConfig, TraceSampling};
pub use tls::{AcmeConfig, CertificateRefused, ExternalAccount, ServedCertificate, TlsConfig};
pub use value_type::ValueType;
pub use values::{SecretText, parse_duration};

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Config {
    /// The issuer; it may have a path.
    pub public_url: PublicUrl,
    /// Address of the public listener. Without [`Self::tls`], a proxy in front of it terminates TLS.
    pub listen: SocketAddr,
    /// Address of a listener without TLS that redirects to https; `None`: there is none.
    pub listen_http: Option<SocketAddr>,
    /// Whether the public listener accepts HTTP/2: by ALPN, or with prior knowledge where there is no TLS.
    pub http2: bool,
    /// TLS of the listeners; `None`: a proxy in front terminates it.
    pub tls: Option<TlsConfig>,
    /// `sqlite://…` or `postgres://…`; may contain a password.
    pub database_url: SecretText,
    /// Key that seals the secrets in the database. If absent, one is generated in a file next to the SQLite
    /// database.
    pub secret_key: Option<SecretText>,
    /// The exact redirect URIs that may be registered; `None`: only the general rules apply.
    pub allowed_redirect_uris: Option<Vec<String>>,
    /// Private-use URI schemes that are allowed in redirect URIs.
    pub redirect_schemes: Vec<String>,
    /// Web origins that may use the gateway, in addition to our own and loopback.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    pub upstream: UpstreamConfig,
    pub resources: Vec<ResourceConfig>,
    /// Further services that people can connect, in the configured order.
    pub connections: Vec<ConnectionConfig>,
    /// Clients that are listed in the configuration.
    pub clients: Vec<ClientConfig>,
    /// Clients that publish their own metadata (client ID metadata documents).
    pub client_documents: ClientDocuments,
    /// Whether client assertions may have our token endpoint as audience, as was usual before RFC 10070.
    pub accept_token_endpoint_audience: bool,
    /// The admin listener; `None`: no admin pages.
    pub admin: Option<AdminConfig>,
    /// Whether an administrator must approve clients.
    pub client_approval: ClientApproval,
    /// Whether people may leave out scopes on the consent page.
    pub consent_choice: bool,
    /// Whether browsers get a page at our address and at those of MCP servers, which says how to connect.
    pub landing: bool,
    /// Name, logo, colour and links on the pages of people.
    pub branding: Branding,
    pub notify: Vec<NotifyTarget>,
    /// What is exported over OTLP.
    pub telemetry: Box<TelemetryConfig>,
    /// Log level, unless `PORTCULLIS_LOG` sets another one.
    pub log: tracing::Level,
    /// Retention of the audit trail: 1 day to 10 years.
    pub audit_retention: Duration,
    /// Retention of who used what: 1 day to 10 years.
    pub usage_retention: Duration,
    /// Lifetimes of tokens, codes and grants.
    pub tokens: TokenLifetimes,
    pub limits: Limits,
    /// Hashes of the configured values, to detect changes.
    pub written: ConfigFingerprint,
    /// The file, and the line of each key in it.
    pub source: ConfigSource,
}

/// The identity provider. We are one confidential client of it.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Built-in knowledge about this kind of provider.
    pub preset: &'static Preset,
    /// Its issuer, byte for byte.
    pub issuer: String,
    /// URL of the discovery document if it is not below the issuer, for example for a provider inside a
    /// cluster.
    pub discovery_url: Option<Url>,
    /// Whether plain http to the provider is allowed beyond loopback.
    pub allow_http: bool,
    /// Forward proxies for requests to the provider.
    pub proxies: Proxies,
    pub client_id: String,
    pub client_secret: SecretText,
    /// When that secret ends, if the provider gave it an end.
    pub client_secret_expires: Option<Timestamp>,
    pub scopes: Vec<String>,
    /// How to request a refresh token; [`Offline::NoScope`] if `scopes` is configured.
    pub offline: Offline,
    /// Additional parameters of the authorization request.
    pub authorize_params: Vec<(String, String)>,
    /// Where to find facts about a person.
    pub claims: ClaimPlan,
    /// Client authentication method at the token endpoint.
    pub client_auth: ClientAuth,
    /// A confirmation of the provider counts for this long: 1 minute to 24 hours.
    pub recheck: Duration,
    /// During an outage the last confirmation counts for this long: 0 to 24 hours.
    pub outage_grace: Duration,
    /// Lifetime of a session without refresh token.
    pub max_without_refresh: Duration,
    /// Whether a sign-out at the provider ends the grants of that session.
    pub end_on_logout: bool,
    /// Whether the tokens of a sign-in are revoked at the provider when its last grant ends.
    pub revoke_upstream: bool,
    /// Longest wait for a response: 1 to 60 seconds.
    pub timeout: Duration,
    /// A claim that must have one of these values, so that only people of the own organisation can sign in.
    pub required_claim: Option<(String, Vec<String>)>,
    /// Display name for people: "sign in with …".
    pub name: String,
}

/// Where to find facts about a person, and the order of the sources.
#[derive(Clone, Debug)]
pub struct ClaimPlan {
    pub name: ClaimPath,
    pub email: ClaimPath,
    pub groups: ClaimPath,
    pub roles: ClaimPath,
    pub permissions: ClaimPath,
    /// The facts that rules read.
    pub read_by_rules: FactSet,
    /// How values are represented in these claims.
    pub shape: ClaimShape,
    /// The first source that has a claim wins.
    pub sources: Vec<ClaimSource>,
    /// Further claims that rules read.
    pub extra: Vec<ClaimPath>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum ClaimSource {
    #[strum(serialize = "id_token")]
    IdToken,
    #[strum(serialize = "userinfo")]
    Userinfo,
    /// The provider's access token, if it is a JWT.
    #[strum(serialize = "access_token")]
    AccessToken,
}

/// Client authentication method at the provider's token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum ClientAuth {
    /// The method that the provider's metadata lists; Basic if it lists both.
    #[default]
    #[strum(serialize = "auto")]
    Auto,
    /// `client_secret_basic`.
    #[strum(serialize = "client_secret_basic")]
    Basic,
    /// `client_secret_post`.
    #[strum(serialize = "client_secret_post")]
    Post,
}

/// An MCP server: a protected resource.
#[derive(Clone, Debug)]
pub struct ResourceConfig {
    /// Resource identifier: the only audience of its tokens.
    pub id: String,
    /// Its path below `public_url`; `None` if it is hosted elsewhere.
    pub path: Option<String>,
    /// URLs that the gateway forwards to; empty: authorization server only, no gateway.
    pub targets: Vec<Url>,
    /// Longest wait for the head of a response; `None`: `limits.gateway_response`.
    pub timeout: Option<Duration>,
    /// How the gateway connects to the targets.
    pub connection: TargetConnection,
    /// Display name for people.
    pub name: Option<String>,
    /// Its scopes, in the configured order.
    pub scopes: Vec<ScopeConfig>,
    pub policy: Policy,
    /// Signature algorithm of its tokens.
    pub token_alg: TokenAlg,
    /// Scopes that individual tools need.
    pub tools: BTreeMap<String, ScopeSet>,
    /// Whether tool lists omit the tools that the caller may not call.
    pub hide_forbidden_tools: bool,
    /// Response to a call of a tool that the rules deny to the person.
    pub on_denied_tool: OnDeniedTool,
    /// Request headers that the gateway forwards, in addition to those of MCP.
    pub forward_headers: Vec<HeaderName>,
    /// Transport of the MCP server.
    pub transport: Transport,
    /// Whether targets get signed assertions about the caller, each with its own URL as audience.
    pub assertion: bool,
    /// Secret of the MCP server for the introspection endpoint.
    pub introspection_secret: Option<SecretText>,
    /// The sign-in provider's own token for this MCP server; `None`: it does not get it.
    pub upstream_token: Option<UpstreamTokenConfig>,
    /// Further services that this MCP server uses as the person.
    pub connections: Vec<ResourceConnection>,
    /// Whether requests without `resource` mean this MCP server.
    pub is_default: bool,
}

impl ResourceConfig {
    /// Returns whether a stream that was opened under `other` may continue, because the same messages may
    /// pass. Its target must still be configured, too ([`Self::has_target`]).
    pub fn carries_the_same_as(&self, other: &Self) -> bool {
        self.path == other.path
            && self.transport == other.transport
            && self.policy == other.policy
            && self.tools == other.tools
            && self.hide_forbidden_tools == other.hide_forbidden_tools
            && self.upstream_token == other.upstream_token
            && self.connections == other.connections
    }
}

/// Response to a call of a tool that the rules deny to the person. If the rules allow the tool and only the
/// token lacks the scope, the response is always a challenge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum OnDeniedTool {
    /// A tool result with `isError` that explains the denial. The person reads it and is not sent to sign in
    /// again.
    #[default]
    #[strum(serialize = "result")]
    Result,
    /// A challenge with `insufficient_scope`, as for every other missing scope.
    #[strum(serialize = "challenge")]
    Challenge,
}

/// Transport of an MCP server behind the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum Transport {
    /// Streamable HTTP (2025-03-26 and later), with or without sessions.
    #[default]
    #[strum(serialize = "streamable-http")]
    StreamableHttp,
    /// HTTP+SSE (2024-11-05): the event stream names the URL for messages.
    #[strum(serialize = "http+sse")]
    HttpSse,
}

/// A client that is listed in the configuration. Only the administrator can change it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub client_id: String,
    /// Its metadata, subject to the same rules as that of clients that register themselves.
    pub metadata: ClientMetadata,
    /// Its secret, if it has one.
    pub secret: Option<SecretText>,
    /// Whether the administrator vouches for it.
    pub trusted: bool,
}

/// Clients whose `client_id` is the URL of their metadata document.
#[derive(Clone, Debug)]
pub struct ClientDocuments {
    /// Whether such clients are allowed.
    pub enabled: bool,
    /// The only hosts that may publish such documents, compared exactly; `None`: any host.
    pub allowed_hosts: Option<Vec<String>>,
    /// Hosts on this machine, for tests.
    pub loopback: LoopbackHosts,
    /// Forward proxies for fetching the documents; `None`: requests go directly.
    pub proxies: Option<Proxies>,
    /// Offer such clients only while this machine reaches websites. For the demo, which may run without a
    /// network. No file can set it, because strangers must not learn what a production server can reach.
    pub only_with_network: bool,
}

/// Host names that resolve to this machine, for tests only. Rejected unless `public_url` is on loopback.
#[derive(Clone, Debug, Default)]
pub struct LoopbackHosts {
    /// Address of each name; loopback only.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// Certificate authority for these hosts, as PEM, in place of the system's.
    pub authority: Vec<u8>,
}

/// Signature algorithm of access tokens, with its name in the header of a JWT.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum TokenAlg {
    /// ECDSA P-256: short signatures, fast.
    #[default]
    #[strum(serialize = "ES256")]
    Es256,
    /// RSA, for MCP servers whose library supports nothing else. Signing takes 1.7 ms per token.
    #[strum(serialize = "RS256")]
    Rs256,
    /// Ed25519.
    #[strum(serialize = "EdDSA")]
    EdDsa,
}

impl TokenAlg {
    /// Returns the name as in a JWT header.
    pub const fn as_str(self) -> &'static str {
        self.alg().as_str()
    }

    pub const fn alg(self) -> Alg {
        match self {
            Self::Es256 => Alg::Es256,
            Self::Rs256 => Alg::Rs256,
            Self::EdDsa => Alg::EdDsa,
        }
    }

    /// Parses a name as returned by [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Es256, Self::Rs256, Self::EdDsa].into_iter().find(|alg| alg.as_str() == text)
    }
}

/// The admin pages and who may use them.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Address of the admin listener; loopback by default.
    pub listen: SocketAddr,
    /// URL that administrators open; never the public one.
    pub url: PublicUrl,
    /// Whether the listener speaks TLS with the certificate of `[tls]`.
    pub tls: bool,
    /// People who may see and change everything.
    pub administrators: PeopleSet,
    /// People who may see everything and change nothing.
    pub viewers: PeopleSet,
    /// Bearer token for metrics; `None`: anybody who reaches the listener may read them.
    pub metrics_token: Option<SecretText>,
}

/// A set of people, by role, group or subject.
#[derive(Clone, Debug, Default)]
pub struct PeopleSet {
    /// One of these roles …
    pub roles: Vec<String>,
    /// … or one of these groups …
    pub groups: Vec<String>,
    /// … or one of these subjects, ours or the provider's.
    pub subjects: Vec<String>,
}

impl PeopleSet {
    /// Returns whether the set can contain nobody.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.groups.is_empty() && self.subjects.is_empty()
    }

    /// Returns whether the set contains this person. Unknown facts count as no match.
    pub fn include(&self, facts: &Facts, our_subject: &str) -> bool {
        let has = |fact: &Fact, wanted: &[String]| match fact {
            Fact::Known(values) => values.iter().any(|value| wanted.contains(value)),
            Fact::Absent | Fact::Unknown => false,
        };
        has(&facts.roles, &self.roles)
            || has(&facts.groups, &self.groups)
            || self.subjects.iter().any(|one| *one == facts.subject || one == our_subject)
    }
}

/// Whether an administrator must approve a client before it receives tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum ClientApproval {
    /// The person's consent is enough.
    #[default]
    #[strum(serialize = "none")]
    None,
    /// The first sign-in through a client waits until an administrator approves the client.
    #[strum(serialize = "first_use")]
    FirstUse,
}

#[derive(Clone, Copy, Debug)]
pub struct TokenLifetimes {
    /// Access token: 1 to 60 minutes.
    pub access: Duration,
    /// Authorization code: 10 seconds to 10 minutes.
    pub code: Duration,
    /// Refresh token without use: 1 hour to 90 days.
    pub refresh_idle: Duration,
    /// Grant, from consent until the next consent is needed: 1 hour to 1 year.
    pub refresh_absolute: Duration,
    /// Period in which a repeated refresh returns the same successor: 0 to 300 seconds.
    pub refresh_grace: Duration,
    /// Login, from the Approve button to the callback: 1 to 60 minutes.
    pub login: Duration,
}

/// Where the public listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAddress {
    pub listen: SocketAddr,
    /// The host that its certificate is for; `None`: it speaks plain HTTP.
    pub tls_host: Option<Host>,
}

/// A configuration that passed all checks.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Settings that are allowed but deserve attention.
    pub warnings: Vec<String>,
    /// Files that secrets and the logo were read from.
    pub files: Vec<PathBuf>,
    shown: Vec<show::ShownValue>,
}

/// Returns all presets of this version.
pub fn presets() -> &'static [Preset] {
    presets::PRESETS
}

impl Config {
    /// Returns the algorithms that tokens are signed with, each once.
    pub fn token_algs(&self) -> Vec<TokenAlg> {
        let mut algs: Vec<_> = self.resources.iter().map(|resource| resource.token_alg).collect();
        algs.sort_unstable();
        algs.dedup();
        algs
    }

    /// Reads `file` (its path and text) and `env`, and checks everything. Returns all problems at once.
    pub fn load(
        file: Option<(&Path, String)>,
        env: &BTreeMap<String, String>,
    ) -> Result<Loaded, Problems> {
        check::load(file, env)
    }

    /// Reads where the public listener is. Everything else may be wrong, and no secret is read: a health check
    /// must not need them.
    pub fn listener(
        file: Option<(&Path, String)>,
        env: &BTreeMap<String, String>,
    ) -> Result<ListenerAddress, Problems> {
        check::listener(file, env)
    }

    /// Returns whether the environment sets any configuration key.
    pub fn is_in_environment(env: &BTreeMap<String, String>) -> bool {
        check::is_in_environment(env)
    }

    /// Returns whether any MCP server may use the introspection endpoint.
    pub fn offers_introspection(&self) -> bool {
        self.resources.iter().any(|resource| resource.introspection_secret.is_some())
    }

    /// Returns the rules for redirect URIs that may be registered or published.
    pub fn redirect_policy(&self) -> RedirectPolicy {
        RedirectPolicy {
            private_schemes: self.redirect_schemes.clone(),
            allowed: self.allowed_redirect_uris.clone(),
        }
    }
}

impl Loaded {
    /// Returns the SHA-256 of the merged configuration with secrets masked, as base64url. Two starts with the
    /// same digest had the same configuration, secrets aside.
    pub fn digest(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.show().as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Returns the merged configuration with the origin of each value and with secrets masked.
    pub fn show(&self) -> String {
        show::render(&self.shown)
    }

    /// Returns each value of the merged configuration with its key and its origin; secrets are masked.
    pub fn values(&self) -> impl Iterator<Item = (&str, &toml::Value, &str)> {
        self.shown.iter().map(|shown| (shown.key.as_str(), &shown.value, shown.origin.as_str()))
    }
}

#[cfg(test)]
mod tests;
