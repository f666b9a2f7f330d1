//! Unused clients by the part of the network they registered from: where the registry is full, a crowd
//! makes room for newcomers from elsewhere.

use super::retention::count_clients;
use super::{Storage, StorageError, Transaction, column};

/// Clients removed at a time: the flood fills what newcomers do not take.
const AT_A_TIME: i64 = 20;

impl Storage {
    /// How many unused clients the largest crowd has.
    pub async fn largest_crowd(&self) -> Result<i64, StorageError> {
        let query = sqlx::query(
            "SELECT COALESCE(MAX(number), 0) AS most FROM
                 (SELECT COUNT(*) AS number FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL
                  GROUP BY network) AS crowds",
        );
        let row = self.read_one(query).await?;
        row.map_or(Ok(0), |row| column(&row, "most"))
    }

    /// How many of them came from `network`, counted as far as `most`.
    pub async fn crowd(&self, network: &str, most: i64) -> Result<i64, StorageError> {
        let query = sqlx::query(
            "SELECT COUNT(*) AS number FROM
                 (SELECT id FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network = $1
                  LIMIT $2) AS crowd",
        )
        .bind(network)
        .bind(most);
        let row = self.read_one(query).await?;
        row.map_or(Ok(0), |row| column(&row, "number"))
    }
}

/// Removes the latest unused clients of the largest crowds, down to `keep` of each. One that a person
/// waits for, or that an administrator has approved, stays.
pub(super) async fn evict_from_busiest_network(
    step: &mut Transaction,
    keep: i64,
) -> Result<u64, StorageError> {
    let removed = sqlx::query(
        "DELETE FROM clients WHERE kind = 'registered' AND +last_used_at IS NULL AND id IN
             (SELECT id FROM
                 (SELECT id, ROW_NUMBER() OVER
                      (PARTITION BY network ORDER BY last_registered_at, id) AS place
                  FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM client_standings s
                                    WHERE s.client_id = clients.id
                                      AND s.approval IN ('waiting', 'approved'))) AS placed
              WHERE place > $1 ORDER BY place DESC LIMIT $2)",
    )
    .bind(keep)
    .bind(AT_A_TIME)
    .execute(&mut **step)
    .await?
    .rows_affected();
    count_clients(step).await?;
    Ok(removed)
}
