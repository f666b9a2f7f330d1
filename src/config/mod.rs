//! File + environment → a checked [`Config`]. Every problem is reported at once, with its key, its
//! value, the reason and the hint.
//!
//! Environment beats file beats preset beats default. Each key is read exactly once, in
//! `check/`; a key that nobody reads is a problem of its own, with "did you mean".

mod changes;
mod check;
mod files;
mod in_force;
mod keys;
pub mod paths;
mod presets;
mod proxies;
mod public_url;
mod reader;
mod service_links;
mod show;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use url::Url;

use crate::oauth::client::ClientMetadata;
use crate::oauth::redirect_uri::RedirectPolicy;
use crate::oauth::scope::{Scope, ScopeSet};
use crate::policy::{ClaimPath, ClaimShape, Fact, FactSet, Facts, Policy};

pub use changes::{ConfigFingerprint, ReloadPlan};
pub use files::{Unread, text_of};
pub use in_force::InForce;
pub use presets::{
    ClaimDefaults, ConsoleLabels, IssuerKey, KeyKind, Offline, Preset, Protocol, SignOut,
    SignOutAt, SignOutForm, SubjectForm,
};
pub use proxies::{Proxies, Proxy};
pub use public_url::PublicUrl;
pub use reader::{Problem, Problems};
pub use values::SecretText;

/// Everything an administrator can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our issuer; it may have a path.
    pub public_url: PublicUrl,
    /// Where we listen; a proxy in front speaks TLS.
    pub listen: SocketAddr,
    /// Whether proxies may speak HTTP/2 to us (prior knowledge, without TLS).
    pub http2: bool,
    /// `sqlite://…` or `postgres://…`; may hold a password.
    pub database_url: SecretText,
    /// Seals what rests in the database; generated beside an SQLite file when absent.
    pub secret_key: Option<SecretText>,
    /// The exact redirect URIs that may be registered; `None`: the general rules alone.
    pub allowed_redirect_uris: Option<Vec<String>>,
    /// Private-use schemes of known programs.
    pub redirect_schemes: Vec<String>,
    /// Web origins that may use the gateway, beside our own and loopback.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The identity provider.
    pub upstream: UpstreamConfig,
    /// The MCP servers.
    pub resources: Vec<ResourceConfig>,
    /// Clients that the administrator wrote down.
    pub clients: Vec<ClientConfig>,
    /// Clients that publish their metadata.
    pub client_documents: ClientDocuments,
    /// Whether an assertion of a client may also be made for our token endpoint, as before RFC 10070.
    pub accept_token_endpoint_audience: bool,
    /// The admin listener.
    pub admin: Option<AdminConfig>,
    /// Whether an administrator approves clients.
    pub client_approval: ClientApproval,
    /// Of the log, unless `PORTCULLIS_LOG` says another one.
    pub log: tracing::Level,
    /// How long lines of the audit trail are kept: 1 day to 10 years.
    pub audit_retention: Duration,
    /// Lifetimes.
    pub tokens: TokenLifetimes,
    /// Quotas.
    pub limits: Limits,
    /// What was written, to tell one configuration from the next.
    pub written: ConfigFingerprint,
}

/// The identity provider, where we are one confidential client.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// What is known of this kind of provider.
    pub preset: &'static Preset,
    /// Its issuer, byte for byte.
    pub issuer: String,
    /// Where its discovery document is, when that is not below its issuer: a provider inside a cluster.
    pub discovery_url: Option<Url>,
    /// Whether Portcullis may speak plain http with it beyond this machine.
    pub allow_http: bool,
    /// The proxies on the way to it.
    pub proxies: Proxies,
    /// Our client id there.
    pub client_id: String,
    /// Our client secret there.
    pub client_secret: SecretText,
    /// Scopes we ask for.
    pub scopes: Vec<String>,
    /// How a refresh token is asked for; nothing is added when `scopes` is set.
    pub offline: Offline,
    /// Parameters added to the authorization request.
    pub authorize_params: Vec<(String, String)>,
    /// Where facts about a person are found.
    pub claims: ClaimPlan,
    /// How we prove ourselves there.
    pub client_auth: ClientAuth,
    /// A yes of the provider is good for this long: 1 minute to 24 hours.
    pub recheck: Duration,
    /// During an outage the last yes is good for this long: 0 to 24 hours.
    pub outage_grace: Duration,
    /// A session without refresh token lives this long.
    pub max_without_refresh: Duration,
    /// Whether a sign-out at the provider ends the grants that came from that session.
    pub end_on_logout: bool,
    /// Longest wait for an answer: 1 to 60 seconds.
    pub timeout: Duration,
    /// A claim that ID tokens must have with one of these values: whom the provider may vouch for.
    pub required_claim: Option<(String, Vec<String>)>,
    /// What people read: "sign in with …".
    pub name: String,
}

