//! Sign-in to our own pages.
//!
//! A sign-in in progress takes no database row: it travels sealed in a cookie of the browser that began it.
//! The identity provider redirects the browser to `/auth/callback`, the only redirect URI registered there,
//! and from there the response is passed on to the pages that began the sign-in.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::realm::{home, own_path};
use super::rights::rights;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::paths;
use crate::oauth::sealed::Purpose;
use crate::oauth::secret::{AccountState, AdminState, ConsoleSession, Secret, new_id};
use crate::storage::{NewSignIn, Realm, SessionUpdate};
use crate::telemetry::audit::Actor;
use crate::upstream::pages::{PagesLogin, PagesWish};
use crate::upstream::{CallbackParams, LoginFailed};
use crate::web::browser::{Browser, see_other};
use crate::web::cookies::{self, Sealed, WEB_SESSION};
use crate::web::locales::SignInWords;
use crate::web::page_error::PageError;
use crate::web::pages::{Message, PageFrame, Style};
use crate::web::params::Params;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInTemplate<'a> {
    frame: PageFrame<'a>,
    w: &'static SignInWords,
    explanation: &'static str,
    action: &'static str,
    go_on: &'a str,
    anew: bool,
    identity_provider: &'a str,
}

/// Returns the page to sign in, with status 401. It leads back to the page `go_on`. `anew`: the person is
/// signed in, but must authenticate again before a destructive action.
pub fn sign_in_page(browser: &Browser, go_on: &str, anew: bool) -> Response {
    let frame = browser.frame();
    let w = &frame.words().sign_in;
    let (explanation, action) = match browser.realm {
        Realm::Admin => (&w.admin, "/sign-in"),
        Realm::Account if go_on.starts_with(paths::CONNECT) => (&w.connect, paths::ACCOUNT_SIGN_IN),
        Realm::Account => (&w.account, paths::ACCOUNT_SIGN_IN),
    };
    let template = SignInTemplate {
        frame,
        w,
        explanation: if anew { &w.again } else { explanation },
        action,
        go_on,
        anew,
        identity_provider: &browser.app.config().upstream.name,
    };
    frame.respond(StatusCode::UNAUTHORIZED, Style::People, template.render())
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
    Some(app.config().admin.as_ref()?.url.join(&format!("/signed-in?{query}")))
}

/// A sign-in in progress, sealed into the browser's cookie.
#[derive(Serialize, Deserialize)]
struct PendingSignIn {
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
    /// Whether the person is to choose another account.
    #[serde(default)]
    other_account: bool,
}

/// Redirects the browser to the identity provider. Afterwards it goes on to the page `go_on`. `anew` asks the
/// provider to authenticate the person again.
pub async fn begin_sign_in(
    browser: &Browser,
    go_on: &str,
    anew: bool,
) -> Result<Response, PageError> {
    begin(browser, &Beginning { anew, ..Beginning::first(browser, go_on) }).await
}

/// The same, and the person can choose another account at the identity provider, which would otherwise sign in the
/// one that it knows.
pub async fn begin_sign_in_as_another(
    browser: &Browser,
    go_on: &str,
) -> Result<Response, PageError> {
    begin(browser, &Beginning { other_account: true, ..Beginning::first(browser, go_on) }).await
}

/// The parameters of a sign-in that is about to begin.
struct Beginning<'a> {
    go_on: &'a str,
    anew: bool,
    expires_at: Timestamp,
    retried: bool,
    /// The `prompt` for the provider, when `anew` is false.
    prompt: Option<&'static str>,
    other_account: bool,
}

impl<'a> Beginning<'a> {
    fn first(browser: &Browser, go_on: &'a str) -> Self {
        let expires_at = browser.app.now().plus(browser.app.config().tokens.login);
        Self { go_on, anew: false, expires_at, retried: false, prompt: None, other_account: false }
    }
}

async fn begin(browser: &Browser, beginning: &Beginning<'_>) -> Result<Response, PageError> {
    let Browser { app, realm, .. } = browser;
    let id = new_id(app.clock());
    let state = match realm {
        Realm::Admin => Secret::<AdminState>::made_by(app.sealer(), &id).expose().to_owned(),
        Realm::Account => Secret::<AccountState>::made_by(app.sealer(), &id).expose().to_owned(),
    };
    let sign_outs = app.storage().sign_outs_so_far().await?;
    let &Beginning { anew, prompt, other_account, .. } = beginning;
    let wish = PagesWish { anew, prompt, other_account };
    let (url, login) = app.upstream().prepare_pages_login(&state, wish).await?;
    let pending = PendingSignIn {
        state,
        login,
        go_on: own_path(*realm, beginning.go_on).unwrap_or(home(*realm)).to_owned(),
        expires_at: beginning.expires_at.unix(),
        sign_outs,
        anew,
        retried: beginning.retried,
        other_account,
    };
    let json = serde_json::to_vec(&pending).unwrap_or_default();
    let sealed = Sealed(app.sealer().seal(Purpose::Consent, context(*realm), &json));
    let set = cookies::SIGN_IN.set(&browser.cookies, realm.as_str(), &sealed);
    Ok((set, see_other(url.as_str())).into_response())
}

fn context(realm: Realm) -> &'static str {
    match realm {
        Realm::Admin => "sign-in/admin",
        Realm::Account => "sign-in/account",
    }
}

