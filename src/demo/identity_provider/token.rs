//! The provider's endpoints for its client: token, userinfo and revocation.

use aws_lc_rs::digest;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::people::DemoPerson;
use super::sign_in_request::{SignInRequest, forced};
use super::{IdpShared, KeyUse, Misbehaviour, client_auth};
use crate::demo::http::{Recorded, broken_off, json};
use crate::jose::jws;
use crate::oauth::secret::random_text;

// Lifetimes in seconds.
const CODE_LIFETIME: i64 = 60;
const ACCESS_TOKEN_LIFETIME: i64 = 5 * 60;
const ID_TOKEN_LIFETIME: i64 = 5 * 60;
const REFRESH_TOKEN_LIFETIME: i64 = 30 * 24 * 60 * 60;

/// An authorization code that was issued.
pub(super) struct Code {
    person: &'static str,
    sid: String,
    nonce: Option<String>,
    redirect_uri: String,
    challenge: String,
    offline: bool,
    expires_at: i64,
}

pub(super) fn new_code(
    idp: &IdpShared,
    asked: &SignInRequest,
    person: &DemoPerson,
    sid: &str,
) -> String {
    let code = random_text();
    let now = idp.options.clock.now().unix();
    let expires_at = now + CODE_LIFETIME;
    let handed_out = Code {
        person: person.username,
        sid: sid.to_owned(),
        nonce: asked.nonce.clone(),
        redirect_uri: asked.redirect_uri.clone(),
        challenge: asked.code_challenge.clone(),
        offline: asked.offline,
        expires_at,
    };
    {
        let codes = &mut idp.state.lock().codes;
        codes.retain(|_, code| code.expires_at > now);
        codes.insert(code.clone(), handed_out);
    }
    idp.remember(&code);
    code
}

pub(super) async fn handle(idp: &IdpShared, request: &Recorded) -> Response {
    idp.gate.pass().await;
    let misbehaviour = idp.misbehaviour();
    let grant_type = request.form_field("grant_type").unwrap_or_default();
    let refreshing = grant_type == "refresh_token";
    let refresh_answer = misbehaviour.refresh_answer.as_ref().filter(|_| refreshing);
    if let Some(answer) = refresh_answer.or(misbehaviour.token_answer.as_ref()) {
        return forced(answer);
    }
    if !is_our_client(idp, request) {
        let mut answer = error(StatusCode::UNAUTHORIZED, "invalid_client");
        let challenge = HeaderValue::from_static("Basic realm=\"demo\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return answer;
    }
    let answer = match grant_type.as_str() {
        "authorization_code" => redeem(idp, request, &misbehaviour),
        "refresh_token" => refresh(idp, request, &misbehaviour),
        _ => Err("unsupported_grant_type"),
    };
    if refreshing && answer.is_ok() {
        idp.refresh_answers.pass().await;
    }
    match answer {
        Ok(_) if refreshing && loses_answer(idp) => broken_off(),
        Ok(mut body) => {
            if let Some(change) = misbehaviour.change_token_answer {
                change(&mut body);
            }
            json(StatusCode::OK, &body)
        }
        Err(code) => error(StatusCode::BAD_REQUEST, code),
    }
}

fn error(status: StatusCode, code: &str) -> Response {
    json(status, &json!({ "error": code }))
}

fn loses_answer(idp: &IdpShared) -> bool {
    let left = &mut idp.state.lock().misbehaviour.lose_refresh_answers;
    let loses = *left > 0;
    *left = left.saturating_sub(1);
    loses
}

fn is_our_client(idp: &IdpShared, request: &Recorded) -> bool {
    let shown = client_auth::shown(request, idp.misbehaviour().only_client_auth);
    shown.is_some_and(|(id, secret)| id == idp.options.client_id && secret == idp.client_secret())
}

fn redeem(idp: &IdpShared, request: &Recorded, how: &Misbehaviour) -> Result<Value, &'static str> {
    let code = request.form_field("code").unwrap_or_default();
    let unknown = if how.vague_about_codes { "invalid_request" } else { "invalid_grant" };
    let code = idp.state.lock().codes.remove(&code).ok_or(unknown)?;
    let verifier = request.form_field("code_verifier").unwrap_or_default();
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let fits = code.expires_at > idp.options.clock.now().unix()
        && request.form_field("redirect_uri").as_deref() == Some(&code.redirect_uri)
        && challenge == code.challenge;
    let person = idp.person(code.person).filter(|person| fits && !person.disabled);
    let person = person.ok_or("invalid_grant")?;
    let first = Generation::first(idp.options.clock.now().unix());
    idp.state.lock().generations.insert(code.sid.clone(), Some(first));
    let nonce = code.nonce.as_deref();
    let mut answer = tokens(idp, &person, &code.sid, nonce, how)?;
    if code.offline && !how.no_refresh_token {
        answer["refresh_token"] = new_refresh_token(idp, &person, &code.sid, 0).into();
    }
    Ok(answer)
}

