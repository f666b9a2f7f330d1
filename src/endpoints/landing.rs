//! `GET /`: says what this is and how to connect an application, and lists the MCP servers. A person who is signed in to
//! `/account` sees those that they may use.

use axum::response::Response;

use super::not_found;
use crate::web::browser::Browser;
use crate::web::page_error::PageError;
use crate::web::{landing, limits, web_session};

pub(super) async fn get(browser: Browser) -> Result<Response, PageError> {
    if !browser.app.config().landing || !browser.wants_page() {
        return Ok(not_found(browser).await);
    }
    limits::check_page(&browser)?;
    let visitor = web_session::visitor(&browser).await?;
    Ok(landing::ours(&browser.app, browser.frame(), visitor.as_ref()))
}
