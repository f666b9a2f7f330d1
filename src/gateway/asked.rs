//! The body of a request that may be refused: a refusal names the JSON-RPC id of what it refuses, so that the
//! client's library can tell which call has failed.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, header};
use hyper::body::Body as _;
use serde::Deserialize;
use serde_json::Value;

use crate::web::body;

/// A body that nobody has read is read for its id only if it says that it is so short. Strangers are refused
/// before their bodies are read.
const LONGEST: u64 = 8 * 1024;
/// It must be here by then: most come together with the head.
const WAIT: Duration = Duration::from_millis(250);
/// Longest id that is repeated.
const LONGEST_ID: usize = 256;

/// The body of a request, as far as it has come.
pub(super) enum Asked {
    /// Nobody has read any of it.
    Unread(Body),
    /// All of it.
    Whole(Bytes),
    /// It is passed on as it comes.
    Gone,
}

impl Asked {
    /// The body; what is read whole of it is to be put back.
    pub(super) fn take(&mut self) -> Body {
        match std::mem::replace(self, Self::Gone) {
            Self::Unread(body) => body,
            Self::Whole(bytes) => Body::from(bytes),
            Self::Gone => Body::empty(),
        }
    }

    /// The id of the one request that it is; `None` for notifications, batches, and what cannot be had cheaply.
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

/// Whether the body may be read for a refusal. A client that asks before it sends one is not told to.
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
        return None; // a batch has several
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
