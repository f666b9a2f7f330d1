//! Reports of replicas about themselves. Each replica compares its clock, and the configuration that must
//! be the same everywhere, with those of the others.

use std::time::Duration;

use sqlx::AnyConnection;

use super::{Engine, Storage, StorageError, Transaction, column};
use crate::clock::{Clock, Timestamp};
use crate::oauth::sealed::Purpose;

/// A replica without a report for this long is not running: 1 minute.
const RUNNING: Duration = Duration::from_mins(1);
/// Its report is deleted after this: 5 minutes.
const GONE: Duration = Duration::from_mins(5);
/// Most replicas that are compared: 200, more than there ever are.
const MOST: i64 = 200;
/// The counter with the end of the clean-up lease, in Unix seconds.
const CLEAN_UP: &str = "clean_up_leased_until";
/// Duration of the clean-up lease: 2 minutes. A replica that does not renew it loses it.
const LEASE: Duration = Duration::from_mins(2);

/// A replica's report about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Random id, chosen at the start of the process.
    pub id: String,
    pub version: String,
    /// A keyed hash for each part of the configuration: `tokens=… upstream=…`.
    pub configuration: String,
    /// Seconds by which its clock is ahead of the database's; negative if it is behind.
    pub clock_ahead: i64,
}

impl Storage {
    /// Replaces the database's time by that of a clock, for tests whose time is set manually.
    pub fn take_database_time_from(&self, clock: &Clock) {
        let _ = self.database_clock.set(clock.clone());
    }

    /// Returns the time of the database in milliseconds since the Unix epoch; `None` on SQLite, which has
    /// no clock of its own.
    pub async fn database_time(&self) -> Result<Option<i64>, StorageError> {
        if let Some(clock) = self.database_clock.get() {
            return Ok(Some(clock.unix_millis()));
        }
        if self.engine() != Engine::Postgres {
            return Ok(None);
        }
        let millis = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
        Ok(Some(sqlx::query_scalar(millis).fetch_one(self.pool()).await?))
    }

    /// Returns a hash of a part of the configuration. It reveals nothing without the secret key.
    pub fn hash_of_configuration(&self, part: &str, hashes: &[&[u8]]) -> String {
        let mut parts = vec![b"configuration".as_slice(), part.as_bytes()];
        parts.extend(hashes);
        let mut mac = self.sealer.mac(Purpose::Confirmation, &parts);
        mac.truncate(16);
        mac
    }

    /// Stores a report and returns those of the other running replicas. `now` is the time of the
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

    /// Deletes the report of a replica that is about to stop.
    pub async fn withdraw_replica(&self, id: &str) -> Result<(), StorageError> {
        let mut step = self.begin_cleanup().await?;
        sqlx::query("DELETE FROM replicas WHERE id = $1").bind(id).execute(&mut *step).await?;
        step.commit().await
    }

    /// Acquires or renews the lease for cleaning up. `until` is the result of the previous call. Returns
    /// `None` while another replica holds the lease.
    pub async fn take_clean_up(
        &self,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let next = now.plus(LEASE);
        // A lease that ends far in the future was taken with a wrong clock.
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

    /// Releases the lease for cleaning up.
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
