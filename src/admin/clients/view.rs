//! A client, prepared for display.

use super::words::ClientWords;
use crate::admin::links::client_path;
use crate::oauth::client::{AuthMethod, ClientMetadata};
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::storage::{ClientActivity, ClientReview, ClientRow, ReviewState};

/// A client, prepared for display.
pub(super) struct ClientView {
    pub(super) row: ClientRow,
    pub(super) metadata: Option<ClientMetadata>,
    pub(super) name: Option<String>,
    pub(super) suspicious: bool,
    pub(super) goes_to: String,
    pub(super) activity: ClientActivity,
}

impl ClientView {
    pub(super) fn of(row: ClientRow, activity: ClientActivity) -> Self {
        let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
        let name = metadata.as_ref().and_then(|metadata| metadata.client_name.as_deref());
        let name = DisplayName::of(name);
        let first = metadata.as_ref().and_then(|metadata| metadata.redirect_uris.first());
        let goes_to = first.map(|uri| destination(uri.as_str()).to_string()).unwrap_or_default();
        Self { row, metadata, name: name.text, suspicious: name.suspicious, goes_to, activity }
    }

    pub(super) fn path(&self) -> String {
        client_path(&self.row.id)
    }

    pub(super) fn kind(&self, w: &'static ClientWords) -> &'static str {
        match self.row.kind.as_str() {
            "created" => w.created,
            "configured" => w.configured,
            "document" => w.document,
            _ => w.registered,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.row.standing.state == ReviewState::Waiting
    }

    pub(super) fn is_refused(&self) -> bool {
        self.row.standing.state == ReviewState::Rejected
    }

    /// Returns whether an administrator created it: only then its metadata and secret can be changed here.
    pub(super) fn is_created(&self) -> bool {
        self.row.kind == "created"
    }

    /// Returns the style and the text of each label. What waits, what is refused and what is blocked look
    /// different.
    pub(super) fn tags(&self, w: &'static ClientWords) -> Vec<(&'static str, &'static str)> {
        let ClientReview { state, trusted, blocked, .. } = &self.row.standing;
        let mut tags = Vec::new();
        match state {
            ReviewState::NotReviewed => {}
            ReviewState::Waiting => tags.push(("waits", w.waiting)),
            ReviewState::Approved => tags.push(("good", w.approved)),
            ReviewState::Rejected => tags.push(("refused", w.refused)),
        }
        if *trusted {
            tags.push(("good", w.trusted));
        }
        if *blocked {
            tags.push(("blocked", w.blocked));
        }
        tags
    }

    /// Returns how many people wait, as a phrase.
    pub(super) fn waiting_people(&self, w: &'static ClientWords) -> String {
        match self.activity.waiting {
            1 => w.one_waits.to_owned(),
            number => format!("{number}{}", w.people_wait),
        }
    }

    /// Returns how the client authenticates.
    pub(super) fn authentication(&self, w: &'static ClientWords) -> String {
        match self.metadata.as_ref().map(|metadata| metadata.token_endpoint_auth_method) {
            None => String::new(),
            Some(AuthMethod::None) => format!("none {}", w.public_client),
            Some(method) => method.as_str().to_owned(),
        }
    }
}

/// Returns whether all redirect URIs are websites. Only then can a client be told apart from another.
pub(crate) fn trustable(metadata: &ClientMetadata) -> bool {
    metadata
        .redirect_uris
        .iter()
        .all(|uri| matches!(destination(uri.as_str()), Destination::Https { .. }))
}
