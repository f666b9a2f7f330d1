//! The page of a person who waits for an administrator.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use crate::oauth::redirect_uri::Destination;
use crate::web::locales::WaitingWords;

/// The page for a person who waits for an administrator. It reloads by itself.
#[derive(Clone, Copy, Debug)]
pub struct WaitingPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    pub destination: &'a Destination,
    /// The client's own name, already made safe for display; `None` if it has none, or one that imitates another.
    pub client_name: Option<&'a str>,
    /// The MCP server's name, or its URL.
    pub server: &'a str,
    /// When the waiting began, for people.
    pub since: &'a str,
    /// Whole minutes since then.
    pub minutes: u64,
    /// When it ends at the latest, for people.
    pub until: &'a str,
    /// Whether administrators are notified of waiting clients.
    pub notified: bool,
    /// The id of the waiting login, for the form that ends it.
    pub id: &'a str,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a WaitingPage<'a>,
    w: &'static WaitingWords,
}

impl WaitingPage<'_> {
    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let w = &self.frame.words().waiting;
        let template = WaitingTemplate { frame: self.frame, page: self, w };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}
