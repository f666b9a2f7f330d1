//! Finds a client: in the configuration, at the URL that is its id, or among the registered ones. The order
//! matters: nobody can override a configured client by registering or publishing one.

mod budget;
mod documents;
mod keys;
mod offer;
mod registration;
mod remote;
mod trial;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use self::budget::{FetchBudget, FetchLimits};
use self::documents::Documents;
use self::keys::PublishedKeys;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::http_client::guarded::GuardedClient;
use crate::oauth::client::assertion::Assertion;
use crate::oauth::client::keys::KeySet;
use crate::oauth::client::{Client, ClientMetadata, Origin};
use crate::oauth::random_key::RandomKeys;
use crate::oauth::secret::{ClientSecret, SecretHash};
use crate::oauth::web_url::ClientIdUrl;
use crate::storage::{ClientKind, KeptClient, Retention, Storage, StorageError, StoredClient};
use crate::telemetry::audit::{Actor, AuditEvent};

use registration::Full;
pub use registration::Registration;
pub use trial::{TrialFailed, Tried};

/// Bytes: longest id of a stored client that has no metadata document. Longer ids are not looked up.
const MAX_ID: usize = 64;
/// Stored clients whose parsed metadata are kept: 1,000.
const PARSED: usize = 1_000;

/// How long unused clients are kept, and the maximum number of clients.
#[derive(Clone, Copy, Debug)]
struct ClientQuota {
    clients: u64,
    keep: Retention,
}

/// Parsed metadata of a stored client. Each step of a login reads the client again; its redirect URIs are parsed
/// once.
struct ParsedMetadata {
    /// The text in the database. Another text is parsed again.
    text: String,
    metadata: ClientMetadata,
}

/// Why a client could not be found or ruled out.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The metadata document at the client's id is invalid.
    #[error("{0}")]
    Document(String),
    /// The document cannot be read now, and no earlier copy exists.
    #[error("{0}")]
    Later(String),
    /// As [`Self::Later`], and this machine reaches no website at all.
    #[error("no website is reached from here: {0}")]
    NoNetwork(String),
    /// The id is a document's URL, and metadata documents are disabled.
    #[error("{0}")]
    Off(String),
}

/// All clients that this server knows. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    storage: Storage,
    clock: Clock,
    quota: ClientQuota,
    full: Arc<Full>,
    configured: Arc<BTreeMap<String, Client>>,
    documents: Option<Documents>,
    published_keys: PublishedKeys,
    /// By id.
    parsed: Arc<Cache<String, Arc<ParsedMetadata>, UnitWeighter, RandomKeys>>,
}

impl Clients {
    /// Creates the clients of this configuration and of `storage`.
    pub fn new(config: &Config, storage: Storage, clock: Clock) -> Self {
        let documents = &config.client_documents;
        let http = GuardedClient::new(&documents.loopback, documents.proxies.as_ref());
        let limits = &config.limits;
        let fetches = FetchLimits {
            at_once: limits.client_fetches,
            per_host: limits.client_fetches_per_host,
            per_address: limits.client_fetches_per_address,
        };
        let budget = Arc::new(FetchBudget::new(fetches, storage.metrics().clone()));
        let configured = config.clients.iter().map(|client| {
            let secret_hash = client
                .secret
                .as_ref()
                .map(|secret| SecretHash::<ClientSecret>::of(secret.expose()).as_str().to_owned());
            let found = Client {
                id: client.client_id.clone(),
                origin: Origin::Configured { trusted: client.trusted },
                metadata: client.metadata.clone(),
                secret_hash,
                issued_at: Timestamp::from_unix(0),
            };
            (found.id.clone(), found)
        });
        let (keys, lifecycle) = (RandomKeys::default(), DefaultLifecycle::default());
        let parsed = Cache::with(PARSED, PARSED as u64, UnitWeighter, keys, lifecycle);
        Self {
            configured: Arc::new(configured.collect()),
            parsed: Arc::new(parsed),
            documents: Documents::new(
                config,
                http.clone(),
                Arc::clone(&budget),
                storage.clone(),
                clock.clone(),
            ),
            published_keys: PublishedKeys::new(http, budget, clock.clone()),
            quota: ClientQuota {
                clients: config.limits.clients,
                keep: Retention {
                    unused_client: config.limits.unused_client_expiry,
                    idle_client: config.limits.idle_client_expiry,
                    audit: config.audit_retention,
                    refused_person: config.limits.refused_person_expiry,
                    refresh_idle: config.tokens.refresh_idle,
                    rows: config.limits.sweep_rows,
                },
            },
            full: Arc::default(),
            storage,
            clock,
        }
    }

