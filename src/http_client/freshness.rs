//! Computes how long a response may be cached: RFC 9111 §4.2, as far as a small cache needs it.

use std::time::Duration;

use axum::http::{HeaderMap, header};

/// Returns how long the headers allow a response to be cached; `None` if they say nothing that can be parsed.
pub(super) fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let directives: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives.iter().any(|directive| {
        let name = directive.split('=').next().unwrap_or_default();
        matches!(name, "no-store" | "no-cache")
    }) {
        return Some(Duration::ZERO);
    }
    let max_age = directives.iter().find_map(|directive| directive.strip_prefix("max-age="));
    let lifetime = match max_age {
        Some(seconds) => Duration::from_secs(seconds.trim_matches('"').parse().ok()?),
        None => expires(text(headers, &header::EXPIRES)?, text(headers, &header::DATE)?)?,
    };
    let age = text(headers, &header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0);
    Some(lifetime.saturating_sub(Duration::from_secs(age)))
}

fn expires(expires: &str, date: &str) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    // An invalid `Expires`, such as `0`, counts as a time in the past (RFC 9111 §5.3).
    Some(
        httpdate::parse_http_date(expires)
            .ok()
            .and_then(|expires| expires.duration_since(date).ok())
            .unwrap_or_default(),
    )
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cimd_13_the_headers_of_caching_are_understood() {
        let date = ("date", "Sat, 21 Nov 2026 08:00:00 GMT");
        for (headers, expected) in [
            (vec![], None),
            (vec![("cache-control", "public, max-age=300")], Some(300)),
            (vec![("cache-control", "MAX-AGE=300"), ("age", "100")], Some(200)),
            (vec![("cache-control", "max-age=300"), ("age", "900")], Some(0)),
            (vec![("cache-control", "max-age=300"), ("cache-control", "no-store")], Some(0)),
            (vec![("cache-control", "no-cache=\"set-cookie\"")], Some(0)),
            (vec![("cache-control", "max-age=99999999999999999999")], None),
            (vec![("cache-control", "max-age=-1")], None),
            (vec![("cache-control", "private")], None),
            (vec![date, ("expires", "Sat, 21 Nov 2026 09:00:00 GMT")], Some(3600)),
            (vec![date, ("expires", "Sat, 21 Nov 2026 07:00:00 GMT")], Some(0)),
            (vec![date, ("expires", "0")], Some(0)),
            (vec![("expires", "Sat, 21 Nov 2026 09:00:00 GMT")], None),
            (
                vec![
                    date,
                    ("expires", "Sat, 21 Nov 2026 09:00:00 GMT"),
                    ("cache-control", "max-age=5"),
                ],
                Some(5),
            ),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                let name: header::HeaderName = name.parse().unwrap();
                map.append(name, value.parse().unwrap());
            }
            assert_eq!(lifetime(&map), expected.map(Duration::from_secs), "{headers:?}");
        }
    }
}
