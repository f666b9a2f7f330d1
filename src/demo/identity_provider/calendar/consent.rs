//! The calendar's authorization endpoint: a person signs in, and allows or denies.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use url::Url;

use super::{CalendarClient, PATH, SCOPE, tokens};
use crate::demo::http::Recorded;
use crate::demo::identity_provider::{IdpShared, pages, session};
use crate::oauth::secret::random_text;

/// What the form of the consent page is stamped for.
const DECISION: &str = "calendar-decision";

/// The parts of an authorization request that the calendar uses.
struct CalendarRequest {
    redirect_uri: String,
    state: Option<String>,
    code_challenge: String,
}

#[derive(Template)]
#[template(path = "demo/calendar.html")]
struct CalendarConsentPage<'a> {
    name: &'a str,
    address: &'a str,
    /// The host that the browser goes back to.
    host: &'a str,
    request: &'a str,
}

pub(super) fn authorize(idp: &IdpShared, client: &CalendarClient, request: &Recorded) -> Response {
    let asked = match read(client, &request.query) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let Some((person, sid)) = session::signed_in(idp, request) else {
        return pages::login(idp, &request.query, None);
    };
    // Only the page of this session can decide.
    let form = idp.keys.stamp(DECISION, &json!({ "sid": sid, "query": request.query }));
    let to = Url::parse(&asked.redirect_uri).ok();
    let host = to.as_ref().and_then(Url::host_str).unwrap_or_default();
    let address = super::address(&person);
    let page = CalendarConsentPage { name: &person.name, address: &address, host, request: &form };
    pages::html(StatusCode::OK, &page)
}

/// Reads an authorization request. Errors that must not be redirected return an error page.
fn read(client: &CalendarClient, query: &str) -> Result<CalendarRequest, Box<Response>> {
    let param = |name: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
    };
    let wrong = |what: &str| Box::new(pages::error(StatusCode::BAD_REQUEST, what));
    if param("client_id").as_deref() != Some(client.id.as_str()) {
        return Err(wrong("This application is not known to the calendar."));
    }
    let redirect_uri = param("redirect_uri").unwrap_or_default();
    if !client.redirect_uris.contains(&redirect_uri) {
        return Err(wrong("The redirect URI is not registered."));
    }
    let code_challenge = param("code_challenge").unwrap_or_default();
    let asked = CalendarRequest { redirect_uri, state: param("state"), code_challenge };
    let is_code = param("response_type").as_deref() == Some("code");
    let is_s256 = param("code_challenge_method").as_deref() == Some("S256");
    if !is_code || !is_s256 || asked.code_challenge.len() != 43 {
        return Err(Box::new(send_back(&asked, ("error", "invalid_request"))));
    }
    if param("scope").as_deref() != Some(SCOPE) {
        return Err(Box::new(send_back(&asked, ("error", "invalid_scope"))));
    }
    Ok(asked)
}

pub(super) fn login(idp: &IdpShared, client: &CalendarClient, request: &Recorded) -> Response {
    let query = request.form_field("request").unwrap_or_default();
    if let Err(response) = read(client, &query) {
        return *response;
    }
    let person = match session::authenticate(idp, request) {
        Ok(person) => person,
        Err(problem) => return pages::login(idp, &query, Some(problem)),
    };
    let mut response = pages::see_other(&format!("{}{PATH}/authorize?{query}", idp.pages_url()));
    session::begin(idp, &mut response, &person, &random_text());
    response
}

/// The person has pressed a button of the consent page.
pub(super) fn decide(idp: &IdpShared, client: &CalendarClient, request: &Recorded) -> Response {
    let form = request.form_field("request").unwrap_or_default();
    let form = idp.keys.unstamp(DECISION, &form).unwrap_or_default();
    let query = form["query"].as_str().unwrap_or_default();
    let asked = match read(client, query) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let signed_in = session::signed_in(idp, request);
    let Some((person, _)) = signed_in.filter(|(_, sid)| form["sid"].as_str() == Some(sid.as_str()))
    else {
        return pages::login(idp, query, Some("You are not signed in any more."));
    };
    if request.form_field("decision").as_deref() != Some("allow") {
        return send_back(&asked, ("error", "access_denied"));
    }
    let code = tokens::new_code(idp, &person, &asked.redirect_uri, &asked.code_challenge);
    send_back(&asked, ("code", &code))
}

fn send_back(asked: &CalendarRequest, param: (&str, &str)) -> Response {
    let Ok(mut url) = Url::parse(&asked.redirect_uri) else {
        return pages::error(StatusCode::BAD_REQUEST, "The redirect URI is not a URL.");
    };
    url.query_pairs_mut()
        .extend_pairs([param])
        .extend_pairs(asked.state.iter().map(|state| ("state", state)));
    pages::see_other(url.as_str())
}
