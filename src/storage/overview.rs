//! The numbers on the overview page of administrators.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::storage::{Engine, ServerUse, Storage, StorageError, column};

/// The numbers on the overview page.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// People who have ever signed in.
    pub people: i64,
    /// Clients stored, of every kind.
    pub clients: i64,
    /// Grants that are neither revoked nor expired.
    pub live_grants: i64,
    /// Clients that wait for approval, at most 100.
    pub waiting: i64,
    /// Codes issued, by hour, in the last week. Hours count from the Unix epoch.
    pub logins: Vec<(i64, i64)>,
    /// Refused logins and accesses, by hour, in the last week.
    pub refusals: Vec<(i64, i64)>,
    /// Size of the database in bytes.
    pub database_bytes: i64,
    /// How much each MCP server was used in the last 24 hours, by [`Storage::server_id`].
    pub servers: HashMap<i64, ServerUse>,
}

/// Cached numbers, because they took long to count.
#[derive(Debug)]
pub(crate) struct RememberedOverview {
    numbers: Overview,
    /// The value of [`Storage::grants_ended`] before they were counted.
    before: u64,
    until: tokio::time::Instant,
}

/// Numbers that take longer to count are cached: 30 ms.
const LONG: Duration = Duration::from_millis(30);
/// They are cached for 100 times the time that counting took, but for 30 seconds at most.
const FOR_SO_LONG: u32 = 100;
const AT_MOST: Duration = Duration::from_secs(30);

impl Storage {
    /// Returns the numbers of the overview. Numbers that took long to count are cached for a while, or
    /// until grants end.
    pub async fn overview(&self, now: Timestamp) -> Result<Overview, StorageError> {
        let before = *self.grants_ended.borrow();
        let mut remembered = self.remembered_overview.lock().await;
        if let Some(known) = remembered.as_ref()
            && known.before == before
            && tokio::time::Instant::now() < known.until
        {
            return Ok(known.numbers.clone());
        }
        let begun = tokio::time::Instant::now();
        let numbers = self.count_overview(now).await?;
        let took = begun.elapsed();
        *remembered = (took > LONG).then(|| RememberedOverview {
            numbers: numbers.clone(),
            before,
            until: begun + took.saturating_mul(FOR_SO_LONG).min(AT_MOST),
        });
        Ok(numbers)
    }

    async fn count_overview(&self, now: Timestamp) -> Result<Overview, StorageError> {
        let count = async |sql: &'static str| -> Result<i64, StorageError> {
            Ok(sqlx::query_scalar(sql).fetch_one(self.pool()).await?)
        };
        let live_grants = sqlx::query_scalar(
            "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL AND expires_at > $1",
        )
        .bind(now.unix())
        .fetch_one(self.pool())
        .await?;
        Ok(Overview {
            people: count("SELECT COUNT(*) FROM people").await?,
            clients: count("SELECT COUNT(*) FROM clients").await?,
            waiting: self.clients_waiting().await?,
            live_grants,
            logins: self.by_hour(&["code_issued"], now).await?,
            refusals: self
                .by_hour(
                    &[
                        "access_denied",
                        "access_lost",
                        "login_refused_by_provider",
                        "login_untrusted",
                        "login_failed",
                        "person_is_blocked",
                    ],
                    now,
                )
                .await?,
            servers: self.use_of_servers(now).await?,
            database_bytes: self.database_bytes().await?,
        })
    }

    /// Returns the size of the database in bytes; on PostgreSQL, of the tables and indexes of its schema.
    pub async fn database_bytes(&self) -> Result<i64, StorageError> {
        let size = match self.engine() {
            Engine::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            }
            // Portcullis' own tables and indexes: the database may belong to other applications as well, and
            // pg_database_size() looks at every file of theirs.
            Engine::Postgres => {
                "SELECT CAST(COALESCE(SUM(pg_total_relation_size(oid)), 0) AS BIGINT) FROM pg_class
                 WHERE relkind = 'r' AND relnamespace = CAST(current_schema() AS regnamespace)"
            }
        };
        Ok(sqlx::query_scalar(size).fetch_one(self.pool()).await?)
    }

    async fn by_hour(
        &self,
        events: &[&'static str],
        now: Timestamp,
    ) -> Result<Vec<(i64, i64)>, StorageError> {
        // Ids begin with the time in milliseconds.
        let week = now.minus(Duration::from_hours(7 * 24)).unix().saturating_mul(1000).max(0);
        let week = format!("{week:012x}");
        let mut hours: std::collections::BTreeMap<i64, i64> = std::collections::BTreeMap::new();
        for event in events {
            let rows = sqlx::query(
                "SELECT hour, COUNT(*) AS n FROM
                     (SELECT at / 3600000 AS hour FROM audit_events
                      WHERE event = $1 AND id >= $2 AND seq IS NOT NULL
                      UNION ALL
                      SELECT at / 3600000 AS hour FROM audit_events
                      WHERE event = $1 AND id >= $2 AND seq IS NULL) AS lines
                 GROUP BY hour",
            )
            .bind(*event)
            .bind(&week)
            .fetch_all(self.pool())
            .await?;
            for row in &rows {
                *hours.entry(column(row, "hour")?).or_default() += column::<i64>(row, "n")?;
            }
        }
        Ok(hours.into_iter().collect())
    }
}
