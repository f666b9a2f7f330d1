//! Dynamic registration and its management: RFC 7591, RFC 7592.

use std::net::IpAddr;
use std::time::Duration;

use super::{Clients, from_stored};
use crate::clock::Timestamp;
use crate::oauth::client::{Client, ClientMetadata};
use crate::oauth::secret::{
    ClientSecret, RegistrationToken, Secret, SecretHash, new_id, random_text,
};
use crate::rate_limits::site_prefix;
use crate::storage::{
    ClientDecision, ClientKind, Registered, ReviewDecision, StorageError, StoredClient,
};
use crate::telemetry::audit::{Actor, AuditEvent};
use parking_lot::{Mutex, MutexGuard};

pub struct Registration {
    pub client: Client,
    /// The secret of a confidential client. Returned once, stored as a hash.
    pub secret: Option<String>,
    /// The registration access token. Returned once, stored as a hash. `None` for a public client that
    /// others may share.
    pub token: Option<Secret<RegistrationToken>>,
    /// Whether the client is new. False: an identical public client was registered before.
    pub is_new: bool,
}

/// Registrations per minute that the stored audit trail records. With more, a flood would fill the database.
const TOLD_A_MINUTE: u32 = 60;

/// Caches for one second that the registry is full, so that a flood of refused registrations costs less than
/// one of accepted ones. Also counts the registrations that the stored audit trail recorded in this minute.
#[derive(Default)]
pub(super) struct Full(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    most: Option<(Timestamp, i64)>,
    looked: Option<Timestamp>,
    told: (i64, u32),
}

impl Full {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock()
    }

    fn most(&self, now: Timestamp) -> Option<i64> {
        self.lock().most.filter(|(at, _)| *at == now).map(|(_, most)| most)
    }

    /// Returns whether the stored audit trail records one more registration. During a flood the others
    /// appear only in the log, or the trail would fill the database.
    fn is_told(&self, now: Timestamp) -> bool {
        let (minute, told) = self.lock().told;
        minute != now.unix() / 60 || told < TOLD_A_MINUTE
    }

    fn remember_told(&self, now: Timestamp) {
        let (told, minute) = (&mut self.lock().told, now.unix() / 60);
        *told = (minute, if told.0 == minute { told.1 + 1 } else { 1 });
    }

    fn remember_most(&self, now: Timestamp, most: i64) {
        self.lock().most = Some((now, most));
    }

    fn forget_most(&self) {
        self.lock().most = None;
    }

    fn was_looked_at(&self, now: Timestamp) -> bool {
        self.lock().looked == Some(now)
    }

    fn remember_looked(&self, now: Timestamp) {
        self.lock().looked = Some(now);
    }
}

/// 10 minutes, the lifetime of a consent page: a new client cannot be evicted earlier, so that a person has
/// time to approve it while a flood of registrations arrives.
const SETTLING: Duration = Duration::from_mins(10);
/// Prefix of the ids that we assign. It differs from the beginning of every URL.
const ID_PREFIX: &str = "client_";

fn new_secret() -> String {
    format!("cs_{}", random_text())
}

impl Clients {
    /// Returns whether a public client with the same metadata is registered. Always false for a client with
    /// a secret.
    pub async fn knows(&self, metadata: &ClientMetadata) -> Result<bool, StorageError> {
        if metadata.token_endpoint_auth_method.needs_secret() {
            return Ok(false);
        }
        self.storage.knows_client(&metadata.identity()).await
    }

    /// Registers a client. Public clients with identical metadata share one registration and one row, so
    /// none of them gets a token to manage it. Returns `None` if the quota is reached.
    pub async fn register(
        &self,
        metadata: ClientMetadata,
        from: Option<IpAddr>,
    ) -> Result<Option<Registration>, StorageError> {
        let (mut stored, secret, token) = self.new_client(&metadata, ClientKind::Registered);
        stored.network = from.map(site_prefix);
        if self.is_turned_away(&stored).await? {
            return Ok(None);
        }
        let clients = self.quota.clients;
        let event = AuditEvent::new("client_registered", Actor::Client, &self.clock)
            .client(&stored.id)
            .with("confidential", secret.is_some());
        let event = AuditEvent { log_only: !self.full.is_told(stored.issued_at), ..event };
        let register =
            async |keep| self.storage.register_client(&stored, clients, keep, event.clone()).await;
        let mut registered = register(None).await?;
        if matches!(registered, Registered::Full) {
            let keep = self.unused_to_keep(&stored).await?;
            if keep.is_some() || self.make_room(stored.issued_at).await? {
                registered = register(keep).await?;
                self.full.forget_most();
            }
        }
        let (stored, is_new) = match registered {
            Registered::New => {
                self.full.remember_told(stored.issued_at);
                (stored, true)
            }
            Registered::Known(known) => (known, false),
            Registered::Full => return Ok(None),
        };
        // The stored client has the loopback ports of its first registration. The response must show the
        // ports that were sent.
        let client = Client { metadata, ..from_stored(&stored)? };
        Ok(Some(Registration { client, secret, token, is_new }))
    }

