//! The routes of the authorization server, in the order in which a client uses them.

mod account;
mod branding;
mod connections;
mod health;
mod introspect;
mod landing;
mod language;
mod metadata;
mod provider_logout;
mod register;
mod revoke;
mod sign_in;
mod token;

use axum::Router;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};

use crate::app::App;
use crate::config::paths;
use crate::web::browser::{Browser, page};
use crate::web::pages::{self, Message};
use crate::web::routes::{method_not_allowed, once};
use crate::web::{cors, error};

/// Returns the routes of all endpoints of the authorization server.
pub fn routes(app: &App) -> Router<App> {
    people_routes()
        .merge(client_routes(app))
        .merge(resource_routes(app))
        .merge(upstream_routes())
        .merge(branding::routes(app))
        .merge(health::routes())
}

/// Returns the routes of health probes alone.
pub fn health_routes() -> Router<App> {
    health::routes()
}

/// For clients. Scripts of any origin may read the responses, because no cookie is accepted here.
fn client_routes(app: &App) -> Router<App> {
    // Discovery …
    metadata::routes(app)
        // … registration …
        .route(paths::REGISTER, post(register::post))
        .route(
            paths::REGISTERED,
            get(register::read).put(register::replace).delete(register::delete),
        )
        // … redemption and refresh …
        .route(paths::TOKEN, post(token::post))
        // … revocation.
        .route(paths::REVOKE, post(revoke::post))
        .layer(cors::any_origin())
}

/// For MCP servers that introspect tokens. Present only if the configuration lets a server do so.
fn resource_routes(app: &App) -> Router<App> {
    if app.config().offers_introspection() {
        Router::new().route(paths::INTROSPECT, post(introspect::post))
    } else {
        Router::new()
    }
}

/// For people: the login and the account pages. No other origin may read the responses.
fn people_routes() -> Router<App> {
    sign_in::routes()
        .merge(account_routes())
        .merge(connections::routes())
        .merge(language_routes())
        .merge(landing_routes())
}

/// The choice of a language. The login uses it too, so it must not isolate the window of the browser.
fn language_routes() -> Router<App> {
    let chosen = post(page(language::post)).fallback(method_not_allowed);
    Router::new().route(paths::ACCOUNT_LANGUAGE, chosen)
}

/// The page at our own address. Other methods are answered as everywhere where there is nothing: programs probe this
/// address.
fn landing_routes() -> Router<App> {
    Router::new().route(
        paths::LANDING,
        get(page(landing::get))
            .fallback(not_found)
            .layer(middleware::map_response(pages::isolate_window)),
    )
}

/// The pages on which people see and disconnect their applications.
fn account_routes() -> Router<App> {
    Router::new()
        .route(paths::ACCOUNT, get(page(account::get)).fallback(method_not_allowed))
        .route(paths::ACCOUNT_SIGN_IN, post(page(account::sign_in)).fallback(method_not_allowed))
        .route(paths::ACCOUNT_SIGNED_IN, once(get(page(account::signed_in))))
        .route(paths::ACCOUNT_CONFIRM, get(page(account::confirm)).fallback(method_not_allowed))
        .route(
            paths::ACCOUNT_DISCONNECT,
            post(page(account::disconnect)).fallback(method_not_allowed),
        )
        .route(paths::ACCOUNT_SIGN_OUT, post(page(account::sign_out)).fallback(method_not_allowed))
        .route(
            paths::ACCOUNT_SIGN_OUT_EVERYWHERE,
            post(page(account::sign_out_everywhere)).fallback(method_not_allowed),
        )
        .layer(middleware::map_response(pages::isolate_window))
}

/// For the identity provider, which authenticates with a signed token.
fn upstream_routes() -> Router<App> {
    Router::new()
        .route(paths::BACKCHANNEL_LOGOUT, post(provider_logout::backchannel_logout))
        .route(paths::GLOBAL_TOKEN_REVOCATION, post(provider_logout::global_token_revocation))
}

/// Fallback for paths outside the path of `public_url`. Usually a proxy in front strips that path, and then
/// nothing works, so the response explains it.
pub async fn not_below_our_path(browser: Browser) -> Response {
    if browser.wants_page() {
        return browser.message(Message::NotFound);
    }
    let base = browser.url().base_path();
    error::not_found(Some(&format!(
        "This server answers below {base}; a proxy in front must pass the path on as it is"
    )))
}

/// Fallback for all other paths: a page for browsers, otherwise JSON.
pub async fn not_found(browser: Browser) -> Response {
    if browser.wants_page() {
        return browser.message(Message::NotFound);
    }
    error::not_found(None)
}
