//! Cache of the provider's metadata and keys. They are fetched when first needed, fresh for an hour, and
//! usable for a day while the provider cannot be reached, so that its outage does not stop us.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response, StatusCode, header};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, RwLock};

use super::key_set::ProviderKeySet;
use super::metadata::{Metadata, Odd};
use super::provider_key::ProviderKey;
use super::values::{object_of, other_than_json, shown};
use super::{LoginFailed, UpstreamError, UpstreamInner};
use crate::clock::Timestamp;
use crate::config::{ClaimSource, Protocol};
use crate::http_client::HttpError;

/// Metadata is fetched again after 1 hour.
const FRESH: Duration = Duration::from_hours(1);
/// Metadata is used for up to 24 hours while the provider cannot be reached.
const USABLE: Duration = Duration::from_hours(24);
/// After a failure no new attempt is made for 5 s.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// An unknown key causes at most one fetch of the keys per minute (threat JW-03).
const KEYS_AT_MOST_EVERY: Duration = Duration::from_mins(1);

/// The provider's metadata and keys.
#[derive(Clone)]
pub(super) struct Provider {
    pub(super) metadata: Metadata,
    pub(super) keys: Vec<ProviderKey>,
    fetched_at: Timestamp,
    keys_fetched_at: Timestamp,
}

impl Provider {
    /// Builds a provider with this metadata, as if it had just been discovered.
    #[cfg(test)]
    pub(super) fn of(metadata: Metadata, now: Timestamp) -> Self {
        Self { metadata, keys: Vec::new(), fetched_at: now, keys_fetched_at: now }
    }

    /// Checks `iss` of a callback. It must be present if the provider announces it, and correct if present.
    pub(super) fn check_iss(&self, iss: Option<&str>) -> Result<(), LoginFailed> {
        self.metadata.check_iss(iss).map_err(|reason| LoginFailed::Untrusted(reason.to_owned()))
    }
}

/// The cached provider, and the lock that lets one task fetch at a time.
#[derive(Default)]
pub(super) struct ProviderCache {
    known: RwLock<Option<Arc<Provider>>>,
    asking: Mutex<Failures>,
}

/// Time and reason of the last failures, so that no attempt follows immediately.
#[derive(Default)]
struct Failures {
    discovery: Option<(Timestamp, String)>,
    keys: Option<(Timestamp, String)>,
}

/// Returns the reason of a failure that is less than `COOL_DOWN` ago.
fn recent(failure: Option<&(Timestamp, String)>, now: Timestamp) -> Option<String> {
    let recent = |(when, _): &&(Timestamp, String)| now.since(*when) < COOL_DOWN && now >= *when;
    failure.filter(recent).map(|(_, reason)| reason.clone())
}

impl UpstreamInner {
    /// Returns the cached provider while it is fresh; otherwise one task discovers it for all.
    pub(super) async fn provider(&self) -> Result<Arc<Provider>, UpstreamError> {
        if let Some(known) = self.known_provider(FRESH).await {
            return Ok(known);
        }
        // Another task is fetching. A usable entry is good enough meanwhile, even if it is not fresh.
        let mut failures = match self.provider.asking.try_lock() {
            Ok(alone) => alone,
            Err(_) => match self.known_provider(USABLE).await {
                Some(known) => return Ok(known),
                None => self.provider.asking.lock().await,
            },
        };
        if let Some(known) = self.known_provider(FRESH).await {
            return Ok(known); // another task fetched it while we waited
        }
        let now = self.clock.now();
        let failure = match recent(failures.discovery.as_ref(), now) {
            Some(reason) => UpstreamError::Unreachable(reason),
            None => match self.discover().await {
                Ok(provider) => {
                    let provider = Arc::new(provider);
                    *self.provider.known.write().await = Some(Arc::clone(&provider));
                    self.note_recovery(failures.discovery.take().is_some());
                    return Ok(provider);
                }
                Err(error) => {
                    tracing::warn!(%error, "discovery failed");
                    if let UpstreamError::Unreachable(reason) = &error {
                        failures.discovery = Some((now, reason.clone()));
                    }
                    error
                }
            },
        };
        drop(failures);
        self.known_provider(USABLE).await.ok_or(failure)
    }

    /// Logs that the provider answers again after a failure that was logged.
    pub(super) fn note_recovery(&self, recovered: bool) {
        if recovered {
            let issuer = self.config.issuer.as_str();
            tracing::info!(issuer, "the identity provider answers again");
        }
    }

    /// Returns whether usable metadata is cached, fresh or not.
    pub(super) async fn is_known(&self) -> bool {
        self.known_metadata().await.is_some()
    }

    /// Returns usable metadata from the cache, fresh or not.
    pub(super) async fn known_metadata(&self) -> Option<Arc<Provider>> {
        self.known_provider(USABLE).await
    }

    async fn known_provider(&self, at_most: Duration) -> Option<Arc<Provider>> {
        let known = self.provider.known.read().await;
        let now = self.clock.now();
        known
            .as_ref()
            // An entry with a fetch time in the future is usable but not fresh: the clock was set back.
            .filter(|provider| at_most > FRESH || provider.fetched_at <= now)
            .filter(|provider| now.since(provider.fetched_at) < at_most)
            .map(Arc::clone)
    }

