//! `/account`: lists a signed-in person's own connected applications. The handlers take the person from the
//! web session only, never from a form field (threat AD-03).

use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::app::App;
use crate::config::{InForce, ResourceConfig, paths};
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::oauth::scope::ScopeSet;
use crate::storage::{ConnectedClient, Ended, Ending};
use crate::telemetry::audit::Actor;
use crate::web::browser::{Browser, BrowserForm, PageRequest};
use crate::web::in_force::{ApprovedScopes, OfGrant};
use crate::web::list_page::Frame;
use crate::web::locales::AccountWords;
use crate::web::page_error::PageError;
use crate::web::params::Params;
use crate::web::times::local;
use crate::web::web_session::{self, SignedInPerson};
use crate::web::words::Language;

/// The first of these pages.
const HOME: &str = paths::ACCOUNT;

/// The act that a confirmation is bound to, see [`web_session::confirmation`].
const EVERYWHERE: &str = "sign out everywhere";

/// A connected client, prepared for display.
struct AccountPage {
    row: ConnectedClient,
    name: String,
    suspicious: bool,
    verified: bool,
    goes_to: Vec<(String, bool)>,
    resource_name: Option<String>,
    /// Each approved scope, with its configured description.
    scopes: Vec<(String, Option<String>)>,
    /// The scopes in force now, in the same form. When there are none, `nothing` says why.
    in_force: Vec<(String, Option<String>)>,
    nothing: Option<&'static str>,
    facts_note: Option<String>,
    since: String,
    last_used: String,
    disconnect: String,
}

impl AccountPage {
    fn of(app: &App, language: Language, row: ConnectedClient) -> Self {
        let (w, brand) = (&language.words().account, &app.config().branding);
        let metadata = row.client_metadata.as_deref().map(ClientMetadata::from_stored_json);
        let metadata = metadata.and_then(Result::ok);
        let name = DisplayName::of(metadata.as_ref().and_then(|m| m.client_name.as_deref()));
        let unnamed = if metadata.is_some() { &w.unnamed } else { &w.gone };
        let shown_name = name.text.unwrap_or_else(|| unnamed.clone());
        let mut goes_to: Vec<(String, bool)> = Vec::new();
        for uri in metadata.iter().flat_map(|metadata| &metadata.redirect_uris) {
            let to = destination(uri.as_str());
            let one = (to.to_string(), !matches!(to, Destination::Https { .. }));
            if !goes_to.contains(&one) {
                goes_to.push(one);
            }
        }
        let resource = app.resource(&row.resource);
        let known = resource.map(|resource| resource.scopes.as_slice()).unwrap_or_default();
        let told = |scopes: &ScopeSet| {
            let told = scopes.iter().map(|scope| {
                let known = known.iter().find(|known| known.scope == *scope);
                let text = known.and_then(|known| known.text_in(language.tag()));
                (scope.to_string(), text.map(str::to_owned))
            });
            told.collect::<Vec<_>>()
        };
        let now = in_force_now(app, &row);
        Self {
            suspicious: name.suspicious,
            // A program on a device is never "verified", as on the consent page: any other program can take
            // its redirect URI.
            verified: row.trusted && goes_to.iter().all(|(_, on_device)| !on_device),
            goes_to,
            resource_name: resource.and_then(|resource| resource.name.clone()),
            scopes: told(&row.scopes),
            in_force: told(&now.in_force.scopes()),
            nothing: match now.in_force {
                InForce::Scopes(_) => None,
                InForce::Nothing => Some(&w.nothing),
                InForce::ServerGone => Some(&w.server_gone),
            },
            facts_note: now.old_facts.map(|at| w.as_of.with(local(at, brand))),
            since: local(row.since, brand),
            last_used: local(row.last_used_at, brand),
            disconnect: w.disconnect_what.with(&shown_name),
            name: shown_name,
            row,
        }
    }
}

/// Combines all approvals of a connection. When the facts behind them differ in age, the oldest time is
/// shown.
fn in_force_now(app: &App, row: &ConnectedClient) -> OfGrant {
    let mut now = OfGrant { in_force: InForce::Nothing, old_facts: None };
    for one in &row.approvals {
        let approved = ApprovedScopes {
            resource: &row.resource,
            client_id: &row.client_id,
            scopes: &one.scopes,
            facts: &one.facts,
            facts_at: one.facts_at,
        };
        let of = OfGrant::by(app.config(), &approved, app.now());
        now.in_force = match now.in_force {
            InForce::Nothing => of.in_force,
            known => known.or(of.in_force),
        };
        now.old_facts = [now.old_facts, of.old_facts].into_iter().flatten().min();
    }
    now
}