/// Finishes a sign-in when the identity provider sends the browser back, and begins the session.
pub async fn finish_sign_in(browser: &Browser) -> Result<Response, PageError> {
    let Browser { app, realm, .. } = browser;
    let foreign = |reason: &str| Message::LoginFromElsewhere.because(reason);
    let params = browser.params().map_err(|_| foreign("unreadable"))?;
    if params.repeats_any(&["code", "state", "iss", "error"]) {
        return Err(foreign("a parameter came twice"));
    }
    let answer = CallbackParams::from(&params);
    let state = params.get("state").ok().flatten();
    let pending = pending_sign_in(browser).filter(|pending| state == Some(pending.state.as_str()));
    let Some(pending) = pending else {
        spend_code(browser, &params).await;
        return Err(foreign("this browser has no such sign-in under way"));
    };
    let expires_at = Timestamp::from_unix(pending.expires_at);
    if app.now() >= expires_at {
        return Err(Message::LoginExpired.because("too late"));
    }
    let permit = match answer.code {
        Some(_) => Some(app.upstream().permit_for_sign_in().await?),
        None => None,
    };
    let id = id_of_state(*realm, &pending.state).unwrap_or_default();
    if !app.storage().use_pages_sign_in(*realm, &id, answer.code, expires_at).await? {
        return Err(Message::LoginUsed.because("the sign-in came back before"));
    }
    let finished = app.upstream().finish_pages_login(&pending.login, answer).await;
    drop(permit);
    let (session, proved_at) = match finished {
        Ok(finished) => finished,
        Err(LoginFailed::Again { prompt, .. }) if !pending.retried => {
            let (go_on, anew) = (pending.go_on.as_str(), pending.anew);
            let other_account = pending.other_account;
            let beginning =
                Beginning { go_on, anew, expires_at, retried: true, prompt, other_account };
            return begin(browser, &beginning).await;
        }
        Err(failed) => return Err(failed.into()),
    };
    let session = SessionUpdate { sign_outs_before: pending.sign_outs, ..session };
    let completed = CompletedLogin { session: &session, proved_at, go_on: &pending.go_on };
    let response = begin_session(browser, &completed).await?;
    let clear = cookies::SIGN_IN.clear(&browser.cookies, realm.as_str());
    Ok((clear, response).into_response())
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
async fn spend_code(browser: &Browser, params: &Params) {
    let Browser { app, realm, .. } = browser;
    let get = |name| params.get(name).ok().flatten();
    let (Some(state), Some(code)) = (get("state"), get("code")) else { return };
    let ours =
        match realm {
            Realm::Admin => Secret::<AdminState>::parse(state)
                .is_some_and(|state| state.is_made_by(app.sealer())),
            Realm::Account => Secret::<AccountState>::parse(state)
                .is_some_and(|state| state.is_made_by(app.sealer())),
        };
    let id = id_of_state(*realm, state).filter(|_| ours && browser.is_navigation());
    let Some(id) = id else { return };
    let expires_at = app.now().plus(app.config().tokens.login);
    if let Err(cause) = app.storage().spend_code(&id, code, expires_at).await {
        tracing::error!(%cause, "a code that another browser brought is not remembered");
    }
}

fn pending_sign_in(browser: &Browser) -> Option<PendingSignIn> {
    let Browser { app, realm, .. } = browser;
    let Sealed(sealed) = cookies::SIGN_IN.get(&browser.cookies, realm.as_str())?;
    let json = app.sealer().open(Purpose::Consent, context(*realm), &sealed).ok()?;
    serde_json::from_slice(&json).ok()
}

/// A sign-in that the identity provider has authenticated.
struct CompletedLogin<'a> {
    session: &'a SessionUpdate,
    proved_at: Timestamp,
    go_on: &'a str,
}

/// Begins the session, unless the person is blocked or these pages are not for them.
async fn begin_session(
    browser: &Browser,
    completed: &CompletedLogin<'_>,
) -> Result<Response, PageError> {
    let Browser { app, realm, cookies, .. } = browser;
    let &CompletedLogin { session, proved_at, go_on } = completed;
    let subject = app.subject(&session.subject);
    let about = |event| {
        let event = app.event(event, Actor::Person).subject(&subject);
        event.with("pages", realm.as_str())
    };
    if app.storage().is_blocked(&subject).await? {
        app.record(about("console_refused").with("reason", "blocked")).await;
        return Err(Message::PersonBlocked.because("the person is blocked"));
    }
    if rights(app, *realm, &subject, &session.person).is_none() {
        app.record(about("console_refused").with("reason", "not an administrator")).await;
        return Err(Message::NotAnAdministrator.because("not an administrator"));
    }
    let now = app.now();
    let token = Secret::<ConsoleSession>::generate(&new_id(app.clock()));
    let new = NewSignIn {
        token: &token,
        realm: *realm,
        session,
        subject: &subject,
        proved_at,
        expires_at: now.plus(WEB_SESSION),
    };
    let before = cookies::SESSION.get(cookies, realm.as_str());
    app.storage().sign_in(&new, before.as_ref(), now, about("console_signed_in")).await?;
    let set = cookies::SESSION.set(cookies, realm.as_str(), &token);
    Ok((set, browser.go(go_on)).into_response())
}
