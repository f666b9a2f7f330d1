//! Tells a client that its person has to connect a service first, in the shape that the client understands.
//!
//! There are three: a result that asks for input (MCP 2026-07-28), the error -32042 (MCP 2025-11-25), and plain
//! words with the link, which every client shows. The link leads to our own page, for anybody who is signed
//! in there: it carries no secret, and says nothing about the person.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::authenticate::Caller;
use super::challenge::ServiceRefused;
use super::elicitation::LinkShape;
use super::messages::method;
use super::request_state;
use super::sent_tokens::server_name;
use crate::app::App;
use crate::config::{ResourceConfig, ResourceConnection, paths};
use crate::oauth::secret::new_id;
use crate::telemetry::audit::Actor;

/// JSON-RPC error code: URL elicitation required (MCP 2025-11-25).
const URL_REQUIRED: i32 = -32042;
/// JSON-RPC error code for a `prompts/get` or `resources/read` of other clients. Results of these have no
/// `isError`.
const REFUSED: i32 = -32010;

/// A grant that keeps asking for the same is in the audit trail once in ten minutes.
const BETWEEN_LINES: Duration = Duration::from_mins(10);

/// What a person lacks of a connection.
#[derive(Debug)]
pub(super) enum Lack {
    /// The person has not connected the service.
    Connection,
    /// The person connected it without these scopes.
    Scopes(Vec<String>),
    /// The service no longer accepts the connection.
    Validity,
}

/// What a call needs of services and its person lacks.
pub(super) struct MissingConnections<'a> {
    pub(super) app: &'a App,
    pub(super) resource: &'a ResourceConfig,
    pub(super) caller: &'a Caller,
    /// The connections that the person has to make, at least one; or the sign-in's token is missing.
    pub(super) connections: Vec<(&'a ResourceConnection, Lack)>,
    /// The sign-in provider's own token is missing.
    pub(super) sign_in: bool,
}

/// What the person reads of one connection.
struct ConnectionWords {
    name: String,
    title: String,
    /// Why it is needed, and what for.
    message: String,
    link: String,
}

impl MissingConnections<'_> {
    /// Returns the response to this request, and records it. `asking` is how the client wants to be asked;
    /// `None`: no response can carry the link, so it is in the words of a refusal.
    pub(super) fn refusal(&self, message: &Value, asking: Option<LinkShape>) -> ServiceRefused {
        self.record();
        let Some(asking) = asking else { return ServiceRefused::Forbidden(self.text()) };
        let mut response = json!({ "jsonrpc": "2.0", "id": message.get("id") });
        let (member, value) = match asking {
            // No link gives the sign-in's token.
            _ if self.sign_in => self.in_words(message),
            LinkShape::InputRequired => ("result", self.input_required(message)),
            LinkShape::UrlError => ("error", self.url_required()),
            LinkShape::Text => self.in_words(message),
        };
        if let Some(members) = response.as_object_mut() {
            members.insert(member.to_owned(), value);
        }
        ServiceRefused::NotConnected(response)
    }

    fn input_required(&self, message: &Value) -> Value {
        let requests: Map<String, Value> = self
            .words()
            .map(|words| {
                let asked = json!({ "mode": "url", "message": words.message, "url": words.link });
                let request = json!({ "method": "elicitation/create", "params": asked });
                (format!("connect-{}", words.name), request)
            })
            .collect();
        let (app, caller) = (self.app, self.caller);
        let state = request_state::make(app.sealer(), caller, message, app.now());
        json!({ "resultType": "input_required", "inputRequests": requests, "requestState": state })
    }

    fn url_required(&self) -> Value {
        let elicitations: Vec<Value> = self
            .words()
            .map(|words| {
                json!({
                    "mode": "url",
                    "elicitationId": new_id(self.app.clock()),
                    "url": words.link,
                    "message": words.message,
                })
            })
            .collect();
        json!({
            "code": URL_REQUIRED,
            // Clients that show nothing else of an error show this.
            "message": self.text(),
            "data": { "elicitations": elicitations },
        })
    }

    /// Returns the member of the response, and its value.
    fn in_words(&self, message: &Value) -> (&'static str, Value) {
        let text = self.text();
        if method(message) == Some("tools/call") {
            let result = json!({
                // MCP 2026-07-28 requires it, earlier revisions ignore it.
                "resultType": "complete",
                "content": [{ "type": "text", "text": text }],
                "isError": true,
            });
            return ("result", result);
        }
        let links: Vec<String> = self.words().map(|words| words.link).collect();
        let data = json!({ "error": "connection_required", "connect_urls": links });
        ("error", json!({ "code": REFUSED, "message": text, "data": data }))
    }

    /// Returns everything in plain words, each link on a line of its own.
    fn text(&self) -> String {
        let server = server_name(self.resource);
        if self.sign_in {
            let provider = &self.app.config().upstream.name;
            return format!(
                "{server} uses your sign-in at {provider}, and that no longer gives a token. Sign in again: \
                 disconnect {server} in your application, and connect it once more."
            );
        }
        let mut text = String::new();
        for ConnectionWords { title, message, link, .. } in self.words() {
            let open = ["\n\nOpen this link in your browser to connect ", title.as_str(), ":\n"];
            text.push_str(&message);
            text.extend(open);
            text.extend([link.as_str(), "\n\n"]);
        }
        text.push_str("After that, repeat the request.");
        text
    }

    fn words(&self) -> impl Iterator<Item = ConnectionWords> {
        let config = self.app.config();
        let server = server_name(self.resource);
        self.connections.iter().map(move |(connection, lack)| {
            let known = config.connection(&connection.name);
            let title = known.map_or(&connection.name, |known| &known.title);
            let (why, scopes) = match lack {
                Lack::Connection => (
                    format!("{server} needs {title}, and you have not connected {title} yet."),
                    &connection.scopes,
                ),
                Lack::Scopes(missing) => (
                    format!("{server} needs more in {title} than you have allowed so far."),
                    missing,
                ),
                Lack::Validity => (
                    format!("{title} no longer accepts your connection, which {server} needs."),
                    &connection.scopes,
                ),
            };
            let scopes: Vec<&str> = scopes
                .iter()
                .map(|scope| known.map_or(scope.as_str(), |known| known.scope_text(scope, "en")))
                .collect();
            let with = if scopes.is_empty() { "" } else { ", with: " };
            let message = format!(
                "{why} {server} will act in {title} as you{with}{}. Your application never sees the token.",
                scopes.join("; ")
            );
            let link =
                config.public_url.join(&paths::connect_for(&connection.name, &self.resource.id));
            ConnectionWords { name: connection.name.clone(), title: title.clone(), message, link }
        })
    }

    fn record(&self) {
        let grant = &self.caller.grant;
        let record = |service: &str, reason: &'static str| {
            let event = self
                .app
                .event("upstream_token_refused", Actor::Client)
                .client(&grant.client_id)
                .subject(&grant.subject)
                .resource(&self.resource.id)
                .grant(&grant.id)
                .with("connection", service)
                .with("reason", reason);
            self.app.record_seldom(
                event,
                &format!("{} {service} {reason}", grant.id),
                BETWEEN_LINES,
            );
        };
        if self.sign_in {
            record("sign-in", "the sign-in gives no token");
        }
        for (connection, lack) in &self.connections {
            let reason = match lack {
                Lack::Connection => "not connected",
                Lack::Scopes(_) => "scopes are missing",
                Lack::Validity => "the service refuses the connection",
            };
            record(&connection.name, reason);
        }
    }
}