fn refresh(idp: &IdpShared, request: &Recorded, how: &Misbehaviour) -> Result<Value, &'static str> {
    let presented = request.form_field("refresh_token").unwrap_or_default();
    let token = idp.keys.unstamp("refresh", &presented).ok_or("invalid_grant")?;
    let now = idp.options.clock.now().unix();
    let sid = token["sid"].as_str().ok_or("invalid_grant")?;
    let generation = token["generation"].as_u64().ok_or("invalid_grant")?;
    let username = token["person"].as_str().ok_or("invalid_grant")?;
    if token["until"].as_i64().is_none_or(|until| until <= now) {
        return Err("invalid_grant");
    }
    let person = idp.person(username).filter(|person| !person.disabled).ok_or("invalid_grant")?;
    let next = next_generation(idp, sid, generation, how)?;
    let about = if how.other_subject_on_refresh {
        let other = if person.username == "alice" { "bob" } else { "alice" };
        idp.person(other).ok_or("invalid_grant")?
    } else {
        person.clone()
    };
    let mut answer = tokens(idp, &about, sid, None, how)?;
    if how.no_id_token_on_refresh
        && let Some(answer) = answer.as_object_mut()
    {
        answer.remove("id_token");
    }
    // Every use returns a new refresh token, so that an active session does not expire. The old one stays
    // valid unless rotation is strict.
    if !how.keeps_refresh_token {
        answer["refresh_token"] = new_refresh_token(idp, &person, sid, next).into();
    }
    Ok(answer)
}

/// State of a session's refresh tokens.
pub(super) struct Generation {
    latest: u64,
    rotated_at: i64,
    used_at: i64,
}

impl Generation {
    fn first(now: i64) -> Self {
        Self { latest: 0, rotated_at: now, used_at: now }
    }
}

/// With strict rotation each token works once, and the previous one again within the grace period. Any other
/// use ends the session.
fn next_generation(
    idp: &IdpShared,
    sid: &str,
    presented: u64,
    how: &Misbehaviour,
) -> Result<u64, &'static str> {
    let now = idp.options.clock.now().unix();
    let mut state = idp.state.lock();
    // Sessions are unknown after a restart of the provider; then the token's own MAC is enough.
    let unknown = Generation { latest: presented, ..Generation::first(now) };
    let slot = state.generations.entry(sid.to_owned()).or_insert(Some(unknown));
    let generation = slot.as_mut().ok_or("invalid_grant")?;
    let rested = now - generation.used_at;
    generation.used_at = now;
    if how.refresh_idle.is_some_and(|idle| rested >= idle) {
        *slot = None;
        return Err("invalid_grant");
    }
    if !how.strict_rotation {
        return Ok(presented);
    }
    if presented == generation.latest {
        generation.latest += 1;
        generation.rotated_at = now;
        return Ok(generation.latest);
    }
    let is_previous = presented + 1 == generation.latest;
    if is_previous && now - generation.rotated_at < how.rotation_grace {
        return Ok(generation.latest);
    }
    *slot = None;
    Err("invalid_grant")
}

fn new_refresh_token(idp: &IdpShared, person: &DemoPerson, sid: &str, generation: u64) -> String {
    let until = idp.options.clock.now().unix() + REFRESH_TOKEN_LIFETIME;
    let token = json!({
        "person": person.username, "sid": sid, "generation": generation, "until": until,
    });
    let token = idp.keys.stamp("refresh", &token);
    idp.remember(&token);
    token
}

