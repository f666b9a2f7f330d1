//! Requests that nobody makes on purpose: a browser that guesses where somebody may go next, a page that embeds an
//! address, a program that looks whether there is something behind a link. They change nothing (RFC 9110
//! §9.2.1; threats BR-01, BR-04).

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// By which browsers say that they only guess, past and present ones.
const GUESSES: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
/// What they say; `preview` is for pictures of pages.
const WORDS: [&str; 3] = ["prefetch", "prerender", "preview"];

/// Whether nobody has decided to go here: the browser guesses, or something else than a person's tab asks.
pub fn is_guess(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::HEAD || says_guess(headers) || is_part_of_a_page(headers)
}

fn says_guess(headers: &HeaderMap) -> bool {
    GUESSES.iter().flat_map(|name| headers.get_all(*name)).any(|value| {
        let said = value.to_str().unwrap_or_default().to_ascii_lowercase();
        WORDS.iter().any(|word| said.contains(word))
    })
}

/// Whether a page asks for its image, script, frame or data. Browsers that do not tell are believed, and so are
/// programs that are none and send `Sec-Fetch-Mode` alone, as Node does.
fn is_part_of_a_page(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-dest").iter().any(|value| value.as_bytes() != b"document")
}

/// Whether a browser says that somebody goes here in a tab.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate")
        && !is_part_of_a_page(headers)
        && !says_guess(headers)
}

/// Answers guesses before a step of a sign-in, which can be taken once, sees them.
///
/// 503 and no 2xx: a browser that prefetched would show a success in place of the page when somebody really goes
/// there. After an error it asks again, and that request counts.
pub async fn keep_out(request: Request, next: Next) -> Response {
    let (method, headers) = (request.method(), request.headers());
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if *method == Method::HEAD {
        let html = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        return (StatusCode::OK, [no_store, html]).into_response();
    }
    if *method == Method::GET && is_guess(method, headers) {
        return (StatusCode::SERVICE_UNAVAILABLE, [no_store]).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_person_who_goes_somewhere_is_no_guess() {
        let go = |pairs: &[(&'static str, &'static str)]| is_guess(&Method::GET, &headers(pairs));
        assert!(!go(&[]), "an old browser says nothing");
        assert!(!go(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]));
        assert!(!go(&[("purpose", "something else")]));
        assert!(go(&[("sec-purpose", "prefetch;prerender")]));
        assert!(go(&[("purpose", "Prefetch")]));
        assert!(go(&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]));
        assert!(go(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]));
        assert!(!go(&[("sec-fetch-mode", "cors")]), "Node");
        assert!(is_guess(&Method::HEAD, &headers(&[])));
        assert!(!is_navigation(&headers(&[])), "who says nothing may be any program");
        assert!(is_navigation(&headers(&[("sec-fetch-mode", "navigate")])));
    }
}
