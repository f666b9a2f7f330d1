//! `POST /consent`: the person's decision. Unless an earlier approval is remembered, Approve is the first
//! step that stores anything, binds the browser to a login and redirects it to the identity provider.

use axum::response::{IntoResponse, Response};

use super::consent_page::{self, ConsentRequest};
use super::known_client::KnownClient;
use super::login::Start;
use crate::app::App;
use crate::clock::Timestamp;
use crate::oauth::authorization_request::{AccountPrompt, AuthorizationRequest};
use crate::oauth::error::ErrorCode;
use crate::oauth::redirect_uri::destination;
use crate::storage::{ApprovedPage, Decided};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::trace;
use crate::web::browser::{Browser, BrowserForm, see_other};
use crate::web::client_redirect::ClientRedirect;
use crate::web::cookies::{self, CONSENT_PAGE, ConsentMark, SetCookies};
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;

pub(super) async fn post(sent: BrowserForm) -> Result<Response, PageError> {
    let limit = sent.browser.app.config().limits.consent_body;
    let (browser, form) = sent.read(limit).await?;
    let consent = same_browser(&browser, &form)?;
    trace::continue_from(consent.request.trace.as_deref());
    let decided = decide(&browser, &consent, &form).await;
    decided.map_err(|error| error.repeating(&browser.app, &consent.request))
}

/// Carries out what the person decided.
async fn decide(
    browser: &Browser,
    consent: &ConsentRequest,
    form: &Params,
) -> Result<Response, PageError> {
    let known = KnownClient::again(&browser.app, &consent.request).await?;
    let account = match form.get("decision").ok().flatten() {
        Some("approve") => consent.request.account,
        Some("approve_other") => Some(AccountPrompt::SelectAccount),
        Some("deny") => return deny(&browser.app, consent, &known.back).await,
        _ => return Err(Message::InvalidRequest { what: "decision" }.because("no decision")),
    };
    // From here on the request is what the person chose: the grant, the tokens and what is remembered follow it.
    let scopes = consent.chosen(form)?;
    let request = AuthorizationRequest { scopes, account, ..consent.request.clone() };
    let response = approve(browser, consent, request).await?;
    Ok((decided(browser, consent), response).into_response())
}

/// Returns the cookies that keep the marks of the pages of this client, but remove its tag, so that the pages
/// no longer count towards the rate limit. A denied page still counts.
fn decided(browser: &Browser, consent: &ConsentRequest) -> SetCookies {
    let cookies = &browser.cookies;
    let tag = ConsentRequest::client_tag(&consent.request.client_id);
    let mut pages = consent_page::undecided(cookies, &tag);
    // This page too: if it is submitted again, the message must be "already decided" and not "too many".
    if !pages.contains(&consent.id) {
        pages.push(consent.id.clone());
    }
    let counted_no_more = pages.iter().filter_map(|id| {
        let ConsentMark { mark, .. } = cookies::CONSENT.get(cookies, id)?;
        Some(cookies::CONSENT.set(cookies, id, &ConsentMark { mark, client: None }))
    });
    counted_no_more.fold(SetCookies::default(), SetCookies::and)
}

/// Makes three checks, all required (threat CD-05): `Origin` is ours, `Sec-Fetch-Site` is same-origin if the
/// browser sends it, and the page was shown to this very browser.
fn same_browser(browser: &Browser, form: &Params) -> Result<ConsentRequest, PageError> {
    let elsewhere = |reason: &str| Message::ConsentFromElsewhere.because(reason);
    browser.check_same_origin(Message::ConsentFromElsewhere)?;
    let sealed = form.get("request").ok().flatten().unwrap_or_default();
    let consent = ConsentRequest::open(sealed, browser.app.sealer())
        .map_err(|_| elsewhere("the request in the form is not ours"))?;
    // Checked before the cookie: the cookie may have expired with the page, and its absence would hide the
    // real reason.
    if browser.app.now() >= Timestamp::from_unix(consent.expires_at) {
        let expired = Message::ConsentExpired.because("the consent page has expired");
        return Err(expired.repeating(&browser.app, &consent.request));
    }
    let mark = cookies::CONSENT.get(&browser.cookies, &consent.id);
    let mark = mark.map(|ConsentMark { mark, .. }| ConsentRequest::browser_mark(&mark));
    if mark.as_deref() != Some(consent.browser.as_str()) {
        return Err(elsewhere("the page was shown to another browser"));
    }
    Ok(consent)
}

/// Builds the audit event of a decision. It includes when the page was shown, because showing it was not
/// recorded. `request` has the scopes that the person chose.
fn about(
    app: &App,
    consent: &ConsentRequest,
    request: &AuthorizationRequest,
    event: &'static str,
) -> AuditEvent {
    let shown_at = Timestamp::from_unix(consent.expires_at).minus(CONSENT_PAGE);
    app.event(event, Actor::Person)
        .client(&request.client_id)
        .resource(&request.resource)
        .with("consent_id", consent.id.as_str())
        .with("shown_at", shown_at.unix())
        .with("scopes", request.scopes.to_string())
        .with("answer_goes_to", destination(&request.redirect_uri).to_string())
}

/// Records the denial and redirects to the client with `access_denied`.
async fn deny(
    app: &App,
    consent: &ConsentRequest,
    back: &ClientRedirect<'_>,
) -> Result<Response, PageError> {
    let expires_at = Timestamp::from_unix(consent.expires_at);
    let event = about(app, consent, &consent.request, "consent_denied");
    let Decided::First(()) = app.storage().deny(&consent.id, expires_at, event).await? else {
        return Err(Message::AlreadyDecided.because("the page was decided before"));
    };
    let description = "The person did not approve the request";
    Ok(see_other(&back.with_error(ErrorCode::AccessDenied, Some(description))))
}

/// Stores the approval with a pending login and redirects to the identity provider. If all slots for pending
/// logins are taken, it tries once to evict one, and otherwise returns a 429 page.
async fn approve(
    browser: &Browser,
    consent: &ConsentRequest,
    request: AuthorizationRequest,
) -> Result<Response, PageError> {
    let app = &browser.app;
    let left_out = consent.request.scopes.difference(&request.scopes);
    let mut event = about(app, consent, &request, "consent_approved");
    if !left_out.is_empty() {
        event = event.with("left_out", left_out.to_string());
    }
    // Nothing has been consumed yet. If the person cannot be redirected to the provider, the page stays
    // valid.
    let start = Start::prepare(browser, request, consent.metadata_hash.clone()).await?;
    let page = ApprovedPage {
        consent_id: &consent.id,
        expires_at: Timestamp::from_unix(consent.expires_at),
    };
    let event = event.with("login_id", start.id.as_str());
    let decide = async || {
        let (new, quota) = (start.new_login(app), Start::quota(app));
        app.storage().approve(page, &new, app.now(), quota, event.clone()).await
    };
    let mut decided = decide().await?;
    if matches!(decided, Decided::Full) && start.try_evict(app).await? {
        decided = decide().await?;
    }
    match decided {
        Decided::First(approval) => Ok(start.redirect_to_provider(browser, &approval)),
        Decided::Already => Err(Message::AlreadyDecided.because("the page was decided before")),
        Decided::Full => Err(start.too_many(app).await?),
    }
}