/// Where facts are found, and in which order sources are asked.
#[derive(Clone, Debug)]
pub struct ClaimPlan {
    /// Display name.
    pub name: ClaimPath,
    /// E-mail address.
    pub email: ClaimPath,
    /// Groups.
    pub groups: ClaimPath,
    /// Roles.
    pub roles: ClaimPath,
    /// Permissions.
    pub permissions: ClaimPath,
    /// What rules read of what is told of a person.
    pub read_by_rules: FactSet,
    /// How values stand in these claims.
    pub shape: ClaimShape,
    /// The first source that has a claim wins.
    pub sources: Vec<ClaimSource>,
    /// Further claims that rules name.
    pub extra: Vec<ClaimPath>,
}

/// Where claims come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimSource {
    /// The ID token.
    IdToken,
    /// The userinfo endpoint.
    Userinfo,
    /// The provider's access token, where it is a JWT.
    AccessToken,
}

/// How we prove ourselves at the provider's token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// As the provider's metadata says; Basic when it offers both.
    #[default]
    Auto,
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// An MCP server: a protected resource.
#[derive(Clone, Debug)]
pub struct ResourceConfig {
    /// Its identifier: the one audience of its tokens.
    pub id: String,
    /// Its path below `public_url`; `None` when it lives elsewhere.
    pub path: Option<String>,
    /// Where the gateway forwards to; `None`: authorization server only.
    pub target: Option<Url>,
    /// What people read.
    pub name: Option<String>,
    /// Its scopes in the order written, with the words of the consent page.
    pub scope_texts: Vec<(Scope, Option<String>)>,
    /// Who may do what.
    pub policy: Policy,
    /// How its tokens are signed.
    pub token_alg: TokenAlg,
    /// Scopes that single tools need.
    pub tools: BTreeMap<String, ScopeSet>,
    /// Whether lists of tools leave out what the caller may not call.
    pub hide_forbidden_tools: bool,
    /// What a client hears that calls a tool which the rules do not allow its person.
    pub on_denied_tool: OnDeniedTool,
    /// Headers of clients that pass to the server behind, beside those of MCP.
    pub forward_headers: Vec<HeaderName>,
    /// How the server behind speaks.
    pub transport: Transport,
    /// The audience of signed assertions of who is calling; `None`: none are made.
    pub assertion_audience: Option<String>,
    /// What the MCP server proves itself with at the introspection endpoint.
    pub introspection_secret: Option<SecretText>,
    /// Meant by requests that name no resource.
    pub is_default: bool,
}

impl ResourceConfig {
    /// Whether a stream that was opened under `other` may go on: what it may carry is the same.
    pub fn carries_the_same_as(&self, other: &Self) -> bool {
        self.path == other.path
            && self.target == other.target
            && self.transport == other.transport
            && self.policy == other.policy
            && self.tools == other.tools
            && self.hide_forbidden_tools == other.hide_forbidden_tools
    }
}

/// What a client hears that calls a tool which the rules do not allow its person. Where they allow it and the token
/// alone lacks the scope, the answer is a challenge in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeniedTool {
    /// A result of the tool that says so, with `isError`: the person reads it, and is not sent to sign in again.
    #[default]
    Result,
    /// A challenge with `insufficient_scope`, as for every other missing scope.
    Challenge,
}

/// How an MCP server behind the gateway speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP (2025-03-26 and later), with or without sessions.
    #[default]
    StreamableHttp,
    /// HTTP+SSE (2024-11-05): the event stream names the address that messages are sent to.
    HttpSse,
}

/// A client that the administrator wrote down: nobody else can change it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `client_id`.
    pub client_id: String,
    /// Held to the rules for clients that register themselves.
    pub metadata: ClientMetadata,
    /// Its secret, when it has one.
    pub secret: Option<SecretText>,
    /// The administrator vouches for it.
    pub trusted: bool,
}

/// Clients whose id is the URL of their metadata.
#[derive(Clone, Debug)]
pub struct ClientDocuments {
    /// Whether there may be any.
    pub enabled: bool,
    /// The only hosts that may publish them, exactly; `None`: any.
    pub allowed_hosts: Option<Vec<String>>,
    /// For tests: hosts on this machine.
    pub loopback: LoopbackHosts,
    /// The proxies that they are fetched through; `None`: directly.
    pub proxies: Option<Proxies>,
    /// They are offered only while this machine reaches websites. For the demo, which may run without a network; no
    /// file can say it, because what a server of others reaches is no matter of strangers.
    pub only_with_network: bool,
}

