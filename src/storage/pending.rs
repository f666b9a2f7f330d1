//! Logins on their way by the network they come from: where there is no room for more, a crowd makes room for
//! newcomers from elsewhere.

use super::{Storage, StorageError, column};
use crate::clock::Timestamp;

impl Storage {
    /// How many logins are on their way from each network that is known.
    pub async fn pending_by_network(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(String, u64)>, StorageError> {
        let rows = sqlx::query(
            "SELECT network, COUNT(*) AS number FROM logins
             WHERE network IS NOT NULL AND expires_at > $1 AND ended_at IS NULL GROUP BY network",
        )
        .bind(now.unix())
        .fetch_all(&self.pool)
        .await?;
        let count = |row| {
            let number: i64 = column(row, "number")?;
            Ok((column(row, "network")?, u64::try_from(number).unwrap_or(0)))
        };
        rows.iter().map(count).collect()
    }

    /// Removes the latest login on its way from `network`.
    pub async fn push_out_login(&self, network: &str, now: Timestamp) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "DELETE FROM logins WHERE id IN
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
