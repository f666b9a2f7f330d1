//! The route table, in the order a client meets it.

mod account;
mod authorize;
mod callback;
mod consent;
mod health;
mod introspect;
mod login;
mod metadata;
mod register;
mod remembered;
mod revoke;
mod standing;
mod step_up;
mod token;
mod upstream_notice;
mod waiting;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};

use crate::app::App;
use crate::web::cors;
use crate::web::pages::Message;
use crate::web::people::{self, PageError};

/// All endpoints of the authorization server.
pub fn routes(app: &App) -> Router<App> {
    people_routes()
        .merge(client_routes(app))
        .merge(resource_routes(app))
        .merge(upstream_routes())
        .merge(health::routes())
}

/// For programs: any origin may read them, none is trusted with cookies.
fn client_routes(app: &App) -> Router<App> {
    // Discover …
    metadata::routes(app)
        // … register …
        .route("/register", post(register::post))
        .route(
            "/register/{client_id}",
            get(register::read).put(register::replace).delete(register::delete),
        )
        // … redeem, refresh …
        .route("/token", post(token::post))
        // … and give back.
        .route("/revoke", post(revoke::post))
        .layer(cors::any_origin())
}

/// For MCP servers that ask about tokens; there only when one may.
fn resource_routes(app: &App) -> Router<App> {
    if app.config().offers_introspection() {
        Router::new().route("/introspect", post(introspect::post))
    } else {
        Router::new()
    }
}

/// For people: ask, approve, come back; later see what is connected. No other origin may read them.
fn people_routes() -> Router<App> {
    Router::new()
        .route("/authorize", get(authorize::get).fallback(method_not_allowed))
        .route("/consent", post(consent::post).fallback(method_not_allowed))
        .route("/auth/callback", get(callback::get).fallback(method_not_allowed))
        .route("/waiting", get(waiting::get).fallback(method_not_allowed))
        .route("/account", get(account::get).fallback(method_not_allowed))
        .route("/account/sign-in", post(account::sign_in).fallback(method_not_allowed))
        .route("/account/signed-in", get(account::signed_in).fallback(method_not_allowed))
        .route("/account/disconnect", post(account::disconnect).fallback(method_not_allowed))
        .route("/account/sign-out", post(account::sign_out).fallback(method_not_allowed))
        .route(
            "/account/sign-out-everywhere",
            post(account::sign_out_everywhere).fallback(method_not_allowed),
        )
}

/// For the identity provider, which proves itself with a signed token.
fn upstream_routes() -> Router<App> {
    Router::new()
        .route("/backchannel-logout", post(upstream_notice::backchannel_logout))
        .route("/global-token-revocation", post(upstream_notice::global_token_revocation))
}

async fn method_not_allowed(headers: HeaderMap) -> Response {
    people::message(&headers, StatusCode::METHOD_NOT_ALLOWED, Message::MethodNotAllowed)
}

/// Everything else: a page for browsers, plain JSON below `/.well-known/`, where clients probe and
/// stop at anything but a 404 that is not HTML.
pub async fn not_found(headers: HeaderMap, uri: Uri) -> Result<Response, PageError> {
    let for_people = !uri.path().contains("/.well-known/")
        && headers
            .get(axum::http::header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
    if for_people {
        return Ok(people::message(&headers, StatusCode::NOT_FOUND, Message::NotFound));
    }
    let body = serde_json::json!({ "error": "not_found" });
    Ok(crate::web::error::json(StatusCode::NOT_FOUND, &body))
}
