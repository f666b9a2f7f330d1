//! Pages and redirects for browsers.

use askama::Template;
use aws_lc_rs::digest;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::IdpShared;
use super::people::DemoPerson;

#[derive(Template)]
#[template(path = "demo/login.html")]
struct LoginPage<'a> {
    title: &'a str,
    problem: &'a str,
    request: &'a str,
    people: &'a [DemoPerson],
}

/// Builds the login page; its form carries `request`, the query of the authorization request.
pub(super) fn login(idp: &IdpShared, request: &str, problem: Option<&str>) -> Response {
    let people = idp.state.lock().people.clone();
    let problem = problem.unwrap_or_default();
    html(StatusCode::OK, &LoginPage { title: "Sign in", problem, request, people: &people })
}

pub(super) fn error(status: StatusCode, problem: &str) -> Response {
    let title = "This does not work";
    html(status, &LoginPage { title, problem, request: "", people: &[] })
}

pub(super) fn signed_out() -> Response {
    let (title, problem) = ("Signed out", "You are signed out.");
    html(StatusCode::OK, &LoginPage { title, problem, request: "", people: &[] })
}

pub(super) fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Builds the response with a page that has one style sheet and no script.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response {
    let Ok(html) = page.render() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let style = html.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
    let style = digest::digest(&digest::SHA256, style.map_or("", |(style, _)| style).as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; frame-ancestors 'none'",
        STANDARD.encode(style)
    );
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_str(&policy)
                .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        ),
    ];
    (status, headers, html).into_response()
}
