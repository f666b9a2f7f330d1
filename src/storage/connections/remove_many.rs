//! Removes connections together, for administrators: they are counted first, and removed only if they are still
//! those that were counted.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::list::ConnectionFilter;
use crate::clock::Timestamp;
use crate::storage::select::SelectBuilder;
use crate::storage::{Counted, Ended, Storage, StorageError, column};
use crate::telemetry::audit::AuditEvent;

/// Most connections removed in one transaction: 500. Others wait for the database meanwhile.
const AT_ONCE: i64 = 500;

/// A connection that is about to be removed.
struct RemovedRow {
    id: String,
    subject: String,
    name: String,
    created_at: i64,
}

impl Storage {
    /// Counts the connections that [`Self::remove_connections`] would remove now: 500 at most.
    pub async fn count_removed(&self, which: &ConnectionFilter) -> Result<Counted, StorageError> {
        let rows = self.rows_to_remove(which).await?;
        let people: BTreeSet<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
        Ok(Counted {
            services: rows.len() as u64,
            people: people.len() as u64,
            services_mark: mark(&rows),
            ..Counted::default()
        })
    }

    /// Removes the connections with this id, or of this person or service, 500 at most, and queues their tokens
    /// for revocation. With `counted`, only if they are still those that were counted. A filter without id,
    /// person and service removes nothing. `event` gets person and service of each.
    pub async fn remove_connections(
        &self,
        which: &ConnectionFilter,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let rows = self.rows_to_remove(which).await?;
        if counted.is_some_and(|counted| counted.services_mark != mark(&rows)) {
            return Ok(Ended::Recounted);
        }
        let mut step = self.begin_revocation().await?;
        let mut removed = 0;
        for row in &rows {
            let event = event.clone().again("connection_removed");
            let of = (row.subject.as_str(), row.name.as_str());
            removed += u64::from(self.remove_in(&mut step, of, now, event).await?);
        }
        if counted.is_some() && removed != rows.len() as u64 {
            return Ok(Ended::Recounted); // somebody else removed some of them meanwhile
        }
        if removed == 0 {
            return Ok(Ended::Unchanged);
        }
        self.commit_connections(step).await?;
        Ok(Ended::Done(removed))
    }

    async fn rows_to_remove(
        &self,
        which: &ConnectionFilter,
    ) -> Result<Vec<RemovedRow>, StorageError> {
        if which.id.is_empty() && which.subject.is_empty() && which.name.is_empty() {
            return Ok(Vec::new());
        }
        let mut listing =
            SelectBuilder::new("SELECT c.id, c.subject, c.name, c.created_at FROM connections c");
        which.narrow(&mut listing);
        let rows = listing.fetch(self.pool(), "ORDER BY c.id", AT_ONCE).await?;
        let read = rows.iter().map(|row| {
            Ok(RemovedRow {
                id: column(row, "id")?,
                subject: column(row, "subject")?,
                name: column(row, "name")?,
                created_at: column(row, "created_at")?,
            })
        });
        read.collect()
    }
}

/// Returns a text that identifies exactly these connections.
fn mark(rows: &[RemovedRow]) -> String {
    let mut all = digest::Context::new(&digest::SHA256);
    for row in rows {
        all.update(row.id.as_bytes());
        all.update(&row.created_at.to_be_bytes());
    }
    URL_SAFE_NO_PAD.encode(all.finish())
}
