//! Per-tool scopes: what `[resource.tools]` demands is decided from the JSON-RPC body itself.
//!
//! Headers that repeat the body (`Mcp-Method`, `Mcp-Name`, MCP 2026-07-28) must agree with it, so it does
//! not matter which of them the MCP server reads. A resource without tool rules is not read, and streams.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Limited;
use serde_json::Value;

use super::authenticate::Caller;
use super::challenge::Refused;
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::Actor;
use crate::telemetry::rarely::Rarely;
use crate::web::body;
use crate::web::error::ApiError;

/// A request that may be sent on.
pub(super) struct Authorized {
    pub(super) request: Request,
    /// It asks for the list of tools.
    pub(super) lists_tools: bool,
}

/// Passes the request when the caller may do what its body asks.
pub(super) async fn authorize(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    request: Request,
) -> Result<Authorized, Refused> {
    let (limit, most) = (app.config().limits.gateway_body, app.config().limits.gateway_batch);
    if declared_length(request.headers()).is_some_and(|length| length > limit as u64) {
        return Err(Refused::TooLarge);
    }
    if request.method() != Method::POST {
        // Messages come with POST alone; a server that looked at others would read what nobody has.
        let request = request.map(|_| Body::empty());
        return Ok(Authorized { request, lists_tools: false });
    }
    if resource.tools.is_empty() {
        let request = request.map(|body| Body::new(Limited::new(body, limit)));
        return Ok(Authorized { request, lists_tools: false });
    }
    let (mut parts, body) = request.into_parts();
    one_reading(&mut parts.headers)?;
    let body = body::read(body, limit).await.map_err(|error| match error {
        ApiError::TooSlow => Refused::TooSlow,
        _ => Refused::TooLarge,
    })?;
    // Duplicate members would let us and the MCP server read different tools.
    let message: Value = strict_json::parse(&body).map_err(|()| Refused::NotJsonRpc)?;
    let messages = match &message {
        Value::Array(batch) if batch.len() <= most => batch.as_slice(),
        Value::Array(_) => return Err(Refused::TooLarge),
        single => std::slice::from_ref(single),
    };
    if !messages.iter().all(is_plain) {
        return Err(Refused::NotJsonRpc);
    }
    check_headers(&parts.headers, &message)?;
    let needed = messages
        .iter()
        .filter_map(called_tool)
        .fold(ScopeSet::default(), |all, tool| all.union(&scopes_for(resource, tool)));
    if !needed.is_subset(&caller.may) {
        return Err(step_up(app, resource, caller, needed).await);
    }
    let lists_tools = messages.iter().any(|message| method(message) == Some("tools/list"));
    let request = Request::from_parts(parts, Body::from(body));
    Ok(Authorized { request, lists_tools })
}

static NOT_REMEMBERED: Rarely = Rarely::new();

/// Tells the client what to come back with, and remembers that it was told: when the rules do not allow
/// it, the person hears so in place of being sent round in circles.
async fn step_up(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    needed: ScopeSet,
) -> Refused {
    app.note(
        app.event("tool_refused", Actor::Client)
            .client(&caller.grant.client_id)
            .subject(&caller.grant.subject)
            .resource(&resource.id)
            .grant(&caller.grant.id)
            .with("needed", needed.to_string()),
    );
    if let Err(cause) = app.storage().ask_step_up(&caller.grant.id, &needed, app.now()).await
        && let Some(left_out) = NOT_REMEMBERED.due()
    {
        tracing::warn!(%cause, left_out, "a step-up could not be remembered");
    }
    let held = caller.scopes.intersection(&resource.policy.declared);
    Refused::InsufficientScope { ask: held.union(&needed), needed }
}

/// The MCP server must read the bytes as we do: UTF-8 JSON, not packed. What it is told about them is
/// ours, not the client's.
fn one_reading(headers: &mut HeaderMap) -> Result<(), Refused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::NotJsonRpc);
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let first = types.next().map_or("", |value| value.to_str().unwrap_or("?")).to_ascii_lowercase();
    let (media_type, parameters) = first.split_once(';').unwrap_or((&first, ""));
    let charset = parameters.trim().replace('"', "");
    let fits = matches!(media_type.trim(), "" | "application/json")
        && (charset.is_empty() || charset == "charset=utf-8")
        && types.next().is_none();
    if !fits {
        return Err(Refused::NotJsonRpc);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(())
}

