//! Keeps the body of a request until it is known whether the request is refused. A refusal carries the
//! JSON-RPC id of the request, so that the client's library can tell which call failed.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, header};
use hyper::body::Body as _;
use serde::Deserialize;
use serde_json::Value;

use super::usage::OpenCalls;
use crate::web::body;

/// An unread body is read for its id only if it declares at most 8 KiB. Unauthenticated requests are refused
/// before their bodies are read, so this bounds what a stranger can make us read.
const LONGEST: u64 = 8 * 1024;
/// How long to wait for such a body. Most arrive together with the headers.
const WAIT: Duration = Duration::from_millis(250);
/// Longest string id that a refusal repeats, in bytes.
const LONGEST_ID: usize = 256;

/// A request while it is read.
pub(super) struct RequestReading {
    /// How much of its body has been read.
    pub(super) body: BodyReading,
    /// The calls in it; `None` before the caller is known, and once an answer is being read.
    pub(super) counted: Option<OpenCalls>,
}

/// How much of the request body has been read.
pub(super) enum BodyReading {
    Unread(Body),
    /// The whole body has been read.
    Whole(Bytes),
    /// The body was taken, to be streamed to the MCP server.
    Gone,
}

impl BodyReading {
    /// Takes the body. A caller that reads all of it must put it back as [`BodyReading::Whole`].
    pub(super) fn take(&mut self) -> Body {
        match std::mem::replace(self, Self::Gone) {
            Self::Unread(body) => body,
            Self::Whole(bytes) => Body::from(bytes),
            Self::Gone => Body::empty(),
        }
    }

    /// Returns the id of the JSON-RPC request. Returns `None` for notifications, batches, and bodies that
    /// cannot be read cheaply.
    pub(super) async fn id(self) -> Option<Value> {
        let bytes = match self {
            Self::Whole(bytes) => bytes,
            Self::Unread(body) if body.size_hint().upper().is_some_and(is_short) => {
                let most = usize::try_from(LONGEST).unwrap_or(usize::MAX);
                tokio::time::timeout(WAIT, body::read(body, most)).await.ok()?.ok()?
            }
            Self::Unread(_) | Self::Gone => return None,
        };
        id_in(&bytes)
    }
}

fn is_short(length: u64) -> bool {
    (1..=LONGEST).contains(&length)
}

/// Whether the body may be read for a refusal. To read the body of a client that sent `Expect: 100-continue`
/// would make hyper ask for it, so such a body is left unread.
pub(super) fn may_be_read(parts: &Parts) -> bool {
    parts.method == Method::POST && !parts.headers.contains_key(header::EXPECT)
}

#[derive(Deserialize)]
struct Named {
    id: Value,
    #[serde(rename = "method")]
    _method: String,
}

fn id_in(json: &[u8]) -> Option<Value> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return None; // a batch has several ids
    }
    let Named { id, .. } = serde_json::from_slice(json).ok()?;
    let fits = match &id {
        Value::String(text) => text.len() <= LONGEST_ID,
        other => other.is_number(),
    };
    fits.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_id_that_is_a_text_or_a_number() {
        let long = format!(r#"{{"id":"{}","method":"x"}}"#, "x".repeat(LONGEST_ID + 1));
        for (json, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"x"}"#, Some(Value::from(7))),
            (r#" {"method":"x","id":"a","params":{"id":8}}"#, Some("a".into())),
            (r#"{"id":1.5,"method":"x"}"#, Some(1.5.into())),
            (r#"{"id":null,"method":"x"}"#, None),
            (r#"{"method":"x"}"#, None),
            (r#"{"id":1}"#, None),
            (r#"{"id":1,"result":{}}"#, None),
            (r#"{"id":1,"id":2,"method":"x"}"#, None),
            (r#"{"id":[1],"method":"x"}"#, None),
            (r#"{"id":1,"method":["x"]}"#, None),
            (r#"[1,"x"]"#, None),
            (r#"[{"id":1,"method":"x"}]"#, None),
            (r#"{"id":1,"method":"x""#, None),
            ("", None),
            (long.as_str(), None),
        ] {
            assert_eq!(id_in(json.as_bytes()), id, "{json}");
        }
    }
}
