//! MCP session ids and event ids (revisions before 2026-07-28), bound to one person and client: threat GW-06,
//! requirement GW-22.
//!
//! The client gets the MCP server's id sealed for this person, client and resource; the server gets its own
//! id back. An id that was sealed for somebody else cannot be opened, and nothing is stored. Sealing the same
//! id gives the same text each time and in every replica, because clients compare ids.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use crate::oauth::sealed::{Purpose, Sealer};

/// The header of the session id, in both directions.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header with the last event id that a client has seen.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Longest sealed id that is accepted, in bytes.
const MAX: usize = 2048;

/// The context that session ids are sealed for.
pub(super) fn context(caller: &Caller) -> String {
    let grant = &caller.grant;
    // None of the three can contain a line break.
    format!("{}\n{}\n{}", grant.subject, grant.client_id, grant.resource)
}

/// The context that event ids are sealed for. A sealed session id cannot be opened as an event id, nor the
/// reverse.
pub(super) fn context_of_events(caller: &Caller) -> String {
    format!("event\n{}", context(caller))
}

/// Seals a session id for the client.
pub(super) fn seal(sealer: &Sealer, caller: &Caller, id: &HeaderValue) -> Option<HeaderValue> {
    let sealed = sealer.seal_alike(&context(caller), id.as_bytes());
    HeaderValue::from_str(&sealed).ok()
}

/// Returns the MCP server's own session id, unsealed from the request; `None` if the request has none.
pub(super) fn open(
    sealer: &Sealer,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, GatewayRefused> {
    if !headers.contains_key(SESSION_ID) {
        return Ok(None);
    }
    let id = opened(sealer, &context(caller), headers, &SESSION_ID);
    Ok(Some(id.ok_or(MessageRefused::UnknownSession)?))
}

/// Returns the MCP server's own id of the last event that the client has seen; `None` if the request has
/// none.
pub(super) fn open_event(
    sealer: &Sealer,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, GatewayRefused> {
    let named = headers.get(LAST_EVENT_ID).is_some_and(|id| !id.is_empty());
    if !named && headers.get_all(LAST_EVENT_ID).iter().count() <= 1 {
        return Ok(None); // an empty id means that there is none
    }
    let id = opened(sealer, &context_of_events(caller), headers, &LAST_EVENT_ID);
    Ok(Some(id.ok_or(MessageRefused::UnknownEvent)?))
}

fn opened(
    sealer: &Sealer,
    context: &str,
    headers: &HeaderMap,
    name: &HeaderName,
) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let sealed = values.next()?.to_str().ok().filter(|text| text.len() <= MAX)?;
    if values.next().is_some() {
        return None;
    }
    let id = sealer.open(Purpose::Session, context, sealed).ok()?;
    HeaderValue::from_bytes(&id).ok()
}
