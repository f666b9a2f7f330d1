//! The admin listener: pages for the people who run this server (threats AD-01 to AD-06).
//!
//! Never served on the public listener. Everybody signs in through the identity provider and needs one of
//! the roles, groups or subjects in `[admin]`. Those in `[admin.read_only]` see everything and change
//! nothing. A change requires a form of the same web session, and a destructive change also a sign-in
//! younger than ten minutes. `/metrics` is for programs, which cannot sign in (`metrics.rs`).

pub(crate) mod advice;
mod audit;
mod audit_search;
mod audit_words;
mod chart;
mod client_label;
mod clients;
pub(crate) mod configured;
mod confirm;
mod connections;
mod day;
mod export;
mod grant_view;
mod grants;
mod icon;
mod keys;
mod links;
mod metrics;
mod names;
mod notifications;
mod overview;
mod people;
mod refused;
mod rule_view;
mod sentences;
mod servers;
mod target_line;
mod telling;
mod usage;
mod usage_export;
mod usage_search;
mod usage_words;
mod visit;

use axum::Router;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};

pub(crate) use clients::trustable;
pub(crate) use telling::audit_sentences;

use crate::app::App;
use crate::web::browser::{Browser, admin_page as page};
use crate::web::page_error::PageError;
use crate::web::pages::{self, Message};
use crate::web::speculative;

/// Returns the routes of all pages of the admin listener.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page(overview::get)))
        .route("/sign-in", post(page(visit::sign_in)))
        .route(
            "/signed-in",
            get(page(visit::signed_in)).layer(middleware::from_fn(speculative::keep_out)),
        )
        .route("/sign-out", post(page(visit::sign_out)))
        .route("/clients", get(page(clients::list)).post(page(clients::act_on_list)))
        .route("/clients/new", get(page(clients::new)).post(page(clients::create)))
        .route("/clients/edit", get(page(clients::edit)).post(page(clients::save)))
        .route(
            "/clients/patterns",
            get(page(clients::patterns)).post(page(clients::act_on_patterns)),
        )
        .route("/client", get(page(clients::one)).post(page(clients::act)))
        .route("/confirm", get(page(confirm::get)))
        .route("/grants", get(page(grants::list)))
        .route("/grant", post(page(grants::act)))
        .route("/connections", get(page(connections::list)).post(page(connections::act)))
        .route("/people", get(page(people::list)))
        .route("/person", get(page(people::one)).post(page(people::act)))
        .route("/refused", get(page(refused::list)))
        .route("/refused/person", get(page(refused::one)))
        .route("/servers", get(page(servers::get)))
        .route("/servers/draft", get(page(servers::draft)))
        .route("/usage", get(page(usage::get)))
        .route("/usage/export", get(page(usage_export::get)))
        .route("/keys", get(page(keys::get)).post(page(keys::act)))
        .route("/notifications", get(page(notifications::get)).post(page(notifications::act)))
        .route("/audit", get(page(audit::get)))
        .route("/audit/export", get(page(export::get)))
        .route(icon::PATH, get(icon::get))
        .route(icon::GUESSED_PATH, get(icon::get))
        .route("/metrics", get(metrics::get))
        .fallback(page(not_found))
        .layer(middleware::map_response(pages::isolate_window))
}

async fn not_found(browser: Browser) -> Result<Response, PageError> {
    Ok(browser.message(Message::NoSuchAdminPage))
}
