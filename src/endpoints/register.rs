//! `POST /register`: dynamic client registration (RFC 7591).

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use crate::app::App;
use crate::oauth::client::{ClientMetadata, RegistrationLimits, RegistrationRefused};
use crate::web::body;
use crate::web::error::{self, ApiError};

/// Retry after this many seconds when the quota of clients is reached: unused ones expire.
const QUOTA_RETRY: u64 = 3600;

pub(super) async fn post(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let limits = &app.config().limits;
    let body = body::read(body, limits.register_body).await?;
    if !is_json(&headers) {
        return Err(RegistrationRefused::NotJson.into());
    }
    let limits = RegistrationLimits { redirect_uris: limits.redirect_uris };
    let metadata = ClientMetadata::parse(&body, app.redirect_policy(), &limits)?;
    let Some(registration) = app.clients().register(metadata).await? else {
        tracing::warn!("the quota of registered clients is reached");
        return Err(ApiError::Quota { retry_after: QUOTA_RETRY });
    };
    let answer = registration.client.registration_response(registration.secret.as_deref());
    Ok(error::json(StatusCode::CREATED, &answer))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
