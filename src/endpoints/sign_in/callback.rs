//! `GET /auth/callback`: the identity provider redirects the browser back to here.
//!
//! Order of the checks: first the browser binding, on success and on error; then the login is consumed; only
//! then is the code redeemed at the identity provider. The permit to query the provider is taken before all
//! of them, so that a person who gets none can load the page again.

use std::net::IpAddr;

use axum::extract::{RawQuery, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::Response;

use super::login::Start;
use super::{authorize, awaiting_approval, client_review, remembered_consent, step_up};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::error::ErrorCode;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{AuthorizationCode, LoginState, Secret, new_id};
use crate::policy::Decision;
use crate::storage::{
    Claimed, Comer, NewCode, NewLogin, OtherBrowser, PendingLogin, Person, SessionUpdate,
};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::new_reference;
use crate::upstream::{CallbackParams, LoginFailed, QueryPermit};
use crate::web::browser::{self, ClientRedirect, PageError};
use crate::web::client_address::ClientAddress;
use crate::web::console::passed_on;
use crate::web::cookies::Cookies;
use crate::web::pages::{Message, MessagePage, ReturnLink, TooMany};
use crate::web::params::Params;
use crate::web::speculative;

static UNAVAILABLE: KeyedLogThrottle = KeyedLogThrottle::new();
static MISCONFIGURED: KeyedLogThrottle = KeyedLogThrottle::new();

pub(super) async fn get(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, PageError> {
    let params = read(&headers, query.as_deref())?;
    // A sign-in to our own pages: the browser that began it holds its cookie for the other URL and continues
    // there.
    let query = query.unwrap_or_default();
    let pages = params.get("state").ok().flatten().and_then(|state| passed_on(&app, state, &query));
    if let Some(pages) = pages {
        return Ok(browser::see_other(&pages));
    }
    let place = match params.get("code").ok().flatten() {
        Some(_) => Some(browser::place_for_sign_in(&app, &headers).await?),
        None => None,
    };
    let (login_id, login) = claim(&app, &headers, &params).await?;
    let from = ClientAddress::of(&extensions);
    let mut response = finish(&app, &headers, &params, (&login, from), place).await?;
    let cookies = Cookies::of(&app.config().public_url);
    response.headers_mut().append(header::SET_COOKIE, cookies.clear_login(&login_id));
    Ok(response)
}

fn read(headers: &HeaderMap, query: Option<&str>) -> Result<Params, PageError> {
    let refused = |reason: &dyn std::fmt::Display| {
        let message = Message::InvalidRequest { what: "callback" };
        PageError::new(headers, StatusCode::BAD_REQUEST, message, reason)
    };
    let params = Params::parse(query.unwrap_or_default()).map_err(|reason| refused(&reason))?;
    if params.repeats_any(&["code", "state", "iss", "error"]) {
        return Err(refused(&"a parameter came twice"));
    }
    Ok(params)
}

/// Consumes the pending login, once the cookie proves that it belongs to this browser.
async fn claim(
    app: &App,
    headers: &HeaderMap,
    params: &Params,
) -> Result<(String, PendingLogin), PageError> {
    let forbidden =
        |message, reason: &str| PageError::new(headers, StatusCode::FORBIDDEN, message, &reason);
    let state = params.get("state").ok().flatten().and_then(Secret::<LoginState>::parse);
    let Some(state) = state else {
        return Err(forbidden(Message::LoginFromElsewhere, "state is missing or not ours"));
    };
    let cookies = Cookies::of(&app.config().public_url);
    let binding = cookies.login(headers, state.id());
    let code = params.get("code").ok().flatten();
    let if_other = if_other_browser(headers, params, cookies);
    let comer = Comer { binding: binding.as_ref(), code, if_other };
    let event = app.event("login_from_other_browser", Actor::Person).with("login_id", state.id());
    let claimed = app
        .storage()
        .claim_login(&state, comer, app.now(), event)
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    match claimed {
        Claimed::First(login) => Ok((state.id().to_owned(), *login)),
        Claimed::Unknown => Err(forbidden(Message::LoginExpired, "unknown login")),
        Claimed::Expired => Err(forbidden(Message::LoginExpired, "the login has expired")),
        Claimed::Already => Err(forbidden(Message::LoginUsed, "the login has ended before")),
        Claimed::OtherBrowser => {
            Err(forbidden(Message::LoginFromElsewhere, "another browser came back"))
        }
        Claimed::CodeCameElsewhere => {
            let reason = "another browser came back with this code before";
            Err(forbidden(Message::LoginFromElsewhere, reason))
        }
    }
}

/// Returns how a login changes when a browser other than the one that began it comes back.
///
/// - The browser has a login of its own under way: its person was led into another person's login. That
///   login is a trap and ends.
/// - The browser has no login, but the request is a navigation in a tab: this may also be a person who was
///   led here, or a mail scanner that follows links in a real browser. The code that it brings is spent; the
///   right browser can come back with another code.
/// - The request is no navigation (a scanner, a preview) or brings an error, which anybody can make up:
///   nothing changes.
fn if_other_browser(headers: &HeaderMap, params: &Params, cookies: Cookies<'_>) -> OtherBrowser {
    let is_error = params.get("error").ok().flatten().is_some();
    if is_error {
        OtherBrowser::ChangesNothing
    } else if cookies.has_a_login(headers) {
        OtherBrowser::BurnsLogin
    } else if speculative::is_navigation(headers) {
        OtherBrowser::SpendsCode
    } else {
        OtherBrowser::ChangesNothing
    }
}

/// A person who has come back from the identity provider and is authenticated.
pub(super) struct AuthenticatedLogin<'a> {
    pub(super) request: &'a AuthorizationRequest,
    /// Our `sub`.
    pub(super) subject: &'a str,
    pub(super) person: &'a Person,
    pub(super) back: &'a ClientRedirect<'a>,
}

/// Finishes a login that [`claim`] has consumed: checks the client again, redeems the provider's code,
/// applies the rules, and redirects to the client with our code. Otherwise shows a page that explains why
/// not, or repeats an earlier step.
async fn finish(
    app: &App,
    headers: &HeaderMap,
    params: &Params,
    (login, from): (&PendingLogin, Option<IpAddr>),
    place: Option<QueryPermit>,
) -> Result<Response, PageError> {
    let request = &login.request;
    let client = browser::client(app, headers, &request.client_id, None).await?;
    let presented = Some(request.redirect_uri.as_str());
    let address = browser::address(app, headers, &client, presented)?;
    let standing = client_review::of_client(app, headers, &client).await?;
    let back = ClientRedirect { issuer: app.issuer(), address, state: request.state.clone() };
    let finished = app.upstream().finish_login(login, came_with(params)).await;
    drop(place);
    let session = match finished {
        Ok(session) => session,
        Err(LoginFailed::Again { reason, prompt }) if !login.retried => {
            return begin_again(app, headers, (login, from), &reason, prompt).await;
        }
        Err(failed) => return Ok(failed_page(app, headers, &back, request, &failed).await),
    };
    let subject = app.subject(&session.subject);
    not_blocked(app, headers, request, &subject).await?;
    let resource = known_resource(app, headers, request)?;
    let must_ask =
        remembered_consent::needs_consent(app, (&client, &standing), login, &subject).await;
    if must_ask.map_err(|error| PageError::storage(headers, &error))? {
        let (request, before) = (request.clone(), ScopeSet::default());
        let page = authorize::ask(app, headers, (&client, &standing), request, resource, &before);
        return Ok(page.await);
    }
    let decision = decide(resource, request, &session.person);
    let arrived =
        AuthenticatedLogin { request, subject: &subject, person: &session.person, back: &back };
    if let Some(page) = step_up::unsatisfiable_step_up(app, headers, &arrived, &decision).await? {
        return Ok(page);
    }
    if let Some(page) = no_access(app, headers, &arrived, &decision).await {
        return Ok(page);
    }
    app.clients().remember(&client).await.map_err(|error| PageError::storage(headers, &error))?;
    if awaiting_approval::must_wait(app, &client, &standing) {
        return awaiting_approval::await_approval(
            app,
            headers,
            (&client, request),
            &session,
            &subject,
        )
        .await;
    }
    let mut response = issue(app, headers, &arrived, &session, &decision).await?;
    let known = step_up::remember_person(app, &subject);
    response.headers_mut().append(header::SET_COOKIE, known);
    // Only now is it certain that the person who approved can sign in here at all.
    for cookie in remembered_consent::remember(app, headers, &standing, login, &subject).await {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Collects the identity provider's parameters.
fn came_with(params: &Params) -> CallbackParams<'_> {
    let get = |name| params.get(name).ok().flatten();
    CallbackParams {
        iss: get("iss"),
        code: get("code"),
        error: get("error"),
        error_description: get("error_description"),
    }
}

/// Restarts a login that the provider ended without a refusal, for example because its page was open for too
/// long. The browser is sent there once more, under the same approval and with the same expiry.
async fn begin_again(
    app: &App,
    headers: &HeaderMap,
    (ended, from): (&PendingLogin, Option<IpAddr>),
    reason: &str,
    prompt: Option<&'static str>,
) -> Result<Response, PageError> {
    let (request, metadata) = (ended.request.clone(), ended.metadata_hash.clone());
    let start = Start::prepare(app, request, metadata, from).await;
    let start = start.map_err(|error| browser::unreachable_page(headers, &error))?;
    let start = start.prompting(prompt);
    let expires_at = Timestamp::from_unix(ended.expires_at);
    let new = NewLogin { expires_at, ..start.new_login(app) };
    let event = about(app, "login_begun_again", &ended.request, None);
    let event = event.with("login_id", start.id.as_str()).with("reason", reason);
    let quota = Start::quota(app);
    let begun = app.storage().begin_again(ended, &new, app.now(), quota, event).await;
    let Some(approval) = begun.map_err(|error| PageError::storage(headers, &error))? else {
        app.metrics().limited("pending_logins");
        let free_at = start.free_at(app).await;
        let free_at = free_at.map_err(|error| PageError::storage(headers, &error))?;
        let seconds = free_at.since(app.now()).as_secs().max(1);
        let message = Message::TooMany { what: TooMany::SignIns, seconds };
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(PageError::new(headers, status, message, &"too many logins are pending"));
    };
    Ok(start.lead_on(app, headers, &approval))
}

/// Shows an error page to a person that an administrator has blocked. The client is not informed.
async fn not_blocked(
    app: &App,
    headers: &HeaderMap,
    request: &AuthorizationRequest,
    subject: &str,
) -> Result<(), PageError> {
    let blocked = app.storage().is_blocked(subject).await;
    if blocked.map_err(|error| PageError::storage(headers, &error))? {
        let (status, message) = (StatusCode::FORBIDDEN, Message::PersonBlocked);
        let page = PageError::new(headers, status, message, &"the person is blocked");
        let event = about(app, "person_is_blocked", request, Some(subject));
        app.record(event.reference(page.reference())).await;
        return Err(page);
    }
    Ok(())
}

/// Returns the MCP server of a request. The configuration may have dropped it while the person was signing
/// in.
pub(super) fn known_resource<'a>(
    app: &'a App,
    headers: &HeaderMap,
    request: &AuthorizationRequest,
) -> Result<&'a ResourceConfig, PageError> {
    app.resource(&request.resource).ok_or_else(|| {
        let status = StatusCode::BAD_REQUEST;
        PageError::new(headers, status, Message::UnknownResource, &"resource gone")
    })
}

