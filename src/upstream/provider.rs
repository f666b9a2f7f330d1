//! What the provider says of itself: discovered when first needed, kept for an hour, used for a day
//! when the provider cannot be reached, so that its outage is not ours.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{
    AdditionalProviderMetadata, DiscoveryError, JsonWebKeySet, ProviderMetadata, TokenUrl,
    UserInfoUrl,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, RwLock};

use super::endpoints::{ENDPOINTS, carriage, remedy};
use super::provider_key::ProviderKey;
use super::{Inner, LoginFailed, UpstreamError};
use crate::clock::Timestamp;
use crate::config::Protocol;
use crate::http_client::HttpError;

/// Metadata is asked for anew after this.
const FRESH: Duration = Duration::from_hours(1);
/// Metadata is used this long when the provider cannot be reached.
const USABLE: Duration = Duration::from_hours(24);
/// After a failure the provider is left alone this long.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// Keys are asked for anew at most this often when an unknown one turns up (threats JW-03).
const KEYS_AT_MOST_EVERY: Duration = Duration::from_mins(1);

/// Members of the metadata that the library does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Extra {
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    pub(super) end_session_endpoint: Option<String>,
    #[serde(default)]
    pub(super) ping_end_session_endpoint: Option<String>,
}

impl AdditionalProviderMetadata for Extra {}

pub(super) type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    ProviderKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The provider as discovered.
#[derive(Clone)]
pub(super) struct Provider {
    pub(super) metadata: Metadata,
    fetched_at: Timestamp,
    keys_fetched_at: Timestamp,
}

impl Provider {
    /// A provider with this metadata, as if it had just been discovered.
    #[cfg(test)]
    pub(super) fn of(metadata: Metadata, now: Timestamp) -> Self {
        Self { metadata, fetched_at: now, keys_fetched_at: now }
    }

    /// `iss` of a callback: required when the provider says it sends it, and never a wrong one.
    pub(super) fn check_iss(&self, iss: Option<&str>) -> Result<(), LoginFailed> {
        let ours = self.metadata.issuer().as_str();
        let promised =
            self.metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss == ours => Ok(()),
            None if !promised => Ok(()),
            Some(_) => Err(LoginFailed::Untrusted("iss of the callback is wrong".to_owned())),
            None => Err(LoginFailed::Untrusted("iss of the callback is missing".to_owned())),
        }
    }
}

/// The provider at hand, and one asker at a time.
#[derive(Default)]
pub(super) struct ProviderCache {
    known: RwLock<Option<Arc<Provider>>>,
    asking: Mutex<Failures>,
}

/// When the provider last failed us, and how: it is left alone for a moment.
#[derive(Default)]
struct Failures {
    discovery: Option<(Timestamp, String)>,
    keys: Option<(Timestamp, String)>,
}

/// The failure that is too recent to try again.
fn recent(failure: Option<&(Timestamp, String)>, now: Timestamp) -> Option<String> {
    let recent = |(when, _): &&(Timestamp, String)| now.since(*when) < COOL_DOWN && now >= *when;
    failure.filter(recent).map(|(_, reason)| reason.clone())
}

