//! Finding and registering clients.

use std::time::Duration;

use crate::clock::Clock;
use crate::oauth::client::{Client, ClientMetadata};
use crate::oauth::secret::{ClientSecret, SecretHash, new_id, random_text};
use crate::storage::{ClientKind, Registered, Storage, StorageError, StoredClient, Verdict};
use crate::telemetry::audit::{Actor, AuditEvent};

/// How long clients that nobody uses are kept, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct ClientQuota {
    /// Most registered clients.
    pub clients: u64,
    /// A client that was never used goes after this.
    pub unused: Duration,
    /// A client that was used goes after this, unless a grant of it is live.
    pub idle: Duration,
}

/// The clients this server knows. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    storage: Storage,
    clock: Clock,
    quota: ClientQuota,
}

/// A registration that succeeded.
pub struct Registration {
    /// The client as registered.
    pub client: Client,
    /// The secret of a confidential client: told once, stored as a hash.
    pub secret: Option<String>,
    /// Whether it is new, or the public client that registered the same before.
    pub is_new: bool,
}

/// A new client has this long to be approved before a flood of registrations can push it out; as long
/// as a consent page lives.
const SETTLING: Duration = Duration::from_mins(10);

impl Clients {
    /// Clients in `storage`.
    pub fn new(storage: Storage, clock: Clock, quota: ClientQuota) -> Self {
        Self { storage, clock, quota }
    }

    /// The client with this id, unless it has expired.
    pub async fn find(&self, id: &str) -> Result<Option<Client>, StorageError> {
        if id.len() > 64 {
            return Ok(None);
        }
        let ClientQuota { unused, idle, .. } = self.quota;
        self.storage
            .find_client(id, self.clock.now(), unused, idle)
            .await?
            .map(|stored| from_stored(&stored))
            .transpose()
    }

    /// Makes a client for an administrator: it counts towards no quota and does not expire.
    pub async fn create(
        &self,
        metadata: ClientMetadata,
        event: AuditEvent,
    ) -> Result<Registration, StorageError> {
        let secret = metadata.token_endpoint_auth_method.needs_secret().then(new_secret);
        let stored = StoredClient {
            id: format!("client_{}", new_id(&self.clock)),
            identity: None,
            secret_hash: secret
                .as_deref()
                .map(|secret| SecretHash::<ClientSecret>::of(secret).as_str().to_owned()),
            metadata: metadata.to_json(),
            kind: ClientKind::Created,
            issued_at: self.clock.now(),
        };
        let event = event.client(&stored.id).with("confidential", secret.is_some());
        let (now, by) = (stored.issued_at, event.actor.to_string());
        let approved = event.clone().again("client_approved");
        self.storage.register_client(&stored, u64::MAX, event).await?;
        self.storage.decide_client(&stored.id, Verdict::Approve, &by, now, approved).await?;
        Ok(Registration { client: from_stored(&stored)?, secret, is_new: true })
    }

    /// Registers a client. Identical public metadata is the same client and costs no row;
    /// `None` when the quota is reached.
    pub async fn register(
        &self,
        metadata: ClientMetadata,
    ) -> Result<Option<Registration>, StorageError> {
        let secret = metadata.token_endpoint_auth_method.needs_secret().then(new_secret);
        let stored = StoredClient {
            id: format!("client_{}", new_id(&self.clock)),
            identity: secret.is_none().then(|| metadata.identity()),
            secret_hash: secret
                .as_deref()
                .map(|secret| SecretHash::<ClientSecret>::of(secret).as_str().to_owned()),
            metadata: metadata.to_json(),
            kind: ClientKind::Registered,
            issued_at: self.clock.now(),
        };
        let ClientQuota { clients, unused, idle } = self.quota;
        let event = AuditEvent::new("client_registered", Actor::Client, &self.clock)
            .client(&stored.id)
            .with("confidential", secret.is_some());
        let mut registered = self.storage.register_client(&stored, clients, event.clone()).await?;
        if matches!(registered, Registered::Full) {
            let now = stored.issued_at;
            let mut removed = self.storage.sweep_clients(now, unused, idle).await?;
            if removed == 0 {
                let before = now.minus(SETTLING);
                removed = self.storage.make_room_for_clients(before).await?;
            }
            if removed > 0 {
                registered = self.storage.register_client(&stored, clients, event).await?;
            }
        }
        let (stored, is_new) = match registered {
            Registered::New => (stored, true),
            Registered::Known(known) => (known, false),
            Registered::Full => return Ok(None),
        };
        Ok(Some(Registration { client: from_stored(&stored)?, secret, is_new }))
    }
}

/// A new confidential client's secret.
fn new_secret() -> String {
    format!("cs_{}", random_text())
}

fn from_stored(stored: &StoredClient) -> Result<Client, StorageError> {
    let metadata = ClientMetadata::from_stored_json(&stored.metadata)
        .map_err(|_| StorageError::Corrupt("clients.metadata".to_owned()))?;
    Ok(Client {
        id: stored.id.clone(),
        metadata,
        secret_hash: stored.secret_hash.clone(),
        issued_at: stored.issued_at,
    })
}
