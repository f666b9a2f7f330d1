//! A grant as the lists of the admin pages show it.

use super::links::client_path;
use super::names::server_name;
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::storage::GrantRow;
use crate::web::in_force::{InForceWords, OfGrant};
use crate::web::list_page::Frame;

/// A grant, prepared for display.
pub(super) struct GrantView {
    pub(super) row: GrantRow,
    pub(super) client: Option<String>,
    /// Name of the MCP server, or its id.
    pub(super) server: String,
    pub(super) ended: bool,
    /// The scopes in force, and a note on the age of the facts if they are old.
    pub(super) in_force: String,
    pub(super) facts_note: Option<String>,
}

impl GrantView {
    pub(super) fn of_all(visit: &AdminPage, frame: &Frame, rows: Vec<GrantRow>) -> Vec<Self> {
        let (config, now) = (visit.app().config(), visit.app().now());
        let w = InForceWords::of(frame.language);
        rows.into_iter().map(|row| Self::of(config, w, row, now)).collect()
    }

    fn of(config: &Config, w: &'static InForceWords, row: GrantRow, now: Timestamp) -> Self {
        let in_force = OfGrant::of(config, &row, now);
        let metadata = row.client_metadata.as_deref().map(ClientMetadata::from_stored_json);
        let name = metadata.as_ref().and_then(|m| m.as_ref().ok()?.client_name.as_deref());
        Self {
            client: DisplayName::of(name).text,
            server: server_name(&config.resources, &row.resource).to_owned(),
            ended: row.revoked.is_some() || now >= row.expires_at,
            in_force: in_force.text(w),
            facts_note: in_force.note(w),
            row,
        }
    }

    /// Returns the person's name, or their subject.
    pub(super) fn person(&self) -> &str {
        let person = &self.row.person;
        let known = [person.name.as_deref(), person.email.as_deref()];
        let mut known = known.into_iter().flatten().filter(|text| !text.trim().is_empty());
        known.next().unwrap_or(&self.row.subject)
    }

    pub(super) fn client_path(&self) -> String {
        client_path(&self.row.client_id)
    }
}
