//! The texts of the pages on which people connect and disconnect services.

use serde::Deserialize;

use super::{Around, Between};

/// The page that connects a service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectWords {
    pub title: Around,
    pub more_title: Around,
    pub again_title: Around,
    pub done_title: Around,
    pub needs: Between,
    pub explained: Around,
    pub used_by: String,
    pub asks_to: String,
    pub asks_new: String,
    pub keeps: String,
    pub no_scopes: Around,
    pub only_if: String,
    pub button: Around,
    pub go_back: String,
    pub connected_as: Around,
    pub other_account: String,
    pub partial: Around,
    pub refused: Around,
    pub broken: Around,
    pub cancel: String,
}

/// The page with the services that a person has connected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesWords {
    pub title: String,
    pub explained: String,
    pub link_note: String,
    pub none: String,
    pub account: String,
    pub used_by: String,
    pub nobody: String,
    pub since: String,
    pub last_use: String,
    pub never: String,
    pub allowed: String,
    pub wanted: String,
    pub missing: String,
    pub no_scopes: String,
    pub connected: String,
    pub not_connected: String,
    pub broken: String,
    pub broken_note: Around,
    pub gone: String,
    pub connect: String,
    pub connect_what: Around,
    pub reconnect: String,
    pub reconnect_what: Around,
    pub allow_more: String,
    pub allow_more_what: Around,
    pub disconnect: String,
    pub disconnect_what: Around,
    pub disconnected: String,
    pub not_there: String,
    pub confirm_title: Around,
    pub confirm_stops: String,
    pub confirm_nobody: String,
    pub confirm_tokens: Around,
    pub own_title: String,
    pub own_note: Around,
}
