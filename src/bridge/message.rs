//! JSON-RPC messages as the text that they arrived as.
//!
//! The bridge reads the few members that it needs for its decisions and passes the text on unchanged, so that
//! methods, members and numbers that it does not know arrive as they were sent. Where several callers share a
//! process, it replaces single values in the text: the id of a request and what repeats it.

use std::ops::Range;

use rmcp::model::{ErrorCode, ErrorData};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest id that is read, in bytes.
const LONGEST_ID: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RpcKind {
    Request,
    Notification,
    Response,
}

/// An id or token for comparisons. `1` and `1.0` are the same, `1` and `"1"` are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RpcId {
    Number(String),
    Text(String),
}

impl RpcId {
    /// Returns the id as JSON.
    pub(super) fn to_json(&self) -> String {
        match self {
            Self::Number(number) => number.clone(),
            Self::Text(text) => Value::from(text.as_str()).to_string(),
        }
    }

    fn read(raw: &RawValue) -> Option<Self> {
        if raw.get().len() > LONGEST_ID {
            return None;
        }
        match serde_json::from_str(raw.get()).ok()? {
            Value::String(text) => Some(Self::Text(text)),
            Value::Number(number) => {
                let whole = number.as_f64().filter(|float| float.fract() == 0.0);
                let whole = whole.filter(|float| float.abs() < 9_007_199_254_740_992.0);
                let same = match (number.as_i64().is_some() || number.as_u64().is_some(), whole) {
                    (false, Some(whole)) => format!("{whole:.0}"),
                    _ => number.to_string(),
                };
                Some(Self::Number(same))
            }
            _ => None,
        }
    }
}

/// An id or token inside a message, and where it is in the text.
#[derive(Clone, Debug)]
pub(super) struct IdInText {
    pub(super) id: RpcId,
    pub(super) at: Range<usize>,
}

/// Why a text is no JSON-RPC message that the bridge passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotRpc(pub(super) &'static str);

/// One message.
#[derive(Debug)]
pub(super) struct RpcMessage {
    text: String,
    pub(super) kind: RpcKind,
    pub(super) method: Option<String>,
    /// The id of a request or response. A response to a request that could not be read has none.
    pub(super) id: Option<IdInText>,
    /// The token under which a request wants to hear of progress, or which a progress notification names.
    pub(super) progress: Option<IdInText>,
    /// The subscription that a notification or result belongs to: the id of a `subscriptions/listen` request.
    pub(super) subscription: Option<IdInText>,
    /// The request that a `notifications/cancelled` ends.
    pub(super) cancels: Option<IdInText>,
    /// The revision that a request states (from 2026-07-28 on).
    pub(super) version: Option<String>,
    /// What `Mcp-Name` repeats.
    pub(super) name: Option<String>,
    /// The code of an error response.
    pub(super) error: Option<i64>,
}

/// The members of a message that decide something. A repeated one is an error: two readers could read
/// different ones.
#[derive(Deserialize)]
struct RpcMembers<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// The same of `params` and `result`.
#[derive(Default, Deserialize)]
struct InnerMembers<'a> {
    #[serde(rename = "_meta", borrow, default, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(rename = "requestId", borrow, default, deserialize_with = "present")]
    request_id: Option<&'a RawValue>,
    #[serde(rename = "progressToken", borrow, default, deserialize_with = "present")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(rename = "taskId", borrow, default, deserialize_with = "present")]
    task_id: Option<&'a RawValue>,
}

/// The same of `_meta`.
#[derive(Default, Deserialize)]
struct MetaMembers<'a> {
    #[serde(rename = "progressToken", borrow, default, deserialize_with = "present")]
    progress_token: Option<&'a RawValue>,
    #[serde(
        rename = "io.modelcontextprotocol/protocolVersion",
        borrow,
        default,
        deserialize_with = "present"
    )]
    version: Option<&'a RawValue>,
    #[serde(
        rename = "io.modelcontextprotocol/subscriptionId",
        borrow,
        default,
        deserialize_with = "present"
    )]
    subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorMembers {
    code: Option<i64>,
}

/// Tells a member that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

