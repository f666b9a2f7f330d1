//! Clients that register themselves and manage it: RFC 7591, RFC 7592.

use std::time::Duration;

use super::{ClientQuota, Clients, from_stored};
use crate::oauth::client::{Client, ClientMetadata};
use crate::oauth::secret::{
    ClientSecret, RegistrationToken, Secret, SecretHash, new_id, random_text,
};
use crate::storage::{ClientKind, Registered, StorageError, StoredClient, Verdict};
use crate::telemetry::audit::{Actor, AuditEvent};

/// A registration that succeeded.
pub struct Registration {
    /// The client as registered.
    pub client: Client,
    /// The secret of a confidential client: told once, stored as a hash.
    pub secret: Option<String>,
    /// By which a client that is no other's manages itself: told once, stored as a hash.
    pub token: Option<Secret<RegistrationToken>>,
    /// Whether it is new, or the public client that registered the same before.
    pub is_new: bool,
}

/// A new client has this long to be approved before a flood of registrations can push it out; as long
/// as a consent page lives.
const SETTLING: Duration = Duration::from_mins(10);
/// What our ids begin with: never what a URL begins with.
const ID_PREFIX: &str = "client_";

impl Clients {
    /// Whether a public client registered the same before.
    pub async fn knows(&self, metadata: &ClientMetadata) -> Result<bool, StorageError> {
        if metadata.token_endpoint_auth_method.needs_secret() {
            return Ok(false);
        }
        self.storage.knows_client(&metadata.identity()).await
    }

    /// Registers a client. Identical public metadata is the same client and costs no row, and for
    /// that reason cannot be managed by whoever registered it. `None` when the quota is reached.
    pub async fn register(
        &self,
        metadata: ClientMetadata,
    ) -> Result<Option<Registration>, StorageError> {
        let (stored, secret, token) = self.new_client(&metadata, ClientKind::Registered);
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
        Ok(Some(Registration { client: from_stored(&stored)?, secret, token, is_new }))
    }

    /// Makes a client for an administrator: it counts towards no quota and does not expire.
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
        self.storage.register_client(&stored, u64::MAX, event).await?;
        self.storage.decide_client(&stored.id, Verdict::Approve, &by, now, approved).await?;
        Ok(Registration { client: from_stored(&stored)?, secret, token: None, is_new: true })
    }

    fn new_client(
        &self,
        metadata: &ClientMetadata,
        kind: ClientKind,
    ) -> (StoredClient, Option<String>, Option<Secret<RegistrationToken>>) {
        let id = new_id(&self.clock);
        let method = metadata.token_endpoint_auth_method;
        let secret = method.needs_secret().then(|| format!("cs_{}", random_text()));
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
        };
        (stored, secret, token)
    }

    /// The client that `token` manages, when it is `client_id`.
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

    /// Replaces what a client registered; `None` when it is gone.
    pub async fn replace(
        &self,
        client: &Client,
        metadata: ClientMetadata,
        event: AuditEvent,
    ) -> Result<Option<Client>, StorageError> {
        let replaced = self.storage.replace_client(&client.id, &metadata.to_json(), event).await?;
        Ok(replaced.then(|| Client { metadata, ..client.clone() }))
    }
}
