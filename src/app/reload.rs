//! Reloads the configuration while the server runs.
//!
//! A reload builds a complete new [`App`] and replaces the current one in one step, so a request sees one
//! configuration from start to end. All generations share the parts with a state of their own: the database,
//! the signing keys, the connections to MCP servers, what is known about the identity provider, and the
//! concurrency limits. A configuration with mistakes changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex as Lock, MutexGuard, RwLock};
use tokio::sync::{Mutex, Notify};

use super::{
    App, AppError, AppParts, audit_writer, exporter, notifier, seldom, targets, together, usage,
};
use crate::clients::Clients;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ConfigSource, Loaded, Problems};
use crate::telemetry::audit::Actor;
use crate::telemetry::metrics::Metrics;
use crate::upstream::PersonQueries;
use crate::upstream::recheck::RecheckPolicy;

/// State that all generations of the application share.
pub(super) struct SharedState {
    pub(super) notes: audit_writer::AuditWriter,
    pub(super) seldom: seldom::Seldom,
    pub(super) together: together::Together,
    pub(super) usage: usage::Usage,
    pub(super) targets: targets::Targets,
    pub(super) notifying: notifier::NotifierState,
    /// Wakes the task that revokes tokens.
    pub(super) revoking: Notify,
    /// `None` if nothing is exported.
    pub(super) exporter: Option<exporter::Exporter>,
    /// The current application; `None` until the first reload.
    current: RwLock<Option<App>>,
    /// Serialises reloads.
    reading: Mutex<()>,
    reading_of: Lock<ConfigStatus>,
    /// When the configuration in use was read, in Unix seconds.
    read_at: AtomicI64,
    pub(super) leaving: AtomicBool,
    pub(super) draining: AtomicBool,
}

/// The state of the configuration file compared with the configuration in use.
#[derive(Clone, Debug, Default)]
pub struct ConfigStatus {
    /// Mistakes in the file, by key. If there are any, the previous configuration stays in use.
    pub problems: Vec<String>,
    /// Keys that changed but take effect only after a restart.
    pub waiting: Vec<String>,
    /// The lines of the file, if it was read again and only lines moved. `None`: as in [`Config::source`].
    pub source: Option<ConfigSource>,
}

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    Unchanged,
    /// The new configuration is in use, except for keys that need a restart.
    Applied {
        /// Keys that changed.
        changed: Vec<String>,
        /// Changed keys that take effect only after a restart.
        waiting: Vec<String>,
    },
    /// Keys changed that everything else depends on: nothing is applied before a restart.
    NeedsRestart(Vec<String>),
    /// The configuration has mistakes; the previous one stays in use.
    Invalid,
    /// The configuration could not be applied now, because of the database or the signing keys. A later
    /// attempt may succeed; the previous one stays in use.
    Failed,
}

impl SharedState {
    pub(super) fn new(clock: &Clock, config: &Config, metrics: &Metrics) -> Self {
        Self {
            notes: audit_writer::AuditWriter::default(),
            seldom: seldom::Seldom::default(),
            together: together::Together::default(),
            usage: usage::Usage::default(),
            targets: targets::Targets::default(),
            notifying: notifier::NotifierState::default(),
            revoking: Notify::new(),
            exporter: exporter::Exporter::of(config, metrics),
            current: RwLock::default(),
            reading: Mutex::default(),
            reading_of: Lock::default(),
            read_at: AtomicI64::new(clock.now().unix()),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    fn reading(&self) -> MutexGuard<'_, ConfigStatus> {
        self.reading_of.lock()
    }
}

impl App {
    /// Returns the application of the newest configuration.
    #[must_use]
    pub fn current(&self) -> Self {
        self.0.shared.current.read().as_ref().unwrap_or(self).clone()
    }

    /// The generation of this application: 0 at start, one more with each applied reload.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Returns when the configuration in use was read.
    pub fn configured_at(&self) -> Timestamp {
        Timestamp::from_unix(self.0.shared.read_at.load(Ordering::Relaxed))
    }

    /// Returns how the configuration file, as last read, differs from the configuration in use.
    pub fn reading(&self) -> ConfigStatus {
        self.0.shared.reading().clone()
    }

    /// Returns where the configuration file says what, as it was last read.
    pub fn config_source(&self) -> ConfigSource {
        let moved = self.0.shared.reading().source.clone();
        moved.unwrap_or_else(|| self.config().source.clone())
    }

    /// Drops the current application at shutdown. It is stored in state that it owns itself: without this,
    /// the cycle of `Arc`s would never be freed.
    pub fn retire(&self) {
        let last = self.0.shared.current.write().take();
        drop(last); // after the lock: dropping an application takes time
    }