/// Names that lead to this machine, for tests alone: refused unless our own public URL is on loopback.
#[derive(Clone, Debug, Default)]
pub struct LoopbackHosts {
    /// Where each name leads; loopback addresses only.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// The certificate authority that vouches for them, as PEM, in place of the system's.
    pub authority: Vec<u8>,
}

/// Signature algorithm of access tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenAlg {
    /// ECDSA P-256: small and fast.
    #[default]
    Es256,
    /// RSA: for MCP servers whose library knows nothing else; 1.7 ms a token.
    Rs256,
    /// Ed25519.
    EdDsa,
}

impl TokenAlg {
    /// As in a JWT header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Es256, Self::Rs256, Self::EdDsa].into_iter().find(|alg| alg.as_str() == text)
    }
}

/// Who may use the admin pages.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where they listen; loopback by default.
    pub listen: SocketAddr,
    /// The address administrators type; never the public one.
    pub url: PublicUrl,
    /// Who may see and change everything.
    pub administrators: Members,
    /// Who may see everything and change nothing.
    pub viewers: Members,
    /// What a scraper proves itself with; `None`: whoever reaches the listener may read the numbers.
    pub metrics_token: Option<SecretText>,
}

/// People, by any of three marks.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// One of these roles …
    pub roles: Vec<String>,
    /// … or one of these groups …
    pub groups: Vec<String>,
    /// … or one of these subjects, ours or the provider's.
    pub subjects: Vec<String>,
}

impl Members {
    /// Whether nobody can be one of them.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.groups.is_empty() && self.subjects.is_empty()
    }

    /// Whether this person is one of them. What is not known counts as no.
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

/// Whether a client needs an administrator's approval before it receives anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientApproval {
    /// The person's approval is enough.
    #[default]
    None,
    /// The first person who signs in for a client waits until an administrator has approved it.
    FirstUse,
}

/// How long things live.
#[derive(Clone, Copy, Debug)]
pub struct TokenLifetimes {
    /// Access token: 1 to 60 minutes.
    pub access: Duration,
    /// Authorization code: 10 seconds to 10 minutes.
    pub code: Duration,
    /// Unused refresh token: 1 hour to 90 days.
    pub refresh_idle: Duration,
    /// Grant, from consent to the next: 1 hour to 1 year.
    pub refresh_absolute: Duration,
    /// The same successor is handed out again within: 0 to 300 seconds.
    pub refresh_grace: Duration,
    /// From Approve to the callback: 1 to 60 minutes.
    pub login: Duration,
}

/// Quotas, by name.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request-rate limits; `false` on loopback only, for load tests.
    pub request_rates: bool,
    /// How often, and how much at once.
    pub rates: RateLimits,
    /// Bytes of a request target.
    pub request_target: usize,
    /// Bytes of all headers of a request.
    pub headers: usize,
    /// Bytes of one header.
    pub header: usize,
    /// Headers of a request.
    pub header_count: usize,
    /// A connection that says nothing is closed after this.
    pub first_byte: Duration,
    /// A request's headers must have arrived by then.
    pub header_time: Duration,
    /// The body of a request must have arrived by then, and what is sent must be taken away in time.
    pub body_time: Duration,
    /// A connection without a request is closed after this.
    pub idle_time: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Requests that an HTTP/2 client takes back before they were looked at.
    pub http2_resets: usize,
    /// Live grants of one person to one client; the one least recently used goes.
    pub grants_per_client: u32,
    /// Live grants of one person; the one least recently used goes.
    pub grants_per_person: u32,
    /// Registered clients.
    pub clients: u64,
    /// A client that was never used goes after this.
    pub unused_client_expiry: Duration,
    /// A client without live grant goes after this.
    pub idle_client_expiry: Duration,
    /// Bytes of a registration.
    pub register_body: usize,
    /// Bytes of a token or revocation request.
    pub token_body: usize,
    /// Bytes of a decision on the consent page.
    pub consent_body: usize,
    /// Consent pages that one browser is shown for one client in ten minutes, those that were approved aside.
    pub consent_pages: usize,
    /// Bytes of an MCP request.
    pub gateway_body: usize,
    /// Messages of an MCP request.
    pub gateway_batch: usize,
    /// An event stream on which nothing comes is closed after this.
    pub stream_idle: Duration,
    /// Longest wait for the first byte of an MCP server's answer.
    pub gateway_response: Duration,
    /// From the order to end until no more work is taken: 0 to 60 seconds.
    pub shutdown_delay: Duration,
    /// Redirect URIs of one client.
    pub redirect_uris: usize,
    /// Logins on their way, in all.
    pub pending_logins: u64,
    /// Logins on their way, from one address.
    pub pending_logins_per_address: u64,
    /// Logins on their way, of one browser.
    pub pending_logins_per_browser: usize,
    /// Open connections.
    pub connections: usize,
    /// Connections to PostgreSQL.
    pub database_connections: u32,
    /// Wrong attempts that burn a code.
    pub code_attempts: u32,
    /// How often a successor is handed out again.
    pub grace_replays: u32,
    /// Bytes of an SQLite database.
    pub database_size: u64,
    /// Bytes of the audit trail; of an SQLite database half at most.
    pub audit_size: u64,
    /// Bytes that its log is cut back to.
    pub database_log: u64,
    /// Rows of a table that clean-up removes in one step.
    pub sweep_rows: u32,
    /// People about whom the identity provider is asked again, at once.
    pub upstream_requests: usize,
    /// Sign-ins that are being finished at the identity provider, at once.
    pub upstream_sign_ins: usize,
    /// Fetches of what clients publish.
    pub client_fetches: FetchLimits,
    /// Bytes of a line of the log.
    pub log_line: usize,
}

