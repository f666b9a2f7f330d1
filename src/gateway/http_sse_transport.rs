//! Supports MCP servers on the HTTP+SSE transport of 2024-11-05, with the same checks (requirement GW-40).
//!
//! GET opens the event stream, and its `endpoint` event names the address to post messages to. We replace
//! that address by our own path with the address sealed in its query. So a client can post only to an address
//! that the server sent to this very caller, nothing is stored, and streams cannot be mixed up. The tag of the
//! target is sealed with the address, so that messages reach the target whose stream it is.

use url::Url;

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use super::session::context;
use super::sse::{Event, FilterAction};
use crate::config::TargetTag;
use crate::oauth::sealed::{Purpose, Sealer};

/// The query parameter with the sealed address.
const PARAMETER: &str = "message";
/// Longest sealed address that is accepted, in bytes.
const MAX: usize = 4096;

/// Rewrites the `endpoint` event; an address of another origin ends the stream.
pub(super) fn rewrite(
    sealer: &Sealer,
    caller: &Caller,
    target: &Url,
    path: &str,
    event: &Event,
) -> FilterAction {
    if event.kind != "endpoint" {
        return FilterAction::Pass;
    }
    let named = event.data.as_deref().and_then(|data| target.join(data.trim()).ok());
    let Some(named) = named.filter(|named| named.origin() == target.origin()) else {
        tracing::error!("stream cut: the MCP server names a message address that is not its own");
        return FilterAction::End;
    };
    let address = TargetTag::of(target).before(below(&named).as_bytes());
    let sealed = sealer.seal(Purpose::Session, &sealed_for(caller), &address);
    FilterAction::Data(format!("{path}?{PARAMETER}={sealed}"))
}

/// The address to post a message to.
pub(super) struct MessageAddress {
    pub(super) target: TargetTag,
    /// Path and query.
    below: String,
}

impl MessageAddress {
    /// Returns its URL. The origin is always the currently configured one.
    pub(super) fn at(&self, target: &Url) -> Url {
        let below = self.below.as_str();
        let (path, query) = below.split_once('?').map_or((below, None), |(p, q)| (p, Some(q)));
        let mut address = target.clone();
        address.set_path(path);
        address.set_query(query);
        address
    }
}

/// Returns the address to post a message to, unsealed from the query.
pub(super) fn address(
    sealer: &Sealer,
    caller: &Caller,
    query: Option<&str>,
) -> Result<MessageAddress, GatewayRefused> {
    let mut values = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='));
    let sealed = values.next().ok_or(GatewayRefused::NoEventStream)?;
    if values.next().is_some() || sealed.len() > MAX {
        return Err(MessageRefused::UnknownSession.into());
    }
    let opened = sealer
        .open(Purpose::Session, &sealed_for(caller), sealed)
        .map_err(|_| MessageRefused::UnknownSession)?;
    let (target, below) = TargetTag::split(&opened).ok_or(MessageRefused::UnknownSession)?;
    let below = std::str::from_utf8(below).map_err(|_| MessageRefused::UnknownSession)?;
    Ok(MessageAddress { target, below: below.to_owned() })
}

/// Returns path and query, without the origin.
fn below(url: &Url) -> String {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", url.path())
}

/// The context that addresses are sealed for. It differs from that of session ids, so neither can be opened
/// as the other.
fn sealed_for(caller: &Caller) -> String {
    format!("message\n{}", context(caller))
}
