//! The routes of the authorization server, in the order in which a client uses them.

mod account;
mod health;
mod introspect;
mod metadata;
mod provider_logout;
mod register;
mod revoke;
mod sign_in;
mod token;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

use crate::app::App;
use crate::config::paths;
use crate::web::browser::{self, PageError};
use crate::web::cors;
use crate::web::pages::{self, Message};
use crate::web::speculative;

/// Returns the routes of all endpoints of the authorization server.
pub fn routes(app: &App) -> Router<App> {
    people_routes()
        .merge(client_routes(app))
        .merge(resource_routes(app))
        .merge(upstream_routes())
        .merge(health::routes())
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
    sign_in::routes().merge(account_routes())
}

/// The pages on which people see and disconnect their applications.
fn account_routes() -> Router<App> {
    Router::new()
        .route(paths::ACCOUNT, get(account::get).fallback(method_not_allowed))
        .route(paths::ACCOUNT_SIGN_IN, post(account::sign_in).fallback(method_not_allowed))
        .route(paths::ACCOUNT_SIGNED_IN, once(get(account::signed_in)))
        .route(paths::ACCOUNT_CONFIRM, get(account::confirm).fallback(method_not_allowed))
        .route(paths::ACCOUNT_DISCONNECT, post(account::disconnect).fallback(method_not_allowed))
        .route(paths::ACCOUNT_SIGN_OUT, post(account::sign_out).fallback(method_not_allowed))
        .route(
            paths::ACCOUNT_SIGN_OUT_EVERYWHERE,
            post(account::sign_out_everywhere).fallback(method_not_allowed),
        )
        .layer(middleware::map_response(pages::isolate_window))
}

/// Protects a step that can be taken only once from prefetching browsers and link scanners.
fn once(step: MethodRouter<App>) -> MethodRouter<App> {
    step.fallback(method_not_allowed).layer(middleware::from_fn(speculative::keep_out))
}

/// For the identity provider, which authenticates with a signed token.
fn upstream_routes() -> Router<App> {
    Router::new()
        .route(paths::BACKCHANNEL_LOGOUT, post(provider_logout::backchannel_logout))
        .route(paths::GLOBAL_TOKEN_REVOCATION, post(provider_logout::global_token_revocation))
}

/// Fallback for paths outside the path of `public_url`. Usually a proxy in front strips that path, and then
/// nothing works, so the response explains it.
pub async fn not_below_our_path(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    if wants_page(&headers, &uri) {
        return browser::message(&headers, StatusCode::NOT_FOUND, Message::NotFound);
    }
    let base = app.config().public_url.base_path();
    let description = format!(
        "This server answers below {base}; a proxy in front must pass the path on as it is"
    );
    let body = serde_json::json!({ "error": "not_found", "error_description": description });
    crate::web::error::json(StatusCode::NOT_FOUND, &body)
}

async fn method_not_allowed(headers: HeaderMap) -> Response {
    browser::message(&headers, StatusCode::METHOD_NOT_ALLOWED, Message::MethodNotAllowed)
}

/// Fallback for all other paths: a page for browsers, otherwise JSON. Below `/.well-known/` it is always
/// JSON, because probing clients give up on anything except a 404 that is not HTML.
pub async fn not_found(headers: HeaderMap, uri: Uri) -> Result<Response, PageError> {
    if wants_page(&headers, &uri) {
        return Ok(browser::message(&headers, StatusCode::NOT_FOUND, Message::NotFound));
    }
    let body = serde_json::json!({ "error": "not_found" });
    Ok(crate::web::error::json(StatusCode::NOT_FOUND, &body))
}

fn wants_page(headers: &HeaderMap, uri: &Uri) -> bool {
    !uri.path().contains("/.well-known/")
        && headers
            .get(axum::http::header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"))
}
