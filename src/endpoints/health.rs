//! For orchestrators: alive, and able to serve.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use crate::app::App;
use crate::web::error;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

/// The process answers. Says nothing else.
async fn health() -> Response {
    error::json(StatusCode::OK, &json!({ "status": "alive" }))
}

/// The database answers and keys are loaded. The identity provider is shown but not required:
/// who is signed in can be served without it.
async fn ready(State(app): State<App>) -> Response {
    let database = app.storage().ping().await.is_ok();
    let upstream = if app.upstream().is_known().await { "known" } else { "not reached yet" };
    let status = if database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reading = app.reading();
    let configuration = match (reading.mistakes.is_empty(), reading.waiting.is_empty()) {
        (true, true) => "as written",
        (true, false) => "waits for a restart",
        (false, _) => "has mistakes; the one before is in use",
    };
    let body = json!({
        "status": if database { "ready" } else { "not ready" },
        "database": if database { "ok" } else { "unavailable" },
        "keys": "ok",
        "upstream": upstream,
        "configuration": configuration,
    });
    error::json(status, &body)
}
