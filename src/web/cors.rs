//! Cross-origin reads: for programs in browsers, such as MCP Inspector. Any origin, no credentials.

use std::time::Duration;

use axum::http::{HeaderName, Method};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

/// What a script may read of an answer, beyond the safelisted headers.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("www-authenticate"),
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("retry-after"),
];

/// Any origin may call and read; requested headers are allowed by name, since `Mcp-Param-*` has no
/// fixed list. Without credentials there is nothing a foreign page could borrow.
pub fn any_origin() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(Duration::from_mins(10))
}
