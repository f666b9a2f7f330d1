//! The headers of 2026-07-28 that repeat the body. What serves HTTP has to compare them (SEP-2243); the process
//! behind the bridge does not see them.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::transport::common::http_header::{
    BASE64_HEADER_PREFIX, BASE64_HEADER_SUFFIX, HEADER_MCP_METHOD, HEADER_MCP_NAME,
    HEADER_MCP_PROTOCOL_VERSION,
};

use super::message::{RpcKind, RpcMessage};

/// The first revision without sessions.
const WITHOUT_SESSIONS: &str = "2026-07-28";

/// Whether a message belongs to a revision without sessions: it says so itself, or the header does.
pub(super) fn is_without_session(headers: &HeaderMap, message: &RpcMessage) -> bool {
    if message.is("initialize") {
        return false; // exists in the earlier revisions only
    }
    let stated = headers.get(HEADER_MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    message.version.is_some()
        || stated.is_some_and(|version| is_date(version) && version >= WITHOUT_SESSIONS)
}

/// Revisions are dates, so they are compared as dates.
fn is_date(version: &str) -> bool {
    version.len() == WITHOUT_SESSIONS.len()
        && version
            .bytes()
            .zip(WITHOUT_SESSIONS.bytes())
            .all(|(byte, like)| if like == b'-' { byte == b'-' } else { byte.is_ascii_digit() })
}

/// Compares the headers of a request without session with its body. Returns what is wrong with them.
pub(super) fn contradiction(headers: &HeaderMap, message: &RpcMessage) -> Option<String> {
    if message.kind != RpcKind::Request {
        return None; // the revision defines no headers for notifications
    }
    let version = (HEADER_MCP_PROTOCOL_VERSION, message.version.as_deref());
    let method = (HEADER_MCP_METHOD, message.method.as_deref());
    let name = (HEADER_MCP_NAME, message.name.as_deref());
    [version, method, name].into_iter().find_map(|(header, body)| {
        let mut values = headers.get_all(header).iter();
        let value = values.next();
        if values.next().is_some() {
            return Some(format!("{header} is repeated"));
        }
        match (value, body) {
            (None, Some(_)) => Some(format!("{header} is missing")),
            // The name of a method that this bridge does not know, or a version that the body does not repeat.
            (_, None) => None,
            (Some(value), Some(body)) => {
                let text = value.to_str().ok().and_then(plain_text);
                (text.as_deref() != Some(body))
                    .then(|| format!("Header mismatch: {header} does not match the body"))
            }
        }
    })
}

/// Decodes a header value, which is Base64 if it contains characters that headers cannot carry.
fn plain_text(value: &str) -> Option<String> {
    let encoded = value.strip_prefix(BASE64_HEADER_PREFIX);
    match encoded.and_then(|rest| rest.strip_suffix(BASE64_HEADER_SUFFIX)) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn call(version: &str) -> RpcMessage {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"ゴミ箱"{version}}}}}"#
        );
        RpcMessage::read(&serde_json::from_str::<Box<RawValue>>(&text).unwrap()).unwrap()
    }

    #[test]
    fn headers_that_contradict_the_body_are_named() {
        let meta = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let call = call(meta);
        let name = format!("=?base64?{}?=", STANDARD.encode("ゴミ箱"));
        let mut good = HeaderMap::new();
        good.insert("mcp-protocol-version", "2026-07-28".parse().unwrap());
        good.insert("mcp-method", "tools/call".parse().unwrap());
        good.insert("mcp-name", name.parse().unwrap());
        assert_eq!(contradiction(&good, &call), None);
        for header in ["mcp-protocol-version", "mcp-method", "mcp-name"] {
            let (mut missing, mut other, mut twice) = (good.clone(), good.clone(), good.clone());
            missing.remove(header);
            other.insert(header, "x".parse().unwrap());
            twice.append(header, "x".parse().unwrap());
            for bad in [missing, other, twice] {
                let said = contradiction(&bad, &call).unwrap();
                assert!(said.to_lowercase().contains(header), "{said}");
            }
        }
    }

    #[test]
    fn the_era_is_in_the_body_or_in_the_header() {
        let (silent, states) =
            (call(""), call(r#","_meta":{"io.modelcontextprotocol/protocolVersion":"x"}"#));
        let header = |version: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("mcp-protocol-version", version.parse().unwrap());
            headers
        };
        assert!(is_without_session(&HeaderMap::new(), &states));
        assert!(is_without_session(&header("2026-07-28"), &silent));
        assert!(is_without_session(&header("2031-01-01"), &silent));
        for earlier in ["2025-11-25", "2025-03-26", "draft", "9"] {
            assert!(!is_without_session(&header(earlier), &silent), "{earlier}");
        }
        assert!(!is_without_session(&HeaderMap::new(), &silent));
    }
}