impl RpcMessage {
    /// Reads a message. It becomes one line, as stdio and event streams need it: JSON has line breaks only
    /// between its tokens.
    pub(super) fn read(raw: &RawValue) -> Result<Self, NotRpc> {
        let text = raw.get().replace(['\r', '\n'], " ");
        let members: RpcMembers<'_> = members(&text)?;
        let id = members.id.and_then(|id| in_text(&text, id));
        let has_answer = members.result.is_some() != members.error.is_some();
        let kind = match (&members.method, members.id) {
            (Some(_), _) if members.result.is_some() || members.error.is_some() => {
                return Err(NotRpc("a message has either a method or a result"));
            }
            (Some(_), Some(_)) if id.is_none() => {
                return Err(NotRpc("the id of a request is a text or a number"));
            }
            (Some(_), Some(_)) => RpcKind::Request,
            (Some(_), None) => RpcKind::Notification,
            (None, _) if has_answer => RpcKind::Response,
            (None, _) => return Err(NotRpc("a message has a method, a result or an error")),
        };
        let inner = if kind == RpcKind::Response { members.result } else { members.params };
        let inner: InnerMembers<'_> = object(inner)?;
        let meta: MetaMembers<'_> = object(inner.meta)?;
        let part = |raw: Option<&RawValue>| raw.and_then(|raw| in_text(&text, raw));
        let method = members.method.as_deref().unwrap_or_default();
        let progress = match (kind, method) {
            (RpcKind::Request, _) => part(meta.progress_token),
            (RpcKind::Notification, "notifications/progress") => part(inner.progress_token),
            _ => None,
        };
        let cancels = part(inner.request_id).filter(|_| method == "notifications/cancelled");
        let named = match method {
            "tools/call" | "prompts/get" => inner.name,
            "resources/read" => inner.uri,
            "tasks/get" | "tasks/update" | "tasks/cancel" => inner.task_id,
            _ => None,
        };
        let error = members.error.and_then(|raw| {
            serde_json::from_str::<ErrorMembers>(raw.get()).ok().and_then(|error| error.code)
        });
        let (subscription, version) = (part(meta.subscription), meta.version.and_then(string));
        let (name, method) = (named.and_then(string), members.method.clone());
        let error = members.error.map(|_| error.unwrap_or_default());
        Ok(Self { text, kind, method, id, progress, subscription, cancels, version, name, error })
    }

    /// Returns the message as one line, without its end.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns a part of the text.
    pub(super) fn raw(&self, part: &IdInText) -> &str {
        self.text.get(part.at.clone()).unwrap_or_default()
    }

    /// Returns the id as it was written, or `null`.
    pub(super) fn raw_id(&self) -> &str {
        self.id.as_ref().map_or("null", |id| self.raw(id))
    }

    /// Returns the text with other values in the place of ids and tokens.
    pub(super) fn with(&self, replacements: &[(Option<&IdInText>, &str)]) -> String {
        let mut parts: Vec<_> =
            replacements.iter().filter_map(|(part, new)| Some(((*part)?, *new))).collect();
        parts.sort_by_key(|(part, _)| part.at.start);
        let mut text = String::with_capacity(self.text.len() + 64);
        let mut from = 0;
        for (part, new) in parts {
            text.push_str(self.text.get(from..part.at.start).unwrap_or_default());
            text.push_str(new);
            from = part.at.end;
        }
        text.push_str(self.text.get(from..).unwrap_or_default());
        text
    }

    /// Whether this is a request or notification of this method.
    pub(super) fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }
}

/// Reads members of an object. serde would read a list as an object, too.
fn members<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, NotRpc> {
    if !text.trim_start().starts_with('{') {
        return Err(NotRpc("a message is a JSON object"));
    }
    serde_json::from_str(text)
        .map_err(|_| NotRpc("a member of the message is repeated or has the wrong type"))
}

