//! `POST /introspect`: RFC 7662, with signed responses (RFC 9701). MCP servers that check each token here
//! see a revoked grant as inactive at once.
//!
//! An MCP server learns only about tokens for itself. For every other token the response is `active: false`,
//! the same for a foreign, an expired and an invented token.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::config::ResourceConfig;
use crate::signing::TokenType;
use crate::web::client_form::ClientForm;
use crate::web::error::{self, ApiError};
use crate::web::{live_token, resource_auth};

/// Media type of a signed response (RFC 9701 §4).
const SIGNED: &str = "application/token-introspection+jwt";

pub(super) async fn post(form: ClientForm) -> Result<Response, ApiError> {
    let app = &form.app;
    let resource = resource_auth::authenticate_resource(&form)?;
    // `token_type_hint` is only a hint (RFC 7662 §2.1). An MCP server never holds refresh tokens, so they
    // are not looked up.
    let token = form.required("token")?;
    let answer = introspect(app, resource, token).await?;
    if form.accepts(SIGNED) {
        return signed(app, resource, &answer);
    }
    Ok(error::ok(&answer))
}

async fn introspect(app: &App, resource: &ResourceConfig, token: &str) -> Result<Value, ApiError> {
    let Some(live) = live_token::verify(app, resource, token).await? else {
        return Ok(json!({ "active": false }));
    };
    let claims = live.claims;
    Ok(json!({
        "active": true,
        "scope": live.may.to_string(),
        "client_id": claims.client_id,
        "sub": claims.sub,
        "aud": claims.aud,
        "iss": claims.iss,
        "exp": claims.exp,
        "iat": claims.iat,
        "jti": claims.jti,
        "token_type": "Bearer",
    }))
}

/// Signs the response (RFC 9701 §5): its claims about the token are nested, apart from the claims about the
/// response.
fn signed(app: &App, resource: &ResourceConfig, answer: &Value) -> Result<Response, ApiError> {
    let claims = json!({
        "iss": app.issuer(),
        "aud": resource.id,
        "iat": app.now().unix(),
        "token_introspection": answer,
    });
    let jwt = app.keys().sign_claims(resource.token_alg, TokenType::Introspection, &claims)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SIGNED)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, jwt).into_response())
}
