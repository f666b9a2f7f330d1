//! The provider's endpoints for browsers, and the dispatch of all requests.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::Url;

use super::people::DemoPerson;
use super::sign_in_request::{SignInRequest, forced};
use super::{IdpShared, KeyUse, Misbehaviour, calendar, pages, session, token};
use crate::demo::http::{Recorded, json};
use crate::oauth::secret::random_text;

pub(super) async fn handle(idp: &IdpShared, request: Recorded) -> Response {
    idp.state.lock().recorded.push(request.clone());
    let how = idp.misbehaviour();
    if how.silent_at == Some(request.path.as_str()) {
        std::future::pending::<()>().await;
    }
    // All paths also work below `/moved`, to simulate a provider whose endpoints move.
    let path = request.path.strip_prefix("/moved").unwrap_or(&request.path);
    let answer = match (request.method.as_str(), path) {
        ("GET", "/.well-known/openid-configuration") => discovery(idp),
        ("GET", "/jwks") => jwks(idp),
        ("GET", "/authorize") => authorize(idp, &request),
        ("POST", "/login") => login(idp, &request),
        ("POST", "/token") => token::handle(idp, &request).await,
        ("GET" | "POST", "/userinfo") => token::userinfo(idp, &request),
        ("POST", "/revoke") => token::revoke(idp, &request),
        ("GET" | "POST", "/end_session") => end_session(idp, &request),
        (_, path) if path.starts_with(calendar::PATH) => calendar::handle(idp, &request, path),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    disguised(&how, path, answer).await
}

/// Replaces the text or content type of a response if a test wants it.
async fn disguised(how: &Misbehaviour, path: &str, answer: Response) -> Response {
    let mut answer = match how.change_text.filter(|(at, _)| *at == path) {
        None => answer,
        Some((_, change)) => {
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(header::CONTENT_LENGTH);
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
            let text = change(&String::from_utf8_lossy(&body));
            Response::from_parts(parts, text.into())
        }
    };
    if let Some((_, content_type)) = how.content_type.filter(|(at, _)| *at == path) {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

fn discovery(idp: &IdpShared) -> Response {
    let how = idp.misbehaviour();
    if how.discovery_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(answer) = &how.discovery_answer {
        return forced(answer);
    }
    let (issuer, pages) = (&idp.issuer, idp.pages_url());
    let alg = if how.only_hs256 { "HS256" } else { how.algorithm.as_deref().unwrap_or("RS256") };
    let methods = match how.only_client_auth {
        Some(only) => vec![only],
        None => vec!["client_secret_basic", "client_secret_post"],
    };
    let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{pages}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"),
            "end_session_endpoint": format!("{pages}/end_session"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [alg],
            "token_endpoint_auth_methods_supported": methods,
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_supported": ["sub", "name", "email", "email_verified", "roles", "groups", "sid"],
            "prompt_values_supported": ["none", "login", "select_account"],
            "authorization_response_iss_parameter_supported": true,
    });
    if let Some(change) = how.change_discovery {
        change(&mut document);
    }
    json(StatusCode::OK, &document)
}

fn jwks(idp: &IdpShared) -> Response {
    if idp.misbehaviour().jwks_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let how = idp.misbehaviour();
    let first = idp.keys.jwk(how.algorithm.as_deref());
    let next = || idp.next_keys().jwk(how.algorithm.as_deref());
    let keys = match how.keys {
        KeyUse::First | KeyUse::NextUnpublished => vec![first],
        KeyUse::NextAnnounced => vec![first, next()],
        KeyUse::Next => vec![next(), first],
    };
    let Ok(keys) = keys.into_iter().collect::<Result<Vec<_>, _>>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut keys = json!({ "keys": keys });
    if let Some(change) = how.change_keys {
        change(&mut keys);
    }
    json(StatusCode::OK, &keys)
}

/// Reads an authorization request. Errors that must not be redirected return an error page.
fn read(idp: &IdpShared, query: &str) -> Result<SignInRequest, Box<Response>> {
    let param = |name: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
    };
    let asks_for = |wanted: &str| {
        param("scope").is_some_and(|scope| scope.split(' ').any(|scope| scope == wanted))
    };
    let how = idp.misbehaviour();
    let wrong = |what: &str| Box::new(pages::error(StatusCode::BAD_REQUEST, what));
    if param("client_id").as_deref() != Some(idp.options.client_id.as_str()) {
        return Err(wrong("This application is not known here."));
    }
    let redirect_uri = param("redirect_uri").unwrap_or_default();
    if !idp.options.redirect_uris.contains(&redirect_uri) {
        return Err(wrong("The redirect URI is not registered."));
    }
    let asked = SignInRequest {
        redirect_uri,
        state: param("state"),
        nonce: param("nonce"),
        code_challenge: param("code_challenge").unwrap_or_default(),
        offline: match how.refresh_token_needs {
            Some(needs) => needs.iter().all(|(name, value)| param(name).as_deref() == Some(*value)),
            None => asks_for("offline_access"),
        },
        prompt: param("prompt").unwrap_or_default(),
    };
    if how.refused_scope.is_some_and(asks_for) {
        return Err(Box::new(send_back(idp, &asked, &[("error", "invalid_scope")])));
    }
    if how.refused_param.is_some_and(|name| param(name).is_some()) {
        return Err(Box::new(send_back(idp, &asked, &[("error", "invalid_request")])));
    }
    let openid = asks_for("openid");
    let s256 = param("code_challenge_method").as_deref() == Some("S256");
    if param("response_type").as_deref() != Some("code") || !openid {
        return Err(Box::new(send_back(idp, &asked, &[("error", "invalid_request")])));
    }
    if !s256 || asked.code_challenge.len() != 43 {
        return Err(Box::new(send_back(idp, &asked, &[("error", "invalid_request")])));
    }
    Ok(asked)
}

fn authorize(idp: &IdpShared, request: &Recorded) -> Response {
    let asked = match read(idp, &request.query) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let how = idp.misbehaviour();
    if let Some(error) = how.authorize_error {
        let mut params = vec![("error", error.as_str())];
        let description = how.authorize_error_description;
        params.extend(description.as_deref().map(|text| ("error_description", text)));
        return send_back(idp, &asked, &params);
    }
    let prompts = |value: &str| asked.prompt.split(' ').any(|prompt| prompt == value);
    if !prompts("login")
        && !prompts("select_account")
        && let Some((person, sid)) = session::signed_in(idp, request)
    {
        return send_code(idp, &asked, &person, &sid);
    }
    if prompts("none") && !how.ignores_prompt {
        return send_back(idp, &asked, &[("error", "login_required")]);
    }
    pages::login(idp, &request.query, None)
}

fn login(idp: &IdpShared, request: &Recorded) -> Response {
    let query = request.form_field("request").unwrap_or_default();
    let asked = match read(idp, &query) {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let person = match session::authenticate(idp, request) {
        Ok(person) => person,
        Err(problem) => return pages::login(idp, &query, Some(problem)),
    };
    let sid = random_text();
    let mut response = send_code(idp, &asked, &person, &sid);
    session::begin(idp, &mut response, &person, &sid);
    response
}

fn send_code(idp: &IdpShared, asked: &SignInRequest, person: &DemoPerson, sid: &str) -> Response {
    let code = token::new_code(idp, asked, person, sid);
    send_back(idp, asked, &[("code", &code)])
}

fn send_back(idp: &IdpShared, asked: &SignInRequest, params: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(&asked.redirect_uri) else {
        return pages::error(StatusCode::BAD_REQUEST, "The redirect URI is not a URL.");
    };
    let how = idp.misbehaviour();
    let iss = how.callback_iss.unwrap_or_else(|| idp.issuer.clone());
    url.query_pairs_mut()
        .extend_pairs(params)
        .extend_pairs(asked.state.iter().map(|state| ("state", state)))
        .extend_pairs((!how.no_callback_iss).then_some(("iss", &iss)));
    pages::see_other(url.as_str())
}

/// RP-initiated logout: ends the browser's session without asking the person.
fn end_session(idp: &IdpShared, request: &Recorded) -> Response {
    let to = request.query_param("post_logout_redirect_uri");
    let known = to.filter(|to| idp.options.redirect_uris.iter().any(|uri| same_origin(uri, to)));
    let mut response = match known.and_then(|to| Url::parse(&to).ok()) {
        Some(mut url) => {
            if let Some(state) = request.query_param("state") {
                url.query_pairs_mut().append_pair("state", &state);
            }
            pages::see_other(url.as_str())
        }
        None => pages::signed_out(),
    };
    session::end(idp, &mut response);
    response
}

fn same_origin(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin() == other.origin(),
        _ => false,
    }
}
