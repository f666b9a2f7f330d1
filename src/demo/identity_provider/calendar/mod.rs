//! The calendars of the demo's people: a service behind the to-do server, with an OAuth client, a consent page and an
//! API of its own. People sign in to it with their account of the identity provider.
//!
//! Access tokens live for five minutes. A refresh token works once: its second use ends the connection.

mod consent;
mod tokens;

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::IdpShared;
use super::people::DemoPerson;
use crate::demo::http::{Recorded, json as json_answer};

/// Path below which everything of the calendar is.
pub(super) const PATH: &str = "/calendar";
/// The only scope.
const SCOPE: &str = "calendar.read";

/// The OAuth client of the calendar.
#[derive(Clone, Debug)]
pub struct CalendarClient {
    pub id: String,
    pub secret: String,
    /// Redirect URIs, compared exactly.
    pub redirect_uris: Vec<String>,
}

#[derive(Default)]
pub(super) struct CalendarState {
    codes: BTreeMap<String, tokens::CalendarCode>,
    /// The latest refresh token of each connection, by number; `None` once the connection has ended.
    connections: BTreeMap<String, Option<u64>>,
}

/// Answers a request below [`PATH`].
pub(super) fn handle(idp: &IdpShared, request: &Recorded, path: &str) -> Response {
    let (Some(client), Some(path)) = (&idp.options.calendar, path.strip_prefix(PATH)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match (request.method.as_str(), path) {
        ("GET", "/authorize") => consent::authorize(idp, client, request),
        ("POST", "/login") => consent::login(idp, client, request),
        ("POST", "/decide") => consent::decide(idp, client, request),
        ("POST", "/token") => tokens::handle(idp, client, request),
        ("POST", "/revoke") => tokens::revoke(idp, client, request),
        ("GET", "/me") => for_person(idp, request, about),
        ("GET", "/events") => for_person(idp, request, events),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Answers a request with a bearer token (RFC 6750).
fn for_person(
    idp: &IdpShared,
    request: &Recorded,
    answer: impl Fn(&DemoPerson) -> Value,
) -> Response {
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if let Some(person) = token.and_then(|token| tokens::person_of(idp, token)) {
        return json_answer(StatusCode::OK, &answer(&person));
    }
    let error = json!({ "error": "invalid_token" });
    let mut response = json_answer(StatusCode::UNAUTHORIZED, &error);
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// The person's address at the calendar, which is not the one of the identity provider.
fn address(person: &DemoPerson) -> String {
    format!("{}@calendar.example.com", person.username)
}

fn about(person: &DemoPerson) -> Value {
    json!({ "sub": person.subject(), "name": person.name, "email": address(person) })
}

/// Every day is the same.
fn events(person: &DemoPerson) -> Value {
    let day: &[(&str, &str)] = match person.username {
        "alice" => &[("09:30", "Stand-up"), ("14:00", "Access review with Bob")],
        "bob" => &[("11:00", "Dentist"), ("14:00", "Access review with Alice")],
        _ => &[],
    };
    let event = |(at, what): &(&str, &str)| json!({ "at": at, "what": what });
    json!({ "owner": person.name, "events": day.iter().map(event).collect::<Vec<_>>() })
}
