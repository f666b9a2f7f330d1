//! Changes that administrators make to a client: its name and redirect URIs, its secret, who owns it.

use serde::{Deserialize, Serialize};

use super::found_by;
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::storage::client_reviews::decisions::lapse;
use crate::storage::{Storage, StorageError, Transaction, column};
use crate::telemetry::audit::AuditEvent;

/// What administrators wrote about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientNote {
    /// The person or team that looks after it.
    pub owner: String,
    pub note: String,
}

/// A change of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientEdit<'a> {
    pub id: &'a str,
    /// Digest of the client that the administrator saw. Nothing is changed about another one.
    pub seen: &'a str,
    /// Its new metadata. Only a client that an administrator created takes any.
    pub metadata: Option<&'a ClientMetadata>,
    /// What to write about it.
    pub note: &'a ClientNote,
}

/// The outcome of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEdited {
    /// It takes effect now.
    Changed,
    Unchanged,
    /// Nothing was changed: the client is gone, or no longer what the administrator saw.
    OtherClient,
}

impl Storage {
    /// Changes a client for an administrator. What was approved stays approved, because an administrator
    /// made the change. Trust lapses, and so do remembered consents: people agreed to what it was before.
    pub async fn edit_client(
        &self,
        edit: &ClientEdit<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<ClientEdited, StorageError> {
        let ClientEdit { id, seen, metadata, note } = *edit;
        let mut step = self.begin().await?;
        // Locks the row.
        let row = sqlx::query(
            "UPDATE clients SET kind = kind WHERE id = $1 RETURNING kind, metadata, annotation",
        )
        .bind(id)
        .fetch_optional(&mut *step)
        .await?;
        let Some(row) = row else { return Ok(ClientEdited::OtherClient) };
        let stored: String = column(&row, "metadata")?;
        let stored = ClientMetadata::from_stored_json(&stored)
            .map_err(|_| StorageError::Corrupt("clients.metadata".to_owned()))?;
        let may_change = column::<String>(&row, "kind")? == "created" || metadata.is_none();
        if stored.digest() != seen || !may_change {
            return Ok(ClientEdited::OtherClient);
        }
        let mut changed = Vec::new();
        let before = self.read_note(id, column(&row, "annotation")?)?;
        changed.extend((before.owner != note.owner).then_some("owner"));
        changed.extend((before.note != note.note).then_some("note"));
        if !changed.is_empty() {
            self.write_note(&mut step, id, note).await?;
        }
        let event = event.named("client_changed").client(id);
        if let Some(metadata) = metadata.filter(|metadata| **metadata != stored) {
            changed.extend((metadata.client_name != stored.client_name).then_some("name"));
            changed.extend(
                (metadata.redirect_uris != stored.redirect_uris).then_some("redirect_uris"),
            );
            replace_metadata(&mut step, id, metadata, now, &event).await?;
        }
        if changed.is_empty() {
            return Ok(ClientEdited::Unchanged);
        }
        let digest = metadata.unwrap_or(&stored).digest();
        step.record(event.with("changed", changed).with("digest", digest)).await?;
        step.commit().await?;
        Ok(ClientEdited::Changed)
    }

    /// Replaces the secret of a client that an administrator created. The former one ends at once.
    /// Returns `false` when there is no such client, or it no longer has the secret with the hash `former`:
    /// of two equal requests only one replaces it.
    pub async fn replace_secret(
        &self,
        id: &str,
        (former, secret_hash): (&str, &str),
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let replaced = sqlx::query(
            "UPDATE clients SET secret_hash = $2
             WHERE id = $1 AND kind = 'created' AND secret_hash = $3",
        )
        .bind(id)
        .bind(secret_hash)
        .bind(former)
        .execute(&mut *step)
        .await?;
        if replaced.rows_affected() == 0 {
            return Ok(false);
        }
        step.record(event.named("client_secret_rotated").client(id)).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Opens what administrators wrote about a client.
    pub(super) fn read_note(
        &self,
        id: &str,
        sealed: Option<String>,
    ) -> Result<ClientNote, StorageError> {
        sealed.map_or_else(
            || Ok(ClientNote::default()),
            |sealed| self.open_json("clients.annotation", id, &sealed),
        )
    }

    async fn write_note(
        &self,
        step: &mut Transaction,
        id: &str,
        note: &ClientNote,
    ) -> Result<(), StorageError> {
        let empty = *note == ClientNote::default();
        let sealed =
            if empty { None } else { Some(self.seal_json("clients.annotation", id, note)?) };
        sqlx::query("UPDATE clients SET annotation = $2 WHERE id = $1")
            .bind(id)
            .bind(sealed)
            .execute(&mut **step)
            .await?;
        Ok(())
    }
}

/// Stores new metadata, for which an approval stays and trust does not.
async fn replace_metadata(
    step: &mut Transaction,
    id: &str,
    metadata: &ClientMetadata,
    now: Timestamp,
    event: &AuditEvent,
) -> Result<(), StorageError> {
    let (json, digest) = (metadata.to_json(), metadata.digest());
    let (name_key, search_text) = found_by(&json);
    sqlx::query("UPDATE clients SET metadata = $2, name_key = $3, search_text = $4 WHERE id = $1")
        .bind(id)
        .bind(&json)
        .bind(name_key)
        .bind(search_text)
        .execute(&mut **step)
        .await?;
    sqlx::query(
        "UPDATE client_reviews SET approved_as = $2 WHERE client_id = $1 AND state = 'approved'",
    )
    .bind(id)
    .bind(&digest)
    .execute(&mut **step)
    .await?;
    sqlx::query("DELETE FROM remembered_consents WHERE client_id = $1")
        .bind(id)
        .execute(&mut **step)
        .await?;
    lapse(step, id, &digest, now, event).await
}
