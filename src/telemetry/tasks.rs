//! Background tasks that run as long as the process, and their state. `supervision.rs` restarts them.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::families::{Counters, one};
use super::lately::Lately;
use crate::clock::Timestamp;

/// A background task that runs as long as the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Accepts connections on the public listener.
    Connections,
    /// Accepts connections on the admin listener.
    AdminConnections,
    /// Reloads the configuration.
    Reload,
    /// Removes expired rows.
    CleanUp,
    /// Loads, rotates and retires signing keys.
    SigningKeys,
    /// Stores queued audit events and chains the audit trail.
    AuditTrail,
    /// Notices changes that commands of administrators make in the database.
    CommandLine,
    /// Receives the notifications of other replicas.
    Replicas,
}

impl Task {
    const ALL: [Self; 8] = [
        Self::Connections,
        Self::AdminConnections,
        Self::Reload,
        Self::CleanUp,
        Self::SigningKeys,
        Self::AuditTrail,
        Self::CommandLine,
        Self::Replicas,
    ];

    /// Returns its name in logs, metrics and `/ready`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AdminConnections => "admin connections",
            Self::Reload => "reload",
            Self::CleanUp => "clean-up",
            Self::SigningKeys => "signing keys",
            Self::AuditTrail => "audit trail",
            Self::CommandLine => "changes from the command line",
            Self::Replicas => "notices of replicas",
        }
    }
}

/// The state of all tasks.
pub(super) struct Tasks([TaskState; Task::ALL.len()]);

pub(super) struct TaskState {
    pub(super) panics: Counter,
    /// It panicked and waits to be restarted.
    pub(super) waits: AtomicBool,
    lately: Lately,
}

impl Tasks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let panics = Counters::<1>::default();
        let help = "Panics of tasks that live as long as the process; each is started again";
        registry.register("task_panics", help, panics.clone());
        Self(Task::ALL.map(|task| {
            let panics = panics.get_or_create_owned(&one("task", task.name()));
            TaskState { panics, waits: AtomicBool::new(false), lately: Lately::default() }
        }))
    }

    pub(super) fn of(&self, task: Task) -> &TaskState {
        &self.0[task as usize]
    }

    /// Returns the name and state of each task that panicked recently or is not running.
    pub(super) fn in_trouble(&self, now: Timestamp) -> Vec<(&'static str, &'static str)> {
        let told = |task: &Task| {
            let state = self.of(*task);
            if state.waits.load(Ordering::SeqCst) {
                return Some((task.name(), "panicked, and waits to be started"));
            }
            let lately = state.lately.has_risen(state.panics.get(), now);
            lately.then_some((task.name(), "panicked, and was started again"))
        };
        Task::ALL.iter().filter_map(told).collect()
    }
}