    /// Replaces the current configuration by the one that was read, if possible. Logs the outcome and records
    /// it in the audit trail. `reason` says why the configuration was read.
    pub async fn reload(&self, read: Result<Loaded, Problems>, reason: &str) -> Reloaded {
        let _alone = self.0.shared.reading.lock().await;
        let current = self.current();
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(problems) => return current.refuse(&problems, reason).await,
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let digest = loaded.digest();
        let changed = current.config().written.changes(&loaded.config.written);
        let written = loaded.config.written.clone();
        let source = Some(loaded.config.source.clone());
        let successor = match loaded.config.in_place_of(current.config()) {
            Ok(successor) => successor,
            Err(identity_keys) => return current.hold_back(identity_keys, reason).await,
        };
        let waiting: Vec<String> = successor.waiting.iter().map(|key| (*key).to_owned()).collect();
        if changed.is_empty() {
            *self.0.shared.reading() = ConfigStatus { problems: Vec::new(), waiting, source };
            tracing::info!(
                because = reason,
                "the configuration was read again: nothing has changed"
            );
            return Reloaded::Unchanged;
        }
        let config = Config { written, ..successor.config };
        let next = match Box::pin(current.reconfigured(config)).await {
            Ok(next) => next,
            Err(cause) => {
                tracing::error!(%cause, because = reason, "the configuration cannot be put in use; the one before stays");
                *self.0.shared.reading() =
                    ConfigStatus { problems: vec![cause.to_string()], waiting, source: None };
                return Reloaded::Failed;
            }
        };
        let mut event = next.event("configuration_reloaded", Actor::Server);
        event = event.with("because", reason).with("changed", changed.clone());
        if !waiting.is_empty() {
            event = event.with("waiting", waiting.clone());
        }
        self.0.shared.read_at.store(next.now().unix(), Ordering::Relaxed);
        *self.0.shared.reading() =
            ConfigStatus { problems: Vec::new(), waiting: waiting.clone(), source: None };
        let before = self.0.shared.current.write().replace(next.clone());
        drop(before); // after the lock: dropping an application takes time
        // Wakes open streams, which check at once whether they may continue under the new configuration.
        next.storage().wake_streams();
        tracing::info!(
            because = reason,
            changed = changed.join(", "),
            "the configuration was read again"
        );
        for key in &waiting {
            tracing::warn!(key, "changed, takes effect after a restart");
        }
        next.record(event.with("digest", digest)).await;
        Reloaded::Applied { changed, waiting }
    }

    async fn refuse(&self, problems: &Problems, reason: &str) -> Reloaded {
        tracing::error!(because = reason, "{problems}");
        tracing::error!("the configuration before stays in use");
        let keys: Vec<String> = problems.0.iter().map(|problem| problem.key.clone()).collect();
        let told =
            problems.0.iter().map(|problem| format!("{} {}", problem.located(), problem.reason));
        self.0.shared.reading().problems = told.collect();
        let event = self.event("configuration_refused", Actor::Server);
        self.record(event.with("because", reason).with("mistakes", keys)).await;
        Reloaded::Invalid
    }

    async fn hold_back(&self, identity_keys: Vec<&'static str>, reason: &str) -> Reloaded {
        let waiting: Vec<String> = identity_keys.iter().map(|key| (*key).to_owned()).collect();
        for key in &waiting {
            tracing::warn!(key, "changed, takes effect after a restart");
        }
        tracing::warn!("nothing else in the file is taken over before that restart");
        *self.0.shared.reading() =
            ConfigStatus { problems: Vec::new(), waiting: waiting.clone(), source: None };
        let event = self.event("configuration_refused", Actor::Server);
        self.record(event.with("because", reason).with("waiting", waiting.clone())).await;
        Reloaded::NeedsRestart(waiting)
    }

    /// Builds the application with another configuration; it shares all state with this one.
    async fn reconfigured(&self, config: Config) -> Result<Self, AppError> {
        let parts = &self.0;
        let (storage, clock) = (parts.storage.clone(), parts.clock.clone());
        parts.keys.sign_with(&config.token_algs()).await?;
        super::tell_trust(&config, &storage, &clock).await?;
        super::prepare_storage(&config, &storage).await?;
        let upstream = parts.upstream.with_config(
            config.upstream.clone(),
            recheck_policy(&config),
            at_once(&config),
        );
        let connections = parts.connections.with_config(&config, upstream.clone());
        Ok(Self(Arc::new(AppParts {
            connections,
            shared: Arc::clone(&parts.shared),
            generation: parts.generation + 1,
            rates: parts.rates.with(&config.limits.rates, config.limits.request_rates, &clock),
            clients: Clients::new(&config, storage.clone(), clock.clone()),
            redirect_policy: config.redirect_policy(),
            keys: parts.keys.clone(),
            upstream,
            backends: super::backends_for(&config, &parts.backends)?,
            messenger: super::messenger(&config),
            certificates: parts.certificates.with_config(&config),
            config,
            clock,
            storage,
        })))
    }
}

pub(super) const fn at_once(config: &Config) -> PersonQueries {
    let limits = &config.limits;
    PersonQueries { sign_ins: limits.upstream_sign_ins, rechecks: limits.upstream_requests }
}

pub(super) const fn recheck_policy(config: &Config) -> RecheckPolicy {
    RecheckPolicy {
        recheck: config.upstream.recheck,
        outage_grace: config.upstream.outage_grace,
        max_without_refresh: config.upstream.max_without_refresh,
    }
}
