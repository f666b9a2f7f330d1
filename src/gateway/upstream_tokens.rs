//! The tokens of services that an MCP server gets with a request: the sign-in provider's own
//! (`[resource.upstream_token]`), and those of the services that the person has connected
//! (`[[resource.connection]]`).
//!
//! A token of a whole MCP server goes with every request; one of tools goes with their calls only. Only
//! requests that act are refused if a required token is missing: a client can always initialize a session,
//! list what there is, and listen.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use memchr::memmem::Finder;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::authenticate::Caller;
use super::authorize::{Authorized, Payload};
use super::challenge::{GatewayRefused, ServiceRefused};
use super::elicitation::{LinkShape, UrlSessions, is_stated_at_initialize};
use super::messages::{called_tool, method};
use super::missing_connection::{Lack, MissingConnections};
use super::request_state::{self, CarriedState, LinkReply};
use super::sent_tokens::{SentTokens, TokenOrigin, server_name, service_title};
use super::spelling::{folded, folds_to};
use super::{session, strict_json};
use crate::app::App;
use crate::config::{ResourceConfig, ResourceConnection, Transport};
use crate::connections::{ServiceToken, TokenMissing, WantedToken};
use crate::storage::GrantState;

/// How long a repeated request waits for its person to come back from the service: 45 seconds. The clients of
/// the official libraries give up after 60.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(45);

/// Requests that act, and that MCP 2026-07-28 lets a server answer with a question.
const THAT_ACT: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

static INITIALIZE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"initialize\""));

/// What was found for a request.
#[derive(Default)]
struct FoundTokens {
    tokens: SentTokens,
    missing: Vec<(TokenOrigin, TokenMissing)>,
}

impl FoundTokens {
    fn add(
        &mut self,
        origin: TokenOrigin,
        header: Option<&HeaderName>,
        token: Result<Arc<ServiceToken>, TokenMissing>,
    ) {
        match (token, header) {
            (Ok(token), Some(header)) => self.tokens.add(origin, header, &token),
            // The MCP server exchanges the token itself, and learns then what is wrong.
            (Ok(_) | Err(TokenMissing::Unavailable | TokenMissing::Storage(_)), None) => {}
            (Err(missing), _) => self.missing.push((origin, missing)),
        }
    }
}

/// Supplies the requests of one caller with tokens.
pub(super) struct TokenSupply<'a> {
    pub(super) app: &'a App,
    pub(super) resource: &'a ResourceConfig,
    pub(super) caller: &'a Caller,
    /// The sessions whose clients can show links.
    pub(super) sessions: &'a UrlSessions,
    /// Changes when grants end. Created before the caller's grant was looked up.
    pub(super) ended: &'a watch::Receiver<u64>,
}

impl<'a> TokenSupply<'a> {
    /// Returns the tokens that go with this request. Refuses it if it needs one that the person lacks. Our
    /// state is removed from its body.
    pub(super) async fn tokens(&self, call: &mut Authorized) -> Result<SentTokens, GatewayRefused> {
        if !self.resource.wants_upstream() {
            return Ok(SentTokens::default());
        }
        let carried = self.take_state(call)?;
        let found = self.find(call.message.as_ref()).await;
        let tokens = if found.missing.is_empty() {
            found.tokens
        } else {
            Box::pin(self.without_some(call, carried, found)).await?
        };
        call.message = None; // a parsed body takes many times the memory of its text
        Ok(tokens)
    }

    /// Whether this request begins a session, and says that the client can show links.
    pub(super) fn states_links(&self, call: &Authorized) -> bool {
        let Payload::Whole(body) = &call.body else { return false };
        let may_begin = call.parts.method == Method::POST
            && !self.resource.connections.is_empty()
            && !call.parts.headers.contains_key(session::SESSION_ID);
        may_begin
            && INITIALIZE.find(body).is_some()
            && strict_json::parse(body).is_ok_and(|message| is_stated_at_initialize(&message))
    }

