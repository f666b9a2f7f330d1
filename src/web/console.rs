//! Sign-in to our own pages: the admin pages and `/account`. Each has its own sessions and cookies, and
//! accepts a form only from the page that was shown (threat AD-01).
//!
//! A sign-in in progress takes no database row: it travels sealed in a cookie of the browser that began it.
//! The identity provider redirects the browser to `/auth/callback`, the only redirect URI registered there,
//! and from there the response is passed on to the pages that began the sign-in.

use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::browser::{PageError, place_for_sign_in, see_other, unreachable_page};
use super::cookies::Cookies;
use super::pages::Message;
use super::params::Params;
use super::speculative::is_navigation;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{PublicUrl, paths};
use crate::oauth::sealed::Purpose;
use crate::oauth::secret::{AccountState, AdminState, ConsoleSession, Secret, new_id};
use crate::policy::{Fact, FactSet};
use crate::storage::{Counted, NewSignIn, Person, Realm, SessionUpdate, StorageError, WebSession};
use crate::telemetry::audit::Actor;
use crate::upstream::pages::PagesLogin;
use crate::upstream::recheck::Recheck;
use crate::upstream::{CallbackParams, LoginFailed};

/// 15 minutes: a session ends after this time without a request.
const IDLE: Duration = Duration::from_mins(15);
/// 8 hours: a session ends after this time in any case.
const ABSOLUTE: Duration = Duration::from_hours(8);
/// 10 minutes: a destructive action requires a sign-in that is younger than this.
const FRESH: Duration = Duration::from_mins(10);
/// 64 KiB: largest form that is read.
const MAX_FORM: usize = 64 * 1024;

/// One of the two sets of pages with a sign-in of its own.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Which of the two.
    pub realm: Realm,
    /// The URL under which browsers reach it.
    pub url: &'a PublicUrl,
    /// Path of its first page. All other pages are below it.
    pub home: &'static str,
}

impl<'a> Site<'a> {
    /// Returns the admin pages, if they are configured.
    pub fn admin(app: &'a App) -> Option<Self> {
        let admin = app.config().admin.as_ref()?;
        Some(Self { realm: Realm::Admin, url: &admin.url, home: "/" })
    }

    /// Returns the pages below `/account`.
    pub fn account(app: &'a App) -> Self {
        Self { realm: Realm::Account, url: &app.config().public_url, home: paths::ACCOUNT }
    }

    fn cookies(&self) -> Cookies<'a> {
        Cookies::of(self.url)
    }

    /// Returns `path` if it is a plain path within these pages, and `None` otherwise, so that it cannot
    /// redirect to another site.
    fn own_path<'p>(&self, path: &'p str) -> Option<&'p str> {
        let plain = path.starts_with(self.home)
            && !path.starts_with("//")
            && path.len() <= 1024
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        plain.then_some(path)
    }
}

/// Returns the URL to which the response to a sign-in of our pages is passed on. `None` if `state` does not
/// belong to such a sign-in. Only a state that we issued is accepted, because a forged one must not reveal
/// where the admin pages are.
pub fn passed_on(app: &App, state: &str, query: &str) -> Option<String> {
    if Secret::<AccountState>::parse(state).is_some_and(|state| state.is_made_by(app.sealer())) {
        return Some(
            app.config().public_url.join(&format!("{}?{query}", paths::ACCOUNT_SIGNED_IN)),
        );
    }
    Secret::<AdminState>::parse(state).filter(|state| state.is_made_by(app.sealer()))?;
    Some(Site::admin(app)?.url.join(&format!("/signed-in?{query}")))
}

