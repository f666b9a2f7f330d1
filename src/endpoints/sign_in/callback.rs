//! `GET /auth/callback`: the identity provider redirects the browser back to here.
//!
//! Order of the checks: first the browser binding, on success and on error; then the login is consumed; only
//! then is the code redeemed at the identity provider. The permit to query the provider is taken before all
//! of them, so that a person who gets none can load the page again.

use axum::response::{IntoResponse, Response};

use super::known_client::KnownClient;
use super::login::Start;
use super::outcome::{self, AuthenticatedLogin};
use super::{awaiting_approval, consent_page, remembered_consent, step_up};
use crate::app::App;
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{LoginState, Secret};
use crate::storage::{Claimed, Comer, NewLogin, OtherBrowser, PendingLogin};
use crate::telemetry::audit::Actor;
use crate::telemetry::trace;
use crate::upstream::{CallbackParams, LoginFailed, QueryPermit};
use crate::web::browser::{Browser, see_other};
use crate::web::cookies;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::web_session::passed_on;

pub(super) async fn get(browser: Browser) -> Result<Response, PageError> {
    let app = &browser.app;
    let params = read(&browser)?;
    let (answer, state) = (CallbackParams::from(&params), params.get("state").ok().flatten());
    // A sign-in to our own pages: the browser that began it holds its cookie for the other URL and continues
    // there.
    if let Some(pages) = state.and_then(|state| passed_on(app, state, browser.query())) {
        return Ok(see_other(&pages));
    }
    let permit = match answer.code {
        Some(_) => Some(app.upstream().permit_for_sign_in().await?),
        None => None,
    };
    let (login_id, login) = claim(&browser, state, answer).await?;
    trace::continue_from(login.request.trace.as_deref());
    let response = finish(&browser, &login, answer, permit).await;
    let response = response.map_err(|error| error.repeating(app, &login.request))?;
    let clear = cookies::LOGIN.clear(&browser.cookies, &login_id);
    Ok((clear, response).into_response())
}

fn read(browser: &Browser) -> Result<Params, PageError> {
    let invalid = Message::InvalidRequest { what: "callback" };
    let params = browser.params().map_err(|reason| invalid.because(reason))?;
    if params.repeats_any(&["code", "state", "iss", "error"]) {
        return Err(invalid.because("a parameter came twice"));
    }
    Ok(params)
}

