//! Limits `Cache-Control`: every response is for one person, so shared caches must not store it (RFC 9111
//! §3.5: `public`, `s-maxage` and `must-revalidate` without `private` would allow that). The MCP server still
//! decides what private caches may do.

use axum::http::{HeaderMap, HeaderValue, header};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Reduces the MCP server's `Cache-Control` to at most `private`.
pub(super) fn at_most_private(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::CACHE_CONTROL).iter();
    let (first, others) = (values.next(), values.next().is_some());
    let Some(first) = first else {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        return;
    };
    // The values of most servers need no parsing.
    if !others && matches!(first.as_bytes(), b"no-store" | b"private") {
        return;
    }
    let limited = {
        let lines = headers.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::to_str);
        let lines: Option<Vec<&str>> = lines.map(Result::ok).collect();
        lines.and_then(|lines| limited(&lines.join(","))).and_then(|text| text.try_into().ok())
    };
    headers.insert(header::CACHE_CONTROL, limited.unwrap_or(NO_STORE));
}

/// Returns `private` and the directives that restrict it further; `None` if `no-store` is among them or two
/// values of `max-age` contradict each other.
fn limited(said: &str) -> Option<String> {
    let (mut kept, mut max_age) = (vec!["private".to_owned()], None);
    let mut store = true;
    for directive in directives(said) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => store = false,
            // With a list of fields, `no-cache` would apply to those alone.
            "no-cache" => kept.push("no-cache".to_owned()),
            name @ ("must-revalidate" | "no-transform") => kept.push(name.to_owned()),
            "max-age" => {
                if let Ok(seconds) = value.trim().parse::<u32>() {
                    if max_age.is_some_and(|other| other != seconds) {
                        return None;
                    }
                    max_age = Some(seconds);
                }
            }
            _ => {}
        }
    }
    kept.extend(max_age.map(|seconds| format!("max-age={seconds}")));
    store.then(|| kept.join(", "))
}

/// Splits at commas outside quotes.
fn directives(said: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    said.split(move |char: char| {
        quoted ^= char == '"';
        char == ',' && !quoted
    })
    .map(str::trim)
}
