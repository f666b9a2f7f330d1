//! Approvals that need not be asked again, in one browser, for a client that administrators trust
//! (threat CD-02, requirements CON-09 to CON-13).

use sqlx::{Any, Executor};

use super::{Storage, StorageError, Transaction, column, scopes};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{RememberedConsent, Secret};

/// An approval about to be remembered.
pub struct NewRemembered<'a> {
    /// The cookie.
    pub token: &'a Secret<RememberedConsent>,
    /// Who approved and then signed in: our `sub`.
    pub subject: &'a str,
    /// What was approved.
    pub request: &'a AuthorizationRequest,
    /// Of what the client had registered when the page was shown.
    pub metadata_hash: &'a str,
    /// When it is asked again.
    pub expires_at: Timestamp,
}

impl Storage {
    /// Remembers an approval in place of what this browser had remembered before; `false` when the
    /// client is not, or no longer, trusted.
    pub async fn remember_consent(
        &self,
        new: &NewRemembered<'_>,
        before: Option<&Secret<RememberedConsent>>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        // Locks the row: whoever takes the trust away at this moment waits, and then forgets this.
        let trusted = sqlx::query(
            "UPDATE client_standings SET trusted = trusted
             WHERE client_id = $1 AND trusted = 1 AND blocked = 0 AND approval <> 'refused'",
        )
        .bind(&new.request.client_id)
        .execute(&mut *step)
        .await?;
        if trusted.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(before) = before {
            sqlx::query("DELETE FROM remembered_consents WHERE id = $1 AND token_hash = $2")
                .bind(before.id())
                .bind(before.hash().as_str())
                .execute(&mut *step)
                .await?;
        }
        sqlx::query(
            "INSERT INTO remembered_consents
                 (id, token_hash, subject, client_id, redirect_uri, resource, scopes, metadata_hash,
                  created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(new.token.id())
        .bind(new.token.hash().as_str())
        .bind(new.subject)
        .bind(&new.request.client_id)
        .bind(&new.request.redirect_uri)
        .bind(&new.request.resource)
        .bind(new.request.scopes.to_string())
        .bind(new.metadata_hash)
        .bind(now.unix())
        .bind(new.expires_at.unix())
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(true)
    }

    /// Who approved exactly this before, in the browser with this cookie. A look past the writer:
    /// what counts is [`Storage::approve_remembered`].
    pub async fn remembered_consent(
        &self,
        token: &Secret<RememberedConsent>,
        request: &AuthorizationRequest,
        metadata_hash: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        let mut connection = self.look_up_connection().await?;
        find(&mut *connection, token, request, metadata_hash, now).await
    }

    /// Whose remembered approval this is, unless it was forgotten or has expired meanwhile.
    pub async fn remembered_by(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        let approval = sqlx::query(
            "SELECT r.subject FROM remembered_consents r
             JOIN client_standings s ON s.client_id = r.client_id
             WHERE r.id = $1 AND r.expires_at > $2
               AND s.trusted = 1 AND s.blocked = 0 AND s.approval <> 'refused'",
        )
        .bind(id)
        .bind(now.unix());
        self.read_one(approval).await?.map(|row| column(&row, "subject")).transpose()
    }
}

/// Who approved exactly this before: same client with the same metadata and still trusted, byte-equal
/// redirect URI, same MCP server, no further scope.
pub(super) async fn find<'e>(
    database: impl Executor<'e, Database = Any>,
    token: &Secret<RememberedConsent>,
    request: &AuthorizationRequest,
    metadata_hash: &str,
    now: Timestamp,
) -> Result<Option<String>, StorageError> {
    let row = sqlx::query(
        "SELECT r.token_hash, r.subject, r.scopes FROM remembered_consents r
         JOIN client_standings s ON s.client_id = r.client_id
         WHERE r.id = $1 AND r.client_id = $2 AND r.redirect_uri = $3 AND r.resource = $4
           AND r.metadata_hash = $5 AND r.expires_at > $6
           AND s.trusted = 1 AND s.blocked = 0 AND s.approval <> 'refused'",
    )
    .bind(token.id())
    .bind(&request.client_id)
    .bind(&request.redirect_uri)
    .bind(&request.resource)
    .bind(metadata_hash)
    .bind(now.unix())
    .fetch_optional(database)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let approved: ScopeSet = scopes(&row, "scopes")?;
    let good = token.hash().is(&column::<String>(&row, "token_hash")?)
        && request.scopes.is_subset(&approved);
    good.then(|| column(&row, "subject")).transpose()
}

/// Whoever ends a connection is asked before it comes back. In the caller's step.
pub(super) async fn forget_of_grant(
    step: &mut Transaction,
    grant_id: &str,
) -> Result<(), StorageError> {
    sqlx::query(
        "DELETE FROM remembered_consents WHERE EXISTS
             (SELECT 1 FROM grants g WHERE g.id = $1 AND g.subject = remembered_consents.subject
              AND g.client_id = remembered_consents.client_id)",
    )
    .bind(grant_id)
    .execute(&mut **step)
    .await?;
    Ok(())
}
