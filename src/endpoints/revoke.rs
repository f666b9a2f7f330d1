//! `POST /revoke`: RFC 7009. Revoking an access token or a refresh token ends the grant, at the gateway at
//! once.

use axum::response::Response;

use crate::app::App;
use crate::oauth::grant::TokenRefused;
use crate::oauth::secret::{RefreshToken, Secret};
use crate::signing::TokenInvalid;
use crate::telemetry::audit::Actor;
use crate::web::client_auth::authenticate_client;
use crate::web::client_form::ClientForm;
use crate::web::error::{self, ApiError};

pub(super) async fn post(form: ClientForm) -> Result<Response, ApiError> {
    let app = &form.app;
    let client = authenticate_client(&form).await?;
    let token = form.required("token")?;
    // `token_type_hint` is only a hint (RFC 7009 §2.1), and the format of our tokens shows their type.
    if let Some((grant_id, client_id)) = owner(app, token).await? {
        if client_id != client.id {
            return Err(TokenRefused::OtherClient.into());
        }
        let event = app.event("grant_revoked", Actor::Client).client(&client_id);
        app.storage().revoke_grant(&grant_id, "revoked by the client", app.now(), event).await?;
    }
    // An unknown, expired or revoked token is a success, because the client has what it wanted (RFC 7009
    // §2.2). Clients ignore the body by that RFC, but some parse every response as JSON, so it is an empty
    // object.
    Ok(error::ok(&serde_json::json!({})))
}

/// Returns the grant id and the client id of one of our tokens, even if the token is no longer valid.
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
