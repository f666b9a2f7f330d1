//! Per-tool scopes: reads the JSON-RPC body and checks the scopes that `[resource.tools]` demands.
//!
//! Headers that repeat the body (`Mcp-Method`, `Mcp-Name`, MCP 2026-07-28) must agree with it, so it does not
//! matter which of them the MCP server reads. If no rule of a resource is about tools, its request bodies are
//! not parsed; large ones are streamed, unless a missing connection could be a reason to read them.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::Limited;
use hyper::body::{Body as _, Bytes};
use serde_json::Value;

use super::asked::{BodyReading, RequestReading};
use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use super::messages::{called_tool, may_become_a_task, method};
use super::spelling::folded;
use super::streamed_body::StreamedBody;
use super::{denied_tool, mcp_headers, messages, strict_json, tasks};
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::web::body;
use crate::web::error::ApiError;

/// A body of up to 64 KiB is read completely before it is forwarded, so that it can be sent again. A larger
/// one is streamed.
const REPEATABLE: usize = 64 * 1024;

/// A request that may be forwarded.
pub(super) struct Authorized {
    pub(super) parts: Box<Parts>,
    pub(super) body: Payload,
    /// The request asks for the list of tools.
    pub(super) lists_tools: bool,
    /// The response may turn the call into a task. Requests about that task need these scopes.
    pub(super) may_become_a_task: Option<ScopeSet>,
    /// The parsed body, if tools have rules or connections; until the tokens of services are there.
    pub(super) message: Option<Value>,
}

impl Authorized {
    /// A request whose messages nobody has read.
    const fn unread(parts: Box<Parts>, body: Payload) -> Self {
        Self { parts, body, lists_tools: false, may_become_a_task: None, message: None }
    }
}

/// The body that is sent to the MCP server.
pub(super) enum Payload {
    /// The complete body; it can be sent more than once.
    Whole(Bytes),
    /// A body that is still arriving from the client.
    Streamed(StreamedBody),
}

impl Payload {
    /// Returns the body to send; `None` if it has already been consumed.
    pub(super) fn next(&self) -> Option<Body> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Some(Body::empty()),
            Self::Whole(bytes) => Some(Body::from(bytes.clone())),
            Self::Streamed(body) => body.take(),
        }
    }

    /// Whether the body can be sent again, even if it was sent.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Whether the body can be sent, because it is whole or nothing of it was.
    pub(super) fn is_here(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(body) => body.is_here(),
        }
    }
}

/// Authorizes the request if the caller may do everything that its body asks for.
pub(super) async fn authorize(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    mut parts: Box<Parts>,
    reading: &mut RequestReading,
) -> Result<Authorized, GatewayRefused> {
    let limit = app.config().limits.gateway_body;
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    if declared.and_then(length).is_some_and(|length| length > limit as u64) {
        return Err(GatewayRefused::TooLarge);
    }
    if parts.method != Method::POST {
        // Only POST carries messages. The body of another method is discarded: a server that read it would
        // read messages that nobody checked.
        return Ok(Authorized::unread(parts, Payload::Whole(Bytes::new())));
    }
    if !has_rules_of_tools(resource) {
        let body = without_rules(resource, reading, limit).await?;
        return Ok(Authorized::unread(parts, body));
    }
    one_reading(&mut parts.headers)?;
    let body = whole(reading.body.take(), limit, &mut reading.body).await?;
    // With duplicate members, we and the MCP server could read different tools.
    let message: Value = strict_json::parse(&body).map_err(|()| MessageRefused::NotJsonRpc)?;
    let messages = batch(&message, app.config().limits.gateway_batch)?;
    if let Some(counted) = &mut reading.counted {
        counted.add_parsed(resource, messages);
    }
    messages.iter().try_for_each(messages::check)?;
    mcp_headers::check(&parts.headers, &message)?;
    let needed = check_scopes(app, resource, caller, &message, messages).await?;
    let lists_tools = messages.iter().any(|message| method(message) == Some("tools/list"));
    let may_become_a_task = messages.iter().any(may_become_a_task).then_some(needed);
    let body = Payload::Whole(body);
    let message = resource.wants_upstream().then_some(message);
    Ok(Authorized { parts, body, lists_tools, may_become_a_task, message })
}

/// Whether scopes or tokens depend on the tools that a body calls.
fn has_rules_of_tools(resource: &ResourceConfig) -> bool {
    !resource.tools.is_empty()
        || resource.connections.iter().any(|connection| !connection.tools.is_empty())
}

