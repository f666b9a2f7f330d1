//! A service that people connect, such as GitHub: its OAuth server and a little API, as a test says.
//!
//! One service plays one preset: the one that [`FakeService::toml`] was last asked for. It answers in that
//! preset's manner: errors with status 200, tokens in `authed_user`, and so on.

mod oauth;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::backend::{answer, status};

/// How the service knows us.
pub(crate) const SERVICE_CLIENT: &str = "portcullis-at-the-service";
pub(crate) const SERVICE_SECRET: &str = "service-secret-canary";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct ServiceRequest {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ServiceRequest {
    /// A field of the query or of the form in the body.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        let field = |encoded: &[u8]| {
            form_urlencoded::parse(encoded)
                .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
        };
        field(self.query.as_bytes()).or_else(|| field(&self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?;
        value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("token "))
    }
}

#[derive(Clone)]
pub(crate) struct FakeService {
    pub url: String,
    state: Arc<Mutex<ServiceState>>,
    open: watch::Sender<bool>,
    /// How many requests have arrived at the token endpoint.
    arrived: watch::Sender<usize>,
    /// How many requests have been answered in all.
    answered: watch::Sender<usize>,
}

/// What the service does, and what it has done.
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
struct ServiceState {
    preset: String,
    /// The account that signs in next.
    account: String,
    /// The person says no.
    refuses: bool,
    /// What the person grants; `None`: everything that is asked for.
    grants: Option<String>,
    /// Refresh tokens work once.
    rotates: bool,
    /// Refresh tokens are issued.
    refreshes: bool,
    /// Seconds; `None`: tokens do not expire.
    expires_in: Option<i64>,
    /// Every endpoint but the browser's answers 503.
    is_down: bool,
    /// `iss` of the callback.
    iss: Option<String>,
    /// The nonce in ID tokens; `None`: the right one.
    nonce: Option<String>,
    answers: VecDeque<(u16, String)>,
    codes: BTreeMap<String, ServiceCode>,
    access: BTreeMap<String, ServiceGrant>,
    refresh: BTreeMap<String, ServiceGrant>,
    issued: Vec<String>,
    revoked: Vec<String>,
    requests: Vec<ServiceRequest>,
}

/// A code that was issued.
struct ServiceCode {
    grant: ServiceGrant,
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
}

/// What a token stands for.
#[derive(Clone, Debug)]
struct ServiceGrant {
    account: String,
    scope: String,
    /// The access token that goes with a refresh token.
    access_token: String,
}

impl FakeService {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = ServiceState {
            preset: "oauth2".to_owned(),
            account: "octocat".to_owned(),
            refuses: false,
            grants: None,
            rotates: true,
            refreshes: true,
            expires_in: Some(3600),
            is_down: false,
            iss: None,
            nonce: None,
            answers: VecDeque::new(),
            codes: BTreeMap::new(),
            access: BTreeMap::new(),
            refresh: BTreeMap::new(),
            issued: Vec::new(),
            revoked: Vec::new(),
            requests: Vec::new(),
        };
        let (open, arrived) = (watch::Sender::new(true), watch::Sender::new(0));
        let (state, answered) = (Arc::new(Mutex::new(state)), watch::Sender::new(0));
        let service = Self { url, state, open, arrived, answered };
        let router = Router::new().fallback(handle).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    /// The `[[connection]]` of this service with the scopes `read` and `write`.
    pub(crate) fn toml(&self, name: &str, preset: &str) -> String {
        self.toml_with(name, preset, &["read", "write"], "")
    }

    /// The same with other scopes, and further lines.
    pub(crate) fn toml_with(
        &self,
        name: &str,
        preset: &str,
        scopes: &[&str],
        more: &str,
    ) -> String {
        preset.clone_into(&mut self.state().preset);
        let at = &self.url;
        let endpoints = if preset == "oidc" {
            format!("issuer = \"{at}\"")
        } else {
            format!(
                "authorize_url = \"{at}/authorize\"\ntoken_url = \"{at}/token\"\n\
                 revoke_url = \"{at}{}\"\nuserinfo_url = \"{at}/userinfo\"",
                oauth::revocation_path(preset)
            )
        };
        format!(
            "\n[[connection]]\nname = {name:?}\nprovider = {preset:?}\nclient_id = {SERVICE_CLIENT:?}\n\
             client_secret = {SERVICE_SECRET:?}\nscopes = {scopes:?}\n{endpoints}\n{more}\n"
        )
    }