/// Applies the rules: which of the requested scopes this person gets.
pub(super) fn decide(
    resource: &ResourceConfig,
    request: &AuthorizationRequest,
    person: &Person,
) -> Decision {
    resource.policy.decide(&person.facts, &request.client_id, &request.scopes)
}

/// Stores our authorization code and redirects to the client with it.
async fn issue(
    app: &App,
    headers: &HeaderMap,
    arrived: &AuthenticatedLogin<'_>,
    session: &SessionUpdate,
    decision: &Decision,
) -> Result<Response, PageError> {
    let code = Secret::<AuthorizationCode>::generate(&new_id(app.clock()));
    let now = app.now();
    let new = NewCode {
        code: &code,
        request: arrived.request,
        scopes: &decision.granted,
        subject: arrived.subject,
        expires_at: now.plus(app.config().tokens.code),
    };
    let event = issued(app, arrived.request, arrived.subject, &code, decision);
    app.storage()
        .finish_login(session, &new, now, event)
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    Ok(browser::see_other(&arrived.back.with_code(code.expose())))
}

/// Builds the audit event of an issued code.
pub(super) fn issued(
    app: &App,
    request: &AuthorizationRequest,
    subject: &str,
    code: &Secret<AuthorizationCode>,
    decision: &Decision,
) -> AuditEvent {
    about(app, "code_issued", request, Some(subject))
        .with("code_id", code.id())
        .with("scopes", decision.granted.to_string())
        .with("rules", decision.matched.clone())
}

