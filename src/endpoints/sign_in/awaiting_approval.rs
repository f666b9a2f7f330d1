//! `GET /waiting`: shown after a person has signed in while an administrator still has to approve the client
//! (`client_approval = "first_use"`). The page reloads every few seconds and continues by itself. `POST
//! /waiting/cancel` ends the waiting.

use axum::response::{IntoResponse, Response};

use super::known_client::{self, KnownClient};
use super::outcome::{self, AuthenticatedLogin};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{ClientApproval, NotifyEvent, paths};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::error::ErrorCode;
use crate::oauth::redirect_uri::destination;
use crate::oauth::secret::{AuthorizationCode, HeldLogin, Secret, new_id};
use crate::storage::{
    ClientReview, LoginAwaitingApproval, NewCode, NewLoginAwaitingApproval, ReviewState,
    SessionUpdate, Waiting,
};
use crate::telemetry::audit::Actor;
use crate::telemetry::{new_reference, trace};
use crate::upstream::recheck::Recheck;
use crate::web::browser::{Browser, BrowserForm, see_other};
use crate::web::client_redirect::ClientRedirect;
use crate::web::cookies::{self, APPROVAL_WAIT};
use crate::web::page_error::PageError;
use crate::web::pages::{Message, WaitingPage};
use crate::web::web_session;

/// Returns whether an administrator must approve this client before it receives a code. A client that
/// matches an approval pattern is approved now, and the approval is stored.
pub(super) async fn must_wait(
    app: &App,
    client: &Client,
    standing: &ClientReview,
) -> Result<bool, PageError> {
    let needs_approval = app.config().client_approval == ClientApproval::FirstUse
        // The operator approved a configured client by writing it into the configuration.
        && !matches!(client.origin, Origin::Configured { .. })
        && standing.state != ReviewState::Approved;
    if !needs_approval {
        return Ok(false);
    }
    let event = app.event("client_approved_by_pattern", Actor::Server);
    let storage = app.storage();
    let approved = storage.approve_by_pattern(&client.id, &client.metadata, app.now(), event);
    Ok(!approved.await?)
}

/// Stores the finished sign-in and redirects the browser to the waiting page.
pub(super) async fn await_approval(
    browser: &Browser,
    KnownClient { client, .. }: &KnownClient<'_>,
    request: &AuthorizationRequest,
    session: &SessionUpdate,
    subject: &str,
) -> Result<Response, PageError> {
    let Browser { app, cookies, .. } = browser;
    let id = new_id(app.clock());
    let token = Secret::<HeldLogin>::generate(&id);
    let event = outcome::about(app, "login_held", request, Some(subject));
    let now = app.now();
    let new = NewLoginAwaitingApproval {
        token: &token,
        request,
        session,
        subject,
        client_digest: &client.metadata.digest(),
        expires_at: now.plus(APPROVAL_WAIT),
    };
    app.storage().await_approval(&new, now, event).await?;
    let evicted = cookies::WAITING.evict(cookies, &id);
    let set = cookies::WAITING.set(cookies, &id, &token);
    let waiting = browser.go(&format!("{}?id={id}", paths::WAITING));
    Ok((evicted.and(set), waiting).into_response())
}

/// Returns the page for a person who waits no longer.
fn over(reason: &str) -> PageError {
    Message::WaitingOver.because(reason)
}

pub(super) async fn get(browser: Browser) -> Result<Response, PageError> {
    let Browser { app, cookies, .. } = &browser;
    let params = browser.params().map_err(|_| over("the query is unreadable"))?;
    let id = params.get("id").ok().flatten().unwrap_or_default();
    let token = cookies::WAITING.get(cookies, id);
    let token = token.ok_or_else(|| over("this browser waits for nothing"))?;
    let found = app.storage().login_awaiting_approval(&token, app.now()).await?;
    let (held, times) = match found {
        Waiting::Unknown => return Err(over("the request has ended")),
        Waiting::Ended(held) => (held, None),
        Waiting::Held { login, since, until } => (login, Some((since, until))),
    };
    let review = app.storage().client_review(&held.request.client_id).await?;
    if times.is_none() && !review.is_denied() {
        return Err(over("the request has ended"));
    }
    let client = known_client::find(app, &held.request.client_id, None).await?;
    let review = review.of_today(&client);
    let other = held.client_digest.as_ref().is_some_and(|seen| *seen != client.metadata.digest());
    if other && !review.is_denied() {
        // The client has changed: the administrator decides about its new metadata, but the person approved
        // what it was before.
        app.storage().drop_awaiting_login(&token, app.now()).await?;
        return Err(over("the client has changed since the person approved it"));
    }
    if let Some(times) = times
        && !review.is_denied()
        && must_wait(app, &client, &review).await?
    {
        return Ok(waiting_page(&browser, &client, &held, (id, times)));
    }
    let back = known_client::redirect_of(app, &client, &held.request)?;
    let response = if review.is_denied() {
        app.storage().drop_awaiting_login(&token, app.now()).await?;
        denied_page(&browser, &held, &review, &back).await
    } else {
        release(&browser, &token, &held, &back).await?
    };
    Ok((cookies::WAITING.clear(cookies, id), response).into_response())
}