    fn take_state(&self, call: &mut Authorized) -> Result<CarriedState, GatewayRefused> {
        let Payload::Whole(body) = &call.body else { return Ok(CarriedState::Nothing) };
        let (app, caller) = (self.app, self.caller);
        let (carried, rest) = request_state::take(app.sealer(), caller, body, app.now())?;
        if let Some(rest) = rest {
            call.body = Payload::Whole(rest);
            if let Some(message) = &mut call.message {
                request_state::remove(message);
            }
        }
        Ok(carried)
    }

    /// Asks for every token that goes with this request. `message` is its parsed body; without one, nothing is
    /// called that has connections of its own.
    async fn find(&self, message: Option<&Value>) -> FoundTokens {
        let (app, resource, grant) = (self.app, self.resource, &self.caller.grant);
        let mut found = FoundTokens::default();
        if let Some(wanted) = &resource.upstream_token
            && let Some(header) = &wanted.header
        {
            let token = app.upstream().access_token(&grant.session_id, wanted).await;
            found.add(TokenOrigin::SignIn, Some(header), token);
        }
        for (index, connection) in resource.connections.iter().enumerate() {
            if is_needed(resource, connection, message) {
                let wanted = WantedToken {
                    subject: &grant.subject,
                    name: &connection.name,
                    scopes: &connection.scopes,
                };
                let token = app.connections().token(&wanted).await;
                found.add(TokenOrigin::Connection(index), connection.header.as_ref(), token);
            }
        }
        found
    }

    /// Returns the tokens for a request of which some are missing. If the person is about to connect the
    /// service, because a client of MCP 2026-07-28 showed the link and repeats its request, waits for that.
    async fn without_some(
        &self,
        call: &mut Authorized,
        carried: CarriedState,
        first: FoundTokens,
    ) -> Result<SentTokens, GatewayRefused> {
        if call.message.is_none() && call.parts.method == Method::POST {
            call.message = parsed(&call.body);
        }
        let Some(message) = call.message.as_ref().filter(|message| acts(message)) else {
            return Ok(first.tokens);
        };
        let is_patient = carried == CarriedState::Ours(LinkReply::Accepted);
        let mut waiting = self.waiting();
        // Once more, because the subscription to changes begins only now.
        let mut found = if is_patient { self.find(Some(message)).await } else { first };
        loop {
            let missing = self.required(found.missing)?;
            if !missing.sign_in && missing.connections.is_empty() {
                return Ok(found.tokens);
            }
            if missing.sign_in {
                // Perhaps because the person has signed out at the provider, which ends the grant.
                self.check_grant().await?;
            }
            if !is_patient || !waiting.for_a_change(self).await? {
                let session = call.parts.headers.get(session::SESSION_ID);
                let asking = self.asking(session, message, carried);
                return Err(missing.refusal(message, asking).into());
            }
            found = self.find(Some(message)).await;
        }
    }

