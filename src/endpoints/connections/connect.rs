//! `/connect/{name}`: shows what connecting a service means, and starts it.

use std::collections::BTreeSet;

use axum::response::{IntoResponse, Response};

use super::wanted::{Held, UsingServer, shown};
use super::{ServiceVisit, explain};
use crate::config::{ConnectionConfig, paths};
use crate::connections::ConnectStart;
use crate::oauth::secret::{BrowserBinding, ConnectState, Secret, new_id, random_text};
use crate::storage::{AttemptRequest, Begun, NewAttempt};
use crate::telemetry::new_reference;
use crate::web::browser::{BrowserForm, see_other};
use crate::web::cookies::{self, CONNECT_ATTEMPT};
use crate::web::page_error::PageError;
use crate::web::pages::{
    ConnectNews, ConnectPage, ConnectServer, ConnectStanding, Message, TooMany,
};
use crate::web::params::Params;
use crate::web::web_session;

/// What a person is about to connect.
struct Wish<'a> {
    connection: &'a ConnectionConfig,
    /// The MCP server that the person comes from; `None` if they come by themselves.
    server: Option<UsingServer<'a>>,
    /// All MCP servers that will use the connection.
    servers: Vec<UsingServer<'a>>,
    held: Held<'a>,
}

impl Wish<'_> {
    /// Returns the scopes that are needed: by the MCP server that the person comes from, otherwise by all.
    fn needed(&self) -> BTreeSet<&str> {
        let asking = self.server.as_ref().map_or(self.servers.as_slice(), std::slice::from_ref);
        asking.iter().flat_map(|server| server.scopes).map(String::as_str).collect()
    }

    fn standing(&self) -> ConnectStanding {
        if self.held.is_broken() {
            ConnectStanding::Again
        } else if !self.held.works() {
            ConnectStanding::First
        } else if self.held.lacks(&self.needed()).is_empty() {
            ConnectStanding::Done
        } else {
            ConnectStanding::More
        }
    }

    /// Returns the path and the query of the page.
    fn page(&self) -> String {
        let name = self.connection.name.as_str();
        match &self.server {
            Some(server) => paths::connect_for(name, &server.resource.id),
            None => paths::connect(name),
        }
    }
}

/// Finds out what the person is about to connect. Otherwise returns the page that says why they cannot.
async fn wish<'a>(visit: &'a ServiceVisit, wanted_by: Option<&str>) -> Result<Wish<'a>, PageError> {
    let ServiceVisit { browser, visitor } = visit;
    let (app, facts) = (&browser.app, &visitor.person.facts);
    let name = paths::connects(browser.path()).unwrap_or_default();
    let unknown = |reason: &str| Message::ConnectUnknown.because(reason);
    let connection = app.config().connection(name);
    let connection = connection.ok_or_else(|| unknown("there is no connection of this name"))?;
    let servers = UsingServer::all(app.config(), name, facts);
    let not_for_you =
        || Message::ConnectNotForYou.because("the rules give the person no use of it");
    let server = match wanted_by {
        None if servers.is_empty() => return Err(not_for_you()),
        None => None,
        Some(presented) => {
            let resource = app.resource_named(presented);
            let resource = resource.ok_or_else(|| unknown("there is no such MCP server"))?;
            if resource.connection_to(name).is_none() {
                return Err(unknown("the MCP server does not use the connection"));
            }
            if !resource.policy.lets_in(facts) {
                return Err(no_access(visit, shown(resource)).into());
            }
            Some(UsingServer::of(resource, name, facts).ok_or_else(not_for_you)?)
        }
    };
    let stored = app.storage().connection(visit.subject(), name).await?;
    let held = Held::new(connection, stored, &app.connections().provider_key(name));
    Ok(Wish { connection, server, servers, held })
}

/// Returns the page for a person who may not use an MCP server at all.
fn no_access(visit: &ServiceVisit, server: &str) -> Response {
    let reference = new_reference();
    tracing::info!(
        reference,
        server,
        "a link to connect a service came to a person without access"
    );
    let message =
        Message::NoAccess { person: Some(visit.person()), resource: server, missing: &[] };
    visit.browser.message_about(message, &reference)
}

/// `GET /connect/{name}`.
pub(super) async fn get(visit: ServiceVisit) -> Result<Response, PageError> {
    let query = visit.browser.params();
    let query = query.map_err(|refused| Message::ConnectUnknown.because(refused))?;
    let wish = wish(&visit, query.get("for").ok().flatten()).await?;
    Ok(show(&visit, &wish, news(&query)))
}

