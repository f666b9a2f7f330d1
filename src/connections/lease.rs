//! Ensures one refresh of a connection at a time in all replicas: a lease in the database. Within a process,
//! `token.rs` lets one task at a time come here.

use std::time::Duration;

use super::ConnectionsInner;
use crate::storage::{Connection, Lease, StorageError};

/// A lease lasts 15 s unless it is extended. After a crash nobody can renew the token before the lease has
/// expired. It must be longer than the clocks of replicas differ.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// The holder extends the lease every 4 s, so that two extensions in a row may fail.
const LEASE_EXTENDED_EVERY: Duration = Duration::from_secs(4);

/// Who may ask the service.
pub(super) enum Turn {
    /// We hold the lease.
    Ours,
    /// Another process has renewed, replaced or removed the connection.
    Changed,
    /// Another process asks, and has no answer yet.
    Busy,
}

/// Extends a lease in the background until it is dropped.
pub(super) struct ConnectionLeaseKept(tokio::task::JoinHandle<()>);

impl Drop for ConnectionLeaseKept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ConnectionsInner {
    /// Acquires the lease, or waits up to 6 s for the result of the process that holds it. Takes the lease
    /// over when that process is gone.
    pub(super) async fn our_turn(
        &self,
        row: &Connection,
        owner: &str,
    ) -> Result<Turn, StorageError> {
        // 60 steps of 100 ms are 6 s, within the 7 s that a caller waits at most.
        const STEP: Duration = Duration::from_millis(100);
        const STEPS: u32 = 60;
        if self.storage.lease_connection(row, owner, self.clock.now(), LEASE).await? == Lease::Won {
            return Ok(Turn::Ours);
        }
        for step in 1..=STEPS {
            tokio::time::sleep(STEP).await;
            let known = self.storage.connection(&row.subject, &row.name).await?;
            let is_same = |known: Connection| known.version == row.version && known.id == row.id;
            if !known.is_some_and(is_same) {
                return Ok(Turn::Changed);
            }
            let now = self.clock.now();
            if step % 5 == 0
                && self.storage.lease_connection(row, owner, now, LEASE).await? == Lease::Won
            {
                return Ok(Turn::Ours);
            }
        }
        Ok(Turn::Busy)
    }

    /// Starts extending the lease in the background, for as long as the returned value lives.
    pub(super) fn keep_connection_lease(&self, id: &str, owner: &str) -> ConnectionLeaseKept {
        let (storage, clock) = (self.storage.clone(), self.clock.clone());
        let (id, owner) = (id.to_owned(), owner.to_owned());
        ConnectionLeaseKept(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASE_EXTENDED_EVERY).await;
                let until = clock.now().plus(LEASE);
                match storage.extend_connection_lease(&id, &owner, until).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(cause) => {
                        tracing::warn!(%cause, "the lease of a connection is not extended");
                    }
                }
            }
        }))
    }
}
