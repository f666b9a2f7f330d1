//! Runs WAL checkpoints in the background, on a connection of their own.
//!
//! By itself SQLite checkpoints inside a commit once the WAL is long: it copies every changed page and
//! waits for the disk twice more, while every caller waits for that commit. Here most of that work
//! happens on another connection while transactions go on, so that the commit which restarts the WAL
//! finds little left to copy. The copied pages have reached the disk in the WAL before: SQLite ensures
//! that on every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions, Connection};
use tokio::sync::Mutex;

use super::super::connection::CHECKPOINT;

/// Transactions between two checkpoints: 1024, some megabytes of WAL.
const EVERY: usize = 1024;

/// The checkpoint connection, and how many transactions have been committed since its last run.
pub(super) struct Checkpointer {
    connection: Mutex<Option<AnyConnection>>,
    steps: AtomicUsize,
}

impl Checkpointer {
    /// Opens the connection at the same time as the writer's, and never later. If another database file
    /// were put at this path meanwhile, a connection opened by path would copy this database's WAL into
    /// that file.
    pub(super) async fn open(options: &AnyConnectOptions) -> Result<Arc<Self>, sqlx::Error> {
        let mut connection = options.connect().await?;
        // Also opens the WAL. The usual pragmas are left out: they would make this connection read the
        // schema, and it only ever runs checkpoints, which sync without any setting.
        sqlx::query("PRAGMA data_version").execute(&mut connection).await?;
        let connection = Mutex::new(Some(connection));
        Ok(Arc::new(Self { connection, steps: AtomicUsize::new(0) }))
    }

    /// Counts committed transactions, and starts a checkpoint in the background when there are enough.
    pub(super) fn committed(self: &Arc<Self>, steps: usize) {
        if self.steps.fetch_add(steps, Ordering::Relaxed) + steps < EVERY {
            return;
        }
        self.steps.store(0, Ordering::Relaxed);
        let checkpointer = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(mut connection) = checkpointer.connection.try_lock() else {
                return; // the previous checkpoint is still running
            };
            let Some(connection) = connection.as_mut() else { return };
            if let Err(cause) = sqlx::query(CHECKPOINT).execute(connection).await {
                tracing::debug!(%cause, "the checkpoint beside the writer failed; a commit runs the next one");
            }
        });
    }

    /// Waits for a running checkpoint and prevents further ones.
    pub(super) async fn close(&self) {
        let Some(connection) = self.connection.lock().await.take() else { return };
        if let Err(cause) = connection.close().await {
            tracing::debug!(%cause, "a connection was not closed");
        }
    }
}