fn tokens(
    idp: &IdpShared,
    person: &DemoPerson,
    sid: &str,
    nonce: Option<&str>,
    how: &Misbehaviour,
) -> Result<Value, &'static str> {
    let now = idp.options.clock.now().unix();
    let mut access_token = idp.keys.stamp(
        "access",
        &json!({ "person": person.username, "sid": sid, "until": now + ACCESS_TOKEN_LIFETIME, "id": random_text() }),
    );
    if let Some(claims_of) = how.access_token {
        let mut claims = claims_of(&about(person));
        claims["stamp"] = access_token.into();
        access_token = sign(idp, how, "at+jwt", &claims)?;
    }
    let hash = match how.algorithm.as_deref() {
        Some("RS384" | "PS384" | "ES384") => &digest::SHA384,
        Some("RS512" | "PS512" | "ES512" | "EdDSA") => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let at_hash = digest::digest(hash, access_token.as_bytes());
    let at_hash = &at_hash.as_ref()[..hash.output_len() / 2];
    let mut claims = json!({
        "iss": how.id_token_issuer.as_ref().unwrap_or(&idp.issuer),
        "aud": how.id_token_audience.clone().unwrap_or_else(|| idp.options.client_id.clone().into()),
        "iat": now,
        "exp": now + ID_TOKEN_LIFETIME,
        "auth_time": now,
        "sid": sid,
        "at_hash": URL_SAFE_NO_PAD.encode(at_hash),
    });
    if how.expired_id_token {
        claims["iat"] = (now - 2 * 60 * 60).into();
        claims["exp"] = (now - 60 * 60).into();
    }
    if let Some(nonce) = nonce.filter(|_| !how.no_nonce) {
        claims["nonce"] = if how.wrong_nonce { "another".into() } else { nonce.into() };
    }
    if let (Some(claims), Value::Object(about)) = (claims.as_object_mut(), about(person)) {
        claims.extend(about);
        claims.extend(how.extra_claims.clone());
    }
    if let Some(change) = how.change_id_token {
        change(&mut claims);
    }
    let id_token = sign(idp, how, "JWT", &claims)?;
    idp.remember(&access_token);
    idp.remember(&id_token);
    Ok(json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME,
        "id_token": id_token,
        "scope": "openid profile email offline_access",
    }))
}

fn sign(
    idp: &IdpShared,
    how: &Misbehaviour,
    typ: &str,
    claims: &Value,
) -> Result<String, &'static str> {
    let keys = match how.keys {
        KeyUse::First | KeyUse::NextAnnounced => &idp.keys,
        KeyUse::Next | KeyUse::NextUnpublished => idp.next_keys(),
    };
    let mut header = how.id_token_header.clone();
    header.insert("typ".to_owned(), typ.into());
    keys.jwt(&header.into(), claims, how.algorithm.as_deref(), &idp.client_secret())
        .map_err(|_| "server_error")
}

fn about(person: &DemoPerson) -> Value {
    json!({
        "sub": person.subject(),
        "name": person.name,
        "preferred_username": person.username,
        "email": person.email(),
        "email_verified": true,
        "roles": person.roles,
        "groups": person.groups,
    })
}

pub(super) fn userinfo(idp: &IdpShared, request: &Recorded) -> Response {
    let how = idp.misbehaviour();
    if how.userinfo_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(answer) = &how.userinfo_answer {
        return forced(answer);
    }
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let token = token.and_then(|token| idp.keys.unstamp("access", &stamp_in(token)?));
    let person = token
        .filter(|token| token["until"].as_i64() > Some(idp.options.clock.now().unix()))
        .and_then(|token| idp.person(token["person"].as_str()?))
        .filter(|person| !person.disabled);
    let Some(person) = person else {
        return error(StatusCode::UNAUTHORIZED, "invalid_token");
    };
    let mut claims = about(&person);
    if let Some(change) = how.change_userinfo {
        change(&mut claims);
    }
    let Some(change) = how.signed_userinfo else { return json(StatusCode::OK, &claims) };
    claims["iss"] = idp.issuer.as_str().into();
    claims["aud"] = idp.options.client_id.as_str().into();
    change(&mut claims);
    match sign(idp, &how, "JWT", &claims) {
        Ok(jwt) => ([(header::CONTENT_TYPE, "application/jwt")], jwt).into_response(),
        Err(code) => error(StatusCode::INTERNAL_SERVER_ERROR, code),
    }
}

/// Returns the authenticated part of an access token: the token itself, or its `stamp` claim if it is a JWT.
fn stamp_in(access_token: &str) -> Option<String> {
    if access_token.matches('.').count() != 2 {
        return Some(access_token.to_owned());
    }
    jws::unverified_claims(access_token)?["stamp"].as_str().map(str::to_owned)
}

/// RFC 7009: revoking a refresh token ends its session; other tokens are accepted without effect.
pub(super) fn revoke(idp: &IdpShared, request: &Recorded) -> Response {
    if !is_our_client(idp, request) {
        return error(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let token = request.form_field("token").unwrap_or_default();
    if let Some(token) = idp.keys.unstamp("refresh", &token)
        && let Some(sid) = token["sid"].as_str()
    {
        idp.state.lock().generations.insert(sid.to_owned(), None);
    }
    StatusCode::OK.into_response()
}
