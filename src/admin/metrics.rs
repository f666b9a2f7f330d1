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
use crate::config::SecretText;
use crate::oauth::secret::{MetricsToken, SecretHash};
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::web::bearer_token::BearerToken;

pub(super) async fn get(State(app): State<App>, bearer: BearerToken) -> Response {
    let token = app.config().admin.as_ref().and_then(|admin| admin.metrics_token.as_ref());
    if token.is_some_and(|token| !proves(&bearer, token)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"metrics\"")];
        return (StatusCode::UNAUTHORIZED, challenge, Body::empty()).into_response();
    }
    match app.metrics().text(&app.snapshot().await) {
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