/// The same of an inner value; what is no object has no members.
fn object<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> Result<T, NotRpc> {
    match raw.map(RawValue::get).filter(|text| text.starts_with('{')) {
        Some(text) => members(text),
        None => Ok(T::default()),
    }
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Returns an id and where it is in `text`, which it was read from.
fn in_text(text: &str, raw: &RawValue) -> Option<IdInText> {
    let start = raw.get().as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    Some(IdInText { id: RpcId::read(raw)?, at: start..start + raw.get().len() })
}

/// Returns an error response. `id` is JSON.
pub(super) fn error_response(id: &str, code: ErrorCode, message: &str) -> String {
    let error = ErrorData::new(code, message.to_owned(), None);
    let error = serde_json::to_string(&error).unwrap_or_else(|_| "{}".to_owned());
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Returns the notification that a request has been given up. `id` is JSON.
pub(super) fn cancelled(id: &str, reason: &str) -> String {
    let reason = Value::from(reason);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RpcMessage, NotRpc> {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        RpcMessage::read(&raw)
    }

    #[test]
    fn ids_are_replaced_and_everything_else_stays_as_it_was() {
        let text = concat!(
            r#"{ "x":1.50, "\u0069d" : "seven" ,"method":"x/y","params":{"deep":[{"id":"seven"}],"#,
            r#""_meta":{"progressToken":"seven","a":9007199254740993}},"more":null}"#
        );
        let message = read(text).unwrap();
        assert_eq!(message.kind, RpcKind::Request);
        assert_eq!(message.id.as_ref().unwrap().id, RpcId::Text("seven".to_owned()));
        let new = message.with(&[(message.progress.as_ref(), "3"), (message.id.as_ref(), "3")]);
        let expected = concat!(
            r#"{ "x":1.50, "\u0069d" : 3 ,"method":"x/y","params":{"deep":[{"id":"seven"}],"#,
            r#""_meta":{"progressToken":3,"a":9007199254740993}},"more":null}"#
        );
        assert_eq!(new, expected);
        assert_eq!(message.with(&[]), text);
    }

    #[test]
    fn a_message_becomes_one_line() {
        let message = read("{\n\"method\":\r\n\"a\\nb\"}").unwrap();
        assert_eq!(message.text(), "{ \"method\":  \"a\\nb\"}");
        assert_eq!(message.method.as_deref(), Some("a\nb"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_no_message() {
        for bad in [
            r#"{"id":1,"id":2,"method":"x"}"#,
            r#"{"id":1,"\u0069d":2,"method":"x"}"#,
            r#"{"id":1,"method":"x","params":{"_meta":{},"_meta":{}}}"#,
            r#"{"id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
            r#"{"id":null,"method":"x"}"#,
            r#"{"id":{},"method":"x"}"#,
            r#"{"id":1,"method":7}"#,
            r#"{"id":1,"method":"x","result":{}}"#,
            r#"{"id":1,"result":{},"error":{}}"#,
            r#"{"id":1}"#,
            r#"[1,"x"]"#,
            "7",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_that_are_equal_are_one_id() {
        let id = |text: &str| read(text).unwrap().id.unwrap().id;
        let one = id(r#"{"id":1,"result":{}}"#);
        assert_eq!(one, id(r#"{"id":1.0,"result":{}}"#));
        assert_eq!(one, id(r#"{"id":1e0,"error":{"code":1}}"#));
        assert_ne!(one, id(r#"{"id":"1","result":{}}"#));
        assert_ne!(
            id(r#"{"id":9007199254740993,"result":{}}"#),
            id(r#"{"id":9007199254740992,"result":{}}"#)
        );
    }

    #[test]
    fn the_parts_that_decide_are_found() {
        let request = read(
            r#"{"id":1,"method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        )
        .unwrap();
        assert_eq!(request.version.as_deref(), Some("2026-07-28"));
        assert_eq!(request.name.as_deref(), Some("x"));
        let response =
            read(r#"{"id":1,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#)
                .unwrap();
        assert_eq!(response.raw(response.subscription.as_ref().unwrap()), "1");
        let error = read(r#"{"id":null,"error":{"code":-32601,"message":"no"}}"#).unwrap();
        assert_eq!((error.kind, error.error), (RpcKind::Response, Some(-32601)));
        assert!(error.id.is_none());
        let given_up =
            read(r#"{"method":"notifications/cancelled","params":{"requestId":"a"}}"#).unwrap();
        assert_eq!(given_up.cancels.unwrap().id, RpcId::Text("a".to_owned()));
        // Parameters by position mean nothing here.
        assert!(read(r#"{"id":1,"method":"x","params":[1]}"#).unwrap().progress.is_none());
    }
}
