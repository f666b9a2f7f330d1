//! The tasks beside the listeners, each started again after a panic.

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::clean_up::sweep;
use crate::app::App;
use crate::telemetry::supervision::supervise;
use crate::telemetry::tasks::Task;

/// Background tasks that run as long as the listeners. Dropping this aborts them.
pub(super) struct BackgroundTasks([AbortHandle; 7]);

impl BackgroundTasks {
    pub(super) fn start(app: &App) -> Self {
        let (sweeping, notifying) = (app.clone(), app.clone());
        let (certifying, checking, revoking) = (app.clone(), app.clone(), app.clone());
        let (keys, storage) = (app.keys().clone(), app.storage().clone());
        Self([
            start(app, Task::CleanUp, move || sweep(sweeping.clone())),
            start(app, Task::SigningKeys, move || {
                let keys = keys.clone();
                async move { keys.run_rotation().await }
            }),
            start(app, Task::Notifications, move || {
                let app = notifying.clone();
                async move { app.keep_notifying().await }
            }),
            start(app, Task::Revocations, move || {
                let app = revoking.clone();
                async move { app.keep_revoking().await }
            }),
            start(app, Task::Certificates, move || {
                let app = certifying.clone();
                async move { app.keep_certificates().await }
            }),
            start(app, Task::Targets, move || {
                let app = checking.clone();
                async move { app.keep_checking_targets().await }
            }),
            start(app, Task::CommandLine, move || {
                let storage = storage.clone();
                async move { storage.watch_for_cli_changes().await }
            }),
        ])
    }
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn start<F>(app: &App, task: Task, run: impl FnMut() -> F + Send + 'static) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let metrics = app.metrics().clone();
    tokio::spawn(async move { supervise(&metrics, task, run).await }).abort_handle()
}

/// Writes the audit trail until `stopped` changes, and then stores the events that are still queued.
pub(super) async fn keep_audit_trail(app: App, stopped: watch::Receiver<bool>) {
    let keep = || {
        let mut stopped = stopped.clone();
        let app = &app;
        async move {
            app.keep_audit_trail(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .await;
        }
    };
    supervise(app.metrics(), Task::AuditTrail, keep).await;
}

/// Writes the usage until `stopped` changes, and then what is still in memory.
pub(super) async fn keep_usage(app: App, stopped: watch::Receiver<bool>) {
    let keep = || {
        let mut stopped = stopped.clone();
        let app = &app;
        async move {
            app.keep_usage(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .await;
        }
    };
    supervise(app.metrics(), Task::Usage, keep).await;
}

/// Exports telemetry until `stopped` changes, and then what is left.
pub(super) async fn keep_exporting(app: App, stopped: watch::Receiver<bool>) {
    let keep = || {
        let mut stopped = stopped.clone();
        let app = &app;
        async move {
            app.keep_exporting(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .await;
        }
    };
    supervise(app.metrics(), Task::Telemetry, keep).await;
}
