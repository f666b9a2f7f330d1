//! Strict parsing of query and form parameters: RFC 6749 §3.1 and §3.2, threat PP-01.
//!
//! A repeated parameter is an error for the caller that reads it. An empty value counts as absent. Bytes
//! that are not UTF-8 are refused, because lossy decoding makes two different inputs equal. Unknown
//! parameters are ignored.

use std::borrow::Cow;

use axum::http::HeaderValue;
use percent_encoding::percent_decode_str;

use crate::upstream::CallbackParams;

/// Most parameters that are read from one request. More are refused.
const MAX_PARAMS: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsRefused {
    /// Not UTF-8, or with a NUL.
    #[error("a parameter is not valid UTF-8")]
    Encoding,
    /// More than `MAX_PARAMS`.
    #[error("too many parameters")]
    TooMany,
    /// The `Content-Type` is not that of a form in UTF-8.
    #[error("the body must be application/x-www-form-urlencoded")]
    NotAForm,
    /// The URL of a POST has parameters.
    #[error("parameters belong into the body, not into the URL")]
    InUrl,
}

/// The parameters of one request, in their original order.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

/// A parameter occurs more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

impl Params {
    /// Parses a query string or a form body.
    pub fn parse(encoded: &str) -> Result<Self, ParamsRefused> {
        let mut params = Vec::new();
        for pair in encoded.split('&').filter(|pair| !pair.is_empty()) {
            if params.len() == MAX_PARAMS {
                return Err(ParamsRefused::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.push((decode(name)?, decode(value)?));
        }
        Ok(Self(params))
    }

    /// Parses the form of a POST. Its URL must have no parameters (RFC 6749 §3.2).
    pub fn from_post(
        content_type: Option<&HeaderValue>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ParamsRefused> {
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(ParamsRefused::InUrl);
        }
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let charset_fits = parameters.trim().is_empty()
            || parameters.trim().to_ascii_lowercase().replace('"', "") == "charset=utf-8";
        if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
            || !charset_fits
        {
            return Err(ParamsRefused::NotAForm);
        }
        Self::parse(std::str::from_utf8(body).map_err(|_| ParamsRefused::Encoding)?)
    }

    /// Returns the value of a parameter, or `None` if it is absent or empty.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Repeated);
        }
        Ok(first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty()))
    }

    /// Returns all values of a parameter that may be repeated, such as that of checkboxes.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a parameter that may be repeated with equal values, as `resource` may (RFC 8707
    /// §2). [`Repeated`] if the values differ.
    pub fn get_agreeing(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let mut values = self
            .0
            .iter()
            .filter(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str());
        let first = values.next();
        if values.any(|other| Some(other) != first) { Err(Repeated) } else { Ok(first) }
    }

    /// Returns whether any of `names` occurs more than once.
    pub fn repeats_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_err())
    }
}

impl<'a> From<&'a Params> for CallbackParams<'a> {
    fn from(params: &'a Params) -> Self {
        let get = |name| params.get(name).ok().flatten();
        Self {
            iss: get("iss"),
            code: get("code"),
            error: get("error"),
            error_description: get("error_description"),
        }
    }
}

fn decode(encoded: &str) -> Result<String, ParamsRefused> {
    // Most texts have nothing to decode, and the longest of all, a sealed request, never has.
    if memchr::memchr3(b'%', b'+', b'\0', encoded.as_bytes()).is_none() {
        return Ok(encoded.to_owned());
    }
    let spaced: Cow<'_, str> =
        if encoded.contains('+') { encoded.replace('+', " ").into() } else { encoded.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| ParamsRefused::Encoding)?;
    if decoded.contains('\0') { Err(ParamsRefused::Encoding) } else { Ok(decoded.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pp_01_hostile_parameters_are_refused_or_ignored() {
        assert_eq!(Params::parse("client_id=%ff").unwrap_err(), ParamsRefused::Encoding);
        assert_eq!(Params::parse("state=a%00b").unwrap_err(), ParamsRefused::Encoding);
        let many = vec!["a=b"; 51].join("&");
        assert_eq!(Params::parse(&many).unwrap_err(), ParamsRefused::TooMany);

        let params = Params::parse("a=1&b=&a=2&c=x;d=y&e").unwrap();
        assert_eq!(params.get("a"), Err(Repeated));
        assert_eq!(params.get("b"), Ok(None), "an empty value counts as left out");
        assert_eq!(params.get("c"), Ok(Some("x;d=y")), "a semicolon separates nothing");
        assert_eq!(params.get("e"), Ok(None));
    }

    #[test]
    fn az_14_plus_and_percent_twenty_are_the_same_space() {
        let params = Params::parse("a=x+y&b=x%20y&c=x%2By").unwrap();
        assert_eq!(params.get("a"), params.get("b"));
        assert_eq!(params.get("c"), Ok(Some("x+y")));
    }

    #[test]
    fn az_03_resource_may_repeat_when_it_agrees() {
        let params = Params::parse("resource=x&resource=x").unwrap();
        assert_eq!(params.get_agreeing("resource"), Ok(Some("x")));
        let params = Params::parse("resource=x&resource=y").unwrap();
        assert_eq!(params.get_agreeing("resource"), Err(Repeated));
    }

    #[test]
    fn tok_01_only_a_form_in_the_body_is_read() {
        let json = HeaderValue::from_static("application/json");
        for other in [None, Some(&json)] {
            assert_eq!(Params::from_post(other, None, b"{}").unwrap_err(), ParamsRefused::NotAForm);
        }
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
        assert!(Params::from_post(Some(&form), None, b"a=b").is_ok());
        assert_eq!(
            Params::from_post(Some(&form), Some("a=b"), b"").unwrap_err(),
            ParamsRefused::InUrl
        );
    }
}
