//! `GET /waiting`: shown after a person has signed in while an administrator still has to approve the client
//! (`client_approval = "first_use"`). The page reloads every few seconds and continues by itself.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::callback::{self, AuthenticatedLogin};
use crate::app::App;
use crate::config::{ClientApproval, paths};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::error::ErrorCode;
use crate::oauth::secret::{AuthorizationCode, HeldLogin, Secret, new_id};
use crate::storage::{
    ClientReview, LoginAwaitingApproval, NewCode, NewLoginAwaitingApproval, ReviewState,
    SessionUpdate, Waiting,
};
use crate::telemetry::new_reference;
use crate::upstream::recheck::Recheck;
use crate::web::browser::{self, ClientRedirect, PageError};
use crate::web::cookies::Cookies;
use crate::web::pages::{Message, MessagePage, ReturnLink, WaitingPage};
use crate::web::params::Params;

/// 1 hour: how long a finished sign-in waits for an administrator. Afterwards the person has to sign in
/// again.
const LIFETIME: Duration = Duration::from_hours(1);

/// Returns whether an administrator must approve this client before it receives a code.
pub(super) fn must_wait(app: &App, client: &Client, standing: &ClientReview) -> bool {
    app.config().client_approval == ClientApproval::FirstUse
        // The operator approved a configured client by writing it into the configuration.
        && !matches!(client.origin, Origin::Configured { .. })
        && standing.state != ReviewState::Approved
}

/// Stores the finished sign-in and redirects the browser to the waiting page.
pub(super) async fn await_approval(
    app: &App,
    headers: &HeaderMap,
    (client, request): (&Client, &AuthorizationRequest),
    session: &SessionUpdate,
    subject: &str,
) -> Result<Response, PageError> {
    let id = new_id(app.clock());
    let token = Secret::<HeldLogin>::generate(&id);
    let event = callback::about(app, "login_held", request, Some(subject));
    let now = app.now();
    let expires_at = now.plus(LIFETIME);
    let client_digest = &client.metadata.digest();
    let new = NewLoginAwaitingApproval {
        token: &token,
        request,
        session,
        subject,
        client_digest,
        expires_at,
    };
    app.storage()
        .await_approval(&new, now, event)
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    let mut response =
        browser::see_other(&app.config().public_url.join(&format!("{}?id={id}", paths::WAITING)));
    let cookies = Cookies::of(&app.config().public_url);
    let keep = app.config().limits.pending_logins_per_browser.saturating_sub(1);
    for evicted in cookies.held_beyond(headers, keep) {
        response.headers_mut().append(header::SET_COOKIE, cookies.clear_held(&evicted));
    }
    let set = cookies.set_held(&id, &token, LIFETIME.as_secs());
    response.headers_mut().append(header::SET_COOKIE, set);
    Ok(response)
}

pub(super) async fn get(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let over =
        |reason: &str| PageError::new(&headers, StatusCode::GONE, Message::WaitingOver, &reason);
    let storage = |error| PageError::storage(&headers, &error);
    let params = Params::parse(query.as_deref().unwrap_or_default())
        .map_err(|_| over("the query is unreadable"))?;
    let id = params.get("id").ok().flatten().unwrap_or_default();
    let cookies = Cookies::of(&app.config().public_url);
    let token = cookies.held(&headers, id).ok_or_else(|| over("this browser waits for nothing"))?;
    let found = app.storage().login_awaiting_approval(&token, app.now()).await.map_err(storage)?;
    let (held, ended) = match found {
        Waiting::Unknown => return Err(over("the request has ended")),
        Waiting::Ended(held) => (held, true),
        Waiting::Held(held) => (held, false),
    };
    let standing = app.storage().client_review(&held.request.client_id).await.map_err(storage)?;
    if ended && !standing.is_denied() {
        return Err(over("the request has ended"));
    }
    let client = browser::client(&app, &headers, &held.request.client_id, None).await?;
    let standing = standing.of_today(&client);
    let other = held.client_digest.as_ref().is_some_and(|seen| *seen != client.metadata.digest());
    if other && !standing.is_denied() {
        // The client has changed: the administrator decides about its new metadata, but the person approved
        // what it was before.
        app.storage().drop_awaiting_login(&token, app.now()).await.map_err(storage)?;
        return Err(over("the client has changed since the person approved it"));
    }
    if must_wait(&app, &client, &standing) && !standing.is_denied() {
        let page = WaitingPage { language: browser::language(&headers) };
        return Ok(page.render());
    }
    let mut response = end(&app, &headers, &token, &held, (&client, &standing)).await?;
    response.headers_mut().append(header::SET_COOKIE, cookies.clear_held(id));
    Ok(response)
}