    async fn discover(&self) -> Result<Provider, UpstreamError> {
        if self.config.preset.protocol == Protocol::GitHub {
            let now = self.clock.now();
            let metadata = self.github_metadata()?;
            let keys = Vec::new();
            return Ok(Provider { metadata, keys, fetched_at: now, keys_fetched_at: now });
        }
        let response =
            self.get_json(&self.discovery_address()).await.map_err(|error| unreachable(&error))?;
        let metadata = self.read_document(&response)?;
        let keys = self.fetch_keys(&metadata).await.map_err(|failed| match failed {
            odd @ KeysFailed::Odd(_) => UpstreamError::Misconfigured(odd.to_string()),
            failed => UpstreamError::Unreachable(failed.to_string()),
        })?;
        let now = self.clock.now();
        Ok(Provider { metadata, keys: keys.keys, fetched_at: now, keys_fetched_at: now })
    }

    /// Asks the provider for its first document, past the cache. Returns why there was no usable response.
    pub(super) async fn probe_once(&self) -> Result<(), String> {
        let answer = self.get_json(&self.first_address()).await;
        let status = answer.map_err(|error| error.to_string())?.status();
        if status.is_server_error() { Err(format!("discovery answered {status}")) } else { Ok(()) }
    }

    /// Returns the URL of the discovery document.
    pub(super) fn discovery_address(&self) -> String {
        match &self.config.discovery_url {
            Some(url) => url.to_string(),
            None => discovery_of(&self.config.issuer),
        }
    }

    /// Returns the URL of the first request to the provider.
    pub(super) fn first_address(&self) -> String {
        match self.config.preset.protocol {
            Protocol::Oidc => self.discovery_address(),
            Protocol::GitHub => self.github_api(),
        }
    }

    pub(super) async fn get_json(&self, url: &str) -> Result<Response<Vec<u8>>, HttpError> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| HttpError::Connection("not a URL".to_owned()))?;
        self.http.send(request).await
    }

    /// Reads the discovery document and checks that it names the configured issuer.
    fn read_document(&self, response: &Response<Vec<u8>>) -> Result<Metadata, UpstreamError> {
        if response.status() != StatusCode::OK {
            let reason = format!("discovery answered {}", response.status());
            return Err(UpstreamError::Unreachable(reason));
        }
        let odd = |reason: String| UpstreamError::Misconfigured(format!("discovery: {reason}"));
        let other = other_than_json(response);
        let document = object_of(response.body()).map_err(|reason| match &other {
            // A proxy or load balancer sends its own page while the provider is down.
            Some(other) => UpstreamError::Unreachable(format!("discovery answered with {other}")),
            None => odd(reason),
        })?;
        let stated = document.get("issuer").and_then(Value::as_str);
        if let Some(stated) = stated.filter(|stated| *stated != self.config.issuer) {
            let (stated, configured) = (shown(stated), &self.config.issuer);
            return Err(odd(format!("issuer is {stated:?}, and {configured:?} is configured")));
        }
        self.read_members(&document, response).map_err(|member| odd(member.with_hint()))
    }

    /// Reads the members of the discovery `document` in this response.
    pub(super) fn read_members(
        &self,
        document: &Map<String, Value>,
        response: &Response<Vec<u8>>,
    ) -> Result<Metadata, Odd> {
        let reads_userinfo = self.config.claims.sources.contains(&ClaimSource::Userinfo);
        let mut metadata = Metadata::read(document, reads_userinfo, self.config.allow_http)?;
        let other = other_than_json(response);
        metadata.tolerated.extend(other.map(|other| format!("the content type is {other}")));
        Ok(metadata)
    }

    /// Fetches the provider's JWK set.
    pub(super) async fn fetch_keys(
        &self,
        metadata: &Metadata,
    ) -> Result<ProviderKeySet, KeysFailed> {
        let response = self.get_json(metadata.jwks_uri.as_str()).await;
        let response = response.map_err(KeysFailed::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(KeysFailed::Status(response.status()));
        }
        ProviderKeySet::read(&response).map_err(KeysFailed::Odd)
    }

    /// Fetches the keys again after a signature by an unknown key, at most once a minute and not immediately
    /// after a failure, because anybody can send a message that names an unknown key. `None`: the cached keys
    /// are recent enough.
    pub(super) async fn with_new_keys(
        &self,
        old: &Arc<Provider>,
    ) -> Result<Option<Arc<Provider>>, String> {
        let mut failures = self.provider.asking.lock().await;
        let Some(known) = self.provider.known.read().await.clone() else { return Ok(None) };
        if known.keys_fetched_at != old.keys_fetched_at {
            return Ok(Some(known)); // another task fetched them
        }
        let now = self.clock.now();
        if known.keys_fetched_at <= now && now.since(known.keys_fetched_at) < KEYS_AT_MOST_EVERY {
            return Ok(None);
        }
        if let Some(reason) = recent(failures.keys.as_ref(), now) {
            return Err(reason);
        }
        let keys = match self.fetch_keys(&known.metadata).await {
            Ok(keys) => keys,
            Err(failed) => {
                let reason = failed.to_string();
                failures.keys = Some((now, reason.clone()));
                return Err(reason);
            }
        };
        failures.keys = None;
        let provider = Arc::new(Provider {
            metadata: known.metadata.clone(),
            keys: keys.keys,
            fetched_at: known.fetched_at,
            keys_fetched_at: now,
        });
        *self.provider.known.write().await = Some(Arc::clone(&provider));
        Ok(Some(provider))
    }
}

/// Reasons why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysFailed {
    #[error("{0}")]
    Unreachable(HttpError),
    #[error("the keys are answered with {0}")]
    Status(StatusCode),
    /// The response is not a JWK set.
    #[error("the keys at jwks_uri: {0}")]
    Odd(String),
}

fn unreachable(error: &HttpError) -> UpstreamError {
    UpstreamError::Unreachable(error.to_string())
}

/// Returns the URL of an issuer's discovery document (OpenID Connect Discovery §4).
pub(super) fn discovery_of(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}