/// Returns the body for a resource without tool rules, which nobody reads but the counter of calls. It is read
/// whole if a token of a service may be missing: the words for the client then depend on the message.
async fn without_rules(
    resource: &ResourceConfig,
    reading: &mut RequestReading,
    limit: usize,
) -> Result<Payload, GatewayRefused> {
    let body = reading.body.take();
    let is_small = body.size_hint().upper().is_some_and(|length| length <= REPEATABLE as u64);
    if is_small || resource.wants_upstream() {
        let body = whole(body, limit, &mut reading.body).await?;
        if let Some(counted) = &mut reading.counted {
            counted.add_body(resource, &body);
        }
        return Ok(Payload::Whole(body));
    }
    let body = match &mut reading.counted {
        Some(counted) => counted.watch_body(body),
        None => body,
    };
    Ok(Payload::Streamed(StreamedBody::new(Body::new(Limited::new(body, limit)))))
}

/// Returns the messages of a body: one, or a batch of at most `most`.
fn batch(message: &Value, most: usize) -> Result<&[Value], GatewayRefused> {
    match message {
        Value::Array(batch) if batch.is_empty() => Err(MessageRefused::NotJsonRpc.into()),
        Value::Array(batch) if batch.len() <= most => Ok(batch),
        Value::Array(_) => Err(GatewayRefused::TooLarge),
        single => Ok(std::slice::from_ref(single)),
    }
}

/// Refuses messages that need scopes which the caller lacks. Returns the scopes that the called tools need.
async fn check_scopes(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    message: &Value,
    messages: &[Value],
) -> Result<ScopeSet, GatewayRefused> {
    let needed = messages
        .iter()
        .filter_map(called_tool)
        .fold(ScopeSet::default(), |all, tool| all.union(&scopes_for(resource, tool)));
    let of_tasks = Box::pin(tasks::needed(app, resource, caller, messages)).await?;
    let all = needed.union(&of_tasks);
    if !all.is_subset(&caller.may) {
        if let Some(result) = denied_tool::result(app, resource, caller, message, &all) {
            return Err(GatewayRefused::DeniedTool(result));
        }
        let ask = Box::pin(step_up(app, resource, caller, &all)).await;
        return Err(GatewayRefused::InsufficientScope { ask, needed: all });
    }
    Ok(needed)
}

static NOT_REMEMBERED: LogThrottle = LogThrottle::new();

async fn whole(body: Body, limit: usize, asked: &mut BodyReading) -> Result<Bytes, GatewayRefused> {
    let read = body::read(body, limit).await.map_err(|error| match error {
        ApiError::TooSlow => GatewayRefused::TooSlow,
        ApiError::TooLarge => GatewayRefused::TooLarge,
        _ => GatewayRefused::BrokenBody,
    })?;
    *asked = BodyReading::Whole(read.clone());
    Ok(read)
}

/// Returns the scopes that a client should ask for: the needed ones and those it holds. Stores the scope
/// challenge: if the rules do not allow these scopes, the person is then shown so instead of being sent in a
/// loop.
pub(super) async fn step_up(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    needed: &ScopeSet,
) -> ScopeSet {
    app.record_soon(
        app.event("tool_refused", Actor::Client)
            .client(&caller.grant.client_id)
            .subject(&caller.grant.subject)
            .resource(&resource.id)
            .grant(&caller.grant.id)
            .with("needed", needed.to_string()),
    );
    let held = caller.scopes.intersection(&resource.policy.declared);
    let asked = held.union(needed);
    if let Err(cause) =
        app.storage().record_scope_challenge(&caller.grant.id, needed, &asked, app.now()).await
        && let Some(left_out) = NOT_REMEMBERED.admit()
    {
        tracing::warn!(%cause, left_out, "a step-up could not be remembered");
    }
    asked
}

/// Makes sure that the MCP server reads the bytes as we do: as uncompressed UTF-8 JSON. Replaces the client's
/// `Content-Type` with our own.
fn one_reading(headers: &mut HeaderMap) -> Result<(), GatewayRefused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(MessageRefused::NotJsonRpc.into());
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let first = types.next().map_or("", |value| value.to_str().unwrap_or("?")).to_ascii_lowercase();
    let (media_type, parameters) = first.split_once(';').unwrap_or((&first, ""));
    let charset = parameters.trim().replace('"', "");
    let fits = matches!(media_type.trim(), "" | "application/json")
        && (charset.is_empty() || charset == "charset=utf-8")
        && types.next().is_none();
    if !fits {
        return Err(MessageRefused::NotJsonRpc.into());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(())
}

/// Returns the scopes that a call of this tool needs. Some servers compare names without case, or read `_` as
/// `-`: so a name that differs from a guarded tool only in such ways needs the scopes of that tool.
fn scopes_for(resource: &ResourceConfig, tool: &str) -> ScopeSet {
    if let Some(scopes) = resource.tools.get(tool) {
        return scopes.clone();
    }
    let called = folded(tool);
    resource
        .tools
        .iter()
        .filter(|(name, _)| !called.is_empty() && folded(name) == called)
        .fold(ScopeSet::default(), |all, (_, scopes)| all.union(scopes))
}

fn length(declared: &HeaderValue) -> Option<u64> {
    declared.to_str().ok()?.parse().ok()
}
