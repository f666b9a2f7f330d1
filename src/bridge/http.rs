//! The HTTP side: streamable HTTP at `/mcp`, and `/health`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Limited};
use rmcp::model::ErrorCode;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Duration, timeout};

use super::answer::{AnswerTerms, CallEvents, IsErrorAnswer, answer, begin, json, listen};
use super::conversation::BridgeCaller;
use super::local_only;
use super::message::{RpcKind, RpcMessage, error_response};
use super::person::BridgePerson;
use super::pool::{NoServer, ProcessPool};
use super::process::StdioServer;
use super::stated_headers::{contradiction, is_without_session};

/// The path of the MCP endpoint.
const MCP_PATH: &str = "/mcp";
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// How long the body of a request may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Most messages in a batch (2025-03-26).
const BATCH: usize = 100;

/// Everything that a request needs.
pub(super) struct BridgeContext {
    pub(super) pool: ProcessPool,
    pub(super) listen: SocketAddr,
    /// Host names that requests may name, besides loopback and the address of `listen`.
    pub(super) hosts: Vec<String>,
    /// Longest silence before a request is given up.
    pub(super) silence: Duration,
}

type Context = Arc<BridgeContext>;

/// A refusal before any process is asked: status, code and reason.
struct BridgeRefused(StatusCode, ErrorCode, String);

impl BridgeRefused {
    fn new(status: StatusCode, reason: &str) -> Self {
        Self(status, ErrorCode::INVALID_REQUEST, reason.to_owned())
    }

    fn response(&self, id: &str) -> Response {
        let Self(status, code, reason) = self;
        json(*status, error_response(id, *code, reason))
    }
}

pub(super) fn routes(context: Context) -> Router {
    let guarded = middleware::from_fn_with_state(Arc::clone(&context), guard);
    Router::new()
        .route(MCP_PATH, any(mcp))
        .route("/health", get(health))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(guarded)
        .with_state(context)
}

async fn guard(State(context): State<Context>, request: Request, next: Next) -> Response {
    match local_only::refusal(request.headers(), context.listen, &context.hosts) {
        Some((status, reason)) => BridgeRefused::new(status, reason).response("null"),
        None => next.run(request).await,
    }
}

async fn health(State(context): State<Context>) -> Response {
    let (processes, sessions) = context.pool.counts();
    let failing = context.pool.plan.starts.is_unhealthy();
    let (status, word) =
        if failing { (StatusCode::SERVICE_UNAVAILABLE, "failing") } else { (StatusCode::OK, "ok") };
    json(
        status,
        json!({ "status": word, "processes": processes, "sessions": sessions }).to_string(),
    )
}

