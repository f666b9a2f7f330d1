//! The page that connects a service, such as GitHub, for MCP servers that act there as the person.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use crate::config::paths;
use crate::web::locales::ConnectWords;

/// The page that connects a service. Its fields are in the order in which the page shows them.
#[derive(Clone, Copy, Debug)]
pub struct ConnectPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    pub standing: ConnectStanding,
    /// Display name of the service.
    pub service: &'a str,
    /// Display name of the signed-in person.
    pub person: &'a str,
    /// What the browser brought back from the service.
    pub news: ConnectNews,
    /// The MCP server that the person came from; `None` if they came by themselves.
    pub server: Option<ConnectServer<'a>>,
    /// The account at the service, if it is connected and known.
    pub account: Option<&'a str>,
    /// Texts of the scopes that are asked for: only those that the connection does not have.
    pub scopes: &'a [&'a str],
    /// The MCP servers that will use the connection.
    pub servers: &'a [&'a str],
    pub name: &'a str,
    /// The CSRF token of the session.
    pub csrf: &'a str,
}

/// The MCP server for which a person connects a service.
#[derive(Clone, Copy, Debug)]
pub struct ConnectServer<'a> {
    /// Display name, or the identifier.
    pub name: &'a str,
    /// Resource identifier.
    pub id: &'a str,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStanding {
    /// Not connected.
    First,
    /// Connected, without some of the scopes that are asked for.
    More,
    /// Connected, and the service no longer accepts it.
    Again,
    /// Connected, with all scopes.
    Done,
}

/// What a browser brought back from a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectNews {
    /// The person said no.
    pub refused: bool,
    /// The person left out scopes.
    pub partial: bool,
    /// The person connected another account than before.
    pub other_account: bool,
}

#[derive(Template)]
#[template(path = "connect/connect.html")]
struct ConnectTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a ConnectPage<'a>,
    w: &'static ConnectWords,
}

impl ConnectPage<'_> {
    fn title(&self, w: &'static ConnectWords) -> String {
        let title = match self.standing {
            ConnectStanding::First => &w.title,
            ConnectStanding::More => &w.more_title,
            ConnectStanding::Again => &w.again_title,
            ConnectStanding::Done => &w.done_title,
        };
        title.with(self.service)
    }

    fn is_done(&self) -> bool {
        self.standing == ConnectStanding::Done
    }

    /// Returns the heading of the list of scopes.
    fn asks(&self, w: &'static ConnectWords) -> &'static str {
        if self.standing == ConnectStanding::More { &w.asks_new } else { &w.asks_to }
    }

    fn is_broken(&self) -> bool {
        self.standing == ConnectStanding::Again
    }

    fn keeps(&self) -> bool {
        self.standing == ConnectStanding::More
    }

    /// Returns the path that receives the form.
    fn action(&self) -> String {
        paths::connect(self.name)
    }

    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let w = &self.frame.words().connect;
        let template = ConnectTemplate { frame: self.frame, page: self, w };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}
