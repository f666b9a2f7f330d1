//! Checks for `/ready` whether the database can serve: whether it responds, accepts writes and has space.
//! Anybody may call `/ready` at any rate, so the check runs every few seconds at most, and its result is
//! shared.

use std::time::Duration;

use tokio::sync::Mutex;

use super::sqlite::size_limit::Room;
use super::{Database, Engine, StorageError, WritePolicy};
use crate::clock::Timestamp;

/// How long a result is reused: 5 seconds.
const FRESH: Duration = Duration::from_secs(5);
/// Timeout of each check: 2 seconds, because health probes do not wait long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Name of the row that is written.
pub(crate) const READY_ROW: &str = "last_ready";

/// The state of the database, for `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It responds and accepts writes, for the uses that it has space for.
    Yes(Room),
    /// It cannot be read.
    Unavailable,
    /// It can be read but not written: the disk is full or broken, or another process holds a lock.
    ReadOnly,
    /// The role lacks a privilege on a table.
    RightsMissing,
    /// The clock is behind the last time that was stored: no token is minted.
    ClockBehind,
    /// A database file was moved or deleted: nothing is written, because the next start would not find
    /// it.
    FileGone,
}

/// The last result, and when the check began.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Timestamp, Ready)>>);

impl Database {
    /// Returns whether the database can serve now.
    pub(crate) async fn ready(&self, now: Timestamp) -> Ready {
        let mut last = self.readiness.0.lock().await;
        if let Some((asked_at, ready)) = *last
            && now >= asked_at
            && now.since(asked_at) < FRESH
        {
            return ready;
        }
        let ready = self.find_out(now).await;
        self.look_at_reserve(matches!(ready, Ready::Yes(_))).await;
        let before = last.map(|(_, before)| before);
        match ready {
            _ if before == Some(ready) => {}
            Ready::Yes(Room::Enough) => {}
            Ready::Yes(room) => tracing::error!(
                room = room.as_str(),
                "the database is filling up: what is left of limits.database_size is kept for others"
            ),
            _ => tracing::error!(?ready, "the database cannot serve"),
        }
        *last = Some((now, ready));
        ready
    }

    async fn find_out(&self, now: Timestamp) -> Ready {
        if self.engine() == Engine::Postgres {
            return self.probe_postgres(now).await;
        }
        let read = tokio::time::timeout(PATIENCE, self.read_a_row()).await;
        if !matches!(read, Ok(Ok(()))) {
            return Ready::Unavailable;
        }
        match tokio::time::timeout(PATIENCE, self.write_a_row(now)).await {
            // Overload is not a failure: removing this process would leave more work to the others.
            Ok(Ok(room)) => Ready::Yes(room),
            Ok(Err(StorageError::Busy)) => Ready::Yes(Room::Enough),
            Ok(Err(_)) | Err(_) => Ready::ReadOnly,
        }
    }

    async fn read_a_row(&self) -> Result<(), StorageError> {
        self.read_row(sqlx::query("SELECT value FROM counters WHERE name = 'clients'")).await?;
        Ok(())
    }

    /// Updates an existing row, and returns for which uses there is space.
    async fn write_a_row(&self, now: Timestamp) -> Result<Room, StorageError> {
        let mut step = self.begin(WritePolicy::Ordinary).await?;
        sqlx::query(
            "INSERT INTO installation (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2",
        )
        .bind(READY_ROW)
        .bind(now.unix().to_string())
        .execute(&mut *step)
        .await?;
        let room = step.room().await?;
        step.commit(&self.metrics).await?;
        Ok(room)
    }
}