/// Consumes the pending login, once the cookie proves that it belongs to this browser.
async fn claim(
    browser: &Browser,
    state: Option<&str>,
    answer: CallbackParams<'_>,
) -> Result<(String, PendingLogin), PageError> {
    let app = &browser.app;
    let Some(state) = state.and_then(Secret::<LoginState>::parse) else {
        return Err(Message::LoginFromElsewhere.because("state is missing or not ours"));
    };
    let binding = cookies::LOGIN.get(&browser.cookies, state.id());
    let if_other = if_other_browser(browser, answer);
    let comer = Comer { binding: binding.as_ref(), code: answer.code, if_other };
    let event = app.event("login_from_other_browser", Actor::Person).with("login_id", state.id());
    Err(match app.storage().claim_login(&state, comer, app.now(), event).await? {
        Claimed::First(login) => return Ok((state.id().to_owned(), *login)),
        Claimed::Unknown => Message::LoginExpired.because("unknown login"),
        Claimed::Expired => Message::LoginExpired.because("the login has expired"),
        Claimed::Already => Message::LoginUsed.because("the login has ended before"),
        Claimed::OtherBrowser => Message::LoginFromElsewhere.because("another browser came back"),
        Claimed::CodeCameElsewhere => {
            let reason = "another browser came back with this code before";
            Message::LoginFromElsewhere.because(reason)
        }
    })
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
fn if_other_browser(browser: &Browser, answer: CallbackParams<'_>) -> OtherBrowser {
    if answer.error.is_some() {
        OtherBrowser::ChangesNothing
    } else if !cookies::LOGIN.ids(&browser.cookies).is_empty() {
        OtherBrowser::BurnsLogin
    } else if browser.is_navigation() {
        OtherBrowser::SpendsCode
    } else {
        OtherBrowser::ChangesNothing
    }
}

/// Finishes a login that [`claim`] has consumed: checks the client again, redeems the provider's code,
/// applies the rules, and redirects to the client with our code. Otherwise shows a page that explains why
/// not, or repeats an earlier step.
async fn finish(
    browser: &Browser,
    login: &PendingLogin,
    answer: CallbackParams<'_>,
    permit: Option<QueryPermit>,
) -> Result<Response, PageError> {
    let app = &browser.app;
    let request = &login.request;
    let known = KnownClient::again(app, request).await?;
    let finished = app.upstream().finish_login(login, answer).await;
    drop(permit);
    let session = match finished {
        Ok(session) => session,
        Err(LoginFailed::Again { reason, prompt }) if !login.retried => {
            return begin_again(browser, login, &reason, prompt).await;
        }
        Err(failed) => return Ok(outcome::failed(browser, &known.back, request, &failed).await),
    };
    let subject = app.subject(&session.subject);
    not_blocked(app, request, &subject).await?;
    let resource = outcome::known_resource(app, request)?;
    if remembered_consent::needs_consent(app, &known, login, &subject).await? {
        let before = ScopeSet::default();
        let page = consent_page::show(browser, &known, request.clone(), resource, &before);
        return Ok(page.await);
    }
    let decision = outcome::decide(resource, request, &session.person);
    let arrived = AuthenticatedLogin {
        request,
        subject: &subject,
        person: &session.person,
        back: &known.back,
    };
    if let Some(page) = step_up::unsatisfiable_step_up(browser, &arrived, &decision).await? {
        return Ok(page);
    }
    if let Some(page) = outcome::no_access(browser, &arrived, &decision).await {
        return Ok(page);
    }
    app.clients().remember(&known.client).await?;
    if awaiting_approval::must_wait(app, &known.client, &known.review).await? {
        let session = &session;
        return awaiting_approval::await_approval(browser, &known, request, session, &subject)
            .await;
    }
    let response = outcome::issue(app, &arrived, &session, &decision).await?;
    // Only now is it certain that the person who approved can sign in here at all.
    let person = step_up::remember_person(browser, &subject);
    let approval = remembered_consent::remember(browser, &known.review, login, &subject).await;
    Ok((person.and(approval), response).into_response())
}

/// Restarts a login that the provider ended without a refusal, for example because its page was open for too
/// long. The browser is sent there once more, under the same approval and with the same expiry.
async fn begin_again(
    browser: &Browser,
    ended: &PendingLogin,
    reason: &str,
    prompt: Option<&'static str>,
) -> Result<Response, PageError> {
    let app = &browser.app;
    let (request, metadata) = (ended.request.clone(), ended.metadata_hash.clone());
    let start = Start::prepare(browser, request, metadata).await?.prompting(prompt);
    let expires_at = Timestamp::from_unix(ended.expires_at);
    let new = NewLogin { expires_at, ..start.new_login(app) };
    let event = outcome::about(app, "login_begun_again", &ended.request, None);
    let event = event.with("login_id", start.id.as_str()).with("reason", reason);
    let quota = Start::quota(app);
    match app.storage().begin_again(ended, &new, app.now(), quota, event).await? {
        Some(approval) => Ok(start.redirect_to_provider(browser, &approval)),
        None => Err(start.too_many(app).await?),
    }
}

/// Shows an error page to a person that an administrator has blocked. The client is not informed.
async fn not_blocked(
    app: &App,
    request: &AuthorizationRequest,
    subject: &str,
) -> Result<(), PageError> {
    if app.storage().is_blocked(subject).await? {
        let page = Message::PersonBlocked.because("the person is blocked");
        let event = outcome::about(app, "person_is_blocked", request, Some(subject));
        app.record(event.reference(page.reference())).await;
        return Err(page);
    }
    Ok(())
}
