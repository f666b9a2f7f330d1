//! Further services that people connect (`[[connection]]`): our OAuth client of each service.
//!
//! `authorize.rs` builds the request that a person's browser carries to the service, and `code.rs` redeems
//! what comes back: it reads the granted scopes (`granted.rs`) and whose account it is (`account.rs`).
//! `token.rs` hands out a person's token; `refresh.rs` renews it in time, once for all replicas (`lease.rs`).
//! `revoke.rs` revokes tokens that were given up. Where a service is: `service.rs`. `probe.rs` tells whether a
//! service knows our client.

mod account;
mod authorize;
mod code;
mod granted;
mod lease;
mod probe;
mod refresh;
mod revoke;
mod service;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ConnectionConfig, ServiceEndpoints};
use crate::http_client::HttpClient;
use crate::storage::Storage;
use crate::upstream::service_metadata::ServiceMetadata;
use crate::upstream::token_lifetime::LearnedLifetimes;
use crate::upstream::token_memory::{OneAtATime, RecentTokens, RefusedTokens, ServicePauses};
use crate::upstream::{LoginFailed, Upstream, UpstreamError, token_response::TokenFailure};

pub use crate::upstream::service_token::{ServiceToken, TokenMissing};
pub use authorize::ConnectStart;
pub use code::{ConnectReturn, Connected};
pub use token::WantedToken;

/// Most discovery documents that are remembered: 100, more than anybody configures.
const DISCOVERED: usize = 100;

/// Our OAuth client of all configured services. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<ConnectionsInner>);

struct ConnectionsInner {
    services: Vec<ConnectionConfig>,
    /// Whether tokens of sign-ins that have ended are revoked too.
    revokes_sign_ins: bool,
    clock: Clock,
    storage: Storage,
    upstream: Upstream,
    http: HttpClient,
    memory: Arc<ServiceMemory>,
}

/// What this process remembers of services and tokens; all configurations share it.
struct ServiceMemory {
    recent: RecentTokens,
    refused: RefusedTokens,
    pauses: ServicePauses,
    turns: OneAtATime,
    lifetimes: LearnedLifetimes,
    /// Discovery documents by issuer, and when each was read.
    discovered: Cache<String, (Arc<ServiceMetadata>, Timestamp)>,
    discovering: OneAtATime,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailed {
    /// The person said no at the service.
    #[error("the person refused at the service")]
    Refused,
    /// The service cannot be reached, or sends nothing usable.
    #[error("the service is unavailable: {0}")]
    Unavailable(String),
    /// The service rejects our client or its configuration, not the person.
    #[error("the connection is misconfigured: {0}")]
    Misconfigured(String),
    /// What came back fails a check that protects the person.
    #[error("the answer cannot be trusted: {0}")]
    Untrusted(String),
}

impl From<LoginFailed> for ConnectFailed {
    fn from(failed: LoginFailed) -> Self {
        match failed {
            LoginFailed::Refused | LoginFailed::Again { .. } => Self::Refused,
            LoginFailed::ProviderCannot(reason) | LoginFailed::Unavailable(reason) => {
                Self::Unavailable(reason)
            }
            LoginFailed::Misconfigured(reason) => Self::Misconfigured(reason),
            LoginFailed::Untrusted(reason) => Self::Untrusted(reason),
        }
    }
}

impl From<TokenFailure> for ConnectFailed {
    fn from(failure: TokenFailure) -> Self {
        LoginFailed::from(failure).into()
    }
}

impl From<UpstreamError> for ConnectFailed {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unreachable(reason) => Self::Unavailable(reason),
            UpstreamError::Misconfigured(reason) => Self::Misconfigured(reason),
        }
    }
}

impl Connections {
    /// Creates the client of all services of `config`. Sends no request before it is needed.
    pub fn new(config: &Config, clock: Clock, storage: Storage, upstream: Upstream) -> Self {
        let memory = ServiceMemory {
            recent: RecentTokens::new(storage.connections_changed()),
            refused: RefusedTokens::default(),
            pauses: ServicePauses::default(),
            turns: OneAtATime::default(),
            lifetimes: LearnedLifetimes::default(),
            discovered: Cache::new(DISCOVERED),
            discovering: OneAtATime::default(),
        };
        Self(Arc::new(ConnectionsInner {
            services: config.connections.clone(),
            revokes_sign_ins: config.upstream.revoke_upstream,
            http: HttpClient::new(config.upstream.timeout, &config.upstream.proxies),
            clock,
            storage,
            upstream,
            memory: Arc::new(memory),
        }))
    }

    /// Returns the client of the services of another configuration. Keeps what is remembered.
    #[must_use]
    pub fn with_config(&self, config: &Config, upstream: Upstream) -> Self {
        let inner = &self.0;
        Self(Arc::new(ConnectionsInner {
            services: config.connections.clone(),
            revokes_sign_ins: config.upstream.revoke_upstream,
            http: inner.http.with_timeout(config.upstream.timeout),
            clock: inner.clock.clone(),
            storage: inner.storage.clone(),
            upstream,
            memory: Arc::clone(&inner.memory),
        }))
    }

    /// Returns what identifies our client at a service: a hash of client id and token endpoint. A stored
    /// connection with another one belongs to another configuration and cannot be used. Empty for an unknown
    /// name.
    pub fn provider_key(&self, name: &str) -> String {
        let service = self.0.service(name);
        service.map(|service| self.0.provider_key_of(service)).unwrap_or_default()
    }
}

/// Returns what identifies our client at each service of a configuration ([`Connections::provider_key`]).
pub fn provider_keys(config: &Config) -> Vec<String> {
    let services = config.connections.iter();
    services.map(|service| provider_key(service, &config.upstream.issuer)).collect()
}

fn provider_key(service: &ConnectionConfig, sign_in_issuer: &str) -> String {
    let place = match &service.endpoints {
        ServiceEndpoints::Stated { token, .. } => token.as_str(),
        ServiceEndpoints::Discovered { issuer } => issuer.as_str(),
        ServiceEndpoints::SignIn => sign_in_issuer,
    };
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [service.client_id.as_str(), place] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

impl ConnectionsInner {
    fn service(&self, name: &str) -> Option<&ConnectionConfig> {
        self.services.iter().find(|service| service.name == name)
    }

    fn provider_key_of(&self, service: &ConnectionConfig) -> String {
        provider_key(service, &self.upstream.sign_in_client().issuer)
    }
}

/// What a person's connection is remembered by. The name of a service has no space.
fn key_of(name: &str, subject: &str) -> String {
    format!("{name} {subject}")
}