/// Continues after the administrator's decision: redirects with a code, or shows that the client was denied.
async fn end(
    app: &App,
    headers: &HeaderMap,
    token: &Secret<HeldLogin>,
    held: &LoginAwaitingApproval,
    (client, standing): (&Client, &ClientReview),
) -> Result<Response, PageError> {
    let storage = |error| PageError::storage(headers, &error);
    let presented = Some(held.request.redirect_uri.as_str());
    let address = browser::address(app, headers, client, presented)?;
    let back = ClientRedirect { issuer: app.issuer(), address, state: held.request.state.clone() };
    if standing.is_denied() {
        app.storage().drop_awaiting_login(token, app.now()).await.map_err(storage)?;
        return Ok(shut_out_page(app, headers, held, standing, &back));
    }
    release(app, headers, token, held, &back).await
}

/// Shows that the administrator denied the client, and reports `access_denied` to the client.
fn shut_out_page(
    app: &App,
    headers: &HeaderMap,
    held: &LoginAwaitingApproval,
    standing: &ClientReview,
    back: &ClientRedirect<'_>,
) -> Response {
    let reference = new_reference();
    let reason = if standing.blocked { "the client is blocked" } else { "the client is refused" };
    let event = callback::about(app, "access_denied", &held.request, Some(&held.subject));
    // `record_soon` limits how many events are stored: anybody can reload this page repeatedly.
    app.record_soon(event.reference(&reference).with("reason", reason));
    let url = back.with_error(ErrorCode::AccessDenied, Some("The client is not approved"));
    let page = MessagePage {
        language: browser::language(headers),
        status: StatusCode::FORBIDDEN,
        message: Message::ClientShutOut,
        reference: Some(&reference),
        return_to: Some(ReturnLink { url: &url, host_label: &back.label(), automatic: true }),
    };
    page.render()
}

/// Issues the code. Time has passed since the sign-in, so the person is checked again: an upstream session
/// that has ended also ends the waiting, and the rules are evaluated with today's facts.
async fn release(
    app: &App,
    headers: &HeaderMap,
    token: &Secret<HeldLogin>,
    held: &LoginAwaitingApproval,
    back: &ClientRedirect<'_>,
) -> Result<Response, PageError> {
    let storage = |error| PageError::storage(headers, &error);
    let over = |reason: &str| {
        let (status, message) = (StatusCode::GONE, Message::WaitingOver);
        PageError::new(headers, status, message, &reason)
    };
    let person = match app.upstream().recheck(&held.session_id).await.map_err(storage)? {
        Recheck::Fresh(person) | Recheck::Stale(person) => person,
        Recheck::Ended => {
            app.storage().drop_awaiting_login(token, app.now()).await.map_err(storage)?;
            return Err(over("the session at the identity provider has ended"));
        }
        Recheck::Unknown => {
            // Nothing is consumed: the same page continues when the provider responds again.
            let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable);
            return Err(PageError::new(headers, status, message, &"who it is cannot be told now"));
        }
    };
    let resource = callback::known_resource(app, headers, &held.request)?;
    let decided = callback::decide(resource, &held.request, &person);
    let subject = held.subject.as_str();
    let arrived = AuthenticatedLogin { request: &held.request, subject, person: &person, back };
    if let Some(page) = callback::no_access(app, headers, &arrived, &decided).await {
        app.storage().drop_awaiting_login(token, app.now()).await.map_err(storage)?;
        return Ok(page);
    }
    let code = Secret::<AuthorizationCode>::generate(&new_id(app.clock()));
    let now = app.now();
    let new = NewCode {
        code: &code,
        request: &held.request,
        scopes: &decided.granted,
        subject,
        expires_at: now.plus(app.config().tokens.code),
    };
    let event = callback::issued(app, &held.request, subject, &code, &decided);
    let released =
        app.storage().release_awaiting_login(token, &new, &held.session_id, now, event).await;
    if !released.map_err(storage)? {
        return Err(over("it went on in another tab"));
    }
    Ok(browser::see_other(&back.with_code(code.expose())))
}