/// How much of what clients publish is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// At once.
    pub at_once: usize,
    /// Of one host in a minute.
    pub per_host: u32,
    /// For one address in a minute.
    pub per_address: u32,
}

/// How often somebody may ask, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Consent pages, per address.
    pub authorize_per_minute: NonZeroU32,
    /// Decisions, per address.
    pub consent_per_minute: NonZeroU32,
    /// Sign-ins to our pages, both their steps, per address.
    pub sign_ins_per_minute: NonZeroU32,
    /// `/account` and `/waiting`, per address.
    pub pages_per_minute: NonZeroU32,
    /// Token requests, per address.
    pub token_per_minute: NonZeroU32,
    /// Failed token requests, per address.
    pub token_failures_per_minute: NonZeroU32,
    /// Failed sign-ins to the admin pages in 15 minutes, per address.
    pub admin_sign_in_failures: NonZeroU32,
    /// New clients, per address.
    pub registrations_per_hour: NonZeroU32,
    /// New clients in a row, per address.
    pub registrations_at_once: NonZeroU32,
    /// Metadata and keys, per address.
    pub discovery_per_minute: NonZeroU32,
    /// Refreshes, per grant.
    pub refreshes_per_minute: NonZeroU32,
    /// Open connections, per address.
    pub connections_per_address: u32,
    /// Requests at the gateway at once, per person.
    pub requests_per_person: u32,
    /// Of these, those of one client.
    pub requests_per_client: u32,
    /// Open event streams, per person.
    pub streams_per_person: u32,
    /// Of these, those of one client.
    pub streams_per_client: u32,
}

/// A configuration that passed every check.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but deserves a look.
    pub warnings: Vec<String>,
    /// Files that secrets were read from.
    pub files: Vec<PathBuf>,
    shown: Vec<show::Line>,
}

/// All kinds of provider that this version knows.
pub fn presets() -> &'static [Preset] {
    presets::PRESETS
}

impl Config {
    /// The algorithms that tokens are signed with.
    pub fn token_algs(&self) -> Vec<TokenAlg> {
        let mut algs: Vec<_> = self.resources.iter().map(|resource| resource.token_alg).collect();
        algs.sort_unstable();
        algs.dedup();
        algs
    }

    /// Reads `file` (its path and text) and `env`, checks everything, and reports all problems.
    pub fn load(
        file: Option<(&Path, String)>,
        env: &BTreeMap<String, String>,
    ) -> Result<Loaded, Problems> {
        check::load(file, env)
    }

    /// Whether any MCP server may ask about tokens.
    pub fn offers_introspection(&self) -> bool {
        self.resources.iter().any(|resource| resource.introspection_secret.is_some())
    }

    /// Which redirect URIs may be registered or published.
    pub fn redirect_policy(&self) -> RedirectPolicy {
        RedirectPolicy {
            private_schemes: self.redirect_schemes.clone(),
            allowed: self.allowed_redirect_uris.clone(),
        }
    }
}

impl Loaded {
    /// SHA-256 of the merged configuration with secrets masked, as base64url: two starts with the same
    /// digest were configured alike.
    pub fn digest(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.show().as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// The merged configuration with the origin of each value, secrets masked.
    pub fn show(&self) -> String {
        show::render(&self.shown)
    }
}

impl fmt::Display for ClaimSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdToken => "id_token",
            Self::Userinfo => "userinfo",
            Self::AccessToken => "access_token",
        })
    }
}

#[cfg(test)]
mod tests;
