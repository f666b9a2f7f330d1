//! What a browser gets at our own address and at that of an MCP server: a page that says how to connect an
//! application. It names what the metadata documents name to everybody.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::browser;
use super::pages::{ConnectableServer, LandingPage, PageFrame};
use super::web_session::SignedInPerson;
use super::words::Language;
use crate::app::App;
use crate::config::ResourceConfig;
use crate::storage::Realm;

/// Longest short name of an MCP server, in characters.
const LONGEST_KEY: usize = 40;

/// Returns the page at our own address.
pub fn ours(app: &App, frame: PageFrame<'_>, visitor: Option<&SignedInPerson>) -> Response {
    let usable = |resource: &&ResourceConfig| {
        visitor.is_none_or(|visitor| resource.policy.lets_in(&visitor.person.facts))
    };
    let servers: Vec<ConnectableServer> =
        app.config().resources.iter().filter(usable).map(connectable).collect();
    let person = visitor.map(|SignedInPerson { person, session, .. }| {
        let name = person.name.as_deref().or(person.email.as_deref());
        name.unwrap_or(&session.subject)
    });
    page(app, frame, false, (&servers, person)).render(StatusCode::OK)
}

/// Returns the language of the page at the address of an MCP server, if a browser asks for one. An MCP client asks
/// for JSON or an event stream, and a program that takes anything gets what clients get.
pub fn asked_for(app: &App, method: &Method, headers: &HeaderMap) -> Option<Language> {
    let asks = *method == Method::GET
        && app.config().landing
        && !headers.contains_key(header::AUTHORIZATION)
        && !headers.contains_key(header::ORIGIN)
        && headers.get(header::ACCEPT).is_some_and(prefers_html);
    asks.then(|| browser::language(app, Realm::Account, headers))
}

/// Returns whether HTML is the first that `Accept` names, and neither JSON nor an event stream is named.
fn prefers_html(accept: &HeaderValue) -> bool {
    let names = |wanted: &str, range: &str| {
        range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
    };
    let mut ranges = accept.to_str().unwrap_or_default().split(',');
    ranges.next().is_some_and(|first| names("text/html", first))
        && !ranges
            .any(|range| names("application/json", range) || names("text/event-stream", range))
}

/// Returns the page at the address of an MCP server, with this status.
pub fn of_server(
    app: &App,
    resource: &ResourceConfig,
    language: Language,
    status: StatusCode,
) -> Response {
    let frame = browser::frame(app, Realm::Account, language, false);
    page(app, frame, true, (&[connectable(resource)], None)).render(status)
}

fn page<'a>(
    app: &'a App,
    frame: PageFrame<'a>,
    of_server: bool,
    (servers, person): (&'a [ConnectableServer], Option<&'a str>),
) -> LandingPage<'a> {
    let config = app.config();
    LandingPage {
        frame,
        of_server,
        servers,
        person,
        only_here: config.public_url.is_loopback(),
        identity_provider: &config.upstream.name,
    }
}

fn connectable(resource: &ResourceConfig) -> ConnectableServer {
    let url = resource.id.clone();
    let key = key_of(resource);
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // Both open the program itself: no website in between learns of the server.
    let cursor = encoded(&STANDARD.encode(json!({ "url": url }).to_string()));
    let vscode = encoded(&json!({ "name": key, "type": "http", "url": url }).to_string());
    ConnectableServer {
        name: resource.name.clone(),
        cursor: format!(
            "cursor://anysphere.cursor-deeplink/mcp/install?name={}&config={cursor}",
            encoded(&key)
        ),
        vscode: format!("vscode:mcp/install?{vscode}"),
        url,
        key,
    }
}

/// Returns a short name for the server: its name in ASCII, otherwise the last part of its path, otherwise `mcp`.
fn key_of(resource: &ResourceConfig) -> String {
    let last = resource.id.trim_end_matches('/').rsplit('/').next();
    let names = [resource.name.as_deref(), last];
    let keys = names.into_iter().flatten().map(slug);
    keys.into_iter().find(|key| !key.is_empty()).unwrap_or_else(|| "mcp".to_owned())
}

/// Returns the ASCII letters and digits of a name, in lower case, with hyphens for the rest; empty if the name has
/// other letters, because leaving these out could make another name of it.
fn slug(name: &str) -> String {
    if name.chars().any(|c| !c.is_ascii() && c.is_alphanumeric()) {
        return String::new();
    }
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(LONGEST_KEY).collect::<String>().trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_asks_for_html_first_and_an_mcp_client_does_not() {
        let prefers = |accept| prefers_html(&HeaderValue::from_static(accept));
        for browser in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "Text/HTML; charset=utf-8, */*",
        ] {
            assert!(prefers(browser), "{browser}");
        }
        for client in [
            "",
            "*/*",
            "text/event-stream",
            "application/json, text/event-stream",
            "text/event-stream, application/json, text/html",
            "text/html, application/json",
            "text/html;q=0.5, text/event-stream",
            "application/xhtml+xml, text/html",
            "text/html-ish",
        ] {
            assert!(!prefers(client), "{client}");
        }
    }

    #[test]
    fn a_short_name_is_plain_and_never_half_of_another() {
        for (name, key) in [
            ("To-do list", "to-do-list"),
            ("  Notes & more!  ", "notes-more"),
            ("mcp", "mcp"),
            ("$(rm -rf /)", "rm-rf"),
            ("日本語 notes", ""),
            ("Überblick", ""),
            ("“quoted”", "quoted"),
            ("…", ""),
        ] {
            assert_eq!(slug(name), key, "{name}");
        }
        let long = slug(&"a-".repeat(100));
        assert!(long.len() <= LONGEST_KEY && !long.ends_with('-'), "{long}");
    }
}
