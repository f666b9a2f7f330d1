//! Every answer is one person's: no cache that others use may keep it (RFC 9111 §3.5: `public`, `s-maxage` and
//! `must-revalidate` without `private` would let it). What a private cache may do stays for the MCP server
//! to say.

use axum::http::{HeaderMap, HeaderValue, header};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Limits what the MCP server allows to caches.
pub(super) fn at_most_private(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::CACHE_CONTROL).iter();
    let (first, others) = (values.next(), values.next().is_some());
    let Some(first) = first else {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        return;
    };
    // What most servers say needs no reading.
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

/// The directives that say less than `private`; `None` when they contradict each other.
fn limited(said: &str) -> Option<String> {
    let (mut kept, mut max_age) = (vec!["private".to_owned()], None);
    let mut store = true;
    for directive in directives(said) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => store = false,
            // With a list of fields it would be about these alone.
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

/// The parts between commas that stand in no quotes.
fn directives(said: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    said.split(move |char: char| {
        quoted ^= char == '"';
        char == ',' && !quoted
    })
    .map(str::trim)
}
