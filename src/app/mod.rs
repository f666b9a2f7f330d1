//! The application: everything that a handler may reach.

mod audit_writer;
mod certificates;
mod conditions;
mod connections;
mod exporter;
mod notifier;
mod reload;
mod seldom;
mod snapshot;
mod target_checks;
mod targets;
mod together;
mod tool_names;
mod usage;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::certificates::Certificates;
use crate::clients::Clients;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ResourceConfig, TargetConnection, paths};
use crate::connections::Connections;
use crate::http_client::Backends;
use crate::http_client::guarded::GuardedClient;
use crate::notifications::Messenger;
use crate::oauth::client::RegistrationLimits;
use crate::oauth::redirect_uri::RedirectPolicy;
use crate::oauth::resource;
use crate::oauth::sealed::Sealer;
use crate::rate_limits::Rates;
use crate::signing::{KeyRing, SigningError};
use crate::storage::{NewRefusal, Storage, StorageError};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{ProviderSettings, Upstream};

pub use exporter::knock_at_collector;
pub use notifier::TestFailed;
pub use reload::{ConfigStatus, Reloaded};
use reload::{SharedState, at_once, recheck_policy};
pub use target_checks::CheckedTarget;
pub use targets::{TargetSeen, TargetState};
pub use together::Compared;
pub use usage::{CallCounter, Called};

static NOT_STORED: LogThrottle = LogThrottle::new();
static REFUSAL_NOT_STORED: LogThrottle = LogThrottle::new();

/// One configuration and the parts built from it. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

struct AppParts {
    shared: Arc<SharedState>,
    generation: u64,
    config: Config,
    clock: Clock,
    storage: Storage,
    clients: Clients,
    keys: KeyRing,
    upstream: Upstream,
    /// Our clients of the services that people connect.
    connections: Connections,
    /// The HTTP clients for MCP servers, by connection settings.
    backends: Vec<(TargetConnection, Backends)>,
    messenger: Messenger,
    certificates: Certificates,
    redirect_policy: RedirectPolicy,
    rates: Rates,
}

