//! The names of the people, clients and MCP servers in a list, and where their links lead.

use std::collections::HashMap;

use super::links::{client_path, person_path, query};
use crate::config::ResourceConfig;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::policy::Facts;
use crate::storage::{RefusedPerson, Storage, StorageError};

/// The stored people and clients that a list mentions.
#[derive(Default)]
pub(super) struct Names {
    people: HashMap<String, Option<String>>,
    clients: HashMap<String, Option<String>>,
    /// What is kept of people that the rules refused.
    refused: Vec<RefusedPerson>,
}

/// A text on a page that may lead somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) text: String,
    pub(super) path: Option<String>,
    /// Whether others chose the text, so that its direction must not affect the text around it.
    pub(super) foreign: bool,
}

impl Linked {
    /// A text of this program.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), path: None, foreign: false }
    }

    /// A text that others chose.
    pub(super) fn foreign(text: impl Into<String>) -> Self {
        Self { text: text.into(), path: None, foreign: true }
    }

    fn to(text: &str, path: String) -> Self {
        Self { text: text.to_owned(), path: Some(path), foreign: true }
    }
}

impl Names {
    /// Loads the names of these people and clients. Those that are not stored are left out.
    pub(super) async fn of(
        storage: &Storage,
        subjects: &[&str],
        client_ids: &[&str],
    ) -> Result<Self, StorageError> {
        let people = storage.names_of_people(subjects).await?;
        let refused = storage.refusals_of(subjects).await?;
        let clients = storage.metadata_of_clients(client_ids).await?;
        let clients = clients.into_iter().map(|(id, metadata)| {
            let metadata = ClientMetadata::from_stored_json(&metadata).ok();
            let name = metadata.as_ref().and_then(|known| known.client_name.as_deref());
            (id, DisplayName::of(name).text)
        });
        Ok(Self { people, clients: clients.collect(), refused })
    }

    /// Returns a person by name, with a link to their page. Somebody who is not stored (refused at the first
    /// sign-in) has no page, so the link searches the audit trail.
    pub(super) fn person(&self, subject: &str) -> Linked {
        if let Some(name) = self.people.get(subject) {
            return Linked::to(name.as_deref().unwrap_or(subject), person_path(subject));
        }
        let refused = self.refused.iter().find(|row| row.subject == subject);
        let name = refused.and_then(|row| row.person.clone().shown_name());
        Linked::to(name.as_deref().unwrap_or(subject), search("sub", subject))
    }

    /// Returns what the identity provider sent about a person at the refusal with this reference.
    pub(super) fn facts_at(&self, reference: &str) -> Option<&Facts> {
        let refused = self.refused.iter().find(|row| row.reference.as_deref() == Some(reference));
        refused.map(|row| &row.person.facts)
    }

    /// Returns a client by name, with a link to its page, or to the audit trail if it is not stored.
    pub(super) fn client(&self, id: &str) -> Linked {
        match self.clients.get(id) {
            Some(name) => Linked::to(name.as_deref().unwrap_or(id), client_path(id)),
            None => Linked::to(id, search("client", id)),
        }
    }
}

/// Returns the name of an MCP server, or its id if it has no name or is no longer configured.
pub(super) fn server_name<'a>(resources: &'a [ResourceConfig], id: &'a str) -> &'a str {
    let known = resources.iter().find(|resource| resource.id == id);
    known.and_then(|resource| resource.name.as_deref()).unwrap_or(id)
}

/// Returns the path of a search of the audit trail.
fn search(by: &str, value: &str) -> String {
    let mut query = query("/audit");
    query.append_pair(by, value).finish()
}