    /// Deletes unused clients that are old enough from a full registry, and returns whether any were
    /// deleted. After a failed attempt it tries again in the next second at the earliest.
    async fn make_room(&self, now: Timestamp) -> Result<bool, StorageError> {
        if self.full.was_looked_at(now) {
            return Ok(false);
        }
        let mut removed = self.storage.sweep_clients(now, self.quota.keep).await?;
        if removed == 0 {
            removed = self.storage.make_room_for_clients(now.minus(SETTLING)).await?;
        }
        if removed == 0 {
            self.full.remember_looked(now);
        }
        Ok(removed > 0)
    }

    /// Returns the number of clients of this site prefix including `new`, if another prefix has more. In a
    /// full registry a prefix with fewer clients evicts the newest of the prefix with most, so a flood
    /// evicts its own clients.
    async fn unused_to_keep(&self, new: &StoredClient) -> Result<Option<i64>, StorageError> {
        let Some(network) = &new.network else { return Ok(None) };
        let most = if let Some(most) = self.full.most(new.issued_at) {
            most
        } else {
            let most = self.storage.most_unused_clients().await?;
            self.full.remember_most(new.issued_at, most);
            most
        };
        if most < 2 {
            return Ok(None);
        }
        let with_new = self.storage.unused_clients_of(network, most).await? + 1;
        Ok((with_new < most).then_some(with_new))
    }

    /// Returns whether the registry was just found full and cannot take this client either. Such a request
    /// is refused without waiting for the database's writer.
    async fn is_turned_away(&self, new: &StoredClient) -> Result<bool, StorageError> {
        if !self.full.was_looked_at(new.issued_at) || self.unused_to_keep(new).await?.is_some() {
            return Ok(false);
        }
        match &new.identity {
            Some(identity) => Ok(!self.storage.knows_client(identity).await?),
            None => Ok(true),
        }
    }

    /// Creates a client for an administrator. It is approved, counts towards no quota and does not expire.
    pub async fn create(
        &self,
        metadata: ClientMetadata,
        event: AuditEvent,
    ) -> Result<Registration, StorageError> {
        let (mut stored, secret, _) = self.new_client(&metadata, ClientKind::Created);
        (stored.identity, stored.management_hash) = (None, None);
        let event = event.client(&stored.id).with("confidential", secret.is_some());
        let (now, by) = (stored.issued_at, event.actor.to_string());
        let approved = event.clone().again("client_approved");
        self.storage.register_client(&stored, u64::MAX, None, event).await?;
        let decision = ClientDecision::new(&stored.id, ReviewDecision::Approve, &by);
        self.storage.decide_client(decision, now, approved).await?;
        Ok(Registration { client: from_stored(&stored)?, secret, token: None, is_new: true })
    }

    /// Gives a client that an administrator created another secret, and returns it. The former one ends at
    /// once. `None` if there is no such client, or its secret is no longer the one with the hash `former`.
    pub async fn rotate_secret(
        &self,
        id: &str,
        former: &str,
        event: AuditEvent,
    ) -> Result<Option<String>, StorageError> {
        let secret = new_secret();
        let hash = SecretHash::<ClientSecret>::of(&secret);
        let replaced = self.storage.replace_secret(id, (former, hash.as_str()), event).await?;
        Ok(replaced.then_some(secret))
    }

    fn new_client(
        &self,
        metadata: &ClientMetadata,
        kind: ClientKind,
    ) -> (StoredClient, Option<String>, Option<Secret<RegistrationToken>>) {
        let id = new_id(&self.clock);
        let method = metadata.token_endpoint_auth_method;
        let secret = method.needs_secret().then(new_secret);
        let token = method.is_confidential().then(|| Secret::<RegistrationToken>::generate(&id));
        let stored = StoredClient {
            id: format!("{ID_PREFIX}{id}"),
            identity: (!method.is_confidential()).then(|| metadata.identity()),
            secret_hash: secret
                .as_deref()
                .map(|secret| SecretHash::<ClientSecret>::of(secret).as_str().to_owned()),
            management_hash: token.as_ref().map(|token| token.hash().as_str().to_owned()),
            metadata: metadata.to_json(),
            kind,
            issued_at: self.clock.now(),
            network: None,
        };
        (stored, secret, token)
    }

    /// Returns the client `client_id` if `token` is its registration access token.
    pub async fn managed(
        &self,
        client_id: &str,
        token: &Secret<RegistrationToken>,
    ) -> Result<Option<Client>, StorageError> {
        if client_id.strip_prefix(ID_PREFIX) != Some(token.id()) {
            return Ok(None);
        }
        let Some(stored) = self.stored(client_id).await? else { return Ok(None) };
        let proven = stored.management_hash.as_deref().is_some_and(|hash| token.hash().is(hash));
        proven.then(|| from_stored(&stored)).transpose()
    }

    /// Replaces a client's registration. Returns `None` if the client no longer exists.
    pub async fn replace(
        &self,
        client: &Client,
        metadata: ClientMetadata,
        event: AuditEvent,
    ) -> Result<Option<Client>, StorageError> {
        let now = self.clock.now();
        let replaced = self.storage.replace_client(&client.id, &metadata, now, event).await?;
        Ok(replaced.then(|| Client { metadata, ..client.clone() }))
    }
}
