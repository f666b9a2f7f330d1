//! MCP session ids (revisions before 2026-07-28), bound to who holds them: threats GW-06.
//!
//! The client gets the MCP server's id sealed for its person and client; the server gets its own id
//! back. Somebody else's id opens nothing, and nothing has to be stored.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::authenticate::Caller;
use super::challenge::Refused;
use crate::oauth::sealed::{Purpose, Sealer};

/// The header of the session id, in both directions.
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Longest sealed id read.
const MAX: usize = 2048;

/// Who holds a session.
pub(super) fn context(caller: &Caller) -> String {
    let grant = &caller.grant;
    // None of the three can hold a line break.
    format!("{}\n{}\n{}", grant.subject, grant.client_id, grant.resource)
}

/// The session id as the client may know it.
pub(super) fn seal(sealer: &Sealer, caller: &Caller, id: &HeaderValue) -> Option<HeaderValue> {
    let sealed = sealer.seal(Purpose::Session, &context(caller), id.as_bytes());
    HeaderValue::from_str(&sealed).ok()
}

/// The MCP server's own id of the session that the request names, if it names one.
pub(super) fn open(
    sealer: &Sealer,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Refused> {
    let mut values = headers.get_all(SESSION_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let sealed = value.to_str().ok().filter(|text| text.len() <= MAX);
    let sealed = sealed.filter(|_| values.next().is_none()).ok_or(Refused::UnknownSession)?;
    let id = sealer
        .open(Purpose::Session, &context(caller), sealed)
        .map_err(|_| Refused::UnknownSession)?;
    HeaderValue::from_bytes(&id).map(Some).map_err(|_| Refused::UnknownSession)
}