/// Why the application could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Signing keys could not be created or loaded.
    #[error("signing keys: {0}")]
    Signing(#[from] SigningError),
    /// The database failed, or refused an operation.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// TLS refuses the certificates for the targets of a resource.
    #[error("ca, client_cert or client_key of a resource cannot be used: {0}")]
    Certificates(#[from] rustls::Error),
}

impl App {
    /// Builds the application over an open database. Ends everything that a restored backup may have brought
    /// back, and loads the signing keys.
    pub async fn new(config: Config, clock: Clock, storage: Storage) -> Result<Self, AppError> {
        prepare_storage(&config, &storage).await?;
        let restored = AuditEvent::new("backup_restored", Actor::Server, &clock);
        if storage.settle_restored(clock.now(), restored).await?.is_some() {
            tracing::warn!("the database is a restored backup: everybody has to sign in again");
        } else {
            storage.warn_of_old_audit_trail(clock.now()).await?;
        }
        storage.settle_by(&clock);
        storage.look_back(&clock).await?;
        let algs = config.token_algs();
        let keys = KeyRing::load(&storage, &clock, config.public_url.as_str(), &algs).await?;
        tell_trust(&config, &storage, &clock).await?;
        let provider = ProviderSettings {
            config: config.upstream.clone(),
            redirect_uri: config.public_url.join(paths::CALLBACK),
            recheck: recheck_policy(&config),
            at_once: at_once(&config),
        };
        let upstream = Upstream::new(provider, clock.clone(), storage.clone());
        let (time, stored) = (clock.clone(), storage.clone());
        let connections = Connections::new(&config, time, stored, upstream.clone());
        let rates = {
            let (limits, metrics) = (&config.limits, storage.metrics().clone());
            Rates::new(&limits.rates, limits.request_rates, &clock, metrics)
        };
        let app = Self(Arc::new(AppParts {
            rates,
            clients: Clients::new(&config, storage.clone(), clock.clone()),
            redirect_policy: config.redirect_policy(),
            shared: Arc::new(SharedState::new(&clock, &config, storage.metrics())),
            generation: 0,
            keys,
            upstream,
            connections,
            backends: backends_for(&config, &[])?,
            messenger: messenger(&config),
            certificates: Certificates::new(&config, storage.clone(), clock.clone()),
            config,
            clock,
            storage,
        }));
        if let Err(cause) = app.compare_with_replicas().await {
            tracing::warn!(%cause, "the clock is not compared with the database's yet");
        }
        Ok(app)
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Our issuer identifier (RFC 8414). Clients compare it byte for byte.
    pub fn issuer(&self) -> &str {
        self.0.config.public_url.as_str()
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the current time of [`App::clock`].
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Marks the process as shutting down: `/ready` fails from now on.
    pub fn leave(&self) {
        self.0.shared.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether the process is shutting down.
    pub fn is_leaving(&self) -> bool {
        self.0.shared.leaving.load(Ordering::SeqCst)
    }

    /// Starts draining: requests in flight may finish, and event streams that carry no response to a request
    /// are closed.
    pub fn drain(&self) {
        self.0.shared.draining.store(true, Ordering::SeqCst);
        self.0.storage.wake_streams();
    }

    /// Whether the process is draining.
    pub fn is_draining(&self) -> bool {
        self.0.shared.draining.load(Ordering::SeqCst)
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        self.0.storage.metrics()
    }

    /// The sealer for data that travels through browsers and clients.
    pub fn sealer(&self) -> &Sealer {
        self.0.storage.sealer()
    }

    pub fn clients(&self) -> &Clients {
        &self.0.clients
    }

    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    pub fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    /// Our clients of the services that people connect, and the people's tokens.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// The certificate of the listeners.
    pub fn certificates(&self) -> &Certificates {
        &self.0.certificates
    }

    /// Rate limits and concurrency limits.
    pub fn rates(&self) -> &Rates {
        &self.0.rates
    }

    /// Which redirect URIs may be registered.
    pub fn redirect_policy(&self) -> &RedirectPolicy {
        &self.0.redirect_policy
    }

    /// The limits of a client registration.
    pub fn registration_limits(&self) -> RegistrationLimits {
        RegistrationLimits { redirect_uris: self.0.config.limits.redirect_uris }
    }

    /// Returns the resource with exactly this identifier, as our tokens carry it.
    pub fn resource(&self, id: &str) -> Option<&ResourceConfig> {
        self.0.config.resources.iter().find(|resource| resource.id == id)
    }

    /// Returns the resource that a client names. Accepts other spellings that can mean only one of our
    /// resources.
    pub fn resource_named(&self, presented: &str) -> Option<&ResourceConfig> {
        let ids = self.0.config.resources.iter().map(|resource| resource.id.as_str());
        self.resource(resource::meant(ids, self.issuer(), presented)?)
    }

    /// Returns our spelling of the resource that a client names; returns an unknown name unchanged.
    pub fn our_spelling<'a>(&'a self, presented: &'a str) -> &'a str {
        self.resource_named(presented).map_or(presented, |resource| resource.id.as_str())
    }

    /// Returns the resource for requests that name none: the only one, or the configured default.
    pub fn default_resource(&self) -> Option<&ResourceConfig> {
        match self.0.config.resources.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|resource| resource.is_default),
        }
    }

    /// Returns our `sub` for a person of the identity provider: stable, and never an e-mail address.
    pub fn subject(&self, upstream_subject: &str) -> String {
        self.0.config.upstream.preset.our_subject(upstream_subject)
    }

    /// Creates an audit event with the current time.
    pub fn event(&self, event: &'static str, actor: Actor) -> AuditEvent {
        AuditEvent::new(event, actor, &self.0.clock)
    }

    /// Writes an audit event to the log and the metrics, but not to the audit trail.
    pub fn log_event(&self, event: &AuditEvent) {
        self.metrics().event(event.event);
        event.log();
    }

    /// Stores what the identity provider sent about a person refused by the rules. If the database fails or
    /// is full, the person is refused all the same, and administrators see the audit event alone.
    pub async fn note_refusal(&self, refusal: &NewRefusal<'_>) {
        let most = self.0.config.limits.refused_people;
        if let Err(cause) = self.0.storage.note_refusal(refusal, most, self.now()).await
            && let Some(left_out) = REFUSAL_NOT_STORED.admit()
        {
            tracing::warn!(%cause, left_out, "what was sent about a refused person is not stored");
        }
    }

    /// Stores an audit event that accompanies no change. If the database fails, the event goes to the log
    /// only: what it reports has happened all the same.
    pub async fn record(&self, event: AuditEvent) {
        if let Err(cause) = self.0.storage.record(vec![event.clone()]).await {
            if let Some(left_out) = NOT_STORED.admit() {
                tracing::error!(%cause, left_out, "an audit event could not be stored");
            }
            self.metrics().audit_failed(1);
            self.log_event(&event);
        }
    }
}

/// Sets the size limits of the database and of its audit trail, and who is notified of what happens.
async fn prepare_storage(config: &Config, storage: &Storage) -> Result<(), StorageError> {
    let limits = &config.limits;
    storage.notify_targets(&config.notify);
    storage.limit_audit(limits.audit_size, limits.database_size);
    storage.bound_lines_of_people(limits.request_rates);
    storage.limit_size(limits.database_size, limits.wal_size).await
}

/// Makes the HTTP clients for the targets of all resources. Clients that an earlier configuration had for the
/// same settings are used again, with their connections.
fn backends_for(
    config: &Config,
    known: &[(TargetConnection, Backends)],
) -> Result<Vec<(TargetConnection, Backends)>, rustls::Error> {
    let mut made: Vec<(TargetConnection, Backends)> = Vec::new();
    for settings in config.resources.iter().map(|resource| &resource.connection) {
        if made.iter().any(|(present, _)| present == settings) {
            continue;
        }
        let before = known.iter().find(|(present, _)| present == settings);
        let backends = match before {
            Some((_, backends)) => backends.clone(),
            None => Backends::new(settings)?,
        };
        made.push((settings.clone(), backends));
    }
    Ok(made)
}

/// Makes the messenger for notifications. It goes through the same proxies as requests to the provider.
fn messenger(config: &Config) -> Messenger {
    let proxies = Some(&config.upstream.proxies);
    Messenger::new(GuardedClient::new(&config.client_documents.loopback, proxies))
}

/// Stores which clients the configuration trusts.
async fn tell_trust(config: &Config, storage: &Storage, clock: &Clock) -> Result<(), StorageError> {
    let trusted = config.clients.iter().filter(|client| client.trusted);
    let trusted: Vec<&str> = trusted.map(|client| client.client_id.as_str()).collect();
    let event = AuditEvent::new("client_trusted", Actor::Server, clock);
    storage.configure_trust(&trusted, clock.now(), event).await
}
