//! Evicts unused clients when the registry is full. Networks with many unused clients lose their newest
//! ones, so that one network cannot keep everybody else from registering.

use crate::storage::retention::count_clients;
use crate::storage::{Storage, StorageError, Transaction, column};

/// Clients evicted at a time: 20. What newcomers do not use, a flood soon fills again.
const AT_A_TIME: i64 = 20;

impl Storage {
    /// Returns how many unused clients the network with the most of them has.
    pub async fn most_unused_clients(&self) -> Result<i64, StorageError> {
        let query = sqlx::query(
            "SELECT COALESCE(MAX(number), 0) AS most FROM
                 (SELECT COUNT(*) AS number FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL
                  GROUP BY network) AS networks",
        );
        let row = self.read_one(query).await?;
        row.map_or(Ok(0), |row| column(&row, "most"))
    }

    /// Returns how many unused clients registered from `network`; stops counting at `most`.
    pub async fn unused_clients_of(&self, network: &str, most: i64) -> Result<i64, StorageError> {
        let query = sqlx::query(
            "SELECT COUNT(*) AS number FROM
                 (SELECT id FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network = $1
                  LIMIT $2) AS unused",
        )
        .bind(network)
        .bind(most);
        let row = self.read_one(query).await?;
        row.map_or(Ok(0), |row| column(&row, "number"))
    }
}

/// Deletes up to 20 of the newest unused clients of networks that have more than `keep`, from the largest
/// network first. A client that a person waits for, or that an administrator has approved, stays.
pub(crate) async fn evict_from_busiest_network(
    step: &mut Transaction,
    keep: i64,
) -> Result<u64, StorageError> {
    let removed = sqlx::query(
        "DELETE FROM clients WHERE kind = 'registered' AND +last_used_at IS NULL AND id IN
             (SELECT id FROM
                 (SELECT id, ROW_NUMBER() OVER
                      (PARTITION BY network ORDER BY last_registered_at, id) AS rank_in_network
                  FROM clients
                  WHERE kind = 'registered' AND last_used_at IS NULL AND network IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM client_reviews s
                                    WHERE s.client_id = clients.id
                                      AND s.state IN ('waiting', 'approved'))) AS ranked
              WHERE rank_in_network > $1 ORDER BY rank_in_network DESC LIMIT $2)",
    )
    .bind(keep)
    .bind(AT_A_TIME)
    .execute(&mut **step)
    .await?
    .rows_affected();
    count_clients(step).await?;
    Ok(removed)
}
