//! The endpoints of the fake service, in the manner of the preset that it plays.

use aws_lc_rs::digest;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::oauth::secret::random_text;
use serde_json::{Value, json};
use url::Url;

use super::{
    FakeService, SERVICE_CLIENT, SERVICE_SECRET, ServiceCode, ServiceGrant, ServiceRequest,
    ServiceState, answer_with,
};
use crate::harness::backend::{answer, status};

/// Where a preset's tokens are revoked.
pub(super) fn revocation_path(preset: &str) -> String {
    match preset {
        "github" => format!("/applications/{SERVICE_CLIENT}/token"),
        "slack" => "/api/auth.revoke".to_owned(),
        _ => "/revoke".to_owned(),
    }
}

pub(super) fn respond(service: &FakeService, request: &ServiceRequest) -> Response {
    let mut state = service.state();
    let path = request.path.as_str();
    if path == "/authorize" {
        return authorize(&mut state, request);
    }
    if state.is_down {
        return status(503);
    }
    let revocation = revocation_path(&state.preset);
    match path {
        "/.well-known/openid-configuration" => discovery(&service.url),
        "/token" => token(&mut state, &service.url, request),
        "/userinfo" | "/me" | "/user" => userinfo(&state, request),
        "/api/me" => match request.bearer().and_then(|token| state.access.get(token)) {
            Some(grant) => {
                answer_with(200, &json!({ "login": grant.account, "scope": grant.scope }))
            }
            None => status(401),
        },
        path if path == revocation => revoke(&mut state, request),
        _ => status(404),
    }
}

fn discovery(url: &str) -> Response {
    let document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "revocation_endpoint": format!("{url}/revoke"),
        "jwks_uri": format!("{url}/jwks"),
        "authorization_response_iss_parameter_supported": true,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    answer_with(200, &document)
}

/// Sends the browser straight back: the person has nothing to do here.
fn authorize(state: &mut ServiceState, request: &ServiceRequest) -> Response {
    let asked = |name: &str| request.param(name);
    let redirect_uri = asked("redirect_uri").unwrap_or_default();
    let mut back = Url::parse(&redirect_uri).unwrap();
    let sent = asked("state").unwrap_or_default();
    back.query_pairs_mut().append_pair("state", &sent);
    if let Some(iss) = &state.iss {
        back.query_pairs_mut().append_pair("iss", iss);
    } else if state.preset == "oidc" {
        let at = request.header("host").unwrap();
        back.query_pairs_mut().append_pair("iss", &format!("http://{at}"));
    }
    if state.refuses {
        back.query_pairs_mut().append_pair("error", "access_denied");
    } else {
        let name = if state.preset == "slack" { "user_scope" } else { "scope" };
        let scope = asked(name).unwrap_or_default().replace(',', " ");
        let grant = ServiceGrant {
            account: state.account.clone(),
            scope: state.grants.clone().unwrap_or(scope),
            access_token: String::new(),
        };
        let code = state.issue("code");
        let (challenge, nonce) = (asked("code_challenge"), asked("nonce"));
        state.codes.insert(code.clone(), ServiceCode { grant, redirect_uri, challenge, nonce });
        back.query_pairs_mut().append_pair("code", &code);
    }
    answer(302, &[("location", back.as_str())], "")
}

/// Whether the request comes from us.
fn is_our_client(request: &ServiceRequest) -> bool {
    let decoded = |text: &str| {
        form_urlencoded::parse(text.as_bytes()).next().map(|(text, _)| text.into_owned())
    };
    let basic = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|encoded| String::from_utf8(STANDARD.decode(encoded).ok()?).ok())
        .and_then(|pair| {
            let (id, secret) = pair.split_once(':')?;
            Some((decoded(id)?, decoded(secret)?))
        });
    let post = || Some((request.param("client_id")?, request.param("client_secret")?));
    basic.or_else(post).is_some_and(|(id, secret)| id == SERVICE_CLIENT && secret == SERVICE_SECRET)
}

fn token(state: &mut ServiceState, url: &str, request: &ServiceRequest) -> Response {
    if let Some((status, body)) = state.answers.pop_front() {
        return answer(status, &[("content-type", "application/json")], body);
    }
    if !is_our_client(request) {
        return error(state, 401, "invalid_client");
    }
    match request.param("grant_type").as_deref() {
        Some("authorization_code") => redeem(state, url, request),
        Some("refresh_token") => refresh(state, request),
        _ => error(state, 400, "unsupported_grant_type"),
    }
}

/// An error in the manner of the preset.
fn error(state: &ServiceState, status: u16, code: &str) -> Response {
    match state.preset.as_str() {
        "github" => answer_with(200, &json!({ "error": code, "error_description": "No." })),
        "slack" => answer_with(200, &json!({ "ok": false, "error": code })),
        _ => answer_with(status, &json!({ "error": code })),
    }
}