#[derive(Template)]
#[template(path = "account/confirm.html")]
struct SignOutTemplate<'a> {
    frame: &'a Frame,
    w: &'static AccountWords,
    connections: Vec<AccountPage>,
    any: bool,
    number: String,
    token: String,
    home: String,
}

#[derive(Template)]
#[template(path = "account/connections.html")]
struct AccountTemplate<'a> {
    frame: &'a Frame,
    w: &'static AccountWords,
    /// How long a connection lasts.
    lasts: String,
    /// Whether there is a page that says how to connect.
    landing: bool,
    /// Whether MCP servers act in other services as people.
    services: bool,
    connections: Vec<AccountPage>,
}

/// A signed-in person requests a page.
pub(super) struct AccountVisit {
    browser: Browser,
    visitor: SignedInPerson,
}

/// A signed-in person submits a form of one of these pages. Origin and CSRF token are checked.
pub(super) struct AccountForm {
    visit: AccountVisit,
    form: Params,
}

impl PageRequest for AccountVisit {
    async fn of(browser: Browser, _: Body) -> Result<Self, PageError> {
        let visitor = web_session::enter(&browser, HOME).await?;
        Ok(Self { browser, visitor })
    }
}

impl PageRequest for AccountForm {
    async fn of(browser: Browser, body: Body) -> Result<Self, PageError> {
        let sent = BrowserForm::of(browser, body).await?;
        let (browser, visitor, form) = web_session::read_form_of_session(sent, HOME).await?;
        Ok(Self { visit: AccountVisit { browser, visitor }, form })
    }
}

impl AccountForm {
    /// Returns a form field, empty if it is absent or repeated.
    fn field(&self, name: &str) -> &str {
        self.form.get(name).ok().flatten().unwrap_or_default()
    }
}

/// `GET /account`.
pub(super) async fn get(visit: AccountVisit) -> Result<Response, PageError> {
    let AccountVisit { browser, visitor } = &visit;
    let app = &browser.app;
    let connections = app.storage().connected_clients(&visitor.session.subject, app.now()).await?;
    let mut frame = Frame::new(browser, visitor);
    let w = &frame.language.words().account;
    frame.notice = match browser.query() {
        "done=disconnected" => Some(w.disconnected.clone()),
        "done=not_there" => Some(w.not_there.clone()),
        _ => None,
    };
    let connections =
        connections.into_iter().map(|row| AccountPage::of(app, frame.language, row)).collect();
    let tokens = &app.config().tokens;
    let lasts = w.lasts.with(period(w, tokens.refresh_idle), period(w, tokens.refresh_absolute));
    let landing = app.config().landing;
    let services = app.config().resources.iter().any(ResourceConfig::wants_upstream);
    let template = AccountTemplate { frame: &frame, w, lasts, landing, services, connections };
    Ok(frame.answer(template.render()))
}

/// Returns a period in words: in days if it is two days or more, otherwise in hours, rounded down.
fn period(w: &AccountWords, period: Duration) -> String {
    const HOUR: u64 = 60 * 60;
    match period.as_secs() / HOUR {
        0 | 1 => w.one_hour.clone(),
        hours if hours < 48 => w.hours.with(hours),
        hours => w.days.with(hours / 24),
    }
}

/// `POST /account/sign-in`.
pub(super) async fn sign_in(sent: BrowserForm) -> Result<Response, PageError> {
    let (browser, form) = web_session::read_form(sent).await?;
    let field = |name| form.get(name).ok().flatten();
    // Leads to a page of this realm only, whatever the form says.
    let go_on = field("go_on").unwrap_or(HOME);
    match field("account") {
        Some("other") => web_session::begin_sign_in_as_another(&browser, go_on).await,
        _ => web_session::begin_sign_in(&browser, go_on, false).await,
    }
}

