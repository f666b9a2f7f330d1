//! `POST /revoke`: RFC 7009. Revoking either token ends the grant, at the gateway at once.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::Response;

use crate::app::App;
use crate::oauth::grant::TokenRefused;
use crate::oauth::secret::{RefreshToken, Secret};
use crate::signing::TokenInvalid;
use crate::telemetry::audit::Actor;
use crate::web::body;
use crate::web::client_address::ClientAddress;
use crate::web::client_auth::authenticate_client;
use crate::web::error::{self, ApiError};
use crate::web::params::Params;

pub(super) async fn post(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_within(body, "token_body", app.config().limits.token_body).await?;
    let params = Params::from_post(&headers, query.as_deref(), &body)?;
    let client =
        authenticate_client(&app, &headers, &params, ClientAddress::of(&extensions)).await?;
    let token = params.get("token")?.ok_or(TokenRefused::Missing("token"))?;
    // `token_type_hint` is only a hint (§2.1); our tokens tell themselves apart.
    if let Some((grant_id, client_id)) = owner(&app, token).await? {
        if client_id != client.id {
            return Err(TokenRefused::OtherClient.into());
        }
        let event = app.event("grant_revoked", Actor::Client).client(&client_id);
        app.storage().revoke_grant(&grant_id, "revoked by the client", app.now(), event).await?;
    }
    // Unknown, expired or revoked before: the client has what it wanted (§2.2).
    // RFC 7009 ignores the body; some clients read every answer as JSON.
    Ok(error::json(StatusCode::OK, &serde_json::json!({})))
}

/// Grant and client of a token of ours, whether or not it is still good.
async fn owner(app: &App, token: &str) -> Result<Option<(String, String)>, ApiError> {
    if let Some(refresh_token) = Secret::<RefreshToken>::parse(token) {
        let found = app.storage().find_refresh_token(&refresh_token, app.now()).await?;
        return Ok(found.map(|found| (found.grant_id, found.client_id)));
    }
    let mut claims = app.keys().verify_any_audience(token, app.now());
    if matches!(claims, Err(TokenInvalid::UnknownKey)) {
        app.keys().refresh_keys().await;
        claims = app.keys().verify_any_audience(token, app.now());
    }
    Ok(claims.ok().map(|claims| (claims.grant_id.clone(), claims.client_id.clone())))
}
