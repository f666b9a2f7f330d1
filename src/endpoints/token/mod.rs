//! `POST /token`: RFC 6749 §3.2.

mod authorization_code;
mod refresh_token;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::oauth::grant::TokenRefused;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{RefreshToken, Secret};
use crate::signing::NewToken;
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
    if params.repeats_any(&[
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "scope",
    ]) {
        return Err(TokenRefused::RepeatedParameter.into());
    }
    let client =
        authenticate_client(&app, &headers, &params, ClientAddress::of(&extensions)).await?;
    let from = ClientAddress::shown(&extensions);
    app.storage().ensure_clock_sane(app.now())?;
    match params.get("grant_type")? {
        Some("authorization_code") => {
            authorization_code::exchange(&app, &client, &params, from).await
        }
        Some("refresh_token") => refresh_token::exchange(&app, &client, &params, from).await,
        Some(_) => Err(TokenRefused::UnsupportedGrantType.into()),
        None => Err(TokenRefused::Missing("grant_type").into()),
    }
}

/// The result of both grant types.
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
    Ok(error::json(StatusCode::OK, &body))
}
