//! Where a service is, and how it knows us: from the configuration, the sign-in provider, or the discovery
//! document of its issuer.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::ConnectionsInner;
use crate::config::{ClientAuth, ConnectionConfig, SecretText, ServiceEndpoints};
use crate::http_client::HttpClient;
use crate::upstream::UpstreamError;
use crate::upstream::client_login::ClientLogin;
use crate::upstream::service_metadata::{ServiceMetadata, discover};

/// A discovery document is read again after 1 hour.
const FRESH: Duration = Duration::from_hours(1);
/// It is used for up to 24 hours while the service cannot be reached.
const USABLE: Duration = Duration::from_hours(24);

/// A service with everything that requests to it need.
pub(super) struct ResolvedService<'a> {
    pub(super) config: &'a ConnectionConfig,
    pub(super) authorize: Url,
    pub(super) token: Url,
    pub(super) revoke: Option<Url>,
    pub(super) userinfo: Option<Url>,
    /// The issuers that callbacks and ID tokens may name; empty: not known.
    pub(super) issuers: Vec<String>,
    /// Whether a callback without `iss` is refused (RFC 9207 §3).
    pub(super) sends_iss: bool,
    /// Whether the service lists the scope `offline_access`.
    pub(super) lists_offline: bool,
    pub(super) http: HttpClient,
    client_secret: SecretText,
    client_auth: ClientAuth,
}

impl ResolvedService<'_> {
    /// Our authentication at the service.
    pub(super) fn login(&self) -> ClientLogin<'_> {
        ClientLogin {
            client_id: &self.config.client_id,
            client_secret: self.client_secret.expose(),
            method: self.client_auth,
        }
    }
}

impl ConnectionsInner {
    /// Returns the service with its endpoints. Asks for them if they are not known yet.
    pub(super) async fn resolve<'a>(
        &self,
        config: &'a ConnectionConfig,
    ) -> Result<ResolvedService<'a>, UpstreamError> {
        let own_secret = || config.client_secret.clone().unwrap_or_else(|| SecretText::new(""));
        match &config.endpoints {
            ServiceEndpoints::Stated { authorize, token, revoke, userinfo, issuer } => {
                Ok(ResolvedService {
                    config,
                    authorize: authorize.clone(),
                    token: token.clone(),
                    revoke: revoke.clone(),
                    userinfo: userinfo.clone(),
                    issuers: issuer.iter().cloned().collect(),
                    sends_iss: false,
                    lists_offline: false,
                    http: self.http.clone(),
                    client_secret: own_secret(),
                    client_auth: config.client_auth,
                })
            }
            ServiceEndpoints::Discovered { issuer } => {
                let found = self.discovered(issuer.as_str()).await?;
                Ok(service_at(config, &found, self.http.clone(), own_secret()))
            }
            ServiceEndpoints::SignIn => {
                let found = self.upstream.service_metadata().await?;
                let client = self.upstream.sign_in_client();
                let http = self.http.clone().allowing_http(client.allow_http);
                Ok(service_at(config, &found, http, client.client_secret))
            }
        }
    }

    /// Returns the discovery document of an issuer, from memory where possible. One task at a time reads it.
    async fn discovered(&self, issuer: &str) -> Result<Arc<ServiceMetadata>, UpstreamError> {
        if let Some(known) = self.known_metadata(issuer, FRESH) {
            return Ok(known);
        }
        let _turn = self.memory.discovering.turn(issuer).await;
        if let Some(known) = self.known_metadata(issuer, FRESH) {
            return Ok(known); // another task read it while we waited
        }
        let now = self.clock.now();
        let is_paused = self.memory.pauses.is_paused(issuer, now);
        let found = if is_paused {
            Err(UpstreamError::Unreachable("it has just failed; it is asked again soon".to_owned()))
        } else {
            discover(&self.http, issuer).await
        };
        match found {
            Ok(found) => {
                let found = Arc::new(found);
                let entry = (Arc::clone(&found), self.clock.now());
                self.memory.discovered.insert(issuer.to_owned(), entry);
                Ok(found)
            }
            Err(error) => {
                if !is_paused {
                    tracing::warn!(issuer, %error, "discovery of a service failed");
                    self.memory.pauses.begin(issuer, now);
                }
                self.known_metadata(issuer, USABLE).ok_or(error)
            }
        }
    }

    fn known_metadata(&self, issuer: &str, at_most: Duration) -> Option<Arc<ServiceMetadata>> {
        let (found, at) = self.memory.discovered.get(issuer)?;
        (self.clock.now().since(at) < at_most).then_some(found)
    }
}

fn service_at<'a>(
    config: &'a ConnectionConfig,
    found: &ServiceMetadata,
    http: HttpClient,
    client_secret: SecretText,
) -> ResolvedService<'a> {
    let stated = config.client_auth;
    let aliases = found.issuer_aliases.iter().map(|alias| (*alias).to_owned());
    ResolvedService {
        config,
        authorize: found.authorize.clone(),
        token: found.token.clone(),
        revoke: found.revoke.clone(),
        userinfo: found.userinfo.clone(),
        issuers: std::iter::once(found.issuer.clone()).chain(aliases).collect(),
        sends_iss: found.sends_iss,
        lists_offline: found.scopes_supported.iter().any(|scope| scope == "offline_access"),
        http,
        client_secret,
        client_auth: if stated == ClientAuth::Auto { found.client_auth } else { stated },
    }
}
