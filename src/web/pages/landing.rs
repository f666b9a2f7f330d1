//! The pages at our own address and at those of MCP servers: what this is, and how to connect an application.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use crate::web::locales::LandingWords;

/// The page at our own address, or at that of an MCP server.
#[derive(Clone, Copy, Debug)]
pub struct LandingPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    /// Whether this is the page of one MCP server.
    pub of_server: bool,
    pub servers: &'a [ConnectableServer],
    /// The signed-in person; the servers are then those that they may use.
    pub person: Option<&'a str>,
    /// Whether other computers cannot reach these addresses.
    pub only_here: bool,
    /// Display name of the identity provider.
    pub identity_provider: &'a str,
}

/// An MCP server, with what clients need to connect.
#[derive(Clone, Debug)]
pub struct ConnectableServer {
    /// The operator's name for it.
    pub name: Option<String>,
    pub url: String,
    /// A short name for configurations of clients: lower-case letters, digits and hyphens.
    pub key: String,
    /// The link that adds it to Cursor.
    pub cursor: String,
    /// The link that adds it to VS Code.
    pub vscode: String,
}

#[derive(Template)]
#[template(path = "landing.html")]
struct LandingTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a LandingPage<'a>,
    w: &'static LandingWords,
}

impl LandingPage<'_> {
    fn title(&self, w: &'static LandingWords) -> &'static str {
        if self.of_server { &w.server_title } else { &w.title }
    }

    /// Returns whether the ways to connect are shown at once: with several servers the page would be too long.
    fn is_open(&self) -> bool {
        self.servers.len() == 1
    }

    pub fn render(&self, status: StatusCode) -> Response {
        let w = &self.frame.words().landing;
        let template = LandingTemplate { frame: self.frame, page: self, w };
        self.frame.respond(status, Style::People, template.render())
    }
}
