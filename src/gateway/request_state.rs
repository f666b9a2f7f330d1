//! The `requestState` that we give a client when its person has to open a link first (MCP 2026-07-28, multi
//! round-trip requests). The client sends it back with the repeated request.
//!
//! It is sealed for one person, client and MCP server, names the request by a digest, and ends after ten
//! minutes. It grants nothing: a call needs its connections with or without it. It says that we asked, so that
//! the repeated request may wait for its person, and it is removed before the request is forwarded. State of
//! the MCP server itself is never touched (threat UT-11).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use axum::body::Bytes;
use memchr::memmem::Finder;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use super::session::context;
use super::{messages, strict_json};
use crate::clock::Timestamp;
use crate::oauth::sealed::{Purpose, Sealer};

/// What our states begin with. Any other state is that of the MCP server.
const PREFIX: &str = "portcullis.";
/// How long a state is accepted: ten minutes, in seconds.
const LIVES: i64 = 600;
/// Longest state that we make, in bytes. A longer one was not made here.
const LONGEST: usize = 512;

const STATE: &str = "requestState";
const RESPONSES: &str = "inputResponses";

/// A body without this word carries no state.
static MENTION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(STATE));

/// The state that a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CarriedState {
    Nothing,
    /// A state that the MCP server gave the client.
    OfServer,
    /// A state that we gave the client for this request, and what the person said to the link.
    Ours(LinkReply),
}

/// What the person said to a link that a client showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkReply {
    /// The person opens it. It says nothing about how far that person has come.
    Accepted,
    /// The person does not want to, or closed the question.
    Declined,
    /// The client does not say.
    Unknown,
}

/// Makes the state for a request that has to be repeated.
pub(super) fn make(sealer: &Sealer, caller: &Caller, message: &Value, now: Timestamp) -> String {
    let mut state = Vec::with_capacity(8 + SHA256_OUTPUT_LEN);
    state.extend_from_slice(&now.unix().saturating_add(LIVES).to_be_bytes());
    state.extend_from_slice(&fingerprint(message));
    format!("{PREFIX}{}", sealer.seal(Purpose::Session, &sealed_for(caller), &state))
}

/// Looks at the state that a body carries. If it is ours, checks it and returns the body without it, too.
/// Refuses our state if it belongs to another person, client, MCP server or request, or if it has ended.
pub(super) fn take(
    sealer: &Sealer,
    caller: &Caller,
    body: &Bytes,
    now: Timestamp,
) -> Result<(CarriedState, Option<Bytes>), GatewayRefused> {
    let nothing = Ok((CarriedState::Nothing, None));
    if MENTION.find(body).is_none() {
        return nothing;
    }
    // A body that cannot be read carries no state that we made: the MCP server judges it.
    let Ok(message) = strict_json::parse(body) else { return nothing };
    let Some(state) = message.pointer("/params/requestState") else { return nothing };
    let Some(ours) = state.as_str().filter(|state| state.starts_with(PREFIX)) else {
        return Ok((CarriedState::OfServer, None));
    };
    let wrong = || MessageRefused::WrongState(messages::id(&message));
    if !is_of(sealer, caller, &message, ours, now) {
        return Err(wrong().into());
    }
    let body = without_state(body).ok_or_else(wrong)?;
    Ok((CarriedState::Ours(reply(&message)), Some(body)))
}

/// Removes what [`take`] removes, from a message that was parsed before.
pub(super) fn remove(message: &mut Value) {
    if let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) {
        params.remove(STATE);
        params.remove(RESPONSES);
    }
}

fn is_of(sealer: &Sealer, caller: &Caller, message: &Value, state: &str, now: Timestamp) -> bool {
    let sealed = state.strip_prefix(PREFIX).filter(|_| state.len() <= LONGEST);
    let opened =
        sealed.and_then(|sealed| sealer.open(Purpose::Session, &sealed_for(caller), sealed).ok());
    let Some(opened) = opened else { return false };
    let Some((until, request)) = opened.split_first_chunk::<8>() else { return false };
    now < Timestamp::from_unix(i64::from_be_bytes(*until)) && request == fingerprint(message)
}

