//! What both halves of a sign-in need: the authorization request, and the responses that a test forces.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The parts of an authorization request that the demo uses.
pub(super) struct SignInRequest {
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) code_challenge: String,
    /// Whether the request asks for a refresh token in the way that this provider needs.
    pub(super) offline: bool,
    pub(super) prompt: String,
}

/// Builds a response as a test defines it. For a redirect, the body is the `Location`.
pub(super) fn forced((status, body): &(u16, String)) -> Response {
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_redirection() {
        return (status, [(header::LOCATION, body.clone())]).into_response();
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body.clone()).into_response()
}