impl Inner {
    /// The provider: from memory while fresh, else discovered by one caller for all.
    pub(super) async fn provider(&self) -> Result<Arc<Provider>, UpstreamError> {
        if let Some(known) = self.known_provider(FRESH).await {
            return Ok(known);
        }
        // Somebody is asking already: what is at hand, though not fresh, is good enough meanwhile.
        let mut failures = match self.provider.asking.try_lock() {
            Ok(place) => place,
            Err(_) => match self.known_provider(USABLE).await {
                Some(known) => return Ok(known),
                None => self.provider.asking.lock().await,
            },
        };
        if let Some(known) = self.known_provider(FRESH).await {
            return Ok(known); // somebody else asked while we waited
        }
        let now = self.clock.now();
        let failure = match recent(failures.discovery.as_ref(), now) {
            Some(reason) => UpstreamError::Unreachable(reason),
            None => match self.discover().await {
                Ok(provider) => {
                    let provider = Arc::new(provider);
                    *self.provider.known.write().await = Some(Arc::clone(&provider));
                    failures.discovery = None;
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

    /// Whether there is usable metadata, fresh or not.
    pub(super) async fn is_known(&self) -> bool {
        self.known_provider(USABLE).await.is_some()
    }

    async fn known_provider(&self, at_most: Duration) -> Option<Arc<Provider>> {
        let known = self.provider.known.read().await;
        let now = self.clock.now();
        known
            .as_ref()
            // What was fetched in the future is usable, and not fresh: the clock went back.
            .filter(|provider| at_most > FRESH || provider.fetched_at <= now)
            .filter(|provider| now.since(provider.fetched_at) < at_most)
            .map(Arc::clone)
    }

    async fn discover(&self) -> Result<Provider, UpstreamError> {
        if self.config.preset.protocol == Protocol::GitHub {
            let now = self.clock.now();
            let metadata = self.github_metadata()?;
            return Ok(Provider { metadata, fetched_at: now, keys_fetched_at: now });
        }
        let metadata = self.discovery_document().await?;
        self.check_endpoints(&metadata)?;
        let keys = JsonWebKeySet::fetch_async(metadata.jwks_uri(), &self.caller())
            .await
            .map_err(|error| explain(&error))?;
        let metadata = metadata.set_jwks(keys);
        let now = self.clock.now();
        Ok(Provider { metadata, fetched_at: now, keys_fetched_at: now })
    }

    /// Where the discovery document is.
    pub(super) fn discovery_address(&self) -> String {
        match &self.config.discovery_url {
            Some(url) => url.to_string(),
            None => discovery_of(&self.config.issuer),
        }
    }

    /// Where the provider is asked first.
    pub(super) fn first_address(&self) -> String {
        match self.config.preset.protocol {
            Protocol::Oidc => self.discovery_address(),
            Protocol::GitHub => self.github_api(),
        }
    }

    /// The document, without the keys. Wherever it was found, it must be about the configured issuer.
    async fn discovery_document(&self) -> Result<Metadata, UpstreamError> {
        let unreachable =
            |reason: &dyn std::fmt::Display| UpstreamError::Unreachable(reason.to_string());
        let request = Request::get(self.discovery_address())
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| UpstreamError::Misconfigured(error.to_string()))?;
        let response = self.http.send(request).await.map_err(|error| unreachable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(unreachable(&format!("discovery answered {}", response.status())));
        }
        // A page of something in between, while the provider is away.
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.map(|value| value.to_str().unwrap_or_default().trim());
        let bare = media_type.and_then(|text| text.split(';').next()).map(str::trim);
        if bare.is_some_and(|bare| !bare.eq_ignore_ascii_case("application/json")) {
            return Err(unreachable(&"discovery answered with something other than JSON"));
        }
        let metadata: Metadata = serde_json::from_slice(response.body()).map_err(|_| {
            let reason = "the discovery document is not what it should be";
            UpstreamError::Misconfigured(reason.to_owned())
        })?;
        let (stated, configured) = (metadata.issuer().as_str(), &self.config.issuer);
        if stated != configured {
            let reason = format!("it calls itself {stated:?}, and the issuer is {configured:?}");
            return Err(UpstreamError::Misconfigured(reason));
        }
        Ok(metadata)
    }

    /// Before anything is asked at any of them.
    fn check_endpoints(&self, metadata: &Metadata) -> Result<(), UpstreamError> {
        if metadata.token_endpoint().is_none() {
            return Err(UpstreamError::Misconfigured("no token_endpoint".to_owned()));
        }
        for (name, asker) in ENDPOINTS {
            let url = match name {
                "authorization_endpoint" => Some(metadata.authorization_endpoint().url()),
                "token_endpoint" => metadata.token_endpoint().map(TokenUrl::url),
                "userinfo_endpoint" => metadata.userinfo_endpoint().map(UserInfoUrl::url),
                _ => Some(metadata.jwks_uri().url()),
            };
            if let Some(url) = url
                && carriage(url, asker, self.config.allow_http).is_none()
            {
                let reason = format!("{name} is not https; {}", remedy(url, asker));
                return Err(UpstreamError::Misconfigured(reason));
            }
        }
        Ok(())
    }

    /// Asks for the keys again after a signature by an unknown one; at most once a minute, and not at
    /// once after a failure: anybody can make up a message that names an unknown key. `None`: the keys
    /// at hand are the newest there are.
    pub(super) async fn with_new_keys(
        &self,
        old: &Arc<Provider>,
    ) -> Result<Option<Arc<Provider>>, HttpError> {
        let mut failures = self.provider.asking.lock().await;
        let Some(known) = self.provider.known.read().await.clone() else { return Ok(None) };
        if known.keys_fetched_at != old.keys_fetched_at {
            return Ok(Some(known)); // somebody else fetched them
        }
        let now = self.clock.now();
        if known.keys_fetched_at <= now && now.since(known.keys_fetched_at) < KEYS_AT_MOST_EVERY {
            return Ok(None);
        }
        if let Some(reason) = recent(failures.keys.as_ref(), now) {
            return Err(HttpError::Connection(reason));
        }
        let keys = JsonWebKeySet::fetch_async(known.metadata.jwks_uri(), &self.caller())
            .await
            .map_err(|error| match error {
                DiscoveryError::Request(cause) => cause,
                other => HttpError::Connection(other.to_string()),
            });
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => {
                failures.keys = Some((now, error.to_string()));
                return Err(error);
            }
        };
        failures.keys = None;
        let provider = Arc::new(Provider {
            metadata: known.metadata.clone().set_jwks(keys),
            fetched_at: known.fetched_at,
            keys_fetched_at: now,
        });
        *self.provider.known.write().await = Some(Arc::clone(&provider));
        Ok(Some(provider))
    }
}

/// Where the document of an issuer is (OpenID Connect Discovery §4).
fn discovery_of(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

fn explain(error: &DiscoveryError<HttpError>) -> UpstreamError {
    match error {
        DiscoveryError::Request(cause) => UpstreamError::Unreachable(cause.to_string()),
        DiscoveryError::Response(status, _, _) => {
            UpstreamError::Unreachable(format!("the keys were answered with {status}"))
        }
        DiscoveryError::Parse(_) => {
            UpstreamError::Misconfigured("its keys are not what they should be".to_owned())
        }
        other => UpstreamError::Misconfigured(other.to_string()),
    }
}
