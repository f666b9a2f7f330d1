//! Replay protection for one-time values that have no row of their own.
//!
//! A login to our own pages is sealed in a cookie and needs no row while it is pending. Its return is
//! recorded with one conditional insert, before its code is sent to the identity provider.
//!
//! A code that arrived from another browser is never redeemed, not even later. Otherwise an attacker who
//! began the login could make a victim's browser bring the code back, ask for the URL that this browser
//! shows, and finish the login as the victim.

use crate::clock::Timestamp;
use crate::oauth::sealed::Purpose;

use crate::storage::web_sessions::Realm;
use crate::storage::{Storage, StorageError, Transaction, Use};

impl Storage {
    /// Uses up the page login with this id; of concurrent uses, one is the first. Also returns `false`
    /// when its code arrived from another browser.
    pub async fn use_pages_sign_in(
        &self,
        realm: Realm,
        id: &str,
        code: Option<&str>,
        expires_at: Timestamp,
    ) -> Result<bool, StorageError> {
        // Administrators may use the reserve: they must be able to sign in to a full database to revoke
        // access.
        let mut step = match realm {
            Realm::Admin => self.begin_revocation().await?,
            Realm::Account => self.begin_for(Use::SignIns).await?,
        };
        let used = sqlx::query(
            "INSERT INTO replay_guard (purpose, id, expires_at) SELECT 'sign_in', $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM counters WHERE name = $3 AND value >= $2)
               AND NOT EXISTS (SELECT 1 FROM replay_guard WHERE purpose = 'sign_in' AND id = $4)
             ON CONFLICT (purpose, id) DO NOTHING",
        )
        .bind(self.sealer.mac(Purpose::SignIn, &[b"pages sign-in", id.as_bytes()]))
        .bind(expires_at.unix())
        .bind(super::SIGN_INS)
        .bind(self.code_mark(id, code.unwrap_or_default()))
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(used.rows_affected() == 1)
    }

    /// Records that the code of the login `id` arrived from another browser.
    pub async fn spend_code(
        &self,
        id: &str,
        code: &str,
        expires_at: Timestamp,
    ) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        self.spend_code_in(&mut step, id, code, expires_at).await?;
        step.commit().await
    }

    /// The same in the caller's transaction. Returns whether it was recorded for the first time.
    pub(crate) async fn spend_code_in(
        &self,
        step: &mut Transaction,
        id: &str,
        code: &str,
        expires_at: Timestamp,
    ) -> Result<bool, StorageError> {
        let spent = sqlx::query(
            "INSERT INTO replay_guard (purpose, id, expires_at) VALUES ('sign_in', $1, $2)
             ON CONFLICT (purpose, id) DO NOTHING",
        )
        .bind(self.code_mark(id, code))
        .bind(expires_at.unix())
        .execute(&mut **step)
        .await?;
        Ok(spent.rows_affected() == 1)
    }

    /// Returns whether this code of the login `id` has arrived from another browser.
    pub(crate) async fn code_is_spent(
        &self,
        step: &mut Transaction,
        id: &str,
        code: &str,
    ) -> Result<bool, StorageError> {
        let spent: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM replay_guard WHERE purpose = 'sign_in' AND id = $1")
                .bind(self.code_mark(id, code))
                .fetch_optional(&mut **step)
                .await?;
        Ok(spent.is_some())
    }

    /// Returns the id under which a code of the login `id` is noted that arrived from another browser.
    pub(in crate::storage) fn code_mark(&self, id: &str, code: &str) -> String {
        let parts = [b"code elsewhere".as_slice(), id.as_bytes(), code.as_bytes()];
        self.sealer.mac(Purpose::SignIn, &parts)
    }
}
