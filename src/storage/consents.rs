//! Remembered consents: approvals that one browser need not repeat, for clients that administrators trust
//! (threat CD-02, requirements CON-09 to CON-13).

use std::collections::BTreeSet;

use sqlx::{Any, Executor};

use super::{Storage, StorageError, column, scopes};
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{RememberedConsent, Secret};

/// A consent to be remembered.
pub struct NewRemembered<'a> {
    /// The value of the cookie.
    pub token: &'a Secret<RememberedConsent>,
    /// The person who approved and then signed in: our `sub`.
    pub subject: &'a str,
    /// The request that was approved.
    pub request: &'a AuthorizationRequest,
    /// Hash of the client's registered metadata when the page was shown.
    pub metadata_hash: &'a str,
    /// When the person is asked again.
    pub expires_at: Timestamp,
}

impl Storage {
    /// Remembers a consent, and replaces the one that this browser had before. Returns `false` if the
    /// client is not trusted, or not any more.
    pub async fn remember_consent(
        &self,
        new: &NewRemembered<'_>,
        before: Option<&Secret<RememberedConsent>>,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        // Locks the row: an administrator who withdraws the trust now has to wait, and then deletes this
        // consent too.
        let trusted = sqlx::query(
            "UPDATE client_reviews SET trusted = trusted
             WHERE client_id = $1 AND trusted = 1 AND blocked = 0 AND state <> 'refused'",
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
                  created_at, expires_at, upstream)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
        .bind(joined(&new.request.upstream))
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(true)
    }

    /// Returns the person who approved exactly this request before in the browser with this cookie. This
    /// read does not wait for the writer and is only a preview: [`Storage::approve_remembered`] decides.
    pub async fn remembered_consent(
        &self,
        token: &Secret<RememberedConsent>,
        request: &AuthorizationRequest,
        metadata_hash: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        let mut connection = self.database.read_connection().await?;
        find(&mut *connection, token, request, metadata_hash, now).await
    }

    /// Returns the person of a remembered consent, unless it has been deleted, has expired, or its client
    /// lost the trust.
    pub async fn remembered_by(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        let approval = sqlx::query(
            "SELECT r.subject FROM remembered_consents r
             JOIN client_reviews s ON s.client_id = r.client_id
             WHERE r.id = $1 AND r.expires_at > $2
               AND s.trusted = 1 AND s.blocked = 0 AND s.state <> 'refused'",
        )
        .bind(id)
        .bind(now.unix());
        self.read_one(approval).await?.map(|row| column(&row, "subject")).transpose()
    }
}

/// Returns the values with spaces between them: neither names of connections nor scopes contain one.
fn joined(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the person who approved this request before: the same client with the same metadata, which is
/// still trusted, a byte-equal redirect URI, the same MCP server, no additional scope, and no further service that
/// the MCP server uses as the person.
pub(super) async fn find<'e>(
    database: impl Executor<'e, Database = Any>,
    token: &Secret<RememberedConsent>,
    request: &AuthorizationRequest,
    metadata_hash: &str,
    now: Timestamp,
) -> Result<Option<String>, StorageError> {
    let row = sqlx::query(
        "SELECT r.token_hash, r.subject, r.scopes, r.upstream FROM remembered_consents r
         JOIN client_reviews s ON s.client_id = r.client_id
         WHERE r.id = $1 AND r.client_id = $2 AND r.redirect_uri = $3 AND r.resource = $4
           AND r.metadata_hash = $5 AND r.expires_at > $6
           AND s.trusted = 1 AND s.blocked = 0 AND s.state <> 'refused'",
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
    let shown: String = column(&row, "upstream")?;
    let was_shown = |used: &String| shown.split(' ').any(|shown| shown == used);
    let good = token.hash().is(&column::<String>(&row, "token_hash")?)
        && request.scopes.is_subset(&approved)
        && request.upstream.iter().all(was_shown);
    good.then(|| column(&row, "subject")).transpose()
}
