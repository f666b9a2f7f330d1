//! `POST /register`: dynamic client registration (RFC 7591). `/register/{client_id}`: the client reads,
//! replaces and deletes its registration with its registration access token (RFC 7592).

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::metadata::every_scope;
use crate::app::App;
use crate::config::paths;
use crate::oauth::client::{
    Client, ClientMetadata, ManagementRefused, RegistrationLimits, RegistrationRefused,
};
use crate::oauth::secret::{RegistrationToken, Secret};
use crate::rate_limits::LimitedAction;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::web::bearer_token::BearerToken;
use crate::web::body;
use crate::web::client_address::ClientAddress;
use crate::web::error::{self, ApiError};

/// Seconds (1 hour): `Retry-After` when the quota of clients is reached. Unused clients expire meanwhile.
const QUOTA_RETRY: u64 = 3600;

static FULL: LogThrottle = LogThrottle::new();

pub(super) async fn post(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Result<Response, ApiError> {
    let limits = &app.config().limits;
    let body = body::read_within(body, "register_body", limits.register_body).await?;
    check_is_json(headers.get(header::CONTENT_TYPE))?;
    let limits = RegistrationLimits { redirect_uris: limits.redirect_uris };
    let metadata = ClientMetadata::parse(&body, app.redirect_policy(), &limits)?;
    panic_point!("registration");
    let address = ClientAddress::of(&extensions);
    if address.is_some() && !app.clients().knows(&metadata).await? {
        // Registering the same metadata again does not count against the rate limit.
        let asked = app.rates().check(LimitedAction::Registration, address);
        asked.map_err(|often| ApiError::too_often(LimitedAction::Registration, often))?;
    }
    let Some(registration) = app.clients().register(metadata, address).await? else {
        app.metrics().limited("clients");
        if let Some(left_out) = FULL.admit() {
            tracing::warn!(
                left_out,
                limit = "clients",
                "the quota of registered clients is reached"
            );
        }
        let limit = format!("`limits.clients` = {}", app.config().limits.clients);
        return Err(ApiError::Quota { retry_after: QUOTA_RETRY, limit });
    };
    let mut answer = registration
        .client
        .registration_response(registration.secret.as_deref(), &every_scope(app.config()));
    if let Some(token) = &registration.token {
        add_management(&app, &mut answer, &registration.client, token);
    }
    Ok(error::json(StatusCode::CREATED, &answer))
}

pub(super) async fn read(
    State(app): State<App>,
    Path(client_id): Path<String>,
    bearer: BearerToken,
) -> Result<Response, ApiError> {
    let (client, token) = managed(&app, &client_id, &bearer).await?;
    Ok(present(&app, &client, &token))
}

/// Replaces the whole registration. An omitted member goes back to its default (RFC 7592 §2.2). The id, the
/// secret and the authentication method stay.
pub(super) async fn replace(
    State(app): State<App>,
    Path(client_id): Path<String>,
    bearer: BearerToken,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (client, token) = managed(&app, &client_id, &bearer).await?;
    let limits = &app.config().limits;
    let body = body::read_within(body, "register_body", limits.register_body).await?;
    check_is_json(headers.get(header::CONTENT_TYPE))?;
    let limits = RegistrationLimits { redirect_uris: limits.redirect_uris };
    let metadata = client.replacement(&body, app.redirect_policy(), &limits)?;
    let event = app.event("client_changed", Actor::Client).client(&client.id);
    let replaced = app.clients().replace(&client, metadata, event).await?;
    let client = replaced.ok_or(ManagementRefused)?;
    Ok(present(&app, &client, &token))
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(client_id): Path<String>,
    bearer: BearerToken,
) -> Result<Response, ApiError> {
    let (client, _) = managed(&app, &client_id, &bearer).await?;
    let event = app.event("client_deleted", Actor::Client);
    app.storage().delete_client(&client.id, app.now(), event).await?;
    Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response())
}

/// Returns the client if the bearer token is its registration access token. Every failure returns the same
/// error.
async fn managed(
    app: &App,
    client_id: &str,
    bearer: &BearerToken,
) -> Result<(Client, Secret<RegistrationToken>), ApiError> {
    let token = bearer.0.as_deref().and_then(Secret::<RegistrationToken>::parse);
    let token = token.ok_or(ManagementRefused)?;
    let client = app.clients().managed(client_id, &token).await?.ok_or(ManagementRefused)?;
    Ok((client, token))
}

fn present(app: &App, client: &Client, token: &Secret<RegistrationToken>) -> Response {
    let mut answer = client.registration_response(None, &every_scope(app.config()));
    add_management(app, &mut answer, client, token);
    error::ok(&answer)
}

/// Adds the management URI and token (RFC 7592 §3).
fn add_management(
    app: &App,
    answer: &mut Value,
    client: &Client,
    token: &Secret<RegistrationToken>,
) {
    let uri = app.config().public_url.join(&format!("{}/{}", paths::REGISTER, client.id));
    answer["registration_client_uri"] = uri.into();
    answer["registration_access_token"] = token.expose().into();
}

fn check_is_json(content_type: Option<&HeaderValue>) -> Result<(), RegistrationRefused> {
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_json = media_type.eq_ignore_ascii_case("application/json");
    if is_json { Ok(()) } else { Err(RegistrationRefused::NotJson) }
}
