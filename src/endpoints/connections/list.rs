//! `GET /account/connections`: the services of a signed-in person. The person is taken from the web session only,
//! never from a form field (threat AD-03).

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::response::Response;

use super::ServiceVisit;
use super::wanted::{Held, UsingServer, shown};
use crate::clock::Timestamp;
use crate::config::{Config, ConnectionConfig, paths};
use crate::policy::Facts;
use crate::storage::Connection;
use crate::web::list_page::Frame;
use crate::web::locales::ServicesWords;
use crate::web::page_error::PageError;
use crate::web::times::{iso, local};
use crate::web::words::Language;

/// How far a service of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CardStanding {
    Connected,
    Broken,
    NotConnected,
    /// It is connected, and no longer in the configuration.
    Gone,
}

/// A service, prepared for display.
struct ServiceCard {
    name: String,
    /// Display name of the service.
    title: String,
    standing: CardStanding,
    /// The account at the service, if it is known.
    account: Option<String>,
    /// Display names of the MCP servers that use it.
    servers: Vec<String>,
    /// Texts of the scopes: those that the person allowed, or those that are asked for.
    scopes: Vec<String>,
    /// Texts of the scopes that are asked for and not allowed.
    missing: Vec<String>,
    /// When it was connected and last used; `None` if it is not connected.
    times: Option<CardTimes>,
    /// The texts of the link to the page that connects it, if there is anything to connect.
    link: Option<CardLink>,
    /// Name of the button that disconnects it, for those who do not see where it is.
    disconnect: String,
}

/// The times of a connection.
struct CardTimes {
    since: CardTime,
    /// `None`: it was never used.
    used: Option<CardTime>,
}

/// A time, for people and for programs.
struct CardTime {
    text: String,
    iso: String,
}

/// The link to the page that connects a service.
struct CardLink {
    text: &'static str,
    /// The same with the name of the service.
    what: String,
    path: String,
}

#[derive(Template)]
#[template(path = "account/services.html")]
struct ServicesTemplate<'a> {
    frame: &'a Frame,
    w: &'static ServicesWords,
    cards: Vec<ServiceCard>,
    /// Display name of the identity provider.
    provider: &'a str,
    /// Display names of the MCP servers that use the sign-in itself.
    own: Vec<&'a str>,
}

/// `GET /account/connections`.
pub(super) async fn get(visit: ServiceVisit) -> Result<Response, PageError> {
    let ServiceVisit { browser, visitor } = &visit;
    let (app, facts) = (&browser.app, &visitor.person.facts);
    let config = app.config();
    let stored = app.storage().connections_of(visit.subject()).await?;
    let mut stored: BTreeMap<String, Connection> =
        stored.into_iter().map(|stored| (stored.name.clone(), stored)).collect();
    let mut frame = Frame::new(browser, visitor);
    let w = &frame.language.words().services;
    frame.notice = match browser.query() {
        "done=disconnected" => Some(w.disconnected.clone()),
        "done=not_there" => Some(w.not_there.clone()),
        _ => None,
    };
    let of = CardContext { config, facts, w, language: frame.language };
    let mut cards = Vec::new();
    for connection in &config.connections {
        let key = app.connections().provider_key(&connection.name);
        let held = Held::new(connection, stored.remove(&connection.name), &key);
        cards.extend(of.card(connection, &held));
    }
    cards.extend(stored.values().map(|gone| of.gone(gone)));
    let own = config.resources.iter().filter(|resource| resource.upstream_token.is_some());
    let own = own.filter(|resource| resource.policy.lets_in(facts)).map(shown).collect();
    let provider = &config.upstream.name;
    let template = ServicesTemplate { frame: &frame, w, cards, provider, own };
    Ok(frame.answer(template.render()))
}

/// What all cards of a page need.
struct CardContext<'a> {
    config: &'a Config,
    facts: &'a Facts,
    w: &'static ServicesWords,
    language: Language,
}

impl CardContext<'_> {
    /// Returns the card of a configured service. `None` if it is not connected and no MCP server uses it for this person.
    fn card(&self, connection: &ConnectionConfig, held: &Held<'_>) -> Option<ServiceCard> {
        let w = self.w;
        let servers = UsingServer::all(self.config, &connection.name, self.facts);
        let standing = if held.works() {
            CardStanding::Connected
        } else if held.is_broken() {
            CardStanding::Broken
        } else if servers.is_empty() {
            return None;
        } else {
            CardStanding::NotConnected
        };
        let wanted: BTreeSet<&str> =
            servers.iter().flat_map(|server| server.scopes).map(String::as_str).collect();
        let lacking = held.lacks(&wanted);
        let texts = |scopes: &[&str]| -> Vec<String> {
            let tag = self.language.tag();
            scopes.iter().map(|scope| connection.scope_text(scope, tag).to_owned()).collect()
        };
        let allowed: Vec<&str> = held
            .stored()
            .map(|stored| stored.scopes.iter().map(String::as_str).collect())
            .unwrap_or_default();
        let link = match standing {
            CardStanding::NotConnected => Some((&w.connect, &w.connect_what)),
            CardStanding::Broken if !servers.is_empty() => Some((&w.reconnect, &w.reconnect_what)),
            CardStanding::Connected if !lacking.is_empty() => {
                Some((&w.allow_more, &w.allow_more_what))
            }
            _ => None,
        };
        let (scopes, missing) = match standing {
            CardStanding::Connected => (texts(&allowed), texts(&lacking)),
            CardStanding::NotConnected => (texts(&lacking), Vec::new()),
            CardStanding::Broken | CardStanding::Gone => (texts(&allowed), Vec::new()),
        };
        Some(ServiceCard {
            name: connection.name.clone(),
            title: connection.title.clone(),
            standing,
            account: held.stored().and_then(|stored| stored.account_label.clone()),
            servers: servers.iter().map(|server| server.shown().to_owned()).collect(),
            scopes,
            missing,
            times: held.stored().map(|stored| self.times(stored)),
            link: link.map(|(text, what)| CardLink {
                text,
                what: what.with(&connection.title),
                path: paths::connect(&connection.name),
            }),
            disconnect: w.disconnect_what.with(&connection.title),
        })
    }

    /// Returns the card of a service that is connected, and no longer in the configuration.
    fn gone(&self, stored: &Connection) -> ServiceCard {
        ServiceCard {
            name: stored.name.clone(),
            title: stored.name.clone(),
            standing: CardStanding::Gone,
            account: stored.account_label.clone(),
            servers: Vec::new(),
            scopes: stored.scopes.iter().cloned().collect(),
            missing: Vec::new(),
            times: Some(self.times(stored)),
            link: None,
            disconnect: self.w.disconnect_what.with(&stored.name),
        }
    }

    fn times(&self, stored: &Connection) -> CardTimes {
        let brand = &self.config.branding;
        let time = |at: Timestamp| CardTime { text: local(at, brand), iso: iso(at) };
        CardTimes { since: time(stored.created_at), used: stored.used_at.map(time) }
    }
}

impl ServiceCard {
    fn is_connected(&self) -> bool {
        self.standing == CardStanding::Connected
    }

    fn is_broken(&self) -> bool {
        self.standing == CardStanding::Broken
    }

    fn is_gone(&self) -> bool {
        self.standing == CardStanding::Gone
    }
}
