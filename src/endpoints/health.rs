//! Health checks for orchestrators: liveness and readiness.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use crate::app::{App, Compared};
use crate::config::paths;
use crate::storage::{Ready, Room};
use crate::web::error;

pub(super) fn routes() -> Router<App> {
    Router::new().route(paths::HEALTH, get(health)).route(paths::READY, get(ready))
}

/// Liveness: returns 200 while the process can serve requests, and reveals nothing else.
async fn health() -> Response {
    error::json(StatusCode::OK, &json!({ "status": "alive" }))
}

/// Readiness. Returns 503 if the database is missing, silent or takes no writes, if this replica's clock is
/// off while that of another one is right, or if the process is shutting down.
///
/// Other trouble only changes the status to "degraded", because taking the process out of service would not
/// help: a database without space for sign-ins or refreshes still revokes grants and serves calls with a
/// token; a task may have panicked and been restarted; the log may lose lines. The state of the identity
/// provider is shown but not required: people who are signed in can be served without it.
async fn ready(State(app): State<App>) -> Response {
    let database = app.storage().ready(app.now()).await;
    let room = match database {
        Ready::Yes(room) => Some(room),
        _ => None,
    };
    let compared = app.compared();
    let ready = room.is_some() && !compared.clock_apart && !app.is_leaving();
    let upstream = if app.upstream().is_known().await { "known" } else { "not reached yet" };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reading = app.reading();
    let configuration = match (reading.problems.is_empty(), reading.waiting.is_empty()) {
        (true, true) => "as written",
        (true, false) => "waits for a restart",
        (false, _) => "has mistakes; the one before is in use",
    };
    let now = app.now();
    let tasks: serde_json::Map<_, _> = app
        .metrics()
        .tasks_in_trouble(now)
        .into_iter()
        .map(|(task, trouble)| (task.to_owned(), trouble.into()))
        .collect();
    let loses_lines = app.metrics().loses_lines(now);
    let degraded = room < Some(Room::Enough) || !tasks.is_empty() || loses_lines;
    let mut body = json!({
        "status": match (ready, app.is_leaving()) {
            (true, _) if degraded => "degraded",
            (true, _) => "ready",
            (false, true) => "shutting down",
            (false, false) => "not ready",
        },
        "database": match database {
            Ready::Yes(_) => "ok",
            Ready::Unavailable => "unavailable",
            Ready::ReadOnly => "takes no writes",
            Ready::RightsMissing => "rights are missing",
            Ready::ClockBehind => "the clock lies before its last time",
            Ready::FileGone => "the file is gone",
        },
        "clock": clock(&compared),
        "room": room.map_or("unknown", Room::as_str),
        "keys": "ok",
        "upstream": upstream,
        "configuration": configuration,
        "log": if loses_lines { "lines are lost" } else { "ok" },
    });
    if !tasks.is_empty() {
        body["tasks"] = tasks.into();
    }
    error::json(status, &body)
}

/// Describes how our clock compares with the database's.
fn clock(compared: &Compared) -> String {
    match (compared.clock_ahead, compared.clock_off()) {
        (None, _) => "not compared".to_owned(),
        (Some(_), None) => "right".to_owned(),
        (_, Some(ahead)) => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            format!("{} s {side} the database's", ahead.abs())
        }
    }
}
