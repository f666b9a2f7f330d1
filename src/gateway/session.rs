//! MCP session ids and event ids (revisions before 2026-07-28), bound to one person and client: threat GW-06,
//! requirement GW-22.
//!
//! The client gets the MCP server's id sealed for this person, client and resource; the server gets its own
//! id back. An id that was sealed for somebody else cannot be opened, and nothing is stored. Sealing the same
//! id gives the same text each time and in every replica, because clients compare ids.
//!
//! What is sealed begins with the tag of the target that issued the id, so that requests with the id go back
//! to it.

use axum::http::header::GetAll;
use axum::http::{HeaderName, HeaderValue};

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use crate::config::TargetTag;
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

/// An id as its target issued it.
pub(super) struct IssuedId {
    pub(super) target: TargetTag,
    pub(super) id: HeaderValue,
}

/// Seals a session id of this target for the client.
pub(super) fn seal(
    sealer: &Sealer,
    caller: &Caller,
    target: TargetTag,
    id: &HeaderValue,
) -> Option<HeaderValue> {
    let sealed = sealer.seal_alike(&context(caller), &target.before(id.as_bytes()));
    HeaderValue::from_str(&sealed).ok()
}

/// Returns the session id of the target, unsealed from the values of [`SESSION_ID`]; `None` if there are none.
pub(super) fn open(
    sealer: &Sealer,
    caller: &Caller,
    values: &GetAll<'_, HeaderValue>,
) -> Result<Option<IssuedId>, GatewayRefused> {
    if values.iter().next().is_none() {
        return Ok(None);
    }
    let id = opened(sealer, &context(caller), values);
    Ok(Some(id.ok_or(MessageRefused::UnknownSession)?))
}

/// Returns the target's id of the last event that the client has seen, unsealed from the values of
/// [`LAST_EVENT_ID`]; `None` if there are none.
pub(super) fn open_event(
    sealer: &Sealer,
    caller: &Caller,
    values: &GetAll<'_, HeaderValue>,
) -> Result<Option<IssuedId>, GatewayRefused> {
    let named = values.iter().next().is_some_and(|id| !id.is_empty());
    if !named && values.iter().count() <= 1 {
        return Ok(None); // an empty id means that there is none
    }
    let id = opened(sealer, &context_of_events(caller), values);
    Ok(Some(id.ok_or(MessageRefused::UnknownEvent)?))
}

fn opened(sealer: &Sealer, context: &str, values: &GetAll<'_, HeaderValue>) -> Option<IssuedId> {
    let mut values = values.iter();
    let sealed = values.next()?.to_str().ok().filter(|text| text.len() <= MAX)?;
    if values.next().is_some() {
        return None;
    }
    let opened = sealer.open(Purpose::Session, context, sealed).ok()?;
    let (target, id) = TargetTag::split(&opened)?;
    Some(IssuedId { target, id: HeaderValue::from_bytes(id).ok()? })
}
