//! Background tasks that run as long as the process, and their state. `supervision.rs` restarts them.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use strum::{IntoStaticStr, VariantArray};

use super::families::{Counters, one};
use super::lately::Lately;
use crate::clock::Timestamp;

/// A background task that runs as long as the process, with its name in logs, metrics and `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Task {
    /// Accepts connections on the public listener.
    #[strum(serialize = "connections")]
    Connections,
    /// Accepts connections on the admin listener.
    #[strum(serialize = "admin connections")]
    AdminConnections,
    /// Accepts connections on the listener that redirects to https.
    #[strum(serialize = "http connections")]
    PlainConnections,
    #[strum(serialize = "reload")]
    Reload,
    #[strum(serialize = "clean-up")]
    CleanUp,
    /// Loads, rotates and retires signing keys.
    #[strum(serialize = "signing keys")]
    SigningKeys,
    /// Loads, orders and renews the certificate.
    #[strum(serialize = "certificates")]
    Certificates,
    /// Stores queued audit events and chains the audit trail.
    #[strum(serialize = "audit trail")]
    AuditTrail,
    /// Writes what the calls through the gateway add up to.
    #[strum(serialize = "usage")]
    Usage,
    /// Checks whether the targets of the gateway can be reached.
    #[strum(serialize = "targets")]
    Targets,
    /// Exports telemetry.
    #[strum(serialize = "telemetry")]
    Telemetry,
    #[strum(serialize = "notifications")]
    Notifications,
    /// Revokes people's tokens at the services that issued them.
    #[strum(serialize = "revocations")]
    Revocations,
    /// Notices changes that commands of administrators make in the database.
    #[strum(serialize = "changes from the command line")]
    CommandLine,
    /// Receives the notifications of other replicas.
    #[strum(serialize = "notices of replicas")]
    Replicas,
}

impl Task {
    /// Returns its name in logs, metrics and `/ready`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The state of all tasks.
pub(super) struct TaskStates(Vec<TaskState>);

pub(super) struct TaskState {
    pub(super) panics: Counter,
    /// It panicked and waits to be restarted.
    pub(super) waits: AtomicBool,
    lately: Lately,
}

impl TaskStates {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let panics = Counters::<1>::default();
        let help = "Panics of tasks that live as long as the process; each is started again";
        registry.register("task_panics", help, panics.clone());
        let states = Task::VARIANTS.iter().map(|task| {
            let panics = panics.get_or_create_owned(&one("task", task.name()));
            TaskState { panics, waits: AtomicBool::new(false), lately: Lately::default() }
        });
        Self(states.collect())
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
        Task::VARIANTS.iter().filter_map(told).collect()
    }
}
