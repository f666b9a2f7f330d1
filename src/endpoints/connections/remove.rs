//! Disconnects a service: a page that says what stops working, and the button on it.

use askama::Template;
use axum::response::Response;

use super::ServiceVisit;
use super::wanted::UsingServer;
use crate::config::paths;
use crate::storage::{Connection, Counted};
use crate::telemetry::audit::Actor;
use crate::web::browser::BrowserForm;
use crate::web::list_page::Frame;
use crate::web::locales::{AccountWords, ServicesWords};
use crate::web::page_error::PageError;
use crate::web::web_session;

#[derive(Template)]
#[template(path = "account/disconnect_service.html")]
struct DisconnectTemplate<'a> {
    frame: &'a Frame,
    w: &'static ServicesWords,
    account: &'static AccountWords,
    name: &'a str,
    /// Display name of the service.
    service: &'a str,
    /// Display names of the MCP servers that use it.
    servers: Vec<&'a str>,
    /// Binds the button to what the page shows.
    token: String,
}

/// Returns the act that a confirmation is bound to, see [`web_session::confirmation`]: the disconnection of the account
/// that the person saw.
fn act(connection: &Connection) -> String {
    let Connection { id, name, created_at, .. } = connection;
    format!("disconnect {name} {id} {}", created_at.unix())
}

/// `GET /account/connections/confirm`: says what stops working.
pub(super) async fn confirm(visit: ServiceVisit) -> Result<Response, PageError> {
    let ServiceVisit { browser, visitor } = &visit;
    let app = &browser.app;
    let query = browser.params().unwrap_or_default();
    let name = query.get("name").ok().flatten().unwrap_or_default();
    let stored = app.storage().connection(visit.subject(), name).await?;
    let Some(stored) = stored else {
        return Ok(browser.go(&done("not_there")));
    };
    let mut frame = Frame::new(browser, visitor);
    let words = frame.language.words();
    if query.get("changed") == Ok(Some("1")) {
        frame.notice = Some(words.account.changed.clone());
    }
    let config = app.config();
    let servers = UsingServer::all(config, name, &visitor.person.facts);
    let template = DisconnectTemplate {
        w: &words.services,
        account: &words.account,
        name,
        service: config.connection(name).map_or(name, |connection| &connection.title),
        servers: servers.iter().map(UsingServer::shown).collect(),
        token: web_session::confirmation(app, visitor, &act(&stored), &Counted::default()),
        frame: &frame,
    };
    Ok(frame.answer(template.render()))
}

/// `POST /account/connections/remove`: disconnects the service, if the form comes from the page that said what that
/// means. Otherwise it shows that page.
pub(super) async fn post(sent: BrowserForm) -> Result<Response, PageError> {
    let here = paths::ACCOUNT_CONNECTIONS;
    let (browser, visitor, form) = web_session::read_form_of_session(sent, here).await?;
    let (app, subject) = (&browser.app, visitor.session.subject.as_str());
    let field = |name| form.get(name).ok().flatten().unwrap_or_default();
    let (name, sent) = (field("name"), field("confirmed"));
    let Some(stored) = app.storage().connection(subject, name).await? else {
        return Ok(browser.go(&done("not_there")));
    };
    let confirmed =
        web_session::is_confirmed(app, &visitor, &act(&stored), &Counted::default(), sent);
    if !confirmed {
        return Ok(browser.go(&asking(name, !sent.is_empty())));
    }
    let event = app
        .event("connection_removed", Actor::Person)
        .subject(subject)
        .with("connection", stored.name.as_str());
    let removed = app.storage().remove_connection(subject, name, app.now(), event).await?;
    if removed {
        app.revoke_soon();
    }
    Ok(browser.go(&done(if removed { "disconnected" } else { "not_there" })))
}

/// Returns the path and the query of the list, with a notice.
fn done(what: &str) -> String {
    format!("{}?done={what}", paths::ACCOUNT_CONNECTIONS)
}

/// Returns the path and the query of the page that says what stops working. `changed`: the person saw something else.
fn asking(name: &str, changed: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", name);
    if changed {
        query.append_pair("changed", "1");
    }
    format!("{}?{}", paths::ACCOUNT_CONNECTIONS_CONFIRM, query.finish())
}