/// Reads what the callback added to the query. It only chooses among sentences.
fn news(query: &Params) -> ConnectNews {
    let says = |name: &str, value: &str| query.get(name).is_ok_and(|said| said == Some(value));
    ConnectNews {
        refused: says("came", "refused"),
        partial: says("came", "partial"),
        other_account: says("account", "other"),
    }
}

fn show(visit: &ServiceVisit, wish: &Wish<'_>, news: ConnectNews) -> Response {
    let ServiceVisit { browser, visitor } = visit;
    let (connection, standing) = (wish.connection, wish.standing());
    let lacking = wish.held.lacks(&wish.needed());
    let language = browser.language.tag();
    let texts = lacking.iter().map(|scope| connection.scope_text(scope, language));
    let scopes: Vec<&str> = texts.collect();
    let servers: Vec<&str> = wish.servers.iter().map(UsingServer::shown).collect();
    let server =
        wish.server.map(|server| ConnectServer { name: server.shown(), id: &server.resource.id });
    let stored = wish.held.stored().filter(|_| wish.held.works());
    let page = ConnectPage {
        frame: browser.frame(),
        standing,
        service: &connection.title,
        person: visit.person(),
        news: ConnectNews { other_account: news.other_account && wish.held.works(), ..news },
        server,
        account: stored.and_then(|stored| stored.account_label.as_deref()),
        scopes: &scopes,
        servers: &servers,
        name: &connection.name,
        csrf: &visitor.csrf,
    };
    page.render()
}

/// `POST /connect/{name}`: starts an attempt, and redirects the browser to the service.
pub(super) async fn post(sent: BrowserForm) -> Result<Response, PageError> {
    let here = sent.browser.path().to_owned();
    let (browser, visitor, form) = web_session::read_form_of_session(sent, &here).await?;
    let visit = ServiceVisit { browser, visitor };
    let wish = wish(&visit, form.get("for").ok().flatten()).await?;
    if wish.standing() == ConnectStanding::Done {
        // Nothing is left to ask for: another tab was faster.
        return Ok(visit.browser.go(&wish.page()));
    }
    let started = start(&visit, &wish).await;
    started.map_err(|error| error.beginning_at(&wish.page()))
}

async fn start(visit: &ServiceVisit, wish: &Wish<'_>) -> Result<Response, PageError> {
    let ServiceVisit { browser, visitor } = visit;
    let (app, name) = (&browser.app, wish.connection.name.as_str());
    let id = new_id(app.clock());
    let (state, binding) =
        (Secret::<ConnectState>::generate(&id), Secret::<BrowserBinding>::generate(&id));
    let scopes: Vec<String> =
        wish.held.with(&wish.needed()).into_iter().map(str::to_owned).collect();
    let request =
        AttemptRequest { verifier: random_text(), nonce: random_text(), return_to: wish.page() };
    let redirect_uri = app.config().public_url.join(&paths::connect_callback(name));
    let start = ConnectStart {
        name,
        scopes: &scopes,
        state: &state,
        verifier: &request.verifier,
        nonce: &request.nonce,
        redirect_uri: &redirect_uri,
        has_refresh: wish.held.has_refresh(),
    };
    // Nothing is stored if the service is not known now.
    let url = app.connections().authorize_url(&start).await.map_err(|failed| explain(&failed))?;
    let now = app.now();
    let new = NewAttempt {
        state: &state,
        binding: binding.hash(),
        subject: visit.subject(),
        web_session_id: &visitor.session.id,
        name,
        scopes: &scopes.iter().cloned().collect(),
        resource: wish.server.map_or("", |server| server.resource.id.as_str()),
        request: &request,
        expires_at: now.plus(CONNECT_ATTEMPT),
    };
    if let Begun::TooMany { free_at } = app.storage().begin_connection(&new, now).await? {
        let seconds = free_at.since(now).as_secs().max(1);
        let message = Message::TooMany { what: TooMany::Connects, seconds };
        return Err(message.because("the person has too many open attempts to connect a service"));
    }
    let evicted = cookies::CONNECT.evict(&browser.cookies, &id);
    let set = cookies::CONNECT.set(&browser.cookies, &id, &binding);
    Ok((evicted.and(set), see_other(url.as_str())).into_response())
}
