//! The name of a client, and the link to its page.

use super::links::client_path;
use crate::app::App;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::storage::StorageError;

/// A client as pages name it.
#[derive(Clone, Debug)]
pub(super) struct ClientLabel {
    pub(super) id: String,
    /// Its name, if it has one.
    pub(super) name: Option<String>,
    /// Its page, if it is stored.
    pub(super) path: Option<String>,
}

/// Names a client: one that is stored, or one that is listed in the configuration and was never used.
pub(super) async fn label_of(app: &App, id: &str) -> Result<ClientLabel, StorageError> {
    let stored = app.storage().client_details(id).await?;
    let configured = app.config().clients.iter().find(|client| client.client_id == id);
    let metadata = match (&stored, configured) {
        (Some(row), _) => ClientMetadata::from_stored_json(&row.metadata).ok(),
        (None, Some(client)) => Some(client.metadata.clone()),
        (None, None) => None,
    };
    let name = metadata.as_ref().and_then(|metadata| metadata.client_name.as_deref());
    Ok(ClientLabel {
        id: id.to_owned(),
        name: DisplayName::of(name).text,
        path: stored.map(|row| client_path(&row.id)),
    })
}
