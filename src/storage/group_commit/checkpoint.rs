//! Folding the log into the database file, beside the writer.
//!
//! SQLite does it inside a commit, when the log has grown long: it copies every page that changed and
//! waits for the disk twice more, while everybody waits for that commit. Here most of it is done on
//! another connection while steps go on, and the commit that begins the log anew finds little left.
//! What is folded has reached the disk in the log before: SQLite sees to that on every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions, Connection};
use tokio::sync::Mutex;

use crate::storage::driver::FOLD;

/// Steps between two foldings: some megabytes of log.
const EVERY: usize = 1024;

/// The connection that folds, and how many steps have been committed since it last did.
pub(super) struct Checkpointer {
    connection: Mutex<Option<AnyConnection>>,
    steps: AtomicUsize,
}

impl Checkpointer {
    /// Opens the connection, with the writer's own and never later: by its path, a database that was put in
    /// the place of this one would be given the log of this one.
    pub(super) async fn open(options: &AnyConnectOptions) -> Result<Arc<Self>, sqlx::Error> {
        let mut connection = options.connect().await?;
        // Opens the log too. What other connections are told first would make this one read the schema,
        // and it never does anything but fold: syncing is what it does by itself.
        sqlx::query("PRAGMA data_version").execute(&mut connection).await?;
        let connection = Mutex::new(Some(connection));
        Ok(Arc::new(Self { connection, steps: AtomicUsize::new(0) }))
    }

    /// Counts what was committed, and folds, without waiting for it, when there is enough.
    pub(super) fn committed(self: &Arc<Self>, steps: usize) {
        if self.steps.fetch_add(steps, Ordering::Relaxed) + steps < EVERY {
            return;
        }
        self.steps.store(0, Ordering::Relaxed);
        let folding = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(mut connection) = folding.connection.try_lock() else {
                return; // still at it
            };
            let Some(connection) = connection.as_mut() else { return };
            if let Err(cause) = sqlx::query(FOLD).execute(connection).await {
                tracing::debug!(%cause, "the log was not folded beside the writer; a commit will do it");
            }
        });
    }

    /// Ends what is under way, and folds no more.
    pub(super) async fn close(&self) {
        let Some(connection) = self.connection.lock().await.take() else { return };
        if let Err(cause) = connection.close().await {
            tracing::debug!(%cause, "a connection was not closed");
        }
    }
}
