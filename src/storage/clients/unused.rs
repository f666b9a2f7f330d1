//! Clients that nobody has used for a while: counted, and deleted together.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::storage::retention::count_clients;
use crate::storage::revocation::{Counted, Ended, RevocationScope, end};
use crate::storage::select::SelectBuilder;
use crate::storage::{Storage, StorageError, Transaction, column};
use crate::telemetry::audit::AuditEvent;

/// A client counts as unused after 30 days without a sign-in or a refresh.
pub const UNUSED_AFTER: Duration = Duration::from_hours(30 * 24);
/// Most clients deleted in one transaction: 500. Others wait for the database meanwhile.
const AT_ONCE: i64 = 500;

/// Condition on clients that were neither used nor registered again since a time. Those that an
/// administrator created or configured do not count.
pub(crate) const UNUSED: &str = "COALESCE(c.last_used_at, 0) < ? AND c.last_registered_at < ?
                                 AND c.kind IN ('registered', 'document')";
/// The clients that are deleted together.
pub(crate) struct UnusedClients {
    ids: Vec<String>,
}

impl UnusedClients {
    pub(crate) fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Returns how many they are.
    pub(crate) fn number(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Returns a text that identifies exactly these clients.
    pub(crate) fn mark(&self) -> String {
        let mut all = digest::Context::new(&digest::SHA256);
        for id in &self.ids {
            all.update(id.as_bytes());
            all.update(b"\0");
        }
        URL_SAFE_NO_PAD.encode(all.finish())
    }
}

impl Storage {
    /// Returns the clients that would be deleted together now.
    pub(crate) async fn unused_clients(
        &self,
        since: Timestamp,
    ) -> Result<UnusedClients, StorageError> {
        let mut listing = SelectBuilder::new("SELECT c.id FROM clients c");
        listing.and(UNUSED, since.unix());
        let rows = listing.fetch(self.pool(), "ORDER BY c.id", AT_ONCE).await?;
        let ids = rows.iter().map(|row| column(row, "id")).collect::<Result<_, _>>()?;
        Ok(UnusedClients { ids })
    }

    /// Deletes the clients that were not used since a time, with what they received, if they are still
    /// those that were `counted`. Returns how many grants ended.
    pub(crate) async fn delete_unused_as_counted(
        &self,
        since: Timestamp,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let mut step = self.begin_revocation().await?;
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT c.id FROM clients c
             WHERE COALESCE(c.last_used_at, 0) < $1 AND c.last_registered_at < $1
               AND c.kind IN ('registered', 'document') ORDER BY c.id LIMIT $2",
        )
        .bind(since.unix())
        .bind(AT_ONCE)
        .fetch_all(&mut *step)
        .await?;
        let unused = UnusedClients { ids };
        if counted.is_some_and(|counted| counted.unused != unused.mark()) {
            return Ok(Ended::Recounted);
        }
        if unused.ids.is_empty() {
            return Ok(Ended::Unchanged);
        }
        let mut ended = 0;
        for id in &unused.ids {
            let scope = RevocationScope::Client(id);
            let of_client = end(&mut step, scope, "the client was deleted", now).await?.grants;
            if !delete_unused(&mut step, id, since).await? {
                // It was used since this transaction read it (PostgreSQL).
                return Ok(Ended::Recounted);
            }
            let told = event.clone().again("client_deleted").client(id);
            step.record(told.with("because", "unused").with("grants_ended", of_client)).await?;
            ended += of_client;
        }
        if counted.is_some_and(|counted| counted.grants != ended) {
            return Ok(Ended::Recounted);
        }
        count_clients(&mut step).await?;
        self.commit_and_notify(step).await?;
        Ok(Ended::Done(ended))
    }
}

/// Removes what was decided about a client, except a denial: the client could be registered again under
/// the same id.
async fn forget_review(step: &mut Transaction, id: &str) -> Result<(), StorageError> {
    let review = "DELETE FROM client_reviews WHERE client_id = $1
                  AND client_id NOT IN (SELECT client_id FROM denied_clients)";
    sqlx::query(review).bind(id).execute(&mut **step).await?;
    Ok(())
}

/// Deletes a client and what was decided about it, in the caller's transaction. Returns `false` when it
/// did not exist.
pub(super) async fn delete(step: &mut Transaction, id: &str) -> Result<bool, StorageError> {
    forget_review(step, id).await?;
    let deleted = sqlx::query("DELETE FROM clients WHERE id = $1").bind(id).execute(&mut **step);
    Ok(deleted.await?.rows_affected() == 1)
}

/// The same, if it has not been used meanwhile.
async fn delete_unused(
    step: &mut Transaction,
    id: &str,
    since: Timestamp,
) -> Result<bool, StorageError> {
    forget_review(step, id).await?;
    let deleted = sqlx::query(
        "DELETE FROM clients WHERE id = $1 AND COALESCE(last_used_at, 0) < $2
         AND last_registered_at < $2",
    )
    .bind(id)
    .bind(since.unix())
    .execute(&mut **step);
    Ok(deleted.await?.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::revocation::GRANTS_OF_UNUSED;

    #[test]
    fn one_list_and_its_grants_are_of_the_same_clients() {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let limited = format!("{} ORDER BY c.id LIMIT {AT_ONCE})", plain(UNUSED));
        assert!(plain(GRANTS_OF_UNUSED).ends_with(&limited), "{limited}");
    }
}
