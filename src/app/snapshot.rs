//! The values that other parts hold, for the metrics.

use super::App;
use crate::clock::Timestamp;
use crate::config::ConnectionConfig;
use crate::connections::provider_keys;
use crate::signing::KeyState;
use crate::storage::{Engine, Ready};
use crate::telemetry::metrics::{BrokenConnections, Snapshot};

impl App {
    /// Collects the values that other parts hold. Waits at most one second for those that the database counts, because
    /// an administrator needs the other metrics most when the database is silent.
    pub async fn snapshot(&self) -> Snapshot {
        // 1 second: longest wait for what the database counts.
        const COUNT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
        let (clients, bytes, broken) = tokio::join!(
            tokio::time::timeout(COUNT_TIMEOUT, self.storage().registered_clients()),
            tokio::time::timeout(COUNT_TIMEOUT, self.storage().database_bytes()),
            tokio::time::timeout(COUNT_TIMEOUT, self.broken_connections()),
        );
        let limits = &self.config().limits;
        let keys = self.keys().describe();
        let reading = self.reading();
        let room = match self.storage().ready(self.now()).await {
            Ready::Yes(room) => Some(room),
            _ => None,
        };
        let compared = self.compared();
        Snapshot {
            ready: room.is_some() && !compared.clock_apart && !self.is_leaving(),
            clock_ahead: compared.clock_ahead.unwrap_or_default(),
            replicas: compared.others + 1,
            configured_differently: compared.configured_differently,
            went_back_at: self.storage().went_back_at().map_or(0, Timestamp::unix),
            database_room: room.map_or(0, |room| room as u8),
            database_bytes: bytes.ok().and_then(Result::ok),
            database_bytes_limit: match self.storage().engine() {
                Engine::Sqlite => limits.database_size,
                Engine::Postgres => 0,
            },
            upstream_paused: self.upstream().health().paused,
            clients: clients.ok().and_then(Result::ok),
            clients_limit: limits.clients,
            audit_waiting: self.audit_events_waiting(),
            writer_waiting: self.storage().writer_waiting(),
            database_connections: self.storage().pool_connections(),
            configured_at: self.configured_at().unix(),
            problems: reading.problems.len(),
            waiting: reading.waiting.len(),
            targets: self.targets_up(),
            certificate: self.certificates().expires_at().map(|(origin, expires_at)| {
                (origin.into(), expires_at.unix().saturating_sub(self.now().unix()))
            }),
            broken_connections: broken.ok().flatten(),
            keys: keys
                .iter()
                .map(|key| {
                    (key.alg, state(key.state), key.created_at.unix(), key.signs_from.unix())
                })
                .collect(),
        }
    }

    /// Counts the people who have to connect each configured service again. `None`: the database does not tell.
    async fn broken_connections(&self) -> Option<Vec<BrokenConnections>> {
        let configured = &self.config().connections;
        if configured.is_empty() {
            return Some(Vec::new());
        }
        let keys = provider_keys(self.config());
        let broken = self.storage().broken_connections(&keys).await.ok()?;
        let people = |service: &ConnectionConfig| {
            broken.iter().find(|(name, _)| *name == service.name).map_or(0, |(_, people)| *people)
        };
        let of = |service: &ConnectionConfig| BrokenConnections {
            service: service.name.clone(),
            people: people(service),
        };
        Some(configured.iter().map(of).collect())
    }
}

const fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Current => "current",
        KeyState::Former => "former",
    }
}
