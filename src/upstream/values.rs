//! Readers of values in the provider's responses: strict about meaning, lenient about form. An error names
//! the member that it concerns.

use std::fmt;

use axum::http::{Response, header};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Longest part of a response, in characters, that is logged or shown to an administrator.
const MAX_SHOWN: usize = 256;

/// Start of the error text for a JSON object that arrived complete but cannot be read.
pub(super) const UNREADABLE: &str = "it cannot be read: ";
/// Longest subject that we accept, in bytes: the limit of OpenID Connect Core §2.
pub(super) const MAX_SUBJECT: usize = 255;
/// Longest session id (`sid`) that we accept, in bytes.
pub(super) const MAX_SID: usize = 1024;

/// Rejects an identifier that cannot be stored unchanged: too long, or with control characters, which a
/// database or a log may cut or change. The error names the member.
pub(super) fn check_identifier(name: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!("{name} is longer than {longest} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{name} has control characters"));
    }
    Ok(())
}

/// Returns a text of the provider that is safe to show or log: no control characters, at most `MAX_SHOWN`
/// characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// Returns the reason of a JSON error without line and column.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let at = reason.find(" at line ").unwrap_or(reason.len());
    reason[..at].to_owned()
}

/// Parses the JSON object of a response. Ignores its content type, and a byte order mark that some servers
/// send.
pub(super) fn object_of(body: &[u8]) -> Result<Map<String, Value>, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        // The object is complete but contains a value that we cannot represent, such as a number that is too
        // large.
        Err(error) if body.trim_ascii().starts_with(b"{") && body.trim_ascii().ends_with(b"}") => {
            Err(format!("{UNREADABLE}{}", without_place(&error)))
        }
        Err(_) => Err("it is not JSON".to_owned()),
    }
}

/// Returns the media type of a response if it is not JSON.
pub(super) fn other_than_json(response: &Response<Vec<u8>>) -> Option<String> {
    let text = response.headers().get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    let bare = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = bare == "application/json" || bare.ends_with("+json");
    (!is_json).then(|| shown(&bare))
}

/// The claims of a JWT, or of userinfo.
#[derive(Debug, Default)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Parses a payload. The error names the member that cannot be represented, such as a number that is too
    /// large.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        serde_json::from_slice::<ObjectMembers>(payload)
            .map(|members| Self(members.0))
            .map_err(|error| format!("its claims cannot be read: {}", without_place(&error)))
    }

    /// Returns all claims as a JSON value.
    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Returns a claim; `null` counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is not a text")),
        }
    }

    pub(super) fn required_text(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    /// Returns a time in Unix seconds. Some providers write fractions, or texts as in RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match time_of(value) {
                Some(time) => Ok(Some(time)),
                None => Err(format!("{name} is not a time")),
            },
        }
    }

    pub(super) fn required_time(&self, name: &str) -> Result<i64, String> {
        self.time(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    pub(super) fn audiences(&self) -> Result<Vec<&str>, String> {
        let odd = || "aud is neither a text nor a list of texts".to_owned();
        match self.get("aud") {
            None => Err("aud is missing".to_owned()),
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(all)) => all.iter().map(|one| one.as_str().ok_or_else(odd)).collect(),
            Some(_) => Err(odd()),
        }
    }
}

impl From<Map<String, Value>> for Claims {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

/// Reads a time in Unix seconds. Values beyond 64 bits become the smallest or largest `i64`.
pub(super) fn time_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            #[expect(clippy::cast_possible_truncation, reason = "beyond 64 bits it is the bound")]
            number.as_f64().map(|seconds| seconds.floor() as i64)
        }),
        Value::String(text) => {
            chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp())
        }
        _ => None,
    }
}

/// A JSON object; its parse errors name the member that failed.
struct ObjectMembers(Map<String, Value>);

impl<'de> Deserialize<'de> for ObjectMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectReader;
        impl<'de> Visitor<'de> for ObjectReader {
            type Value = ObjectMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMembers, A::Error> {
                let mut members = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<Value>().map_err(|error| {
                        serde::de::Error::custom(format!("{}: {error}", shown(&name)))
                    })?;
                    members.insert(name, value);
                }
                Ok(ObjectMembers(members))
            }
        }
        deserializer.deserialize_map(ObjectReader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_read_in_each_form_it_comes_in() {
        for (value, expected) in [
            (json!(1_795_219_200), Some(1_795_219_200)),
            (json!(1_795_219_200.75), Some(1_795_219_200)),
            (json!(-0.5), Some(-1)),
            (json!(1e300), Some(i64::MAX)),
            (json!(-1e300), Some(i64::MIN)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!("2026-11-21T00:00:00Z"), Some(1_795_219_200)),
            (json!("2026-11-21T09:00:00.5+09:00"), Some(1_795_219_200)),
            (json!("1795219200"), None),
            (json!("soon"), None),
            (json!(true), None),
            (json!([1]), None),
            (json!({}), None),
        ] {
            assert_eq!(time_of(&value), expected, "{value}");
        }
    }

    #[test]
    fn claims_that_cannot_be_held_are_named() {
        for (payload, said) in [
            (
                "{\"sub\":\"a\",\"iat\":1e400}",
                "its claims cannot be read: iat: number out of range",
            ),
            ("{\"deep\":[{\"x\":-1e999}]}", "its claims cannot be read: deep: number out of range"),
            ("[1]", "its claims cannot be read: invalid type: sequence, expected a JSON object"),
            (
                "{\"sub\":\"\\ud800\"}",
                "its claims cannot be read: sub: unexpected end of hex escape",
            ),
            (
                "{\"name\":\"\\udc00x\"}",
                "its claims cannot be read: name: lone leading surrogate in hex escape",
            ),
            (
                "{\"roles\":[\"\\ud800\\u0041\"]}",
                "its claims cannot be read: roles: lone leading surrogate in hex escape",
            ),
            ("{\"\\ud800\":1}", "its claims cannot be read: unexpected end of hex escape"),
            ("{\"iat\":1,\"iat\":01}", "its claims cannot be read: iat: invalid number"),
            ("{\"a\":1", "its claims cannot be read: EOF while parsing an object"),
            ("", "its claims cannot be read: EOF while parsing a value"),
        ] {
            assert_eq!(Claims::parse(payload.as_bytes()).unwrap_err(), said, "{payload}");
        }
        let beyond = b"{\"sub\":\"a\",\"n\":1e300,\"iat\":99999999999999999999}";
        assert_eq!(Claims::parse(beyond).unwrap().time("iat"), Ok(Some(i64::MAX)));
    }

    #[test]
    fn an_answer_is_an_object_whatever_its_type_says() {
        assert!(object_of(b"\xef\xbb\xbf {\"a\":1} \n").is_ok());
        assert_eq!(object_of(b"[]").unwrap_err(), "it is not a JSON object");
        assert_eq!(object_of(b"<html>").unwrap_err(), "it is not JSON");
        assert_eq!(object_of(b"{\"a\":").unwrap_err(), "it is not JSON", "it broke off");
        let unreadable = object_of(b" {\"a\":\"\\ud800\"}\n").unwrap_err();
        assert_eq!(unreadable, "it cannot be read: unexpected end of hex escape");
        let typed = |text: &str| {
            let response = Response::builder().header(header::CONTENT_TYPE, text);
            other_than_json(&response.body(Vec::new()).unwrap())
        };
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/jwk-set+json"]
        {
            assert_eq!(typed(json), None, "{json}");
        }
        assert_eq!(typed("text/html; charset=utf-8").as_deref(), Some("text/html"));
        assert_eq!(other_than_json(&Response::new(Vec::new())), None);
    }
}
