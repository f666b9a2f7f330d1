//! `/favicon.svg` and `/favicon.ico`: the icon of the admin pages in the tabs of a browser. It needs no session:
//! browsers fetch it before somebody signs in.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Path that the pages link to.
pub(super) const PATH: &str = "/favicon.svg";
/// Path that browsers try for pages without a link.
pub(super) const GUESSED_PATH: &str = "/favicon.ico";

const ICON: &str = include_str!("../../templates/admin/icon.svg");

pub(super) async fn get() -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
        ),
    ];
    (headers, ICON).into_response()
}
