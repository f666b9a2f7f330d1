//! `GET /metrics`: the metrics of this process in Prometheus' text format.
//!
//! A scraper is a program and cannot sign in. Access is limited by the address of the admin listener, which
//! is loopback unless an administrator opens it, and by `admin.metrics_token` if that is set. The metrics
//! name no person, client or secret.

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::SecretText;
use crate::oauth::secret::{MetricsToken, SecretHash};
use crate::signing::KeyState;
use crate::storage::{Engine, Ready};
use crate::telemetry::metrics::{CONTENT_TYPE, Snapshot};
use crate::web::bearer_token::BearerToken;

pub(super) async fn get(State(app): State<App>, bearer: BearerToken) -> Response {
    let token = app.config().admin.as_ref().and_then(|admin| admin.metrics_token.as_ref());
    if token.is_some_and(|token| !proves(&bearer, token)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"metrics\"")];
        return (StatusCode::UNAUTHORIZED, challenge, Body::empty()).into_response();
    }
    match app.metrics().text(&snapshot(&app).await) {
        Ok(text) => {
            let headers =
                [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
            (headers, text).into_response()
        }
        Err(cause) => {
            tracing::error!(%cause, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Compares hashes, so that the timing reveals nothing about the token.
fn proves(BearerToken(presented): &BearerToken, token: &SecretText) -> bool {
    let expected = SecretHash::<MetricsToken>::of(token.expose());
    presented.as_ref().is_some_and(|presented| {
        SecretHash::<MetricsToken>::of(presented.trim()).is(expected.as_str())
    })
}

/// Collects the values that other parts hold. Waits at most one second for those that the database counts, because
/// an administrator needs the other metrics most when the database is silent.
async fn snapshot(app: &App) -> Snapshot {
    // 1 second: longest wait for what the database counts.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    let (clients, bytes) = tokio::join!(
        tokio::time::timeout(PATIENCE, app.storage().registered_clients()),
        tokio::time::timeout(PATIENCE, app.storage().database_bytes()),
    );
    let limits = &app.config().limits;
    let keys = app.keys().describe();
    let reading = app.reading();
    let room = match app.storage().ready(app.now()).await {
        Ready::Yes(room) => Some(room),
        _ => None,
    };
    let compared = app.compared();
    Snapshot {
        ready: room.is_some() && !compared.clock_apart && !app.is_leaving(),
        clock_ahead: compared.clock_ahead.unwrap_or_default(),
        replicas: compared.others + 1,
        configured_differently: compared.configured_differently,
        went_back_at: app.storage().went_back_at().map_or(0, Timestamp::unix),
        database_room: room.map_or(0, |room| room as u8),
        database_bytes: bytes.ok().and_then(Result::ok),
        database_bytes_limit: match app.storage().engine() {
            Engine::Sqlite => limits.database_size,
            Engine::Postgres => 0,
        },
        upstream_paused: app.upstream().health().paused,
        clients: clients.ok().and_then(Result::ok),
        clients_limit: limits.clients,
        audit_waiting: app.audit_events_waiting(),
        writer_waiting: app.storage().writer_waiting(),
        database_connections: app.storage().pool_connections(),
        configured_at: app.configured_at().unix(),
        problems: reading.problems.len(),
        waiting: reading.waiting.len(),
        targets: app.targets_up(),
        certificate: app.certificates().expires_at().map(|(origin, expires_at)| {
            (origin.into(), expires_at.unix().saturating_sub(app.now().unix()))
        }),
        keys: keys
            .iter()
            .map(|key| (key.alg, state(key.state), key.created_at.unix(), key.signs_from.unix()))
            .collect(),
    }
}

const fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Current => "current",
        KeyState::Former => "former",
    }
}