/// A person with a valid web session.
#[derive(Clone, Debug)]
pub struct SignedInPerson {
    /// The web session.
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

/// Why a person cannot see a page.
#[derive(Debug)]
pub enum AccessError {
    /// The person is not signed in, or no longer.
    SignedOut,
    /// The person is signed in, but not among those that the pages are for.
    NotAllowed,
    /// The person's rights cannot be determined now.
    Unavailable(&'static str),
    /// The database failed.
    Storage(StorageError),
}

impl From<StorageError> for AccessError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Returns the person who sends this request. Asks the identity provider again if its last answer is old, so
/// that a person who lost the role loses access.
///
/// For the admin pages it returns [`AccessError::Unavailable`] if the provider did not deliver roles or
/// groups and the person's rights depend on them.
pub async fn visitor(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
) -> Result<SignedInPerson, AccessError> {
    let token = site.cookies().console(headers, site.realm).ok_or(AccessError::SignedOut)?;
    let now = app.now();
    let found = app.storage().signed_in(&token, site.realm, IDLE, now).await?;
    let session = found.ok_or(AccessError::SignedOut)?;
    let person = match app.upstream().recheck(&session.session_id).await? {
        // An old answer is accepted during an outage, when administrators are needed most.
        Recheck::Fresh(person) | Recheck::Stale(person) => person,
        Recheck::Ended => return Err(AccessError::SignedOut),
        Recheck::Unknown => {
            return Err(AccessError::Unavailable("the identity provider is silent"));
        }
    };
    if site.realm == Realm::Admin {
        let outdated = app.upstream().outdated_facts(&session.session_id).await?;
        let sure = without(&person, outdated);
        let rights_of = |person| rights(app, site.realm, &session.subject, person);
        if rights_of(&sure) != rights_of(&person) {
            return Err(AccessError::Unavailable(
                "the identity provider does not tell roles or groups",
            ));
        }
    }
    let Some(may_change) = rights(app, site.realm, &session.subject, &person) else {
        let event = app.event("console_refused", Actor::Person).subject(&session.subject);
        let event = event.with("pages", site.realm.as_str()).with("reason", "lost the role");
        app.storage().sign_out(&session, now, event).await?;
        return Err(AccessError::NotAllowed);
    };
    if now.since(session.seen_at) >= Duration::from_mins(1) {
        app.storage().seen(&session, now).await?;
    }
    Ok(SignedInPerson {
        csrf: csrf_of(&token),
        // A sign-in time in the future dates from before the clock was set back, so its age is unknown.
        fresh: session.signed_in_at <= now && now.since(session.signed_in_at) < FRESH,
        session,
        person,
        may_change,
    })
}

/// Returns the person with facts of these kinds marked unknown.
fn without(person: &Person, kinds: FactSet) -> Person {
    let mut person = person.clone();
    if kinds.roles {
        person.facts.roles = Fact::Unknown;
    }
    if kinds.groups {
        person.facts.groups = Fact::Unknown;
    }
    person
}

/// Returns `None` if these pages are not for this person, otherwise whether they may change anything there.
fn rights(app: &App, realm: Realm, subject: &str, person: &Person) -> Option<bool> {
    match realm {
        Realm::Account => Some(true),
        Realm::Admin => {
            let admin = app.config().admin.as_ref()?;
            if admin.administrators.include(&person.facts, subject) {
                return Some(true);
            }
            admin.viewers.include(&person.facts, subject).then_some(false)
        }
    }
}

/// Returns the CSRF token of a session: a hash of its cookie, from which the cookie cannot be derived.
fn csrf_of(token: &Secret<ConsoleSession>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"portcullis form ");
    context.update(token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// Returns whether a page of this origin sent the form: `Origin` must be ours, and `Sec-Fetch-Site` must be
/// same-origin if the browser sends it.
pub fn same_origin(site: &Site<'_>, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().and_then(|origin| origin.to_str().ok());
    let fetch_site = headers.get("sec-fetch-site");
    origin == Some(site.url.origin())
        && origins.next().is_none()
        && fetch_site.is_none_or(|fetched| fetched.as_bytes() == b"same-origin")
}

fn elsewhere(headers: &HeaderMap, reason: &str) -> PageError {
    PageError::new(headers, StatusCode::FORBIDDEN, Message::FormFromElsewhere, &reason)
}

/// Reads a form that one of our pages sent. Refuses other origins and bodies over 64 KiB.
pub async fn read_form(
    site: &Site<'_>,
    headers: &HeaderMap,
    query: Option<&str>,
    body: Body,
) -> Result<Params, PageError> {
    if !same_origin(site, headers) {
        return Err(elsewhere(headers, "the form was not sent from our origin"));
    }
    super::browser::read_form(headers, query, body, MAX_FORM).await
}

/// Checks the CSRF token: the form must have been made for this very session.
pub fn check_csrf(
    headers: &HeaderMap,
    visitor: &SignedInPerson,
    form: &Params,
) -> Result<(), PageError> {
    let sent = form.get("csrf").ok().flatten().unwrap_or_default();
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(visitor.csrf.as_bytes(), sent.as_bytes());
    same.map_err(|_| elsewhere(headers, "the form was made for another session"))
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

/// A sign-in in progress, sealed into the browser's cookie.
#[derive(Serialize, Deserialize)]
struct Underway {
    state: String,
    login: PagesLogin,
    go_on: String,
    expires_at: i64,
    /// Number of sign-outs at the provider when this sign-in began.
    #[serde(default)]
    sign_outs: i64,
    /// Whether the provider is asked to authenticate the person again.
    #[serde(default)]
    anew: bool,
    /// Whether the provider ended the sign-in once already. It is restarted only once.
    #[serde(default)]
    retried: bool,
}

/// Redirects the browser to the identity provider. `anew` asks it to authenticate the person again.
pub async fn begin_sign_in(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    go_on: &str,
    anew: bool,
) -> Result<Response, PageError> {
    let expires_at = app.now().plus(app.config().tokens.login);
    let beginning = Beginning { go_on, anew, expires_at, retried: false, prompt: None };
    begin(app, site, headers, &beginning).await
}

/// The parameters of a sign-in that is about to begin.
struct Beginning<'a> {
    go_on: &'a str,
    anew: bool,
    expires_at: Timestamp,
    retried: bool,
    /// The `prompt` for the provider, when `anew` is false.
    prompt: Option<&'static str>,
}

async fn begin(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    beginning: &Beginning<'_>,
) -> Result<Response, PageError> {
    let id = new_id(app.clock());
    let state = match site.realm {
        Realm::Admin => Secret::<AdminState>::made_by(app.sealer(), &id).expose().to_owned(),
        Realm::Account => Secret::<AccountState>::made_by(app.sealer(), &id).expose().to_owned(),
    };
    let sign_outs = app.storage().sign_outs_so_far().await;
    let sign_outs = sign_outs.map_err(|error| PageError::storage(headers, &error))?;
    let (url, login) = app
        .upstream()
        .prepare_pages_login(&state, beginning.anew, beginning.prompt)
        .await
        .map_err(|error| unreachable_page(headers, &error))?;
    let lifetime = app.config().tokens.login;
    let underway = Underway {
        state,
        login,
        go_on: site.own_path(beginning.go_on).unwrap_or(site.home).to_owned(),
        expires_at: beginning.expires_at.unix(),
        sign_outs,
        anew: beginning.anew,
        retried: beginning.retried,
    };
    let json = serde_json::to_vec(&underway).unwrap_or_default();
    let sealed = app.sealer().seal(Purpose::Consent, context(site.realm), &json);
    let mut response = see_other(url.as_str());
    let set = site.cookies().set_underway(site.realm, &sealed, lifetime.as_secs());
    response.headers_mut().append(header::SET_COOKIE, set);
    Ok(response)
}

fn context(realm: Realm) -> &'static str {
    match realm {
        Realm::Admin => "sign-in/admin",
        Realm::Account => "sign-in/account",
    }
}

/// Finishes a sign-in when the identity provider sends the browser back, and begins the session.
pub async fn finish_sign_in(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, PageError> {
    let foreign = |reason: &str| {
        PageError::new(headers, StatusCode::FORBIDDEN, Message::LoginFromElsewhere, &reason)
    };
    let params = Params::parse(query.unwrap_or_default()).map_err(|_| foreign("unreadable"))?;
    if params.repeats_any(&["code", "state", "iss", "error"]) {
        return Err(foreign("a parameter came twice"));
    }
    let get = |name| params.get(name).ok().flatten();
    let underway = underway(app, site, headers)
        .filter(|underway| get("state") == Some(underway.state.as_str()));
    let Some(underway) = underway else {
        spend_code(app, site, headers, &params).await;
        return Err(foreign("this browser has no such sign-in under way"));
    };
    if app.now() >= Timestamp::from_unix(underway.expires_at) {
        let message = Message::LoginExpired;
        return Err(PageError::new(headers, StatusCode::FORBIDDEN, message, &"too late"));
    }
    let answer = CallbackParams {
        iss: get("iss"),
        code: get("code"),
        error: get("error"),
        error_description: get("error_description"),
    };
    let place = match answer.code {
        Some(_) => Some(place_for_sign_in(app, headers).await?),
        None => None,
    };
    let expires_at = Timestamp::from_unix(underway.expires_at);
    let id = id_of_state(site.realm, &underway.state).unwrap_or_default();
    let used = app.storage().use_pages_sign_in(site.realm, &id, answer.code, expires_at).await;
    if !used.map_err(|error| PageError::storage(headers, &error))? {
        let (status, message) = (StatusCode::FORBIDDEN, Message::LoginUsed);
        return Err(PageError::new(headers, status, message, &"the sign-in came back before"));
    }
    let finished = app.upstream().finish_pages_login(&underway.login, answer).await;
    drop(place);
    let (session, proved_at) = match finished {
        Ok(finished) => finished,
        Err(LoginFailed::Again { prompt, .. }) if !underway.retried => {
            let (go_on, anew) = (underway.go_on.as_str(), underway.anew);
            let beginning = Beginning { go_on, anew, expires_at, retried: true, prompt };
            return begin(app, site, headers, &beginning).await;
        }
        Err(failed) => return Err(failed_page(headers, &failed)),
    };
    let session = SessionUpdate { sign_outs_before: underway.sign_outs, ..session };
    let came = CompletedLogin { session: &session, proved_at, go_on: &underway.go_on };
    let mut response = let_in(app, site, headers, &came).await?;
    let clear = site.cookies().clear_underway(site.realm);
    response.headers_mut().append(header::SET_COOKIE, clear);
    Ok(response)
}

/// Returns the id within a `state` of these pages.
fn id_of_state(realm: Realm, state: &str) -> Option<String> {
    match realm {
        Realm::Admin => Secret::<AdminState>::parse(state).map(|state| state.id().to_owned()),
        Realm::Account => Secret::<AccountState>::parse(state).map(|state| state.id().to_owned()),
    }
}

/// Spends the code that arrived in a browser where this sign-in was not begun, for example when an
/// administrator was led into another person's sign-in. The person who began that sign-in may ask for the
/// address in this tab, which contains the code, and must not be able to use it.
async fn spend_code(app: &App, site: &Site<'_>, headers: &HeaderMap, params: &Params) {
    let get = |name| params.get(name).ok().flatten();
    let (Some(state), Some(code)) = (get("state"), get("code")) else { return };
    let ours =
        match site.realm {
            Realm::Admin => Secret::<AdminState>::parse(state)
                .is_some_and(|state| state.is_made_by(app.sealer())),
            Realm::Account => Secret::<AccountState>::parse(state)
                .is_some_and(|state| state.is_made_by(app.sealer())),
        };
    let id = id_of_state(site.realm, state).filter(|_| ours && is_navigation(headers));
    let Some(id) = id else { return };
    let expires_at = app.now().plus(app.config().tokens.login);
    if let Err(cause) = app.storage().spend_code(&id, code, expires_at).await {
        tracing::error!(%cause, "a code that another browser brought is not remembered");
    }
}

fn underway(app: &App, site: &Site<'_>, headers: &HeaderMap) -> Option<Underway> {
    let sealed = site.cookies().underway(headers, site.realm)?;
    let json = app.sealer().open(Purpose::Consent, context(site.realm), &sealed).ok()?;
    serde_json::from_slice(&json).ok()
}

/// A sign-in that the identity provider has authenticated.
struct CompletedLogin<'a> {
    session: &'a SessionUpdate,
    proved_at: Timestamp,
    go_on: &'a str,
}

async fn let_in(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    came: &CompletedLogin<'_>,
) -> Result<Response, PageError> {
    let &CompletedLogin { session, proved_at, go_on } = came;
    let storage = |error: StorageError| PageError::storage(headers, &error);
    let subject = app.subject(&session.subject);
    let about = |event| {
        let event = app.event(event, Actor::Person).subject(&subject);
        event.with("pages", site.realm.as_str())
    };
    if app.storage().is_blocked(&subject).await.map_err(storage)? {
        app.record(about("console_refused").with("reason", "blocked")).await;
        let (status, message) = (StatusCode::FORBIDDEN, Message::PersonBlocked);
        return Err(PageError::new(headers, status, message, &"the person is blocked"));
    }
    if rights(app, site.realm, &subject, &session.person).is_none() {
        app.record(about("console_refused").with("reason", "not an administrator")).await;
        let (status, message) = (StatusCode::FORBIDDEN, Message::NotAnAdministrator);
        return Err(PageError::new(headers, status, message, &"not an administrator"));
    }
    let now = app.now();
    let token = Secret::<ConsoleSession>::generate(&new_id(app.clock()));
    let expires_at = now.plus(ABSOLUTE);
    let new = NewSignIn {
        token: &token,
        realm: site.realm,
        session,
        subject: &subject,
        proved_at,
        expires_at,
    };
    let before = site.cookies().console(headers, site.realm);
    let event = about("console_signed_in");
    app.storage().sign_in(&new, before.as_ref(), now, event).await.map_err(storage)?;
    let mut response = see_other(&site.url.join(go_on));
    let set = site.cookies().set_console(site.realm, &token, ABSOLUTE.as_secs());
    response.headers_mut().append(header::SET_COOKIE, set);
    Ok(response)
}

fn failed_page(headers: &HeaderMap, failed: &LoginFailed) -> PageError {
    let (status, message) = match failed {
        LoginFailed::Again { reason, .. } if reason == "temporarily_unavailable" => {
            (StatusCode::FORBIDDEN, Message::ProviderEndedSignIn)
        }
        LoginFailed::Refused | LoginFailed::Again { .. } => {
            (StatusCode::FORBIDDEN, Message::LoginRefused)
        }
        LoginFailed::ProviderCannot(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderCannot)
        }
        LoginFailed::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable)
        }
        LoginFailed::Misconfigured(_) => (StatusCode::BAD_GATEWAY, Message::ProviderMisconfigured),
        LoginFailed::Untrusted(_) => (StatusCode::FORBIDDEN, Message::LoginNotTrusted),
    };
    PageError::new(headers, status, message, failed)
}

/// Ends the session of this person and removes its cookie.
pub async fn sign_out(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    visitor: &SignedInPerson,
) -> Result<Response, PageError> {
    let event = app.event("console_signed_out", Actor::Person).subject(&visitor.session.subject);
    let event = event.with("pages", site.realm.as_str());
    app.storage()
        .sign_out(&visitor.session, app.now(), event)
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    Ok(signed_out(site))
}

/// Redirects to the first page and removes the cookie of a session that has ended.
pub fn signed_out(site: &Site<'_>) -> Response {
    let mut response = see_other(&site.url.join(site.home));
    let clear = site.cookies().clear_console(site.realm);
    response.headers_mut().append(header::SET_COOKIE, clear);
    response
}