/// Returns a digest of the request, without what differs when it is repeated: its id, its metadata, the state
/// and the responses.
fn fingerprint(message: &Value) -> [u8; SHA256_OUTPUT_LEN] {
    let mut text = messages::method(message).unwrap_or_default().to_owned();
    if let Some(params) = message.get("params").and_then(Value::as_object) {
        // The members are in the order of their names, however the client ordered them.
        for (name, value) in params {
            if !["_meta", STATE, RESPONSES].contains(&name.as_str()) {
                text.extend(["\n", &Value::from(name.as_str()).to_string(), ":"]);
                text.push_str(&value.to_string());
            }
        }
    }
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// Every request that we made with a state was a link, so all responses are to links.
fn reply(message: &Value) -> LinkReply {
    let responses = message.pointer("/params/inputResponses").and_then(Value::as_object);
    let actions = || {
        let responses = responses.into_iter().flat_map(|responses| responses.values());
        responses.filter_map(|response| response.get("action")?.as_str())
    };
    if actions().any(|action| matches!(action, "decline" | "cancel")) {
        LinkReply::Declined
    } else if actions().any(|action| action == "accept") {
        LinkReply::Accepted
    } else {
        LinkReply::Unknown
    }
}

/// Returns the message without state and responses. Everything else stays as it was written: a number that is
/// parsed and written again could become another one.
fn without_state(body: &[u8]) -> Option<Bytes> {
    let mut message: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    let mut params: BTreeMap<String, &RawValue> =
        serde_json::from_str(message.get("params")?.get()).ok()?;
    params.remove(STATE);
    params.remove(RESPONSES);
    let params = to_raw_value(&params).ok()?;
    message.insert("params".to_owned(), &params);
    serde_json::to_vec(&message).ok().map(Bytes::from)
}

/// The context that states are sealed for. It differs from those of session ids, event ids and addresses, so
/// that none can be opened as another.
fn sealed_for(caller: &Caller) -> String {
    format!("state\n{}", context(caller))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ut_11_only_the_two_members_go_and_numbers_stay_as_they_were_written() {
        let body = br#"{ "id":2, "jsonrpc":"2.0", "method":"tools/call", "params":
            {"requestState":"portcullis.x","name":"t","inputResponses":{"a":{"action":"accept"}},
             "arguments":{"n":12345678901234567890123,"x":1.10,"s":"\u00e9"}} }"#;
        let kept = without_state(body).unwrap();
        let text = std::str::from_utf8(&kept).unwrap();
        assert!(text.contains(r#"{"n":12345678901234567890123,"x":1.10,"s":"\u00e9"}"#), "{text}");
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept["params"].as_object().unwrap().len(), 2, "{kept}");
        assert_eq!((&kept["id"], &kept["method"]), (&json!(2), &json!("tools/call")));
    }

    #[test]
    fn ut_11_a_digest_is_of_the_request_alone() {
        let call = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let first = call(
            r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"y":2}}}"#,
        );
        let again = call(
            r#"{"id":"b","method":"tools/call","params":{"arguments":{"y":2,"x":1},"name":"a",
                "requestState":"s","inputResponses":{},"_meta":{"progressToken":7}}}"#,
        );
        assert_eq!(fingerprint(&first), fingerprint(&again));
        for other in [
            r#"{"method":"tools/call","params":{"name":"b","arguments":{"x":1,"y":2}}}"#,
            r#"{"method":"tools/call","params":{"name":"a","arguments":{"x":2,"y":2}}}"#,
            r#"{"method":"prompts/get","params":{"name":"a","arguments":{"x":1,"y":2}}}"#,
            r#"{"method":"tools/call","params":{"name":"a"}}"#,
            r#"{"method":"tools/call"}"#,
        ] {
            assert_ne!(fingerprint(&first), fingerprint(&call(other)), "{other}");
        }
    }

    #[test]
    fn what_a_person_said_to_a_link_is_read() {
        for (responses, expected) in [
            (json!({ "connect-a": { "action": "accept" } }), LinkReply::Accepted),
            (json!({ "connect-a": { "action": "decline" } }), LinkReply::Declined),
            (json!({ "connect-a": { "action": "cancel" } }), LinkReply::Declined),
            (
                json!({ "connect-a": { "action": "accept" }, "connect-b": { "action": "decline" } }),
                LinkReply::Declined,
            ),
            (json!({}), LinkReply::Unknown),
            (json!([1]), LinkReply::Unknown),
            (json!({ "connect-a": "accept" }), LinkReply::Unknown),
        ] {
            let message = json!({ "params": { "inputResponses": responses } });
            assert_eq!(reply(&message), expected, "{message}");
        }
    }
}
