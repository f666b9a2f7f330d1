//! `POST /backchannel-logout` and `POST /global-token-revocation`: the identity provider ends sessions and
//! access.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::config::paths;
use crate::oauth::error::ErrorCode;
use crate::oauth::error::Refusal;
use crate::storage::LogoutNotice;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::upstream::logout_token::NoticeRefused;
use crate::web::body;
use crate::web::error::ApiError;
use crate::web::params::Params;

/// 64 KiB: largest body that is read.
const MAX_BODY: usize = 64 * 1024;

/// The headers of every response.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

static NOT_VERIFIED: LogThrottle = LogThrottle::new();

/// The message is invalid and has no effect.
#[derive(Debug, thiserror::Error)]
#[error("the message is not accepted: {0}")]
struct NotAccepted(String);

impl Refusal for NotAccepted {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidRequest
    }
}

impl From<NoticeRefused> for ApiError {
    fn from(refused: NoticeRefused) -> Self {
        match refused {
            NoticeRefused::Invalid(what) => NotAccepted(what).into(),
            NoticeRefused::Unavailable(reason) => {
                if let Some(left_out) = NOT_VERIFIED.admit() {
                    let what = "a message of the identity provider cannot be verified";
                    tracing::warn!(reason, left_out, "{what}");
                }
                Self::Unavailable
            }
        }
    }
}

/// OpenID Connect Back-Channel Logout 1.0, §2.5 to §2.8.
pub(super) async fn backchannel_logout(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body, MAX_BODY).await?;
    let content_type = headers.get(header::CONTENT_TYPE);
    let params = Params::from_post(content_type, query.as_deref(), &body)?;
    let token = params.get("logout_token").ok().flatten();
    let token = token.ok_or_else(|| NotAccepted("logout_token is missing".to_owned()))?;
    let notice = app.upstream().read_logout_token(token).await?;
    if !app.config().upstream.end_on_logout {
        tracing::info!("a sign-out at the identity provider is ignored, as configured");
        return Ok(NO_STORE.into_response());
    }
    end(&app, &notice, "signed out at the identity provider").await?;
    Ok(NO_STORE.into_response())
}

/// Global Token Revocation: ends a person's access regardless of `on_upstream_logout`.
pub(super) async fn global_token_revocation(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body, MAX_BODY).await?;
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .ok_or_else(|| NotAccepted("the bearer token is missing".to_owned()))?;
    let endpoint = app.config().public_url.join(paths::GLOBAL_TOKEN_REVOCATION);
    let notice = app.upstream().read_revocation(token, &body, &endpoint).await?;
    end(&app, &notice, "revoked by the identity provider").await?;
    Ok((StatusCode::NO_CONTENT, NO_STORE).into_response())
}

async fn end(app: &App, notice: &LogoutNotice, reason: &str) -> Result<(), ApiError> {
    let event = app.event("upstream_logout", Actor::Provider);
    app.storage().apply_logout_notice(notice, reason, app.now(), event).await?;
    Ok(())
}
