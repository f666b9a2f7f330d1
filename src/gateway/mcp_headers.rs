//! Checks the headers that repeat the body (MCP 2026-07-28). They must agree with it, so that it does not
//! matter which of them a server reads. SEP-2243 demands this check of everything that processes the body.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::challenge::{GatewayRefused, MessageRefused};
use super::messages::{id, method};

/// The first revision with these headers.
const FIRST: &str = "2026-07-28";

/// Requests that must name in `Mcp-Name` what they act on.
const NEED_A_NAME: [&str; 6] =
    ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];

/// The value of a header.
enum Stated {
    Nothing,
    Text(String),
    /// The header is present but cannot be decoded to text, so it contradicts every body.
    Undecodable,
}

impl Stated {
    fn read(value: Option<&HeaderValue>) -> Self {
        let Some(value) = value else { return Self::Nothing };
        value.to_str().ok().and_then(plain_text).map_or(Self::Undecodable, Self::Text)
    }

    fn contradicts(&self, body: Option<&str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text(text) => Some(text.as_str()) != body,
            Self::Undecodable => true,
        }
    }
}

/// Refuses headers that contradict the body, or that are missing although the message's revision demands
/// them.
pub(super) fn check(headers: &HeaderMap, message: &Value) -> Result<(), GatewayRefused> {
    let mismatch = || GatewayRefused::from(MessageRefused::HeaderMismatch(id(message)));
    // If a header is repeated, the MCP server may read the other value. A batch has no single method and
    // name.
    let several = |name: &str| {
        let values = headers.get_all(name).iter().count();
        values > 1 || (values == 1 && message.is_array() && name != "mcp-protocol-version")
    };
    if ["mcp-method", "mcp-name", "mcp-protocol-version"].into_iter().any(several) {
        return Err(mismatch());
    }
    let stated = |name: &str| Stated::read(headers.get(name));
    let stated_version = stated("mcp-protocol-version");
    let version = message
        .pointer("/params/_meta/io.modelcontextprotocol~1protocolVersion")
        .and_then(Value::as_str);
    let method = method(message);
    let contradicted = stated("mcp-method").contradicts(method)
        || stated("mcp-name").contradicts(named(message))
        || matches!(stated_version, Stated::Undecodable)
        || version.is_some_and(|version| stated_version.contradicts(Some(version)));
    if contradicted {
        return Err(mismatch());
    }
    let stated_version = match &stated_version {
        Stated::Text(version) => Some(version.as_str()),
        Stated::Nothing | Stated::Undecodable => None,
    };
    let demanded = [version, stated_version].into_iter().flatten().any(demands_headers);
    let (true, Some(method), true) = (demanded, method, message.get("id").is_some()) else {
        return Ok(());
    };
    let needs_name = NEED_A_NAME.contains(&method);
    for (header, needed) in
        [("mcp-protocol-version", true), ("mcp-method", true), ("mcp-name", needs_name)]
    {
        if needed && !headers.contains_key(header) {
            return Err(MessageRefused::HeaderMissing(id(message), header).into());
        }
    }
    Ok(())
}

/// Whether this revision demands the headers. Revisions are dates, so they are compared as dates.
fn demands_headers(version: &str) -> bool {
    let is_date = version.len() == FIRST.len()
        && version
            .bytes()
            .zip(FIRST.bytes())
            .all(|(byte, like)| if like == b'-' { byte == b'-' } else { byte.is_ascii_digit() });
    is_date && version >= FIRST
}

/// Returns the parameter that `Mcp-Name` repeats for this method, if MCP defines one.
fn names(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// Returns what the message acts on, which `Mcp-Name` has to repeat.
fn named(message: &Value) -> Option<&str> {
    let params = message.get("params")?;
    match names(method(message)?) {
        Some(member) => params.get(member)?.as_str(),
        None => ["name", "uri"].iter().find_map(|member| params.get(member)?.as_str()),
    }
}

/// Decodes a header value, which is Base64 if it contains characters that headers cannot carry.
fn plain_text(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(check(&headers("tools/call", &encoded), &call), Ok(()));
        assert_eq!(check(&HeaderMap::new(), &call), Ok(()));
        let mismatch = Err(GatewayRefused::Message(MessageRefused::HeaderMismatch(7.into())));
        assert_eq!(check(&headers("tools/list", &encoded), &call), mismatch);
        assert_eq!(check(&headers("tools/call", "get-todos"), &call), mismatch);
        let mut doubled = headers("tools/call", &encoded);
        doubled.append("mcp-name", "get-todos".parse().unwrap());
        assert_eq!(check(&doubled, &call), mismatch);
        let batch = Value::Array(vec![call.clone()]);
        let in_a_batch = Err(GatewayRefused::Message(MessageRefused::HeaderMismatch(Value::Null)));
        assert_eq!(check(&headers("tools/call", &encoded), &batch), in_a_batch);
        assert_eq!(check(&HeaderMap::new(), &batch), Ok(()));
    }

    #[test]
    fn gw_23_revisions_are_compared_as_dates() {
        for version in ["2026-07-28", "2026-11-01", "2030-01-01"] {
            assert!(demands_headers(version), "{version}");
        }
        for version in ["2025-11-25", "2026-07-27", "", "draft", "2026-07-28x", "zzzz-zz-zz"] {
            assert!(!demands_headers(version), "{version}");
        }
    }
}