/// Returns the page of a person who still waits. `times`: since when, and until when at the latest.
fn waiting_page(
    browser: &Browser,
    client: &Client,
    held: &LoginAwaitingApproval,
    (id, (since, until)): (&str, (Timestamp, Timestamp)),
) -> Response {
    let app = &browser.app;
    let resource = app.resource(&held.request.resource);
    WaitingPage {
        frame: browser.frame(),
        destination: &destination(&held.request.redirect_uri),
        client_name: known_client::link_name(client).as_deref(),
        server: resource
            .and_then(|resource| resource.name.as_deref())
            .unwrap_or(&held.request.resource),
        since: &browser.time(since),
        minutes: app.now().since(since).as_secs() / 60,
        until: &browser.time(until),
        notified: app.notifies_of(NotifyEvent::ClientWaits),
        id,
    }
    .render()
}

/// `POST /waiting/cancel`: the person no longer waits. The client receives `access_denied`. Of many attempts one
/// counts, and it counts only in the browser that waits.
pub(super) async fn cancel(sent: BrowserForm) -> Result<Response, PageError> {
    let (browser, form) = web_session::read_form(sent).await?;
    let Browser { app, cookies, .. } = &browser;
    let id = form.get("id").ok().flatten().unwrap_or_default();
    let token = cookies::WAITING.get(cookies, id);
    let token = token.ok_or_else(|| over("this browser waits for nothing"))?;
    let found = app.storage().login_awaiting_approval(&token, app.now()).await?;
    let Waiting::Held { login: held, .. } = found else {
        return Err(over("the request has ended"));
    };
    let client = known_client::find(app, &held.request.client_id, None).await?;
    let back = known_client::redirect_of(app, &client, &held.request)?;
    let event = outcome::about(app, "wait_cancelled", &held.request, Some(&held.subject));
    if !app.storage().cancel_awaiting_login(&token, app.now(), event).await? {
        return Err(over("the request has ended"));
    }
    let description = "The person no longer waits for an administrator's approval";
    let url = back.with_error(ErrorCode::AccessDenied, Some(description));
    Ok((cookies::WAITING.clear(cookies, id), see_other(&url)).into_response())
}

/// Shows that the administrator denied the client, and reports `access_denied` to the client.
async fn denied_page(
    browser: &Browser,
    held: &LoginAwaitingApproval,
    review: &ClientReview,
    back: &ClientRedirect<'_>,
) -> Response {
    let app = &browser.app;
    let reference = new_reference();
    let reason = if review.blocked { "the client is blocked" } else { "the client is refused" };
    let event = outcome::about(app, "access_denied", &held.request, Some(&held.subject));
    // `record_soon` limits how many events are stored: anybody can reload this page repeatedly.
    app.record_soon(event.reference(&reference).with("reason", reason));
    let error = (ErrorCode::AccessDenied, Some("The client is not approved"));
    back.explain(browser, Message::ClientShutOut, &reference, error).await
}

/// Issues the code. Time has passed since the sign-in, so the person is checked again: an upstream session
/// that has ended also ends the waiting, and the rules are evaluated with today's facts.
async fn release(
    browser: &Browser,
    token: &Secret<HeldLogin>,
    held: &LoginAwaitingApproval,
    back: &ClientRedirect<'_>,
) -> Result<Response, PageError> {
    let app = &browser.app;
    trace::continue_from(held.request.trace.as_deref());
    let person = match app.upstream().recheck(&held.session_id).await? {
        Recheck::Fresh(person) | Recheck::Stale(person) => person,
        Recheck::Ended => {
            app.storage().drop_awaiting_login(token, app.now()).await?;
            return Err(over("the session at the identity provider has ended"));
        }
        Recheck::Unknown => {
            // Nothing is consumed: the same page continues when the provider responds again.
            return Err(Message::ProviderUnavailable.because("who it is cannot be told now"));
        }
    };
    let resource = outcome::known_resource(app, &held.request)?;
    let decided = outcome::decide(resource, &held.request, &person);
    let subject = held.subject.as_str();
    let arrived = AuthenticatedLogin { request: &held.request, subject, person: &person, back };
    if let Some(page) = outcome::no_access(browser, &arrived, &decided).await {
        app.storage().drop_awaiting_login(token, app.now()).await?;
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
    let event = outcome::issued(app, &held.request, subject, &code, &decided);
    if !app.storage().release_awaiting_login(token, &new, &held.session_id, now, event).await? {
        return Err(over("it went on in another tab"));
    }
    Ok(see_other(&back.with_code(code.expose())))
}