/// A message that every reader reads alike: members spelled exactly, and a tool call that names its
/// tool once. Some libraries compare member names without case (CVE-2026-27896).
fn is_plain(message: &Value) -> bool {
    const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
    let Some(members) = message.as_object() else { return false };
    if !members.keys().all(|name| MEMBERS.contains(&name.as_str())) {
        return false;
    }
    if method(message) != Some("tools/call") {
        return true;
    }
    let Some(params) = members.get("params").and_then(Value::as_object) else { return false };
    let folded = |name: &str| name.to_lowercase().replace('ſ', "s");
    params.get("name").is_some_and(Value::is_string)
        && params.keys().all(|name| name == "name" || folded(name) != "name")
}

/// What calling this tool takes. Some servers read names without case, or `_` as `-`: a name that differs
/// from a guarded one in nothing else is guarded as that one is.
fn scopes_for(resource: &ResourceConfig, tool: &str) -> ScopeSet {
    if let Some(scopes) = resource.tools.get(tool) {
        return scopes.clone();
    }
    let called = folded(tool);
    resource
        .tools
        .iter()
        .filter(|(name, _)| !called.is_empty() && folded(name) == called)
        .fold(ScopeSet::default(), |all, (_, scopes)| all.union(scopes))
}

/// Letters and digits alone, without case and width.
fn folded(name: &str) -> String {
    let narrow = |char: char| match u32::from(char) {
        wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0).unwrap_or(char),
        _ => char,
    };
    name.chars()
        .map(narrow)
        .filter(|char| char.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn method(message: &Value) -> Option<&str> {
    message.get("method")?.as_str()
}

fn called_tool(message: &Value) -> Option<&str> {
    (method(message)? == "tools/call").then(|| message.pointer("/params/name")?.as_str())?
}

fn check_headers(headers: &HeaderMap, message: &Value) -> Result<(), Refused> {
    let mismatch = || Refused::HeaderMismatch(message.get("id").cloned().unwrap_or(Value::Null));
    // Of two values, the MCP server may read the other one; a batch has no one method and name.
    let several = |name: &&str| {
        let values = headers.get_all(*name).iter().count();
        values > 1 || (values == 1 && message.is_array())
    };
    if ["mcp-method", "mcp-name"].iter().any(several) {
        return Err(mismatch());
    }
    let stated =
        |name: &str| headers.get(name).map(|value| value.to_str().ok().and_then(plain_text));
    let method = method(message);
    if let Some(stated) = stated("mcp-method")
        && stated.as_deref() != method
    {
        return Err(mismatch());
    }
    let version = message.pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    if let Some(version) = version.and_then(Value::as_str)
        && stated("mcp-protocol-version").is_some_and(|stated| stated.as_deref() != Some(version))
    {
        return Err(mismatch());
    }
    if let Some(stated) = stated("mcp-name") {
        let params = message.get("params");
        let name = ["name", "uri"].iter().find_map(|member| params?.get(member)?.as_str());
        if stated.as_deref() != name {
            return Err(mismatch());
        }
    }
    Ok(())
}

/// Undoes the Base64 form that header values with other characters travel in.
fn plain_text(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

/// JSON in which no object names a member twice, of bounded size: a value takes many times the memory
/// of its text.
mod strict_json {
    use std::cell::Cell;
    use std::fmt;

    use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
    use serde_json::{Map, Value};

    /// Most values in one body: arguments of tools are smaller, and files travel as one text.
    const VALUES: usize = 100_000;

    pub(super) fn parse(text: &[u8]) -> Result<Value, ()> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let left = Cell::new(VALUES);
        let value = Strict(&left).deserialize(&mut deserializer).map_err(|_| ())?;
        deserializer.end().map_err(|_| ())?;
        Ok(value)
    }

    #[derive(Clone, Copy)]
    struct Strict<'a>(&'a Cell<usize>);

    impl<'de> DeserializeSeed<'de> for Strict<'_> {
        type Value = Value;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
            let left = self.0.get().checked_sub(1);
            self.0.set(left.ok_or_else(|| D::Error::custom("too many values"))?);
            deserializer.deserialize_any(self)
        }
    }

    impl<'de> Visitor<'de> for Strict<'_> {
        type Value = Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON without repeated members")
        }

        fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
            Ok(Value::Bool(value))
        }

        fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_str<E>(self, value: &str) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_unit<E>(self) -> Result<Value, E> {
            Ok(Value::Null)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
            let mut array = Vec::new();
            while let Some(item) = items.next_element_seed(self)? {
                array.push(item);
            }
            Ok(Value::Array(array))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
            let mut object = Map::new();
            while let Some(name) = members.next_key::<String>()? {
                let value = members.next_value_seed(self)?;
                if object.insert(name, value).is_some() {
                    return Err(A::Error::custom("a member is repeated"));
                }
            }
            Ok(Value::Object(object))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gw_23_a_repeated_member_is_not_json_rpc() {
        let hidden =
            br#"{"method":"tools/call","params":{"name":"get-todos","name":"purge-todos"}}"#;
        assert!(strict_json::parse(hidden).is_err());
        assert!(strict_json::parse(br#"{"a":[{"b":1,"b":2}]}"#).is_err());
        assert!(strict_json::parse(br#"{"a":1} x"#).is_err());
        assert!(strict_json::parse(br#"{"a":[1,-1,1.5,null,true,"x"]}"#).is_ok());
    }

    #[test]
    fn gw_23_headers_must_agree_with_the_body() {
        let call = serde_json::json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "ゴミ箱" }
        });
        let headers = |method: &str, name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("mcp-method", method.parse().unwrap());
            headers.insert("mcp-name", name.parse().unwrap());
            headers
        };
        let encoded = format!("=?base64?{}?=", STANDARD.encode("ゴミ箱"));
        assert_eq!(check_headers(&headers("tools/call", &encoded), &call), Ok(()));
        assert_eq!(check_headers(&HeaderMap::new(), &call), Ok(()));
        let mismatch = Err(Refused::HeaderMismatch(7.into()));
        assert_eq!(check_headers(&headers("tools/list", &encoded), &call), mismatch);
        assert_eq!(check_headers(&headers("tools/call", "get-todos"), &call), mismatch);
        let mut doubled = headers("tools/call", &encoded);
        doubled.append("mcp-name", "get-todos".parse().unwrap());
        assert_eq!(check_headers(&doubled, &call), mismatch);
        let batch = Value::Array(vec![call.clone()]);
        let in_a_batch = Err(Refused::HeaderMismatch(Value::Null));
        assert_eq!(check_headers(&headers("tools/call", &encoded), &batch), in_a_batch);
        assert_eq!(check_headers(&HeaderMap::new(), &batch), Ok(()));
    }

    /// JSON as text, each object with its first member written once more where `doubled` says so.
    fn json() -> impl Strategy<Value = (String, bool)> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "0",
                "-1",
                "1.5",
                "1e9",
                "\"x\"",
                "\"\\u0061\""
            ])
            .prop_map(|text| (text.to_owned(), false)),
            any::<String>().prop_map(|text| (Value::from(text).to_string(), false)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let array = prop::collection::vec(inner.clone(), 0..4).prop_map(|items| {
                let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
                (format!("[{}]", texts.join(",")), items.iter().any(|(_, doubled)| *doubled))
            });
            let object = (prop::collection::vec(inner, 0..4), prop::bool::weighted(0.1)).prop_map(
                |(values, doubled)| {
                    let doubled = doubled && !values.is_empty();
                    let mut members: Vec<String> = values
                        .iter()
                        .enumerate()
                        .map(|(n, (text, _))| format!("\"m{n}\":{text}"))
                        .collect();
                    if doubled {
                        members.push("\"\\u006d0\":7".to_owned()); // m0, spelled otherwise
                    }
                    let inside = values.iter().any(|(_, doubled)| *doubled);
                    (format!("{{{}}}", members.join(",")), doubled || inside)
                },
            );
            prop_oneof![array, object]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gw_23_strict_json_is_json_without_repeated_members((text, doubled) in json(), raw in any::<Vec<u8>>()) {
            let _ = strict_json::parse(&raw);
            let lenient: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(strict_json::parse(text.as_bytes()), if doubled { Err(()) } else { Ok(lenient.clone()) });
            is_plain(&lenient);
        }
    }
}
