//! Evicts pending logins when too many are under way: the network with the most of them loses its newest,
//! so that one network cannot keep everybody else from signing in.

use crate::clock::Timestamp;
use crate::storage::{Storage, StorageError, column, moment_if_any};

impl Storage {
    /// Returns how many logins are pending from each known network.
    pub async fn pending_by_network(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(String, u64)>, StorageError> {
        let rows = sqlx::query(
            "SELECT network, COUNT(*) AS number FROM logins
             WHERE network IS NOT NULL AND expires_at > $1 AND ended_at IS NULL GROUP BY network",
        )
        .bind(now.unix())
        .fetch_all(self.pool())
        .await?;
        let count = |row| {
            let number: i64 = column(row, "number")?;
            Ok((column(row, "network")?, u64::try_from(number).unwrap_or(0)))
        };
        rows.iter().map(count).collect()
    }

    /// Returns when the first pending login expires: among those of `network` if it has `most` or more,
    /// else among all.
    pub async fn first_login_to_expire(
        &self,
        network: Option<&str>,
        most: u64,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StorageError> {
        let of_network = sqlx::query(
            "SELECT MIN(expires_at) AS first, COUNT(*) AS number FROM logins
             WHERE network = $1 AND expires_at > $2 AND ended_at IS NULL",
        )
        .bind(network.unwrap_or_default())
        .bind(now.unix())
        .fetch_one(self.pool())
        .await?;
        let number: i64 = column(&of_network, "number")?;
        if u64::try_from(number).is_ok_and(|number| number >= most) {
            return moment_if_any(&of_network, "first");
        }
        let of_all = sqlx::query(
            "SELECT MIN(expires_at) AS first FROM logins
             WHERE expires_at > $1 AND ended_at IS NULL",
        )
        .bind(now.unix())
        .fetch_one(self.pool())
        .await?;
        moment_if_any(&of_all, "first")
    }

    /// Deletes the newest pending login from `network`.
    pub async fn evict_newest_login(
        &self,
        network: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "DELETE FROM logins WHERE ended_at IS NULL AND id IN
                 (SELECT id FROM logins
                  WHERE network = $1 AND expires_at > $2 AND ended_at IS NULL
                  ORDER BY id DESC LIMIT 1)",
        )
        .bind(network)
        .bind(now.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(())
    }
}
