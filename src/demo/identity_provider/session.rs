//! The browser's single sign-on session at the provider: a cookie that only this provider can have made.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::json;
use url::Url;

use super::IdpShared;
use super::people::DemoPerson;
use crate::demo::http::Recorded;

/// Cookie of the session.
const SESSION: &str = "demo-identity-provider";
/// Lifetime of the session in seconds: 12 hours.
const SESSION_LIFETIME: i64 = 12 * 60 * 60;

/// Checks name and password of a login form. The error is for the person.
pub(super) fn authenticate(
    idp: &IdpShared,
    request: &Recorded,
) -> Result<DemoPerson, &'static str> {
    let username = request.form_field("username").unwrap_or_default();
    let password = request.form_field("password").unwrap_or_default();
    let person = idp.person(username.trim()).filter(|person| password == person.username);
    let person = person.ok_or("Wrong name or password. The password is the name.")?;
    if person.disabled { Err("This account is disabled.") } else { Ok(person) }
}

/// Starts the session with this id.
pub(super) fn begin(idp: &IdpShared, response: &mut Response, person: &DemoPerson, sid: &str) {
    let until = idp.options.clock.now().unix() + SESSION_LIFETIME;
    let session = json!({ "person": person.username, "sid": sid, "until": until });
    set(idp, response, &idp.keys.stamp("session", &session), SESSION_LIFETIME);
}

pub(super) fn end(idp: &IdpShared, response: &mut Response) {
    set(idp, response, "", 0);
}

/// Returns the person who is signed in, and the id of the session.
pub(super) fn signed_in(idp: &IdpShared, request: &Recorded) -> Option<(DemoPerson, String)> {
    let session = idp.keys.unstamp("session", request.cookie(SESSION)?)?;
    if session["until"].as_i64()? <= idp.options.clock.now().unix() {
        return None;
    }
    let person = idp.person(session["person"].as_str()?).filter(|person| !person.disabled)?;
    Some((person, session["sid"].as_str()?.to_owned()))
}

/// Sets the cookie for the pages that browsers open, and for no other path of their host.
fn set(idp: &IdpShared, response: &mut Response, session: &str, lifetime: i64) {
    let pages = Url::parse(idp.pages_url()).ok();
    let path = pages.as_ref().map_or("/", Url::path);
    let secure =
        if pages.as_ref().is_some_and(|url| url.scheme() == "https") { "; Secure" } else { "" };
    let cookie = format!(
        "{SESSION}={session}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={lifetime}{secure}"
    );
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