/// `GET /account/signed-in`: finishes the sign-in when the browser comes back from the identity provider.
pub(super) async fn signed_in(browser: Browser) -> Result<Response, PageError> {
    web_session::finish_sign_in(&browser).await
}

/// `POST /account/disconnect`: disconnects one application from one MCP server.
pub(super) async fn disconnect(form: AccountForm) -> Result<Response, PageError> {
    let AccountVisit { browser, visitor } = &form.visit;
    let (app, subject) = (&browser.app, &visitor.session.subject);
    let (client, server) = (form.field("client"), form.field("server"));
    let event = app.event("grants_revoked", Actor::Person);
    let ended = app.storage().disconnect(subject, client, server, app.now(), event).await?;
    let done = if ended > 0 { "disconnected" } else { "not_there" };
    Ok(browser.go(&format!("{HOME}?done={done}")))
}

/// `POST /account/sign-out`: ends this browser's web session, and the provider's session too if the provider
/// has a logout page.
pub(super) async fn sign_out(form: AccountForm) -> Result<Response, PageError> {
    let AccountVisit { browser, visitor } = &form.visit;
    let response = web_session::sign_out(browser, visitor).await?;
    Ok(log_out_at_provider(&form.visit, response).await)
}

/// `GET /account/confirm`: shows what signing out everywhere would end.
pub(super) async fn confirm(visit: AccountVisit) -> Result<Response, PageError> {
    let AccountVisit { browser, visitor } = &visit;
    let app = &browser.app;
    let (subject, now) = (&visitor.session.subject, app.now());
    let counted = app.storage().count_ending(&Ending::SignOut(subject.clone()), now).await?;
    let connections = app.storage().connected_clients(subject, now).await?;
    let mut frame = Frame::new(browser, visitor);
    let language = frame.language;
    let w = &language.words().account;
    if browser.query() == "changed=1" {
        frame.notice = Some(w.changed.clone());
    }
    let template = SignOutTemplate {
        w,
        connections: connections
            .into_iter()
            .map(|row| AccountPage::of(app, language, row))
            .collect(),
        any: counted.grants > 0,
        number: match counted.grants {
            1 => w.one_connection.clone(),
            grants => w.connections.with(grants),
        },
        token: web_session::confirmation(app, visitor, EVERYWHERE, &counted),
        home: browser.url().join(HOME),
        frame: &frame,
    };
    Ok(frame.answer(template.render()))
}

/// `POST /account/sign-out-everywhere`: ends every grant and every session of this person.
pub(super) async fn sign_out_everywhere(form: AccountForm) -> Result<Response, PageError> {
    let AccountVisit { browser, visitor } = &form.visit;
    let (app, subject) = (&browser.app, &visitor.session.subject);
    let sent = form.field("counted");
    if sent.is_empty() {
        return Ok(browser.go(paths::ACCOUNT_CONFIRM));
    }
    let again = || browser.go(&format!("{}?changed=1", paths::ACCOUNT_CONFIRM));
    let now = app.now();
    let counted = app.storage().count_ending(&Ending::SignOut(subject.clone()), now).await?;
    if !web_session::is_confirmed(app, visitor, EVERYWHERE, &counted, sent) {
        return Ok(again());
    }
    let event = app.event("person_signed_out", Actor::Person);
    let reason = "the person signed out everywhere";
    let ended = app.storage().sign_out_as_counted(subject, reason, Some(&counted), now, event);
    if ended.await? == Ended::Recounted {
        return Ok(again());
    }
    Ok(log_out_at_provider(&form.visit, web_session::signed_out(browser)).await)
}

/// Redirects the browser to the provider's logout page if the provider has one. Our own sessions have ended
/// before. The provider sends the browser back to us if our address is registered there as a logout
/// redirect.
async fn log_out_at_provider(visit: &AccountVisit, mut response: Response) -> Response {
    let AccountVisit { browser, visitor } = visit;
    let home = browser.url().join(HOME);
    match browser.app.upstream().end_session_url(&visitor.session.session_id, &home).await {
        Ok(Some(url)) => {
            if let Ok(url) = HeaderValue::from_str(url.as_str()) {
                response.headers_mut().insert(header::LOCATION, url);
            }
        }
        Ok(None) => {}
        Err(cause) => tracing::error!(%cause, "the provider's logout page is not known now"),
    }
    response
}