    /// Returns what the person lacks of the required tokens. Fails if it is not the person who lacks them.
    fn required(
        &self,
        missing: Vec<(TokenOrigin, TokenMissing)>,
    ) -> Result<MissingConnections<'a>, GatewayRefused> {
        let (app, resource, caller) = (self.app, self.resource, self.caller);
        let (mut connections, mut sign_in) = (Vec::new(), false);
        for (origin, missing) in missing {
            let connection = match origin {
                TokenOrigin::SignIn => None,
                TokenOrigin::Connection(index) => resource.connections.get(index),
            };
            if connection.is_some_and(|connection| !connection.required) {
                continue;
            }
            let lack = match missing {
                TokenMissing::NotConnected => Lack::Connection,
                TokenMissing::LacksScopes(scopes) => Lack::Scopes(scopes),
                TokenMissing::Broken => Lack::Validity,
                TokenMissing::Unavailable => {
                    let words = format!(
                        "{} does not answer now, and {} needs it: try again",
                        service_title(app, resource, origin),
                        server_name(resource),
                    );
                    return Err(ServiceRefused::Unavailable(words).into());
                }
                TokenMissing::Storage(cause) => return Err(GatewayRefused::not_looked_up(&cause)),
            };
            match connection {
                Some(connection) => connections.push((connection, lack)),
                None => sign_in = true,
            }
        }
        Ok(MissingConnections { app, resource, caller, connections, sign_in })
    }

    /// Returns how to tell the client; `None` if no response to this request can carry a link.
    fn asking(
        &self,
        session: Option<&HeaderValue>,
        message: &Value,
        carried: CarriedState,
    ) -> Option<LinkShape> {
        // In HTTP+SSE, responses go to the event stream, which the MCP server writes. A batch is not answered as
        // one request.
        let id = message.get("id").filter(|id| id.is_string() || id.is_number());
        if self.resource.transport == Transport::HttpSse || id.is_none() {
            return None;
        }
        Some(match carried {
            // With our state, the client would drop that of the MCP server, which then could not go on. A
            // person who declined is not asked again.
            CarriedState::OfServer | CarriedState::Ours(LinkReply::Declined) => LinkShape::Text,
            _ => LinkShape::of(session, message, self.sessions),
        })
    }

    /// Refuses the request if the caller's grant has ended in the meantime.
    async fn check_grant(&self) -> Result<(), GatewayRefused> {
        let grant = self.app.storage().recent_grant(&self.caller.grant.id, self.app.now()).await;
        match grant {
            Ok(GrantState::Live(_)) => Ok(()),
            Ok(GrantState::Ended) => Err(GatewayRefused::InvalidToken),
            Err(cause) => Err(GatewayRefused::not_looked_up(&cause)),
        }
    }

    fn waiting(&self) -> WaitingRequest {
        let limits = &self.app.config().limits;
        let within = self.resource.timeout.unwrap_or(limits.gateway_response).min(SIGN_IN_TIMEOUT);
        WaitingRequest {
            changed: self.app.storage().connections_changed(),
            ended: self.ended.clone(),
            until: Instant::now() + within,
        }
    }
}

/// A request that waits for its person.
struct WaitingRequest {
    /// Changes when connections do.
    changed: watch::Receiver<u64>,
    /// Changes when grants end, and when the process does.
    ended: watch::Receiver<u64>,
    until: Instant,
}

impl WaitingRequest {
    /// Waits until a connection has changed. Returns `false` if it was long enough. Refuses the request if its
    /// grant has ended.
    async fn for_a_change(&mut self, supply: &TokenSupply<'_>) -> Result<bool, GatewayRefused> {
        let has_changed = tokio::select! {
            changed = self.changed.changed() => changed.is_ok(),
            ended = self.ended.changed() => ended.is_ok(),
            () = tokio::time::sleep_until(self.until) => false,
        };
        supply.check_grant().await?;
        Ok(has_changed && !supply.app.is_draining())
    }
}

/// Whether a connection's token goes with a request: with every one, or with calls of its tools.
fn is_needed(
    resource: &ResourceConfig,
    connection: &ResourceConnection,
    message: Option<&Value>,
) -> bool {
    connection.tools.is_empty()
        || message.is_some_and(|message| {
            let tools = each(message).iter().filter_map(called_tool);
            tools.into_iter().any(|tool| needs(resource, connection, tool))
        })
}

/// Whether a call of this tool needs the connection. A name that no connection has exactly, but that a server
/// may read as that of a connection's tool, needs it too, as with the scopes of tools.
fn needs(resource: &ResourceConfig, connection: &ResourceConnection, tool: &str) -> bool {
    let exactly = |connection: &ResourceConnection| connection.tools.iter().any(|one| one == tool);
    if resource.connections.iter().any(exactly) {
        return exactly(connection);
    }
    !folded(tool).is_empty() && connection.tools.iter().any(|one| folds_to(one, tool))
}

/// Whether a message, or one of a batch, needs what is required.
fn acts(message: &Value) -> bool {
    each(message).iter().any(|one| method(one).is_some_and(|method| THAT_ACT.contains(&method)))
}

fn each(message: &Value) -> &[Value] {
    match message {
        Value::Array(batch) => batch,
        single => std::slice::from_ref(single),
    }
}

/// Returns the message in a body. What cannot be read passes without a token, as the MCP server would have to
/// refuse it in any case.
fn parsed(body: &Payload) -> Option<Value> {
    match body {
        Payload::Whole(body) => strict_json::parse(body).ok(),
        Payload::Streamed(_) => None,
    }
}
