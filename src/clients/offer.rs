//! Whether we offer clients to publish their own metadata.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use crate::clock::Timestamp;

/// Whether metadata documents are offered, on a server that offers them only while it reaches websites.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Starts as false, until one document could be read. A client that wrongly reads that documents are
    /// offered has no fallback; a client that reads that they are not registers itself, which always works.
    offered: AtomicBool,
    /// When a website was last looked for. The lock serialises the looks.
    pub(super) looked_at: Mutex<Option<Timestamp>>,
}

impl Offer {
    pub(super) fn stands(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// Sets whether a website was reached. Logs the first success after a failure, and every failure.
    pub(super) fn set(&self, reached: bool, reason: &str) {
        let before = self.offered.swap(reached, Ordering::Relaxed);
        if reached && !before {
            tracing::info!("clients may publish their metadata: this machine reaches the network");
        } else if !reached {
            tracing::warn!(
                reason,
                "this machine reaches no website: clients have to register themselves; remove and add again one that was connected before"
            );
        }
    }
}
