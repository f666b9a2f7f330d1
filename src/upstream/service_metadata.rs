//! Endpoints of a service that people connect: those of the sign-in provider, or of another OpenID provider,
//! from its discovery document.

use axum::http::{Request, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::metadata::Metadata;
use super::provider::discovery_of;
use super::values::{object_of, shown};
use super::{Upstream, UpstreamError};
use crate::config::{ClientAuth, Protocol, SecretText};
use crate::http_client::HttpClient;

/// Where a service is, and how we are known there.
#[derive(Clone, Debug)]
pub struct ServiceMetadata {
    /// The issuer, byte for byte.
    pub issuer: String,
    /// Further spellings of the issuer that its ID tokens may have.
    pub issuer_aliases: &'static [&'static str],
    pub authorize: Url,
    pub token: Url,
    /// `None`: tokens cannot be revoked.
    pub revoke: Option<Url>,
    pub userinfo: Option<Url>,
    /// Whether a callback without `iss` is refused (RFC 9207 §3).
    pub sends_iss: bool,
    pub scopes_supported: Vec<String>,
    /// Client authentication method, of those that the provider lists.
    pub client_auth: ClientAuth,
}

/// Our client at the sign-in provider.
pub struct SignInClient {
    /// The issuer in the configuration.
    pub issuer: String,
    /// Name of the provider's preset.
    pub preset: &'static str,
    pub client_id: String,
    pub client_secret: SecretText,
    /// Whether plain http to the provider is allowed beyond loopback.
    pub allow_http: bool,
}

impl ServiceMetadata {
    fn of(metadata: &Metadata, client_auth: ClientAuth) -> Self {
        Self {
            issuer: metadata.issuer.clone(),
            issuer_aliases: &[],
            authorize: metadata.authorization_endpoint.clone(),
            token: metadata.token_endpoint.clone(),
            revoke: metadata.revocation_endpoint.clone(),
            userinfo: metadata.userinfo_endpoint.clone(),
            sends_iss: metadata.sends_iss,
            scopes_supported: metadata.scopes_supported.clone(),
            client_auth,
        }
    }
}

impl Upstream {
    /// Returns the endpoints of the sign-in provider.
    pub async fn service_metadata(&self) -> Result<ServiceMetadata, UpstreamError> {
        let provider = self.provider().await?;
        let inner = &self.0;
        let metadata = &provider.metadata;
        let found = ServiceMetadata::of(metadata, inner.client_auth(metadata));
        let issuer_aliases = inner.config.preset.issuer_aliases;
        if inner.config.preset.protocol != Protocol::GitHub {
            return Ok(ServiceMetadata { issuer_aliases, ..found });
        }
        let (api, client_id) = (inner.github_api(), &inner.config.client_id);
        let at = |path: &str| {
            Url::parse(&format!("{api}{path}"))
                .map_err(|_| UpstreamError::Misconfigured("the API of GitHub is no URL".to_owned()))
        };
        let revoke = Some(at(&format!("/applications/{client_id}/token"))?);
        let userinfo = Some(at("/user")?);
        Ok(ServiceMetadata { revoke, userinfo, ..found })
    }

    /// Returns our client at the sign-in provider.
    pub fn sign_in_client(&self) -> SignInClient {
        let config = &self.0.config;
        SignInClient {
            issuer: config.issuer.clone(),
            preset: config.preset.name,
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.clone(),
            allow_http: config.allow_http,
        }
    }
}

/// Reads the discovery document of an issuer (OpenID Connect Discovery §4).
pub async fn discover(http: &HttpClient, issuer: &str) -> Result<ServiceMetadata, UpstreamError> {
    let request = Request::get(discovery_of(issuer))
        .header(header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|_| UpstreamError::Misconfigured("the issuer is not a URL".to_owned()))?;
    let response = http.send(request).await;
    let response = response.map_err(|error| UpstreamError::Unreachable(error.to_string()))?;
    if response.status() != StatusCode::OK {
        let reason = format!("discovery answered {}", response.status());
        return Err(UpstreamError::Unreachable(reason));
    }
    let odd = |reason: String| UpstreamError::Misconfigured(format!("discovery: {reason}"));
    let document = object_of(response.body()).map_err(odd)?;
    let stated = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if stated != issuer {
        let stated = shown(stated);
        return Err(odd(format!("issuer is {stated:?}, and {issuer:?} is configured")));
    }
    let metadata = Metadata::read(&document, false, false);
    let metadata = metadata.map_err(|member| odd(member.with_hint()))?;
    Ok(ServiceMetadata::of(&metadata, metadata.listed_client_auth()))
}
