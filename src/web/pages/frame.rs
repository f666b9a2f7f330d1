//! What all pages have in common: the frame and the headers of the response.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::Branding;
use crate::web::locales::Words;
use crate::web::words::Language;

/// What all pages have in common, whatever they are about: the language and the links. The request context
/// makes it ([`crate::web::browser::Browser::frame`]).
#[derive(Clone, Copy, Debug)]
pub struct PageFrame<'a> {
    pub language: Language,
    /// Base path, placed before every path of this server on the page.
    pub base: &'a str,
    /// Whether a person may choose another language on the page, because it can be shown again.
    pub offers_languages: bool,
    /// Name, logo, colour and links of the organisation.
    pub brand: &'a Branding,
    /// Whether this is a page of the public listener, and not of the administrators' one.
    pub for_people: bool,
}

impl PageFrame<'_> {
    /// Returns the languages among which a person may choose.
    pub fn languages(&self) -> &'static [Language] {
        &Language::ALL
    }

    /// Returns the texts in the person's language.
    pub fn words(&self) -> &'static Words {
        self.language.words()
    }

    /// Builds the response for a rendered page, with all headers that a page must have.
    pub fn respond(
        &self,
        status: StatusCode,
        style: Style,
        html: askama::Result<String>,
    ) -> Response {
        respond(status, *self, style, html)
    }
}

const STYLE_START: &str = "<style>";
const STYLE_END: &str = "</style>";

/// The style sheet of a page. The Content-Security-Policy contains its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For pages with one message or question.
    People,
    /// For pages with lists: the admin pages and `/account`.
    Lists,
}

/// Returns the Content-Security-Policy of every page. It has no `form-action`, because Chromium applies that
/// to every redirect after the form, and so would block the identity provider and the redirect back to the
/// client.
///
/// A logo and the icon of the tab are the only images, and only from our own origin.
fn content_security_policy(style: Style, brand: &Branding, html: &str) -> HeaderValue {
    static PEOPLE: OnceLock<HeaderValue> = OnceLock::new();
    static LISTS: OnceLock<HeaderValue> = OnceLock::new();
    let make = || {
        let sheet = html.split_once(STYLE_START).and_then(|(_, rest)| rest.split_once(STYLE_END));
        let sheet = sheet.map_or("", |(sheet, _)| sheet);
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, sheet.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    };
    // A reload may change the branding, so its policy is not kept.
    if brand.changes_policy() {
        return make();
    }
    let policy = match style {
        Style::People => &PEOPLE,
        Style::Lists => &LISTS,
    };
    policy.get_or_init(make).clone()
}

/// Sets `Cross-Origin-Opener-Policy: same-origin`, which separates the account and admin pages from the
/// window that opened them. The pages of the authorization flow do not get it: a client that opens them in a
/// popup watches that window to learn when the flow is over, and would wait forever.
pub async fn isolate_window(mut response: Response) -> Response {
    let policy = HeaderName::from_static("cross-origin-opener-policy");
    response.headers_mut().insert(policy, HeaderValue::from_static("same-origin"));
    response
}

fn respond(
    status: StatusCode,
    PageFrame { language, brand, .. }: PageFrame<'_>,
    style: Style,
    html: askama::Result<String>,
) -> Response {
    let html = match html {
        Ok(html) => html,
        Err(cause) => {
            tracing::error!(%cause, "a page could not be rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    // `same-origin`, because with `no-referrer` the browser would send `Origin: null` with the form, and the
    // form would be refused.
    let headers: [(HeaderName, HeaderValue); 9] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_SECURITY_POLICY, content_security_policy(style, brand, &html)),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
        ),
        (header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag())),
        (header::VARY, HeaderValue::from_static("accept-language, cookie")),
    ];
    (status, headers, html).into_response()
}