async fn mcp(State(context): State<Context>, request: Request) -> Response {
    if request.method() == Method::POST {
        return post(&context, request).await;
    }
    let handled = if [Method::GET, Method::DELETE].contains(request.method()) {
        get_or_delete(&context, &request)
    } else {
        Err(BridgeRefused::new(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE"))
    };
    let mut response = handled.unwrap_or_else(|refused| refused.response("null"));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, POST, DELETE");
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// Opens the stream of a session, or ends the session.
fn get_or_delete(context: &Context, request: &Request) -> Result<Response, BridgeRefused> {
    let headers = request.headers();
    let person = person(headers)?;
    if !headers.contains_key(SESSION_ID) {
        let reason = "Without a session there is nothing to listen to or to end";
        return Err(BridgeRefused::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    }
    let (caller, server) = session(context, headers, person.as_ref())?;
    if *request.method() == Method::DELETE {
        context.pool.end_session(&caller);
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !AnswerTerms::of(headers, false, context.silence).streams {
        let reason = "A GET request has to accept text/event-stream";
        return Err(BridgeRefused::new(StatusCode::NOT_ACCEPTABLE, reason));
    }
    listen(&server, &caller).ok_or_else(unknown_session)
}

fn unknown_session() -> BridgeRefused {
    BridgeRefused::new(StatusCode::NOT_FOUND, "The session does not exist, or has ended")
}

fn session(
    context: &Context,
    headers: &HeaderMap,
    person: Option<&BridgePerson>,
) -> Result<(BridgeCaller, Arc<StdioServer>), BridgeRefused> {
    let mut ids = headers.get_all(SESSION_ID).iter();
    let id = ids.next().ok_or_else(|| {
        BridgeRefused::new(StatusCode::BAD_REQUEST, "Mcp-Session-Id is missing: initialize first")
    })?;
    let id = id.to_str().ok().filter(|_| ids.next().is_none());
    id.and_then(|id| context.pool.session(id, person)).ok_or_else(unknown_session)
}

fn person(headers: &HeaderMap) -> Result<Option<BridgePerson>, BridgeRefused> {
    BridgePerson::of(headers).map_err(|bad| BridgeRefused::new(StatusCode::BAD_REQUEST, bad.0))
}

async fn post(context: &Context, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let body = match read(context, &headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused.response("null"),
    };
    if body.get().starts_with('[') {
        let batch = Box::pin(batch(context, &headers, &body)).await;
        return batch.unwrap_or_else(|refused| refused.response("null"));
    }
    match RpcMessage::read(&body) {
        Ok(message) => {
            let handled = Box::pin(handle(context, &headers, &message)).await;
            handled.unwrap_or_else(|refused| refused.response(message.raw_id()))
        }
        Err(bad) => BridgeRefused::new(StatusCode::BAD_REQUEST, bad.0).response("null"),
    }
}

/// Reads the body as JSON of any kind.
async fn read(
    context: &Context,
    headers: &HeaderMap,
    body: axum::body::Body,
) -> Result<Box<RawValue>, BridgeRefused> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json")
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        let reason = "The body has to be application/json, without a content coding";
        return Err(BridgeRefused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let longest = context.pool.plan.longest;
    let body = timeout(BODY_TIME, Limited::new(body, longest).collect()).await.map_err(|_| {
        BridgeRefused::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")
    })?;
    let body: Bytes = body
        .map_err(|_| {
            let reason =
                format!("The body broke off, or has more than {longest} bytes (--max-message)");
            BridgeRefused::new(StatusCode::PAYLOAD_TOO_LARGE, &reason)
        })?
        .to_bytes();
    serde_json::from_slice(&body).map_err(|_| {
        let code = ErrorCode::PARSE_ERROR;
        BridgeRefused(StatusCode::BAD_REQUEST, code, "The body is not JSON".to_owned())
    })
}

/// Handles one message of a client.
async fn handle(
    context: &Context,
    headers: &HeaderMap,
    message: &RpcMessage,
) -> Result<Response, BridgeRefused> {
    let person = person(headers)?;
    let is_without_session = is_without_session(headers, message);
    let terms = AnswerTerms::of(headers, is_without_session, context.silence);
    if !terms.json && !terms.streams {
        let reason = "Accept has to name application/json or text/event-stream";
        return Err(BridgeRefused::new(StatusCode::NOT_ACCEPTABLE, reason));
    }
    if is_without_session {
        return without_session(context, headers, (message, person.as_ref()), terms).await;
    }
    if message.is("initialize") && message.kind == RpcKind::Request {
        return initialize(context, message, person, terms).await;
    }
    let (caller, server) = session(context, headers, person.as_ref())?;
    if message.kind == RpcKind::Request {
        return Ok(answer(&server, &caller, message, terms).await);
    }
    pass_on(&server, &caller, message).await
}

/// A message of 2026-07-28 or later, which belongs to no session.
async fn without_session(
    context: &Context,
    headers: &HeaderMap,
    (message, person): (&RpcMessage, Option<&BridgePerson>),
    terms: AnswerTerms,
) -> Result<Response, BridgeRefused> {
    if message.kind == RpcKind::Response {
        let reason = "From 2026-07-28 on, clients send no responses";
        return Err(BridgeRefused::new(StatusCode::BAD_REQUEST, reason));
    }
    if let Some(reason) = contradiction(headers, message) {
        return Err(BridgeRefused(StatusCode::BAD_REQUEST, ErrorCode::HEADER_MISMATCH, reason));
    }
    let server = match context.pool.for_person(person).await {
        Ok(server) => server,
        Err(none) => return Ok(no_server(&none, message.raw_id())),
    };
    let caller = BridgeCaller::from("");
    if message.kind == RpcKind::Request {
        return Ok(answer(&server, &caller, message, terms).await);
    }
    pass_on(&server, &caller, message).await
}

/// Passes on a notification or a response.
async fn pass_on(
    server: &StdioServer,
    caller: &BridgeCaller,
    message: &RpcMessage,
) -> Result<Response, BridgeRefused> {
    if let Some(text) = server.conversation.pass_on(caller, message)
        && server.send(text).await.is_err()
    {
        let reason = "The MCP server takes no messages now";
        return Err(BridgeRefused::new(StatusCode::SERVICE_UNAVAILABLE, reason));
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// A session that ends unless its `initialize` succeeds.
struct NewSession<'a> {
    pool: &'a ProcessPool,
    caller: Option<BridgeCaller>,
}

impl Drop for NewSession<'_> {
    fn drop(&mut self) {
        if let Some(caller) = &self.caller {
            self.pool.end_session(caller);
        }
    }
}

/// Begins a session.
async fn initialize(
    context: &Context,
    message: &RpcMessage,
    person: Option<BridgePerson>,
    terms: AnswerTerms,
) -> Result<Response, BridgeRefused> {
    let (caller, server) = match context.pool.begin_session(person).await {
        Ok(begun) => begun,
        Err(none) => return Ok(no_server(&none, message.raw_id())),
    };
    let id = HeaderValue::from_str(&caller).map_err(|_| unknown_session())?;
    let mut session = NewSession { pool: &context.pool, caller: Some(Arc::clone(&caller)) };
    let mut response = answer(&server, &caller, message, terms).await;
    if response.extensions().get::<IsErrorAnswer>().is_none() {
        session.caller = None;
        response.headers_mut().insert(SESSION_ID, id);
    }
    Ok(response)
}

/// Says why there is no process.
fn no_server(none: &NoServer, id: &str) -> Response {
    let (status, wait, reason) = match none {
        NoServer::TooMany => {
            tracing::warn!("all places for MCP servers are taken (--max-children)");
            (StatusCode::SERVICE_UNAVAILABLE, Some(5), "Too many MCP servers run now")
        }
        NoServer::TooManyOfOne => (
            StatusCode::TOO_MANY_REQUESTS,
            Some(5),
            "Too many MCP servers run for this person now (--max-children-per-person)",
        ),
        NoServer::Failing(wait) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Some(wait.as_secs() + 1),
            "The MCP server ended right after its last start; the log of the bridge says why",
        ),
        NoServer::Nobody => (
            StatusCode::FORBIDDEN,
            None,
            "With --per person, the gateway has to say who calls (X-Portcullis-Subject)",
        ),
        NoServer::NotStarted(cause) => {
            tracing::error!(%cause, "the MCP server cannot be started");
            (StatusCode::BAD_GATEWAY, None, "The MCP server cannot be started")
        }
    };
    let mut response = json(status, error_response(id, ErrorCode::INTERNAL_ERROR, reason));
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// Several messages at once (2025-03-26). The answers come together, as JSON.
async fn batch(
    context: &Context,
    headers: &HeaderMap,
    body: &RawValue,
) -> Result<Response, BridgeRefused> {
    let bad = |reason: &str| BridgeRefused::new(StatusCode::BAD_REQUEST, reason);
    let person = person(headers)?;
    let (caller, server) = session(context, headers, person.as_ref())?;
    let messages: Vec<&RawValue> =
        serde_json::from_str(body.get()).map_err(|_| bad("The batch is not readable"))?;
    if messages.is_empty() || messages.len() > BATCH {
        return Err(bad("A batch has 1 to 100 messages"));
    }
    let messages: Vec<RpcMessage> = messages
        .into_iter()
        .map(RpcMessage::read)
        .collect::<Result<_, _>>()
        .map_err(|refused| bad(refused.0))?;
    if messages.iter().any(|message| message.is("initialize")) {
        return Err(bad("initialize cannot be part of a batch"));
    }
    let terms = AnswerTerms { streams: false, ..AnswerTerms::of(headers, false, context.silence) };
    let mut calls = Vec::new();
    for message in &messages {
        if message.kind == RpcKind::Request {
            match begin(&server, &caller, message, terms).await {
                Ok(call) => calls.push(call),
                Err(refused) => return Ok(*refused),
            }
        } else {
            pass_on(&server, &caller, message).await?;
        }
    }
    if calls.is_empty() {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let answers = join_all(calls.into_iter().map(CallEvents::last)).await;
    Ok(json(StatusCode::OK, format!("[{}]", answers.join(","))))
}
