//! The head of a response: checks what the target sent, and sets what caches and browsers may do with it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::cache_control;
use super::challenge::GatewayRefused;
use crate::config::ResourceConfig;

/// Tells nginx and other proxies whether they may buffer a response.
pub(super) const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Refuses a response that no client of this gateway could use.
pub(super) fn refuse_what_cannot_pass(
    resource: &ResourceConfig,
    status: StatusCode,
) -> Result<(), GatewayRefused> {
    if status == StatusCode::UNAUTHORIZED {
        // If we passed the 401 on, the client would sign in with us again, for ever.
        tracing::error!(resource = resource.id, "the MCP server asks for a sign-in of its own");
        return Err(GatewayRefused::BadGateway(
            "The MCP server asks for a sign-in of its own; behind this gateway it must not",
        ));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        tracing::error!(resource = resource.id, "the MCP server switches protocols");
        return Err(GatewayRefused::BadGateway(
            "The MCP server switches protocols, which is not offered",
        ));
    }
    Ok(())
}

/// Whether this media type is that of an event stream.
pub(super) fn is_event_stream(content_type: &HeaderValue) -> bool {
    let mut parts = content_type.as_bytes().split(|byte| *byte == b';');
    let media_type = parts.next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Sets what browsers, caches and proxies may do with a response.
pub(super) fn instruct_caches(headers: &mut HeaderMap, is_stream: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_stream {
        // Otherwise proxies could buffer or compress the events before they pass them on.
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        let whole = HeaderValue::from_static("no-store, no-transform");
        headers.insert(header::CACHE_CONTROL, whole);
    } else {
        cache_control::at_most_private(headers);
    }
}

/// Removes `Content-Length` from a chunked response: readers could otherwise see the body end at another
/// place, and a truncated one would look complete (RFC 9112 §6.3). Refuses other transfer codings, which we
/// did not ask for.
pub(super) fn one_length(headers: &mut HeaderMap) -> Result<(), GatewayRefused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !is_chunked || codings.next().is_some() {
        return Err(GatewayRefused::BadGateway(
            "The MCP server answers in a transfer coding that it was not asked for",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// Prepares a response whose body we read: it must not be compressed, and its length may change.
pub(super) fn readable(headers: &mut HeaderMap) -> Result<(), GatewayRefused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(GatewayRefused::BadGateway(
            "The MCP server packs its answer, which this gateway has to read; it was not asked to",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}