pub(super) fn about(
    app: &App,
    event: &'static str,
    request: &AuthorizationRequest,
    subject: Option<&str>,
) -> AuditEvent {
    let event = app.event(event, Actor::Person).client(&request.client_id);
    let event = event.resource(&request.resource);
    match subject {
        Some(subject) => event.subject(subject),
        None => event,
    }
}

/// Returns an error page if the rules leave this person no scope, otherwise `None`.
pub(super) async fn no_access(
    app: &App,
    headers: &HeaderMap,
    arrived: &AuthenticatedLogin<'_>,
    decision: &Decision,
) -> Option<Response> {
    let refuses = app
        .resource(&arrived.request.resource)
        .is_none_or(|resource| resource.policy.refuses(&arrived.request.scopes));
    if decision.granted.is_empty() && refuses {
        return Some(no_access_page(app, headers, arrived, decision).await);
    }
    None
}

/// Explains to the signed-in person that no rule gives them access, and reports `access_denied` to the
/// client.
async fn no_access_page(
    app: &App,
    headers: &HeaderMap,
    arrived: &AuthenticatedLogin<'_>,
    decision: &Decision,
) -> Response {
    let AuthenticatedLogin { request, subject, person, back } = arrived;
    let reference = new_reference();
    let event = about(app, "access_denied", request, Some(subject))
        .reference(&reference)
        .with("asked", request.scopes.to_string())
        .with("rules", decision.matched.clone());
    app.record(event).await;
    let Person { name, email, .. } = person;
    let resource = app.resource(&request.resource);
    let resource_name =
        resource.and_then(|resource| resource.name.as_deref()).unwrap_or(&request.resource);
    let missing: Vec<&str> =
        request.scopes.iter().map(crate::oauth::scope::Scope::as_str).collect();
    let description = "The person has no access to this MCP server";
    let url = back.with_error(ErrorCode::AccessDenied, Some(description));
    let page = MessagePage {
        language: browser::language(headers),
        status: StatusCode::FORBIDDEN,
        message: Message::NoAccess {
            person: name.as_deref().or(email.as_deref()),
            resource: resource_name,
            missing: &missing,
        },
        reference: Some(&reference),
        return_to: Some(ReturnLink { url: &url, host_label: &back.label(), automatic: true }),
    };
    page.render()
}