    /// The account that signs in next at the service; `octocat` at first.
    pub(crate) fn account(&self, name: &str) {
        name.clone_into(&mut self.state().account);
    }

    /// Whether the person says no at the service.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// The person grants these scopes alone, separated by spaces, whatever is asked for.
    pub(crate) fn grant_only(&self, scopes: &str) {
        self.state().grants = Some(scopes.to_owned());
    }

    /// Whether refresh tokens work once; at first they do.
    pub(crate) fn rotate(&self, rotates: bool) {
        self.state().rotates = rotates;
    }

    /// The lifetime of access tokens in seconds, an hour at first; `None`: they do not expire, and there are
    /// no refresh tokens.
    pub(crate) fn expire_in(&self, seconds: Option<i64>) {
        let mut state = self.state();
        (state.expires_in, state.refreshes) = (seconds, seconds.is_some());
    }

    /// From now on every endpoint but the browser's answers 503, or works again.
    pub(crate) fn down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// The `iss` that the browser brings back.
    pub(crate) fn name_issuer(&self, iss: &str) {
        self.state().iss = Some(iss.to_owned());
    }

    /// ID tokens carry this nonce.
    pub(crate) fn name_nonce(&self, nonce: &str) {
        self.state().nonce = Some(nonce.to_owned());
    }

    /// The next request at the token endpoint is answered so, with status 200; further ones queue.
    #[expect(clippy::needless_pass_by_value, reason = "tests write it where they need it")]
    pub(crate) fn answers(&self, body: Value) {
        self.answers_with(200, &body.to_string());
    }

    /// The next request at the token endpoint is answered with this status and body; further ones queue.
    pub(crate) fn answers_with(&self, status: u16, body: &str) {
        self.state().answers.push_back((status, body.to_owned()));
    }

    /// Requests at the token endpoint wait from now on, before anything happens.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    /// Lets them go on.
    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many requests have arrived at the token endpoint since the start.
    pub(crate) async fn until_asked(&self, count: usize) {
        let _ = self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await;
    }

    /// Waits until so many requests have been answered at a path since the start.
    pub(crate) async fn until_requested(&self, path: &str, count: usize) {
        let mut answered = self.answered.subscribe();
        let _ = answered.wait_for(|_| self.requests_to(path).len() >= count).await;
    }

    /// What was answered at the token endpoint since the start.
    pub(crate) fn token_requests(&self) -> Vec<ServiceRequest> {
        self.requests_to("/token")
    }

    /// What was answered at a path since the start.
    pub(crate) fn requests_to(&self, path: &str) -> Vec<ServiceRequest> {
        self.state().requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many refreshes were answered since the start.
    pub(crate) fn refreshes(&self) -> usize {
        let is_refresh = |request: &&ServiceRequest| {
            request.param("grant_type").as_deref() == Some("refresh_token")
        };
        self.token_requests().iter().filter(is_refresh).count()
    }

    /// The tokens that were revoked, in order.
    pub(crate) fn revoked(&self) -> Vec<String> {
        self.state().revoked.clone()
    }

    /// Every token and code that was ever issued.
    pub(crate) fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    /// The access tokens that work now, oldest first.
    pub(crate) fn live(&self) -> Vec<String> {
        let state = self.state();
        state.issued.iter().filter(|token| state.access.contains_key(*token)).cloned().collect()
    }

    /// Ends all access tokens: the API answers 401 from now on. Refresh tokens stay.
    pub(crate) fn end_access_tokens(&self) {
        self.state().access.clear();
    }

    /// Ends all refresh tokens, as when the person removes the application at the service.
    pub(crate) fn end_refresh_tokens(&self) {
        self.state().refresh.clear();
    }

    /// What the API tells the holder of this token: 200 with the account and the scopes, or 401.
    pub(crate) fn api(&self, token: &str) -> Result<Value, u16> {
        let grant = self.state().access.get(token).cloned().ok_or(401_u16)?;
        Ok(json!({ "login": grant.account, "scope": grant.scope }))
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.state.lock().unwrap()
    }
}

async fn handle(State(service): State<FakeService>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 1024 * 1024).await else { return status(400) };
    let request = ServiceRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    if request.path == "/token" {
        service.arrived.send_modify(|arrived| *arrived += 1);
        let mut open = service.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
    let answer = oauth::respond(&service, &request);
    service.state().requests.push(request);
    service.answered.send_modify(|answered| *answered += 1);
    answer
}

/// A JSON answer with a status.
fn answer_with(status: u16, body: &Value) -> Response {
    answer(status, &[("content-type", "application/json")], body.to_string())
}
