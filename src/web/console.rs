//! Sign-in to our own pages, for administrators and for people: sessions of their own, cookies of
//! their own, and forms that only the page that was shown can send (threat AD-01).
//!
//! A sign-in on its way costs no row: it travels sealed in a cookie of the browser that began it. The
//! identity provider brings the browser back to `/auth/callback`, whose address is the one registered
//! there, and from where the answer is passed on to the pages it is for.

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
use crate::config::PublicUrl;
use crate::oauth::sealed::Purpose;
use crate::oauth::secret::{AccountState, AdminState, ConsoleSession, Secret, new_id};
use crate::policy::{Fact, FactSet};
use crate::storage::{Counted, NewSignIn, Person, Realm, SessionUpdate, StorageError, WebSession};
use crate::telemetry::audit::Actor;
use crate::upstream::pages::PagesLogin;
use crate::upstream::recheck::Recheck;
use crate::upstream::{CallbackParams, LoginFailed};
use crate::web::body;

/// A session that nobody uses ends after this.
const IDLE: Duration = Duration::from_mins(15);
/// A session ends after this, whatever happens.
const ABSOLUTE: Duration = Duration::from_hours(8);
/// Destructive actions want a proof that is younger than this.
const FRESH: Duration = Duration::from_mins(10);
/// Largest form read.
const MAX_FORM: usize = 64 * 1024;

/// One of the two sets of pages.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Which.
    pub realm: Realm,
    /// The URL that browsers know it by.
    pub url: &'a PublicUrl,
    /// Its first page; all others lie below.
    pub home: &'static str,
}

impl<'a> Site<'a> {
    /// The admin pages, where there are any.
    pub fn admin(app: &'a App) -> Option<Self> {
        let admin = app.config().admin.as_ref()?;
        Some(Self { realm: Realm::Admin, url: &admin.url, home: "/" })
    }

    /// `/account`.
    pub fn account(app: &'a App) -> Self {
        Self { realm: Realm::Account, url: &app.config().public_url, home: "/account" }
    }

    fn cookies(&self) -> Cookies<'a> {
        Cookies::of(self.url)
    }

    /// A path of these pages, and of nobody else's.
    fn own_path<'p>(&self, path: &'p str) -> Option<&'p str> {
        let plain = path.starts_with(self.home)
            && !path.starts_with("//")
            && path.len() <= 1024
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        plain.then_some(path)
    }
}

/// Where the answer to a sign-in of our pages is to be passed on; `None` when it is not one. Only for a
/// state that we made: a made-up one must not tell where the admin pages are.
pub fn passed_on(app: &App, state: &str, query: &str) -> Option<String> {
    if Secret::<AccountState>::parse(state).is_some_and(|state| state.is_made_by(app.sealer())) {
        return Some(app.config().public_url.join(&format!("/account/signed-in?{query}")));
    }
    Secret::<AdminState>::parse(state).filter(|state| state.is_made_by(app.sealer()))?;
    Some(Site::admin(app)?.url.join(&format!("/signed-in?{query}")))
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct SignedInPerson {
    /// The session.
    pub session: WebSession,
    /// Who it is, as the identity provider last said.
    pub person: Person,
    /// What a form of theirs must carry.
    pub csrf: String,
    /// Whether they may change anything.
    pub may_change: bool,
    /// Whether their proof is young enough for destructive actions.
    pub fresh: bool,
}

/// Why somebody cannot see a page.
#[derive(Debug)]
pub enum AccessError {
    /// Not signed in, or no longer.
    SignedOut,
    /// Signed in, and none of those the pages are for.
    NotAllowed,
    /// Whether they still may cannot be told now.
    Unavailable(&'static str),
    /// Our database.
    Storage(StorageError),
}

impl From<StorageError> for AccessError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Who sends this request. Asks the identity provider again when its last answer is old, so that
/// somebody who lost the role is out.
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
        // During an outage administrators are needed most.
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
        // A proof from the future is of before the clock went back: nobody knows how old it is.
        fresh: session.signed_in_at <= now && now.since(session.signed_in_at) < FRESH,
        session,
        person,
        may_change,
    })
}

/// The person without facts of these kinds.
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

/// Whether these pages are for this person, and whether they may change anything there.
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

/// What a form must carry: tied to the session's cookie, and nothing that leads back to it.
fn csrf_of(token: &Secret<ConsoleSession>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"portcullis form ");
    context.update(token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// Whether a form was sent by a page of this origin: `Origin` must say so, and `Sec-Fetch-Site` where
/// the browser sends it.
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

/// Reads a form that must come from a page of ours.
pub async fn read_form(
    site: &Site<'_>,
    headers: &HeaderMap,
    query: Option<&str>,
    body: Body,
) -> Result<Params, PageError> {
    if !same_origin(site, headers) {
        return Err(elsewhere(headers, "the form was not sent from our origin"));
    }
    let body = body::read(body, MAX_FORM).await.map_err(|_| {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        PageError::new(headers, status, Message::RequestTooLarge, &"the form is too large")
    })?;
    Params::from_post(headers, query, &body).map_err(|refused| {
        let message = Message::InvalidRequest { what: "form" };
        PageError::new(headers, StatusCode::BAD_REQUEST, message, &refused)
    })
}

/// Checks that the form was made for this very session.
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

/// What the form of a page in between carries: this visitor was shown this act with this count. With
/// another count, act or session it is another text.
pub fn confirmation(app: &App, visitor: &SignedInPerson, act: &str, counted: &Counted) -> String {
    let mark = counted.mark();
    let parts = [visitor.csrf.as_bytes(), act.as_bytes(), mark.as_bytes()];
    app.sealer().mac(Purpose::Confirmation, &parts)
}

/// Whether the form was sent by a page that showed just that.
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

/// A sign-in on its way, sealed in the browser's cookie.
#[derive(Serialize, Deserialize)]
struct Underway {
    state: String,
    login: PagesLogin,
    go_on: String,
    expires_at: i64,
    /// How many sign-outs at the provider there had been when it began.
    #[serde(default)]
    sign_outs: i64,
    /// Whether a new proof is asked for.
    #[serde(default)]
    anew: bool,
    /// It was begun again after the provider had ended it: that happens once.
    #[serde(default)]
    retried: bool,
}

/// Sends the browser to the identity provider; `anew` asks for a new proof.
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

/// A sign-in about to begin.
struct Beginning<'a> {
    go_on: &'a str,
    anew: bool,
    expires_at: Timestamp,
    retried: bool,
    /// What the provider is asked for, when it is not a new proof.
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

/// Back from the identity provider: the session begins.
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

/// The id in a state of these pages.
fn id_of_state(realm: Realm, state: &str) -> Option<String> {
    match realm {
        Realm::Admin => Secret::<AdminState>::parse(state).map(|state| state.id().to_owned()),
        Realm::Account => Secret::<AccountState>::parse(state).map(|state| state.id().to_owned()),
    }
}

/// Somebody comes back in a tab where this sign-in was not begun, as when an administrator was led into somebody
/// else's sign-in. The code must not be of use to whoever began it, who may ask for the address in that tab.
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

/// Somebody who has come back from the identity provider.
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

/// Ends the session of this visitor, and takes the cookie away.
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

/// The answer to somebody whose session has ended: the first page, without the cookie.
pub fn signed_out(site: &Site<'_>) -> Response {
    let mut response = see_other(&site.url.join(site.home));
    let clear = site.cookies().clear_console(site.realm);
    response.headers_mut().append(header::SET_COOKIE, clear);
    response
}
