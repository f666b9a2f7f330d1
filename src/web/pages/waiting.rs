//! The page of a person who waits for an administrator.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use crate::web::locales::Text;

/// The page for a person who waits for an administrator. It reloads by itself.
#[derive(Clone, Copy, Debug)]
pub struct WaitingPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingTemplate<'a> {
    frame: PageFrame<'a>,
    text: &'static Text,
}

impl WaitingPage<'_> {
    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let text = &self.frame.words().messages.waiting;
        let template = WaitingTemplate { frame: self.frame, text };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}