fn redeem(state: &mut ServiceState, url: &str, request: &ServiceRequest) -> Response {
    let wrong = if state.preset == "github" { "bad_verification_code" } else { "invalid_grant" };
    let code = state.codes.remove(&request.param("code").unwrap_or_default());
    let Some(code) = code else { return error(state, 400, wrong) };
    let verifier = request.param("code_verifier").unwrap_or_default();
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let proved = code.challenge.as_ref().is_none_or(|expected| *expected == challenge);
    if request.param("redirect_uri").as_deref() != Some(&code.redirect_uri) || !proved {
        return error(state, 400, wrong);
    }
    let mut body = issue_tokens(state, &code.grant);
    if state.preset == "oidc" {
        let nonce = state.nonce.clone().or(code.nonce);
        body["id_token"] = id_token(url, &code.grant.account, nonce.as_deref()).into();
    }
    answer_with(200, &body)
}

/// An ID token as the service issues it, with a signature that nobody can check.
fn id_token(url: &str, account: &str, nonce: Option<&str>) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "1" });
    let claims = json!({
        "iss": url,
        "aud": SERVICE_CLIENT,
        "sub": account,
        "nonce": nonce,
        // Whatever the clock of the test shows: from 2001 to 2100.
        "iat": 1_000_000_000_i64,
        "exp": 4_102_444_800_i64,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&header), part(&claims), URL_SAFE_NO_PAD.encode("signature"))
}

fn refresh(state: &mut ServiceState, request: &ServiceRequest) -> Response {
    let wrong = match state.preset.as_str() {
        "github" => "bad_refresh_token",
        "slack" => "invalid_refresh_token",
        _ => "invalid_grant",
    };
    let presented = request.param("refresh_token").unwrap_or_default();
    let Some(grant) = state.refresh.get(&presented).cloned() else {
        return error(state, 400, wrong);
    };
    if state.rotates {
        state.refresh.remove(&presented);
        state.access.remove(&grant.access_token);
    }
    let rotates = state.rotates;
    let mut body = issue_tokens(state, &grant);
    if state.preset == "slack" {
        // The answer to a refresh has the tokens at the top.
        body = body["authed_user"].take();
        body["ok"] = true.into();
    }
    if !rotates {
        let new = body["refresh_token"].as_str().unwrap_or_default().to_owned();
        if let Some(members) = body.as_object_mut() {
            members.remove("refresh_token");
        }
        // The old refresh token stays and stands for the new access token too.
        if let Some(grant) = state.refresh.remove(&new) {
            state.refresh.insert(presented, grant);
        }
    }
    answer_with(200, &body)
}

/// Issues tokens and builds the answer of the preset.
fn issue_tokens(state: &mut ServiceState, grant: &ServiceGrant) -> Value {
    let access_token = state.issue("access");
    let grant = ServiceGrant { access_token: access_token.clone(), ..grant.clone() };
    state.access.insert(access_token.clone(), grant.clone());
    let comma = matches!(state.preset.as_str(), "github" | "slack");
    let scope = if comma { grant.scope.replace(' ', ",") } else { grant.scope.clone() };
    let mut body = json!({ "access_token": access_token, "token_type": "bearer", "scope": scope });
    if let Some(seconds) = state.expires_in {
        body["expires_in"] = seconds.into();
    }
    if state.refreshes {
        let refresh_token = state.issue("refresh");
        body["refresh_token"] = refresh_token.clone().into();
        state.refresh.insert(refresh_token, grant.clone());
    }
    if state.preset == "slack" {
        body["token_type"] = "user".into();
        body["id"] = grant.account.into();
        let team = json!({ "id": "T1", "name": "Team" });
        return json!({ "ok": true, "app_id": "A1", "team": team, "authed_user": body });
    }
    body
}

/// Who the holder of the token is: one answer with the claims of every preset.
fn userinfo(state: &ServiceState, request: &ServiceRequest) -> Response {
    let Some(grant) = request.bearer().and_then(|token| state.access.get(token)) else {
        return status(401);
    };
    let account = &grant.account;
    let number: u64 = account.bytes().map(u64::from).sum();
    let claims = json!({
        "ok": true,
        "id": number,
        "sub": account,
        "login": account,
        "username": account,
        "user": account,
        "user_id": account,
        "team": "Team",
        "account_id": account,
        "name": account,
        "nickname": account,
        "email": format!("{account}@service.example"),
        "userPrincipalName": format!("{account}@service.example"),
    });
    answer_with(200, &claims)
}

/// Revokes in the manner of RFC 7009, GitHub and Slack.
fn revoke(state: &mut ServiceState, request: &ServiceRequest) -> Response {
    let token = match state.preset.as_str() {
        "github" => {
            if request.method != "DELETE" || !is_our_client(request) {
                return status(404);
            }
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            body["access_token"].as_str().unwrap_or_default().to_owned()
        }
        "slack" => request.bearer().unwrap_or_default().to_owned(),
        _ => request.param("token").unwrap_or_default(),
    };
    if let Some(grant) = state.refresh.remove(&token) {
        state.access.remove(&grant.access_token);
    }
    let known = state.access.remove(&token).is_some();
    state.refresh.retain(|_, grant| grant.access_token != token);
    state.revoked.push(token);
    match state.preset.as_str() {
        "github" if known => status(204),
        "github" => status(404),
        "slack" if known => answer_with(200, &json!({ "ok": true, "revoked": true })),
        "slack" => answer_with(200, &json!({ "ok": false, "error": "invalid_auth" })),
        _ => status(200),
    }
}

impl ServiceState {
    fn issue(&mut self, what: &str) -> String {
        let token = format!("{what}-canary-{}", random_text());
        self.issued.push(token.clone());
        token
    }
}
