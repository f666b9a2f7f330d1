//! CORS for clients that run in browsers, such as MCP Inspector: any origin, without credentials.

use std::time::Duration;

use axum::http::{HeaderName, Method};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

/// Response headers that a script may read, in addition to the CORS-safelisted ones.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("www-authenticate"),
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("retry-after"),
];

/// Lets any origin call and read. Requested headers are mirrored, because `Mcp-Param-*` has no fixed list.
/// Without credentials a foreign page cannot act with a person's rights.
pub fn any_origin() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(Duration::from_mins(10))
}
