//! What the routes of pages share.

use axum::middleware;
use axum::response::Response;
use axum::routing::MethodRouter;

use super::browser::Browser;
use super::pages::Message;
use super::speculative;
use crate::app::App;

/// Fallback for the other methods of a page's path.
pub async fn method_not_allowed(browser: Browser) -> Response {
    browser.message(Message::MethodNotAllowed)
}

/// Protects a step that can be taken only once from prefetching browsers and link scanners.
pub fn once(step: MethodRouter<App>) -> MethodRouter<App> {
    step.fallback(method_not_allowed).layer(middleware::from_fn(speculative::keep_out))
}
