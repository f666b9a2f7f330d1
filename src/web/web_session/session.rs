//! The session of a person who is signed in, and the forms of its pages.

use std::time::Duration;

use aws_lc_rs::digest;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::realm::home;
use super::rights::{rights, without};
use super::sign_in::sign_in_page;
use crate::app::App;
use crate::oauth::sealed::Purpose;
use crate::oauth::secret::{ConsoleSession, Secret};
use crate::storage::{Counted, Person, Realm, WebSession};
use crate::telemetry::audit::Actor;
use crate::upstream::recheck::Recheck;
use crate::web::browser::{Browser, BrowserForm};
use crate::web::cookies;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;

/// 15 minutes: a session ends after this time without a request.
const IDLE: Duration = Duration::from_mins(15);
/// 10 minutes: a destructive action requires a sign-in that is younger than this.
const FRESH: Duration = Duration::from_mins(10);
/// 64 KiB: largest form that is read.
const MAX_FORM: usize = 64 * 1024;

/// A person with a valid web session.
#[derive(Clone, Debug)]
pub struct SignedInPerson {
    pub session: WebSession,
    /// The person, as the identity provider last described them.
    pub person: Person,
    /// The CSRF token that their forms must carry.
    pub csrf: String,
    /// Whether they may change anything, or only view.
    pub may_change: bool,
    /// Whether their last sign-in is recent enough for destructive actions.
    pub fresh: bool,
}

/// Returns the person who sends this request. Asks the identity provider again if its last answer is old, so
/// that a person who lost the role loses access. Somebody who is not signed in gets the page to sign in, which
/// leads back to the page `here`.
///
/// The admin pages are refused while the provider does not deliver roles or groups and the person's rights
/// depend on them.
pub async fn enter(browser: &Browser, here: &str) -> Result<SignedInPerson, PageError> {
    let visitor = visitor(browser).await?;
    visitor.ok_or_else(|| sign_in_page(browser, here, false).into())
}

/// Returns the same person, or `None` if nobody is signed in: for a page that shows more to those who are.
pub async fn visitor(browser: &Browser) -> Result<Option<SignedInPerson>, PageError> {
    let Browser { app, realm, .. } = browser;
    let Some(token) = cookies::SESSION.get(&browser.cookies, realm.as_str()) else {
        return Ok(None);
    };
    let now = app.now();
    let Some(session) = app.storage().signed_in(&token, *realm, IDLE, now).await? else {
        return Ok(None);
    };
    let person = match app.upstream().recheck(&session.session_id).await? {
        // An old answer is accepted during an outage, when administrators are needed most.
        Recheck::Fresh(person) | Recheck::Stale(person) => person,
        Recheck::Ended => return Ok(None),
        Recheck::Unknown => {
            return Err(Message::ProviderUnavailable.because("the identity provider is silent"));
        }
    };
    let rights_of = |person: &Person| rights(app, *realm, &session.subject, person);
    if *realm == Realm::Admin {
        let outdated = app.upstream().outdated_facts(&session.session_id).await?;
        if rights_of(&without(&person, outdated)) != rights_of(&person) {
            let reason = "the identity provider does not tell roles or groups";
            return Err(Message::ProviderUnavailable.because(reason));
        }
    }
    let Some(may_change) = rights_of(&person) else {
        let event = app.event("console_refused", Actor::Person).subject(&session.subject);
        let event = event.with("pages", realm.as_str()).with("reason", "lost the role");
        app.storage().sign_out(&session, now, event).await?;
        let reason = "not, or no longer, an administrator";
        return Err(Message::NotAnAdministrator.because(reason));
    };
    if now.since(session.seen_at) >= Duration::from_mins(1) {
        app.storage().seen(&session, now).await?;
    }
    Ok(Some(SignedInPerson {
        csrf: csrf_of(&token),
        // A sign-in time in the future dates from before the clock was set back, so its age is unknown.
        fresh: session.signed_in_at <= now && now.since(session.signed_in_at) < FRESH,
        session,
        person,
        may_change,
    }))
}

/// Reads a form that one of our pages sent. Refuses other origins and bodies over 64 KiB.
pub async fn read_form(sent: BrowserForm) -> Result<(Browser, Params), PageError> {
    sent.browser.check_same_origin(Message::FormFromElsewhere)?;
    sent.read(MAX_FORM).await
}

/// Reads a form that one of our pages sent in this very session. Somebody who is not signed in gets the page
/// to sign in, which leads back to the page `here`.
pub async fn read_form_of_session(
    sent: BrowserForm,
    here: &str,
) -> Result<(Browser, SignedInPerson, Params), PageError> {
    let visitor = enter(&sent.browser, here).await?;
    let (browser, form) = read_form(sent).await?;
    let csrf = form.get("csrf").ok().flatten().unwrap_or_default();
    aws_lc_rs::constant_time::verify_slices_are_equal(visitor.csrf.as_bytes(), csrf.as_bytes())
        .map_err(|_| Message::FormFromElsewhere.because("the form was made for another session"))?;
    Ok((browser, visitor, form))
}

/// Returns the CSRF token of a session: a hash of its cookie, from which the cookie cannot be derived.
fn csrf_of(token: &Secret<ConsoleSession>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"portcullis form ");
    context.update(token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// Returns the token of a confirmation page: a MAC over the session, the act and the numbers that the page
/// shows. Any change of these gives another token.
pub fn confirmation(app: &App, visitor: &SignedInPerson, act: &str, counted: &Counted) -> String {
    let mark = counted.mark();
    let parts = [visitor.csrf.as_bytes(), act.as_bytes(), mark.as_bytes()];
    app.sealer().mac(Purpose::Confirmation, &parts)
}

/// Returns whether the form comes from a confirmation page that showed this act with these numbers.
pub fn is_confirmed(
    app: &App,
    visitor: &SignedInPerson,
    act: &str,
    counted: &Counted,
    sent: &str,
) -> bool {
    let expected = confirmation(app, visitor, act, counted);
    aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), sent.as_bytes()).is_ok()
}

/// Ends the session of this person and removes its cookie.
pub async fn sign_out(browser: &Browser, visitor: &SignedInPerson) -> Result<Response, PageError> {
    let app = &browser.app;
    let event = app.event("console_signed_out", Actor::Person).subject(&visitor.session.subject);
    let event = event.with("pages", browser.realm.as_str());
    app.storage().sign_out(&visitor.session, app.now(), event).await?;
    Ok(signed_out(browser))
}

/// Redirects to the first page and removes the cookie of a session that has ended.
pub fn signed_out(browser: &Browser) -> Response {
    let clear = cookies::SESSION.clear(&browser.cookies, browser.realm.as_str());
    (clear, browser.go(home(browser.realm))).into_response()
}
