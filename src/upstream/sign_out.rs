//! Sign-out of the browser at the provider: OpenID Connect RP-Initiated Logout 1.0, or the provider's own
//! equivalent, as the preset defines it.

use url::Url;

use super::provider::Provider;
use super::{Upstream, UpstreamInner};
use crate::config::{SignOut, SignOutAt, SignOutForm};
use crate::http_client::is_loopback;
use crate::storage::StorageError;

/// Longest ID token that is sent as a hint, in bytes. A longer one makes the URL too long for many servers.
const MAX_HINT: usize = 4 * 1024;

impl Upstream {
    /// Returns the URL that signs the browser out at the provider and then redirects it to `return_to`, which
    /// must be registered there. Returns `None` if the provider has no such endpoint, if its metadata cannot
    /// be had now, and for sessions of another provider than the configured one.
    ///
    /// This function ends nothing here. The caller must end the grants of the session first, because the
    /// browser may never arrive at the provider.
    pub async fn end_session_url(
        &self,
        session_id: &str,
        return_to: &str,
    ) -> Result<Option<Url>, StorageError> {
        let inner = &self.0;
        if inner.config.preset.sign_out.is_empty() {
            return Ok(None);
        }
        let session = inner.storage.upstream_session(session_id).await?;
        let Some(session) = session.filter(|session| session.issuer == inner.config.issuer) else {
            return Ok(None);
        };
        let Ok(provider) = inner.provider().await else { return Ok(None) };
        Ok(inner.sign_out_url(&provider, session.tokens.id_token.as_deref(), return_to))
    }
}

impl UpstreamInner {
    /// Returns the URL of the first sign-out method of the preset that the provider supports.
    pub(super) fn sign_out_url(
        &self,
        provider: &Provider,
        id_token: Option<&str>,
        return_to: &str,
    ) -> Option<Url> {
        let mut ways = self.config.preset.sign_out.iter();
        let (mut url, form) = ways.find_map(|way| address_of(way, provider))?;
        let client_id = self.config.client_id.as_str();
        let mut query = url.query_pairs_mut();
        match form {
            SignOutForm::OpenId => {
                if let Some(id_token) = id_token.filter(|token| token.len() <= MAX_HINT) {
                    query.append_pair("id_token_hint", id_token);
                }
                query.append_pair("client_id", client_id);
                query.append_pair("post_logout_redirect_uri", return_to);
            }
            SignOutForm::Own { client_id: name, return_to: return_name } => {
                query.extend_pairs(name.map(|name| (name, client_id)));
                query.append_pair(return_name, return_to);
            }
        }
        drop(query);
        Some(url)
    }
}

fn address_of(way: &SignOut, provider: &Provider) -> Option<(Url, SignOutForm)> {
    let metadata = &provider.metadata;
    let url = match way.at {
        SignOutAt::Metadata("end_session_endpoint") => {
            metadata.end_session_endpoint.as_deref()?.parse()
        }
        SignOutAt::Metadata("ping_end_session_endpoint") => {
            metadata.ping_end_session_endpoint.as_deref()?.parse()
        }
        SignOutAt::Metadata(_) => return None,
        SignOutAt::SignInHost(path) => metadata.authorization_endpoint.join(path),
    };
    let safe = |url: &Url| url.scheme() == "https" || url.host_str().is_some_and(is_loopback);
    Some((url.ok().filter(safe)?, way.form))
}
