//! The calendar's codes and tokens: token endpoint, revocation (RFC 7009), and what an access token opens.

use aws_lc_rs::digest;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{CalendarClient, SCOPE};
use crate::demo::http::{Recorded, json as json_answer};
use crate::demo::identity_provider::people::DemoPerson;
use crate::demo::identity_provider::{IdpShared, client_auth};
use crate::oauth::secret::random_text;

// Lifetimes in seconds.
const CODE_LIFETIME: i64 = 60;
const ACCESS_TOKEN_LIFETIME: i64 = 5 * 60;
const REFRESH_TOKEN_LIFETIME: i64 = 30 * 24 * 60 * 60;

// What a token is stamped for.
const ACCESS: &str = "calendar-access";
const REFRESH: &str = "calendar-refresh";

/// An authorization code that was issued.
pub(super) struct CalendarCode {
    person: &'static str,
    redirect_uri: String,
    challenge: String,
    expires_at: i64,
}

pub(super) fn new_code(
    idp: &IdpShared,
    person: &DemoPerson,
    redirect_uri: &str,
    challenge: &str,
) -> String {
    let code = random_text();
    let now = idp.options.clock.now().unix();
    let issued = CalendarCode {
        person: person.username,
        redirect_uri: redirect_uri.to_owned(),
        challenge: challenge.to_owned(),
        expires_at: now + CODE_LIFETIME,
    };
    {
        let codes = &mut idp.state.lock().calendar.codes;
        codes.retain(|_, code| code.expires_at > now);
        codes.insert(code.clone(), issued);
    }
    idp.remember(&code);
    code
}

/// The token endpoint.
pub(super) fn handle(idp: &IdpShared, client: &CalendarClient, request: &Recorded) -> Response {
    if !is_client(client, request) {
        return unknown_client();
    }
    let answer = match request.form_field("grant_type").as_deref() {
        Some("authorization_code") => redeem(idp, request),
        Some("refresh_token") => refresh(idp, request),
        _ => Err("unsupported_grant_type"),
    };
    match answer {
        Ok(tokens) => json_answer(StatusCode::OK, &tokens),
        Err(code) => json_answer(StatusCode::BAD_REQUEST, &json!({ "error": code })),
    }
}

fn is_client(client: &CalendarClient, request: &Recorded) -> bool {
    client_auth::shown(request, None)
        .is_some_and(|(id, secret)| id == client.id && secret == client.secret)
}

fn unknown_client() -> Response {
    let error = json!({ "error": "invalid_client" });
    let mut response = json_answer(StatusCode::UNAUTHORIZED, &error);
    let challenge = HeaderValue::from_static("Basic realm=\"calendar\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn redeem(idp: &IdpShared, request: &Recorded) -> Result<Value, &'static str> {
    let code = request.form_field("code").unwrap_or_default();
    let code = idp.state.lock().calendar.codes.remove(&code).ok_or("invalid_grant")?;
    let verifier = request.form_field("code_verifier").unwrap_or_default();
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let fits = code.expires_at > idp.options.clock.now().unix()
        && request.form_field("redirect_uri").as_deref() == Some(&code.redirect_uri)
        && challenge == code.challenge;
    let person = idp.person(code.person).filter(|person| fits && !person.disabled);
    let person = person.ok_or("invalid_grant")?;
    let connection = random_text();
    idp.state.lock().calendar.connections.insert(connection.clone(), Some(0));
    Ok(tokens(idp, &person, &connection, 0))
}

fn refresh(idp: &IdpShared, request: &Recorded) -> Result<Value, &'static str> {
    let presented = request.form_field("refresh_token").unwrap_or_default();
    let token = idp.keys.unstamp(REFRESH, &presented).ok_or("invalid_grant")?;
    let person = owner(idp, &token).ok_or("invalid_grant")?;
    let connection = token["connection"].as_str().ok_or("invalid_grant")?;
    let number = token["number"].as_u64().ok_or("invalid_grant")?;
    let next = {
        let mut state = idp.state.lock();
        // Connections are unknown after a restart; then the token's own MAC is enough.
        let known = state.calendar.connections.entry(connection.to_owned());
        let latest = known.or_insert(Some(number));
        *latest = latest.filter(|latest| *latest == number).map(|latest| latest + 1);
        latest.ok_or("invalid_grant")?
    };
    Ok(tokens(idp, &person, connection, next))
}

fn tokens(idp: &IdpShared, person: &DemoPerson, connection: &str, number: u64) -> Value {
    let now = idp.options.clock.now().unix();
    let access_token = json!({
        "person": person.username, "connection": connection, "until": now + ACCESS_TOKEN_LIFETIME,
        "id": random_text(),
    });
    let refresh_token = json!({
        "person": person.username, "connection": connection,
        "until": now + REFRESH_TOKEN_LIFETIME, "number": number,
    });
    let access_token = idp.keys.stamp(ACCESS, &access_token);
    let refresh_token = idp.keys.stamp(REFRESH, &refresh_token);
    idp.remember(&access_token);
    idp.remember(&refresh_token);
    json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME,
        "refresh_token": refresh_token,
        "scope": SCOPE,
    })
}

/// Returns the person of a token that has not expired.
fn owner(idp: &IdpShared, token: &Value) -> Option<DemoPerson> {
    if token["until"].as_i64()? <= idp.options.clock.now().unix() {
        return None;
    }
    idp.person(token["person"].as_str()?).filter(|person| !person.disabled)
}

/// Returns the person whose calendar an access token opens.
pub(super) fn person_of(idp: &IdpShared, access_token: &str) -> Option<DemoPerson> {
    let token = idp.keys.unstamp(ACCESS, access_token)?;
    let connection = token["connection"].as_str()?;
    let has_ended = idp.state.lock().calendar.connections.get(connection) == Some(&None);
    if has_ended { None } else { owner(idp, &token) }
}

/// RFC 7009: revoking any token of a connection ends the connection. Unknown tokens are accepted.
pub(super) fn revoke(idp: &IdpShared, client: &CalendarClient, request: &Recorded) -> Response {
    if !is_client(client, request) {
        return unknown_client();
    }
    let token = request.form_field("token").unwrap_or_default();
    let token = idp.keys.unstamp(REFRESH, &token).or_else(|| idp.keys.unstamp(ACCESS, &token));
    if let Some(connection) = token.as_ref().and_then(|token| token["connection"].as_str()) {
        idp.state.lock().calendar.connections.insert(connection.to_owned(), None);
    }
    StatusCode::OK.into_response()
}
