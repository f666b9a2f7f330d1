//! `GET /branding/logo`: the logo of `[branding]`. An administrator chose the file and it was checked; the headers
//! are for the case that something was overlooked, and somebody opens the address itself.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;
use crate::config::paths;
use crate::web::{error, icon};

/// Returns the route of our icon, and that of the logo, if there is one.
pub(super) fn routes(app: &App) -> Router<App> {
    let icon = Router::new().route(paths::ICON, get(icon::get));
    if app.config().branding.logo.is_some() { icon.route(paths::LOGO, get(logo)) } else { icon }
}

async fn logo(State(app): State<App>) -> Response {
    let Some(logo) = &app.config().branding.logo else { return error::not_found(None) };
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(logo.media_type)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
            ),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        // The query of the address changes with the file.
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400")),
    ];
    (headers, logo.bytes.clone()).into_response()
}
