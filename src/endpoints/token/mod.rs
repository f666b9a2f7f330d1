//! `POST /token`: RFC 6749 §3.2, and RFC 8693 for MCP servers.

mod authorization_code;
mod refresh_token;
mod subject_token;
mod token_exchange;

use axum::response::Response;
use serde_json::json;

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{ResourceConfig, paths};
use crate::oauth::exchange::GRANT_TYPE;
use crate::oauth::grant::TokenRefused;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{RefreshToken, Secret};
use crate::signing::NewToken;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::trace::{self, RequestSpan};
use crate::web::client_auth::authenticate_client;
use crate::web::client_form::ClientForm;
use crate::web::error::{self, ApiError};

/// The `grant_type` of a code.
const AUTHORIZATION_CODE: &str = "authorization_code";

pub(super) async fn post(form: ClientForm) -> Result<Response, ApiError> {
    let (app, params) = (&form.app, &form.params);
    if params.repeats_any(&[
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "scope",
    ]) {
        return Err(TokenRefused::RepeatedParameter.into());
    }
    if form.params.get("grant_type")? == Some(AUTHORIZATION_CODE) {
        last_step(app);
    }
    // MCP servers, not OAuth clients, exchange tokens, and they authenticate in their own way.
    if form.params.get("grant_type")? == Some(GRANT_TYPE) && app.config().offers_token_exchange() {
        return token_exchange::exchange(&form).await;
    }
    let client = authenticate_client(&form).await?;
    app.storage().ensure_clock_sane(app.now())?;
    match form.required("grant_type")? {
        AUTHORIZATION_CODE => authorization_code::exchange(&form, &client).await,
        "refresh_token" => refresh_token::exchange(&form, &client).await,
        _ => Err(TokenRefused::UnsupportedGrantType.into()),
    }
}

/// Keeps the spans of the request, which is the last step of a sign-in: its code says which trace it continues.
fn last_step(app: &App) {
    if let Some((queue, _)) = app.tracing() {
        let listener = ListenerKind::Public.into();
        trace::may_continue(&RequestSpan { queue, method: "POST", route: paths::TOKEN, listener });
    }
}

/// The result of both grant types of OAuth clients.
struct Tokens<'a> {
    grant_id: &'a str,
    subject: &'a str,
    client_id: &'a str,
    resource: &'a str,
    scopes: &'a ScopeSet,
    refresh_token: &'a Secret<RefreshToken>,
    expires_at: Timestamp,
}

/// Builds the token response (RFC 6749 §5.1). It always has `scope`, because several clients read its
/// absence as "none".
fn answer(app: &App, tokens: &Tokens<'_>) -> Result<Response, ApiError> {
    let alg = app.resource(tokens.resource).map(|resource: &ResourceConfig| resource.token_alg);
    let access_token = app.keys().mint(
        &NewToken {
            grant_id: tokens.grant_id,
            subject: tokens.subject,
            resource: tokens.resource,
            client_id: tokens.client_id,
            scopes: tokens.scopes,
            alg: alg.ok_or(TokenRefused::OtherResource)?,
            expires_at: tokens.expires_at,
        },
        app.clock(),
    )?;
    let body = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_at.since(app.now()).as_secs(),
        "scope": tokens.scopes.to_string(),
        "refresh_token": tokens.refresh_token.expose(),
    });
    Ok(error::ok(&body))
}
