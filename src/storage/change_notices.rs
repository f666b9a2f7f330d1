//! How other processes learn that grants may have ended or that connections changed, and how this one learns
//! it from them.
//!
//! A revocation must end streams and requests in every process at once, although none of them queries the
//! database at every request. Replicas on PostgreSQL notify each other with the commit. A notification is
//! a hint: if it is lost, requests notice within a second (`grants`), and open streams at their next
//! check. A command that is attached to a server's database writes a change marker in each of its
//! transactions; servers read it every [`LOOK`], and then check again what they remember.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::audit::SeenLines as _;
use super::database::{Engine, NoticeHandler};
use super::rollback::Watch;
use super::{Storage, StorageError, Transaction, column};
use crate::oauth::secret::random_text;

/// Name of the change marker's row in the table `installation`.
const MARK: &str = "changed_from_the_command_line";
/// How often a server reads the change marker: every 400 ms, one row by its key. A longer interval delays
/// the effect of a revocation from the command line.
const LOOK: Duration = Duration::from_millis(400);

/// Wakes the open streams when dropped, even if the commit panics or its result is unknown.
struct NotifyOnDrop<'a>(&'a Storage);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake_streams();
        self.0.wake_connections();
    }
}

/// Wakes the open streams when another replica has ended grants, and remembers the audit line that it
/// committed: a line that another replica committed counts as seen by this one.
pub(super) struct ReplicaNotices {
    pub(super) grants_ended: watch::Sender<u64>,
    pub(super) connections_changed: watch::Sender<u64>,
    pub(super) seen: Arc<Watch>,
}

impl NoticeHandler for ReplicaNotices {
    fn generation(&self) -> u64 {
        self.seen.generation()
    }

    fn heard(&self, generation: u64, line: Option<&str>) {
        if let Some(line) = line.filter(|line| !line.is_empty()) {
            self.seen.committed(generation, line.to_owned());
        }
        wake(&self.grants_ended);
        wake(&self.connections_changed);
    }

    fn heard_of_connections(&self) {
        wake(&self.connections_changed);
    }
}

fn wake(sleepers: &watch::Sender<u64>) {
    sleepers.send_modify(|count| *count = count.wrapping_add(1));
}

impl Storage {
    /// Returns a receiver that wakes whenever grants may have ended, here or in a replica. The value
    /// itself has no meaning.
    pub fn grants_ended(&self) -> watch::Receiver<u64> {
        self.grants_ended.subscribe()
    }

    /// Wakes everything in this process that waits for the end of a grant, so that it checks again.
    pub fn wake_streams(&self) {
        wake(&self.grants_ended);
    }

    /// Returns a receiver that wakes whenever a connection may have changed, here or in a replica: it was
    /// made, renewed, broken or removed, or its person was blocked. The value itself has no meaning.
    pub fn connections_changed(&self) -> watch::Receiver<u64> {
        self.connections_changed.subscribe()
    }

    /// Wakes everything in this process that remembers connections.
    pub(super) fn wake_connections(&self) {
        wake(&self.connections_changed);
    }

    /// Commits a transaction that ends grants, and notifies everything that must check them again: this
    /// process directly, every replica through the commit itself. A task of its own does both, so that it
    /// also happens when the caller goes away. This process is notified even if the commit fails, because
    /// a failed commit may still have reached the database.
    pub(super) async fn commit_and_notify(
        &self,
        mut step: Transaction,
    ) -> Result<(), StorageError> {
        let storage = self.clone();
        let told = tokio::spawn(async move {
            if storage.engine() == Engine::Postgres {
                step.notify_replicas(storage.notifications.as_ref()).await?;
            }
            let _told = NotifyOnDrop(&storage);
            step.commit().await
        });
        told.await.unwrap_or(Err(StorageError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Watches for changes made by commands, until it is dropped, and wakes the receivers of
    /// [`Self::grants_ended`].
    pub async fn watch_for_cli_changes(&self) {
        panic_point!("changes from the command line");
        let mut last = self.change_marker().await.ok();
        loop {
            tokio::time::sleep(LOOK).await;
            self.database.look_at_files();
            // A database that does not respond is reported by everything else that uses it.
            let Ok(mark) = self.change_marker().await else { continue };
            if last.as_ref() != Some(&mark) {
                self.wake_streams();
                self.wake_connections();
                if self.last_time().await.is_ok() {
                    last = Some(mark);
                }
            }
        }
    }

    async fn change_marker(&self) -> Result<Option<String>, StorageError> {
        let mark = sqlx::query("SELECT value FROM installation WHERE name = $1").bind(MARK);
        self.read_row(mark).await?.as_ref().map(|row| column(row, "value")).transpose()
    }

    /// Writes the change marker in the same transaction as the change that it announces. Only the commands
    /// of administrators do so: the server that runs meanwhile reads the marker.
    pub(super) async fn announce(&self, step: &mut Transaction) -> Result<(), StorageError> {
        if self.database.is_attached() { bump_change_marker(step).await } else { Ok(()) }
    }
}

/// Writes the change marker in the same transaction as the change that it announces.
async fn bump_change_marker(step: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query(
        "INSERT INTO installation (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = $2",
    )
    .bind(MARK)
    .bind(random_text())
    .execute(&mut **step)
    .await?;
    Ok(())
}
