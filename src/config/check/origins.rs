//! Reads `allowed_origins`: exact origins of any scheme, as browsers send them.

use url::Url;

use super::super::reader::ConfigReader;

const KEY: &str = "allowed_origins";
/// Schemes whose pages have the origin `null`, or that pages cannot have.
const WITHOUT_ORIGIN: &[&str] =
    &["file", "data", "blob", "about", "javascript", "filesystem", "ftp", "ws", "wss"];
const TAKE_IT_OUT: &str = "take it out";

/// Reads the list. Rejects entries that could never match a request, with the reason.
pub(super) fn read(r: &mut ConfigReader) -> Vec<String> {
    let origins = r.texts(KEY).unwrap_or_default();
    for origin in &origins {
        if let Err((reason, hint)) = check(origin) {
            r.problem(KEY, Some(format!("{origin:?}")), reason, hint);
        }
    }
    origins
}

type OriginRefused = (&'static str, String);

fn check(origin: &str) -> Result<(), OriginRefused> {
    if origin == "null" {
        let reason = "is what every sandboxed page, local file and redirect sends: it names nobody";
        return Err((reason, TAKE_IT_OUT.to_owned()));
    }
    if origin.contains('*') {
        let reason = "has a wildcard: origins are compared whole, and it would match nothing";
        return Err((reason, "list each origin, such as \"https://app.example.com\"".to_owned()));
    }
    let trimmed = origin.trim();
    let scheme = trimmed.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if WITHOUT_ORIGIN.contains(&scheme.as_str()) {
        let reason = "is of a scheme whose pages have no origin: a request would never carry it";
        let hint = match scheme.as_str() {
            "ws" | "wss" => "write the origin of the page, such as \"https://app.example.com\"",
            _ => TAKE_IT_OUT,
        };
        return Err((reason, hint.to_owned()));
    }
    let Some((scheme_text, rest)) = trimmed.split_once("://").filter(|_| is_scheme(&scheme)) else {
        let reason = "does not begin with a scheme and ://, which are part of an origin";
        return Err((reason, format!("write it like {:?}", suggested(trimmed))));
    };
    let (host, path) = match rest.find(['/', '?', '#', '\\']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if host.contains('@') {
        let reason = "holds a user name or password, which no origin has";
        return Err((reason, TAKE_IT_OUT.to_owned()));
    }
    let canonical = canonical(&scheme, host).ok_or_else(|| {
        let hint = format!("write scheme, host and perhaps port, such as \"{scheme}://example\"");
        ("has no host, or one that is none", hint)
    })?;
    let hint = format!("write {canonical:?}");
    match path {
        "" => {}
        "/" => return Err(("ends with a slash, which browsers do not send", hint)),
        _ => return Err(("has a path, query or fragment, which browsers do not send", hint)),
    }
    let same = canonical == origin && scheme_text == scheme;
    if same { Ok(()) } else { Err(("is not as browsers write it, and would never match", hint)) }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

/// Returns the origin as browsers send it; `None` if the host is invalid. Browsers write http and https hosts
/// in lower case and omit the default port; hosts of other schemes stay unchanged.
fn canonical(scheme: &str, host: &str) -> Option<String> {
    if matches!(scheme, "http" | "https") {
        let url = Url::parse(&format!("{scheme}://{host}/")).ok()?;
        return Some(url.origin().ascii_serialization());
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let legal = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && port
            .is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    legal.then(|| format!("{scheme}://{host}"))
}

fn suggested(text: &str) -> String {
    match text.split_once(':') {
        None if text.contains('.') => format!("https://{text}"),
        _ => "https://app.example.com".to_owned(),
    }
}