    /// Returns the client with this id, compared byte for byte. `None` if there is none, or if it has
    /// expired. Fetches count towards the rate limit of the address `from`.
    pub async fn find(&self, id: &str, from: Option<IpAddr>) -> Result<Option<Client>, FindError> {
        if let Some(configured) = self.configured.get(id) {
            return Ok(Some(configured.clone()));
        }
        if ClientIdUrl::is_meant_by(id) {
            return match &self.documents {
                Some(documents) => documents.find(id, from).await.map(Some),
                None => Err(documents_are_off(id)),
            };
        }
        Ok(self.stored(id).await?.map(|stored| self.parse(stored)).transpose()?)
    }

    /// Returns a stored client. Its metadata are parsed only if they have changed since they were last parsed.
    fn parse(&self, stored: StoredClient) -> Result<Client, StorageError> {
        if let Some(known) =
            self.parsed.get(&stored.id).filter(|known| known.text == stored.metadata)
        {
            return Ok(with_metadata(&stored, known.metadata.clone()));
        }
        let client = from_stored(&stored)?;
        let metadata = client.metadata.clone();
        let parsed = ParsedMetadata { text: stored.metadata, metadata };
        self.parsed.insert(stored.id, Arc::new(parsed));
        Ok(client)
    }

    /// Returns whether the server metadata offers metadata documents.
    pub fn offers_documents(&self) -> bool {
        self.documents.as_ref().is_some_and(Documents::are_offered)
    }

    /// On a server that offers metadata documents only with a network: checks whether websites can be
    /// reached.
    pub async fn look_for_network(&self) {
        if let Some(documents) = &self.documents {
            documents.look_for_network().await;
        }
    }

    /// Fetches the metadata documents of well-known clients as a test. `None` if metadata documents are
    /// disabled.
    pub async fn try_documents(&self) -> Option<Vec<Tried>> {
        match &self.documents {
            Some(documents) => Some(documents.try_well_known().await),
            None => None,
        }
    }

    /// Returns the keys of `client`, refetched if none of them could have made `assertion`. `None` if it has
    /// no keys.
    pub async fn keys_for(
        &self,
        client: &Client,
        assertion: &Assertion<'_>,
        from: Option<IpAddr>,
    ) -> Result<Option<KeySet>, FindError> {
        self.published_keys.find(client, assertion, from).await
    }

    /// Stores a configured or published client after a person has signed in for it, so that administrators
    /// see it and a published client survives an outage of its publisher.
    pub async fn remember(&self, client: &Client) -> Result<(), StorageError> {
        let now = self.clock.now();
        let (kind, seen_at) = match &client.origin {
            Origin::Registered | Origin::Created => return Ok(()),
            Origin::Configured { .. } => (ClientKind::Configured, now),
            Origin::Document { seen_at, .. } => (ClientKind::Document, *seen_at),
        };
        let kept = KeptClient { id: &client.id, kind, metadata: &client.metadata, seen_at };
        let event = AuditEvent::new("client_decision_lapsed", Actor::Server, &self.clock);
        self.storage.keep_client(&kept, now, event).await
    }

    async fn stored(&self, id: &str) -> Result<Option<StoredClient>, StorageError> {
        // PostgreSQL refuses a NUL in text.
        if id.len() > MAX_ID || id.contains('\0') {
            return Ok(None);
        }
        let Retention { unused_client, idle_client, .. } = self.quota.keep;
        self.storage.find_client(id, self.clock.now(), unused_client, idle_client).await
    }
}

fn documents_are_off(id: &str) -> FindError {
    let named = ClientIdUrl::parse(id).map(|id| format!("`{}`", id.url()));
    let named = named.unwrap_or_else(|_| "the client_id".to_owned()); // it may be hostile, so it is not repeated
    FindError::Off(format!(
        "{named} would have to be fetched, and that is switched off; an administrator can switch it on with `client_documents.enabled`"
    ))
}

fn from_stored(stored: &StoredClient) -> Result<Client, StorageError> {
    let metadata = ClientMetadata::from_stored_json(&stored.metadata)
        .map_err(|_| StorageError::Corrupt("clients.metadata".to_owned()))?;
    Ok(with_metadata(stored, metadata))
}

fn with_metadata(stored: &StoredClient, metadata: ClientMetadata) -> Client {
    Client {
        id: stored.id.clone(),
        origin: match stored.kind {
            ClientKind::Created => Origin::Created,
            _ => Origin::Registered,
        },
        metadata,
        secret_hash: stored.secret_hash.clone(),
        issued_at: stored.issued_at,
    }
}
