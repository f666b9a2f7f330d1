//! Keeps revoking tokens at their services: those that people or administrators gave up.

use std::time::Duration;

use super::App;

/// Interval between two looks into the queue: 10 s. What this process queues is revoked at once.
const LOOK: Duration = Duration::from_secs(10);

impl App {
    /// Revokes queued tokens; never returns.
    pub async fn keep_revoking(&self) {
        panic_point!("revocations");
        loop {
            self.revoke_all_due().await;
            let _ = tokio::time::timeout(LOOK, self.0.shared.revoking.notified()).await;
        }
    }

    /// Revokes the queued tokens that are due now, some at a time, until none is left. What fails is not due
    /// again at once.
    pub async fn revoke_all_due(&self) {
        while self.revoke_due().await > 0 {}
    }

    /// Revokes some of the queued tokens that are due now. Returns how many; zero if none was due.
    pub async fn revoke_due(&self) -> usize {
        // In a box: the task lives as long as the process, and holds little meanwhile.
        Box::pin(self.current().connections().revoke_due()).await
    }

    /// Revokes soon what has just been queued.
    pub fn revoke_soon(&self) {
        self.0.shared.revoking.notify_one();
    }
}
