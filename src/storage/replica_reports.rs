//! What replicas report of themselves, so that each can compare itself with the others: the configuration that
//! must be the same everywhere, and the clock.

use std::time::Duration;

use sqlx::AnyConnection;

use super::{Engine, Storage, StorageError, Transaction, column};
use crate::clock::{Clock, Timestamp};
use crate::oauth::sealed::Purpose;

/// A replica that has not reported for this long is not running.
const RUNNING: Duration = Duration::from_mins(1);
/// Its row goes after this.
const GONE: Duration = Duration::from_mins(5);
/// Replicas that are looked at; there are never so many.
const MOST: i64 = 200;
/// Until when some replica cleans up, among the counters.
const CLEAN_UP: &str = "clean_up_leased_until";
/// A clean-up that was begun and not renewed is given up.
const LEASE: Duration = Duration::from_mins(2);

/// A replica as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Chosen at the start of the process.
    pub id: String,
    /// Of the program.
    pub version: String,
    /// A keyed hash for each part of the configuration: `tokens=… upstream=…`.
    pub configuration: String,
    /// Seconds that its clock is ahead of the database's; negative: behind.
    pub clock_ahead: i64,
}

impl Storage {
    /// Takes the database's time from this clock: for tests, whose time is moved by hand.
    pub fn take_database_time_from(&self, clock: &Clock) {
        let _ = self.database_clock.set(clock.clone());
    }

    /// The time of the database in milliseconds since the Unix epoch. `None` where it has no clock but the one of
    /// this machine.
    pub async fn database_time(&self) -> Result<Option<i64>, StorageError> {
        if let Some(clock) = self.database_clock.get() {
            return Ok(Some(clock.unix_millis()));
        }
        if self.engine != Engine::Postgres {
            return Ok(None);
        }
        let millis = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
        Ok(Some(sqlx::query_scalar(millis).fetch_one(&self.pool).await?))
    }

    /// A hash of a part of the configuration that says nothing to who has no secret key.
    pub fn hash_of_configuration(&self, part: &str, hashes: &[&[u8]]) -> String {
        let mut parts = vec![b"configuration".as_slice(), part.as_bytes()];
        parts.extend(hashes);
        let mut mac = self.sealer.mac(Purpose::Confirmation, &parts);
        mac.truncate(16);
        mac
    }

    /// Stores what a replica reports, and returns the other ones that are running. `now` is the time of the
    /// database.
    pub async fn report_replica(
        &self,
        own: &ReplicaReport,
        now: Timestamp,
    ) -> Result<Vec<ReplicaReport>, StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("DELETE FROM replicas WHERE reported_at < $1")
            .bind(now.minus(GONE).unix())
            .execute(&mut *step)
            .await?;
        sqlx::query(
            "INSERT INTO replicas (id, version, configuration, clock_ahead, reported_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE
             SET version = $2, configuration = $3, clock_ahead = $4, reported_at = $5",
        )
        .bind(&own.id)
        .bind(&own.version)
        .bind(&own.configuration)
        .bind(own.clock_ahead)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        let others = others(&mut step, &own.id, now).await?;
        step.commit().await?;
        Ok(others)
    }

    /// Removes what a replica reported, which is about to end.
    pub async fn withdraw_replica(&self, id: &str) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("DELETE FROM replicas WHERE id = $1").bind(id).execute(&mut *step).await?;
        step.commit().await
    }

    /// Takes the turn to clean up, or renews it: `until` is what the last call returned. `None` while another
    /// replica is at it.
    pub async fn take_clean_up(
        &self,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let next = now.plus(LEASE);
        // One that lies far ahead was taken by a clock that was wrong.
        let taken = sqlx::query(
            "INSERT INTO counters (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = $2
             WHERE counters.value < $3 OR counters.value > $4 OR counters.value = $5",
        )
        .bind(CLEAN_UP)
        .bind(next.unix())
        .bind(now.unix())
        .bind(next.plus(LEASE).unix())
        .bind(until.map_or(0, Timestamp::unix))
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok((taken.rows_affected() == 1).then_some(next))
    }

    /// Gives the turn to clean up back.
    pub async fn give_clean_up_back(&self, until: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("UPDATE counters SET value = 0 WHERE name = $1 AND value = $2")
            .bind(CLEAN_UP)
            .bind(until.unix())
            .execute(&mut *step)
            .await?;
        step.commit().await
    }
}

async fn others(
    step: &mut Transaction,
    id: &str,
    now: Timestamp,
) -> Result<Vec<ReplicaReport>, StorageError> {
    let connection: &mut AnyConnection = step;
    let rows = sqlx::query(
        "SELECT id, version, configuration, clock_ahead FROM replicas
         WHERE id <> $1 AND reported_at >= $2 ORDER BY id LIMIT $3",
    )
    .bind(id)
    .bind(now.minus(RUNNING).unix())
    .bind(MOST)
    .fetch_all(connection)
    .await?;
    let report = |row: &sqlx::any::AnyRow| {
        Ok(ReplicaReport {
            id: column(row, "id")?,
            version: column(row, "version")?,
            configuration: column(row, "configuration")?,
            clock_ahead: column(row, "clock_ahead")?,
        })
    };
    rows.iter().map(report).collect()
}
