//! Speculative requests: no person made them on purpose. Browsers prefetch addresses, pages embed them, and
//! scanners check what is behind a link. Such requests change nothing (RFC 9110 §9.2.1; threats BR-01,
//! BR-04).

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Headers by which current and older browsers mark speculative requests.
const GUESSES: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
/// Their values. `preview` marks requests for a thumbnail of a page.
const WORDS: [&str; 3] = ["prefetch", "prerender", "preview"];

/// What the headers of a request say about why it was sent.
pub struct FetchPurpose {
    is_speculative: bool,
    /// A page requests this as an image, script, frame or data. False without `Sec-Fetch-Dest`: old browsers
    /// do not send it, and some programs, such as Node, send `Sec-Fetch-Mode` alone.
    is_part_of_a_page: bool,
    navigates: bool,
}

impl FetchPurpose {
    pub fn of(headers: &HeaderMap) -> Self {
        let destinations = headers.get_all("sec-fetch-dest");
        let mode = headers.get("sec-fetch-mode");
        Self {
            is_speculative: GUESSES.iter().flat_map(|name| headers.get_all(*name)).any(|value| {
                let said = value.to_str().unwrap_or_default().to_ascii_lowercase();
                WORDS.iter().any(|word| said.contains(word))
            }),
            is_part_of_a_page: destinations.iter().any(|value| value.as_bytes() != b"document"),
            navigates: mode.is_some_and(|mode| mode.as_bytes() == b"navigate"),
        }
    }

    /// Returns whether no person decided to go here: `HEAD`, a prefetch, or a request for a part of a page.
    pub fn is_guess(&self, method: &Method) -> bool {
        *method == Method::HEAD || self.is_speculative || self.is_part_of_a_page
    }

    /// Returns whether a browser marks this request as a navigation in a tab.
    pub const fn is_navigation(&self) -> bool {
        self.navigates && !self.is_part_of_a_page && !self.is_speculative
    }
}

/// Middleware that responds to speculative requests itself, so that they do not use up a step of a sign-in
/// that can be taken only once.
///
/// A `GET` gets 503 and not a 2xx: a browser that prefetched a success would show it instead of the page
/// when the person really navigates. After an error it requests the page again, and that request counts. A
/// `HEAD` gets an empty 200.
pub async fn keep_out(request: Request, next: Next) -> Response {
    let (method, headers) = (request.method(), request.headers());
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if *method == Method::HEAD {
        let html = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        return (StatusCode::OK, [no_store, html]).into_response();
    }
    if *method == Method::GET && FetchPurpose::of(headers).is_guess(method) {
        return (StatusCode::SERVICE_UNAVAILABLE, [no_store]).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn purpose(pairs: &[(&'static str, &'static str)]) -> FetchPurpose {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        FetchPurpose::of(&pairs.collect())
    }

    #[test]
    fn a_person_who_goes_somewhere_is_no_guess() {
        let go = |pairs: &[(&'static str, &'static str)]| purpose(pairs).is_guess(&Method::GET);
        assert!(!go(&[]), "an old browser says nothing");
        assert!(!go(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]));
        assert!(!go(&[("purpose", "something else")]));
        assert!(go(&[("sec-purpose", "prefetch;prerender")]));
        assert!(go(&[("purpose", "Prefetch")]));
        assert!(go(&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]));
        assert!(go(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]));
        assert!(!go(&[("sec-fetch-mode", "cors")]), "Node");
        assert!(purpose(&[]).is_guess(&Method::HEAD));
        assert!(!purpose(&[]).is_navigation(), "who says nothing may be any program");
        assert!(purpose(&[("sec-fetch-mode", "navigate")]).is_navigation());
    }
}
