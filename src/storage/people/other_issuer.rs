//! The same `sub` from another issuer. Our `sub` is made of the configured provider's kind and the person's id
//! there. Where the configuration names another issuer of the same kind, one `sub` may be two people.

use super::super::upstream_sessions::SessionUpdate;
use super::super::{Storage, StorageError, Transaction};
use crate::clock::Timestamp;

/// Why the connections of the former person are broken, for administrators.
const REASON: &str = "the person signed in at another issuer";

impl Storage {
    /// Takes over the row of a person who signed in at another issuer, in the transaction of the login. Services
    /// have to be connected again, and consents are forgotten. A block stays.
    pub(super) async fn take_over_person(
        &self,
        step: &mut Transaction,
        session: &SessionUpdate,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        tracing::warn!(subject, issuer = session.issuer, "a person came back from another issuer");
        sqlx::query("UPDATE people SET issuer = $2, upstream_subject = $3 WHERE subject = $1")
            .bind(subject)
            .bind(&session.issuer)
            .bind(&session.subject)
            .execute(&mut **step)
            .await?;
        sqlx::query(
            "UPDATE connections SET state = 'broken', reason = $2, state_at = $3,
                 version = version + 1, lease_owner = NULL, lease_until = NULL
             WHERE subject = $1 AND state = 'active'",
        )
        .bind(subject)
        .bind(REASON)
        .bind(now.unix())
        .execute(&mut **step)
        .await?;
        sqlx::query("DELETE FROM remembered_consents WHERE subject = $1")
            .bind(subject)
            .execute(&mut **step)
            .await?;
        Ok(())
    }
}