/// Handles a refusal of the identity provider, or a response that cannot be trusted or understood.
async fn failed_page(
    app: &App,
    headers: &HeaderMap,
    back: &ClientRedirect<'_>,
    request: &AuthorizationRequest,
    failed: &LoginFailed,
) -> Response {
    let reference = new_reference();
    let event = |name| {
        let event = about(app, name, request, None).reference(&reference);
        event.with("reason", failed.to_string())
    };
    let (status, message, code) = match failed {
        LoginFailed::Again { reason, .. } if reason == "temporarily_unavailable" => {
            app.record(event("login_failed")).await;
            let unavailable = ErrorCode::TemporarilyUnavailable;
            (StatusCode::FORBIDDEN, Message::ProviderEndedSignIn, unavailable)
        }
        LoginFailed::Refused | LoginFailed::Again { .. } => {
            app.record(event("login_refused_by_provider")).await;
            let description = "The identity provider did not sign the person in";
            return browser::see_other(
                &back.with_error(ErrorCode::AccessDenied, Some(description)),
            );
        }
        LoginFailed::ProviderCannot(reason) => {
            tracing::error!(reference, %reason, "the identity provider cannot sign people in");
            app.record(event("login_failed")).await;
            let unavailable = ErrorCode::TemporarilyUnavailable;
            (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderCannot, unavailable)
        }
        LoginFailed::Unavailable(reason) => {
            if let Some(left_out) = UNAVAILABLE.admit(reason) {
                let what = "the identity provider is unavailable";
                tracing::error!(reference, %reason, left_out, "{what}");
            }
            app.record(event("login_failed")).await;
            let unavailable = ErrorCode::TemporarilyUnavailable;
            (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable, unavailable)
        }
        LoginFailed::Misconfigured(reason) => {
            if let Some(left_out) = MISCONFIGURED.admit(reason) {
                tracing::error!(reference, %reason, left_out, "sign-in is misconfigured");
            }
            app.record(event("login_failed")).await;
            (StatusCode::BAD_GATEWAY, Message::ProviderMisconfigured, ErrorCode::ServerError)
        }
        LoginFailed::Untrusted(_) => {
            app.record(event("login_untrusted")).await;
            (StatusCode::FORBIDDEN, Message::LoginNotTrusted, ErrorCode::AccessDenied)
        }
    };
    if matches!(failed, LoginFailed::Untrusted(_)) {
        // Another party may have planted this response, so nothing is sent back to the client.
        let page = MessagePage {
            language: browser::language(headers),
            status,
            message,
            reference: Some(&reference),
            return_to: None,
        };
        return page.render();
    }
    let url = back.with_error(code, None);
    let page = MessagePage {
        language: browser::language(headers),
        status,
        message,
        reference: Some(&reference),
        return_to: Some(ReturnLink { url: &url, host_label: &back.label(), automatic: true }),
    };
    page.render()
}
