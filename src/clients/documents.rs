//! Clients whose id is the URL of their metadata document (CIMD). The document comes from the cache or is
//! fetched; if the publisher does not respond, the copy stored at the last sign-in is used. Requirements
//! CIMD-01 to CIMD-32.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::FindError;
use super::budget::{FetchBudget, FetchCause};
use super::offer::Offer;
use super::remote::{Bounds, Remote, RemoteValue};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::http_client::guarded::GuardedClient;
use crate::oauth::client::document::MAX_DOCUMENT;
use crate::oauth::client::{Client, ClientMetadata, DocumentState, Origin, RegistrationLimits};
use crate::oauth::redirect_uri::RedirectPolicy;
use crate::oauth::web_url::ClientIdUrl;
use crate::storage::{Storage, StorageError};
use crate::telemetry::log_throttle::LogThrottle;

/// Throttles the log. The reason appears only there: in a response it would tell a stranger which internal
/// names exist.
static NOT_READ: LogThrottle = LogThrottle::new();

/// Documents are cached as their response headers say, but for at least 1 minute and at most 24 hours, and
/// for 10 minutes if the headers say nothing.
const BOUNDS: Bounds = Bounds {
    body: MAX_DOCUMENT,
    floor: Duration::from_mins(1),
    ceiling: Duration::from_hours(24),
    usual: Duration::from_mins(10),
};

/// Clients with metadata documents. Cheap to clone.
#[derive(Clone)]
pub(super) struct Documents {
    remote: Remote<ClientMetadata>,
    http: GuardedClient,
    clock: Clock,
    storage: Storage,
    rules: Arc<DocumentRules>,
    /// Whether metadata documents are offered now. `None`: always, as long as they are enabled.
    pub(super) offer: Option<Arc<Offer>>,
}

struct DocumentRules {
    redirects: RedirectPolicy,
    limits: RegistrationLimits,
    /// The only hosts allowed, if the configuration lists any.
    hosts: Option<Vec<String>>,
}

impl Documents {
    /// Returns `None` if the configuration disables metadata documents.
    pub(super) fn new(
        config: &Config,
        http: GuardedClient,
        budget: Arc<FetchBudget>,
        storage: Storage,
        clock: Clock,
    ) -> Option<Self> {
        let settings = &config.client_documents;
        settings.enabled.then(|| Self {
            remote: Remote::new(http.clone(), clock.clone(), budget, BOUNDS),
            http,
            clock,
            storage,
            offer: settings.only_with_network.then(Arc::default),
            rules: Arc::new(DocumentRules {
                redirects: config.redirect_policy(),
                limits: RegistrationLimits { redirect_uris: config.limits.redirect_uris },
                hosts: settings.allowed_hosts.clone(),
            }),
        })
    }

    /// Returns the client published at `id`. If the document cannot be read now, returns the last good copy,
    /// marked by its [`DocumentState`]; without a copy, an error.
    pub(super) async fn find(&self, id: &str, from: Option<IpAddr>) -> Result<Client, FindError> {
        let url = ClientIdUrl::parse(id).map_err(|refused| {
            FindError::Document(format!("the client_id is refused: {refused}"))
        })?;
        let host = url.url().host().to_owned();
        if !self.rules.admits(&host) {
            return Err(FindError::Document(format!(
                "clients published by `{host}` are not admitted; an administrator can add it to `client_documents.allowed_hosts`"
            )));
        }
        let known = self.remote.knows(url.url());
        let stored = if known { None } else { self.storage.published_client(id).await? };
        let asker = FetchCause { address: from, is_known: stored.is_some() };
        let (rules, client_id, begun) = (Arc::clone(&self.rules), url.clone(), self.now());
        let parse = move |body: &[u8]| rules.parse(body, &client_id);
        let failed = match self.remote.get(url.url(), asker, None, parse).await {
            Ok(known) => {
                if let Some(offer) = self.offer.as_ref().filter(|_| known.seen_at >= begun) {
                    offer.set(true, "");
                }
                return Ok(client(id, host, known, DocumentState::Current));
            }
            Err(failed) => failed,
        };
        if failed.trouble.is_silence() {
            self.look_for_network().await;
        }
        let is_final = failed.trouble.is_final();
        let state = if is_final { DocumentState::Withdrawn } else { DocumentState::Unconfirmed };
        if let Some(left_out) = NOT_READ.admit() {
            let reason = &failed.trouble;
            tracing::info!(host, %reason, left_out, "a client document could not be read");
        }
        if let Some(last) = failed.last {
            return Ok(client(id, host, last, state));
        }
        if let Some((stored, seen_at)) = stored {
            let metadata = ClientMetadata::from_stored_json(&stored.metadata)
                .map_err(|_| StorageError::Corrupt("clients.metadata".to_owned()))?;
            return Ok(Client {
                id: stored.id,
                origin: Origin::Document { host, seen_at, state },
                metadata,
                secret_hash: None,
                issued_at: stored.issued_at,
            });
        }
        let reason = failed.trouble.to_string();
        Err(if is_final {
            FindError::Document(reason)
        } else if failed.trouble.is_silence() && !self.are_offered() {
            FindError::NoNetwork(reason)
        } else {
            FindError::Later(reason)
        })
    }

    /// Returns whether the server metadata offers metadata documents.
    pub(super) fn are_offered(&self) -> bool {
        self.offer.as_ref().is_none_or(|offer| offer.stands())
    }

    /// Returns whether the configuration allows the host of this id.
    pub(super) fn may_be_read(&self, id: &str) -> bool {
        ClientIdUrl::parse(id).is_ok_and(|id| self.rules.admits(id.url().host()))
    }

    pub(super) fn parse(&self, body: &[u8], id: &ClientIdUrl) -> Result<ClientMetadata, String> {
        self.rules.parse(body, id)
    }

    pub(super) fn http(&self) -> &GuardedClient {
        &self.http
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl DocumentRules {
    fn admits(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|known| known == host))
    }

    fn parse(&self, body: &[u8], id: &ClientIdUrl) -> Result<ClientMetadata, String> {
        ClientMetadata::parse_document(body, id, &self.redirects, &self.limits)
            .map_err(|refused| refused.to_string())
    }
}

fn client(
    id: &str,
    host: String,
    known: RemoteValue<ClientMetadata>,
    state: DocumentState,
) -> Client {
    Client {
        id: id.to_owned(),
        origin: Origin::Document { host, seen_at: known.seen_at, state },
        metadata: known.value,
        secret_hash: None,
        issued_at: known.seen_at,
    }
}
