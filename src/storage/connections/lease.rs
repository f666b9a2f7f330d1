//! The refresh of a connection's tokens: one process at a time asks the service, under a lease, and stores
//! the answer before anybody uses it (threats UT-05 and UT-06).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Connection, ServiceTokens, TOKENS, bound_to, joined, until};
use crate::clock::Timestamp;
use crate::storage::upstream_sessions::Lease;
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::AuditEvent;

/// What a service answered to a refresh.
#[derive(Clone, Debug)]
pub struct RenewedConnection {
    /// The tokens, with the refresh token to use from now on.
    pub tokens: ServiceTokens,
    /// End of the access token; `None`: it does not expire.
    pub access_until: Option<Timestamp>,
    /// The scopes that the service granted; `None`: those of before.
    pub scopes: Option<BTreeSet<String>>,
}

impl Storage {
    /// Acquires the lease for asking the service about this version of the connection, for the duration
    /// `lease`. Nobody gets the lease of a connection that was replaced, removed or broken meanwhile.
    pub async fn lease_connection(
        &self,
        connection: &Connection,
        owner: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Lease, StorageError> {
        let mut step = self.begin().await?;
        let won = sqlx::query(
            "UPDATE connections SET lease_owner = $3, lease_until = $4
             WHERE id = $1 AND version = $2 AND state = 'active'
               AND (lease_until IS NULL OR lease_until <= $5 OR lease_until > $6)",
        )
        .bind(&connection.id)
        .bind(connection.version)
        .bind(owner)
        .bind(now.plus(lease).unix())
        .bind(now.unix())
        // No lease lasts this long: the clock was set back, so its holder no longer exists.
        .bind(now.plus(lease * 4).unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(if won.rows_affected() == 1 { Lease::Won } else { Lease::Taken })
    }

    /// Extends the lease to `until`. Returns `false` when `owner` no longer holds it.
    pub async fn extend_connection_lease(
        &self,
        id: &str,
        owner: &str,
        until: Timestamp,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let extended = sqlx::query(
            "UPDATE connections SET lease_until = $3 WHERE id = $1 AND lease_owner = $2",
        )
        .bind(id)
        .bind(owner)
        .bind(until.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(extended.rows_affected() == 1)
    }

    /// Releases the lease after a response without a definite result.
    pub async fn release_connection(
        &self,
        connection: &Connection,
        owner: &str,
    ) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        sqlx::query(
            "UPDATE connections SET lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND lease_owner = $2",
        )
        .bind(&connection.id)
        .bind(owner)
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// Stores the service's answer and releases the lease. Returns `false` if the connection was replaced or
    /// removed meanwhile: the answer is of no use then. Otherwise the version has grown by one.
    pub async fn renew_connection(
        &self,
        connection: &Connection,
        owner: &str,
        renewed: &RenewedConnection,
    ) -> Result<bool, StorageError> {
        let Connection { id, subject, name, provider_key, .. } = connection;
        let bound = bound_to(id, name, provider_key, subject);
        let tokens = self.seal_json(TOKENS, &bound, &renewed.tokens)?;
        let scopes = renewed.scopes.as_ref().unwrap_or(&connection.scopes);
        let mut step = self.begin().await?;
        let stored = sqlx::query(
            "UPDATE connections SET tokens = $4, access_until = $5, scopes = $6,
                 version = version + 1, lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND version = $2 AND lease_owner = $3",
        )
        .bind(id)
        .bind(connection.version)
        .bind(owner)
        .bind(tokens)
        .bind(until(renewed.access_until))
        .bind(joined(scopes))
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if stored {
            self.commit_connections(step).await?;
        }
        Ok(stored)
    }

    /// Marks a connection as broken, because its service refuses the refresh for good. `reason` is a text of
    /// this program, without secrets. Returns `false` if the connection was replaced, removed or broken
    /// meanwhile.
    pub async fn break_connection(
        &self,
        connection: &Connection,
        reason: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin_revocation().await?;
        let broken = sqlx::query(
            "UPDATE connections SET state = 'broken', reason = $3, state_at = $4,
                 version = version + 1, lease_owner = NULL, lease_until = NULL
             WHERE id = $1 AND version = $2 AND state = 'active'",
        )
        .bind(&connection.id)
        .bind(connection.version)
        .bind(reason)
        .bind(now.unix())
        .execute(&mut *step)
        .await?
        .rows_affected()
            == 1;
        if broken {
            let event = event.named("connection_broken").subject(&connection.subject);
            let event = event.with("connection", connection.name.as_str()).with("reason", reason);
            step.record(event).await?;
            self.commit_connections(step).await?;
        }
        Ok(broken)
    }
}
