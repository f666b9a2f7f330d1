//! Sends a request to a process and answers the HTTP request with what comes back: JSON if the answer comes
//! soon and alone, otherwise an event stream.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use rmcp::model::ErrorCode;
use tokio::time::{Duration, Instant, timeout_at};

use super::conversation::{
    BegunCall, BridgeCaller, Conversation, Delivery, DeliveryKind, NotBegun,
};
use super::message::{RpcId, RpcMessage, cancelled, error_response};
use super::process::StdioServer;
use super::queue::QueueReceiver;

/// How long an answer may take before the response becomes an event stream. Proxies and clients then see that
/// somebody is at work.
const SOON: Duration = Duration::from_secs(2);
/// The same for the first request of a client: the process may have to be downloaded, and the status of the
/// response tells the client what the server is.
const SOON_AT_FIRST: Duration = Duration::from_secs(30);
/// Keep-alive: a comment is sent every 15 s on streams, so that proxies do not close them.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Marks a response that is an error of the MCP server or of the bridge.
#[derive(Clone, Copy)]
pub(super) struct IsErrorAnswer;

/// How a client wants its answers.
#[derive(Clone, Copy)]
pub(super) struct AnswerTerms {
    /// It takes event streams.
    pub(super) streams: bool,
    /// It takes JSON.
    pub(super) json: bool,
    /// The request belongs to a revision without sessions.
    pub(super) is_without_session: bool,
    /// Longest silence before a request is given up.
    pub(super) silence: Duration,
}

impl AnswerTerms {
    /// Reads `Accept`; without one, both are fine.
    pub(super) fn of(headers: &HeaderMap, is_without_session: bool, silence: Duration) -> Self {
        let accepts = |wanted: &str| {
            let values = headers.get_all(header::ACCEPT).iter();
            let mut all =
                values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
            all.any(|one| {
                let one = one.split(';').next().unwrap_or_default().trim();
                one.eq_ignore_ascii_case(wanted) || one == "*/*"
            })
        };
        let silent = !headers.contains_key(header::ACCEPT);
        let json = silent || accepts("application/json") || accepts("application/*");
        let streams = silent || accepts("text/event-stream") || accepts("text/*");
        Self { streams, json, is_without_session, silence }
    }
}

/// A request under way. Dropping it before the answer means that the client has gone.
struct CallUnderWay {
    server: Arc<StdioServer>,
    id: RpcId,
    order: u64,
    /// Whether the end of the connection cancels the request (2026-07-28). Earlier revisions say it must not.
    cancels: bool,
}

impl CallUnderWay {
    fn give_up(&self, reason: &str) {
        if self.server.conversation.forget(&self.id, self.order) {
            self.server.send_now(cancelled(&self.id.to_json(), reason));
        }
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        if self.cancels {
            self.give_up("the client has closed the connection");
        } else {
            self.server.conversation.forget(&self.id, self.order);
        }
    }
}

/// The messages for one request, up to its answer.
pub(super) struct CallEvents {
    call: CallUnderWay,
    raw_id: String,
    events: QueueReceiver<Delivery>,
    /// When the request is given up. `subscriptions/listen` is silent for as long as nothing happens.
    until: Option<Instant>,
    silence: Duration,
    is_answered: bool,
}

/// Sends a request to the process. Returns the messages that come back, or the answer if there are none.
pub(super) async fn begin(
    server: &Arc<StdioServer>,
    caller: &BridgeCaller,
    message: &RpcMessage,
    terms: AnswerTerms,
) -> Result<CallEvents, Box<Response>> {
    let begun = server.conversation.begin(caller, message, terms.streams);
    let BegunCall { id, order, text, events } = begun.map_err(|refused| {
        let (status, code, reason) = match refused {
            NotBegun::Ended(reason) => (StatusCode::OK, ErrorCode::INTERNAL_ERROR, reason),
            NotBegun::IdInUse => (
                StatusCode::BAD_REQUEST,
                ErrorCode::INVALID_REQUEST,
                "A request with this id is under way".to_owned(),
            ),
        };
        Box::new(json(status, error_response(message.raw_id(), code, &reason)))
    })?;
    let cancels = terms.is_without_session;
    let call = CallUnderWay { server: Arc::clone(server), id, order, cancels };
    if server.send(text).await.is_err() {
        let code = ErrorCode::INTERNAL_ERROR;
        let text = error_response(message.raw_id(), code, "The MCP server takes no requests now");
        return Err(Box::new(json(StatusCode::SERVICE_UNAVAILABLE, text)));
    }
    let listens = message.is("subscriptions/listen");
    let until = (!listens).then(|| Instant::now() + terms.silence);
    let raw_id = message.raw_id().to_owned();
    Ok(CallEvents { call, raw_id, events, until, silence: terms.silence, is_answered: false })
}

/// Sends a request to the process and answers with what comes back.
pub(super) async fn answer(
    server: &Arc<StdioServer>,
    caller: &BridgeCaller,
    message: &RpcMessage,
    terms: AnswerTerms,
) -> Response {
    let mut events = match begin(server, caller, message, terms).await {
        Ok(events) => events,
        Err(mut refused) => {
            refused.extensions_mut().insert(IsErrorAnswer);
            return *refused;
        }
    };
    let is_first = message.is("initialize") || message.is("server/discover");
    let soon = Instant::now() + if is_first { SOON_AT_FIRST } else { SOON };
    let wait = if terms.streams { Some(soon) } else { None };
    let first = events.next_until(wait).await;
    match first {
        Some(first) if first.kind != DeliveryKind::Interim && terms.json => {
            let mut response = json(status_of(first.kind, message, terms), first.text);
            if first.kind != DeliveryKind::Result {
                response.extensions_mut().insert(IsErrorAnswer);
            }
            response
        }
        first => events.into_stream(first),
    }
}

/// Returns the status for an answer. From 2026-07-28 on, some errors have one of their own; clients find out by
/// it which revisions a server knows.
fn status_of(kind: DeliveryKind, message: &RpcMessage, terms: AnswerTerms) -> StatusCode {
    let DeliveryKind::Error(code) = kind else { return StatusCode::OK };
    if !terms.is_without_session {
        return StatusCode::OK;
    }
    let is = |known: ErrorCode| code == i64::from(known.0);
    if is(ErrorCode::METHOD_NOT_FOUND) {
        StatusCode::NOT_FOUND
    } else if is(ErrorCode::UNSUPPORTED_PROTOCOL_VERSION)
        || is(ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY)
        || is(ErrorCode::HEADER_MISMATCH)
        || message.is("server/discover")
    {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    }
}

impl CallEvents {
    /// Returns the next message; `None` if there is none until then.
    async fn next_until(&mut self, wait: Option<Instant>) -> Option<Delivery> {
        let until = match (wait, self.until) {
            (Some(wait), Some(until)) => Some(wait.min(until)),
            (wait, until) => wait.or(until),
        };
        let next = match until {
            Some(until) => timeout_at(until, self.events.next()).await,
            None => Ok(self.events.next().await),
        };
        let code = ErrorCode::INTERNAL_ERROR;
        let failed = |reason: &str| {
            let text = error_response(&self.raw_id, code, reason);
            Some(Delivery { text, kind: DeliveryKind::Error(code.0.into()) })
        };
        let next = match next {
            Ok(Some(next)) => Some(next),
            Ok(None) => failed("The answer was lost: its caller did not read the stream in time"),
            Err(_) if self.until.is_some_and(|until| until <= Instant::now()) => {
                self.call.give_up("no answer in time");
                failed("The MCP server did not answer in time")
            }
            Err(_) => None,
        };
        if let Some(next) = &next {
            self.is_answered = next.kind != DeliveryKind::Interim;
            self.until = self.until.map(|_| Instant::now() + self.silence);
        }
        next
    }

    /// Returns the answer to the request, without the messages before it.
    pub(super) async fn last(mut self) -> String {
        loop {
            match self.next_until(None).await {
                Some(answer) if answer.kind != DeliveryKind::Interim => return answer.text,
                _ => {}
            }
        }
    }

    /// Turns the messages into an event stream that ends with the answer.
    fn into_stream(self, first: Option<Delivery>) -> Response {
        let events = stream::unfold((self, first), |(mut call, first)| async move {
            let text = match first {
                Some(first) => event(&first.text),
                None if call.is_answered => return None,
                None => {
                    let next = call.next_until(Some(Instant::now() + KEEP_ALIVE)).await;
                    next.map_or_else(still_here, |next| event(&next.text))
                }
            };
            Some((Ok::<_, Infallible>(text), (call, None)))
        });
        event_stream(Body::from_stream(events))
    }
}

/// The stream of a session.
struct ListeningSession {
    server: Arc<StdioServer>,
    caller: BridgeCaller,
    order: u64,
    events: QueueReceiver<Delivery>,
}

impl Drop for ListeningSession {
    fn drop(&mut self) {
        self.server.conversation.stop_listening(&self.caller, self.order);
        self.server.touch();
    }
}

/// Returns the stream for messages that belong to no request; `None` if the process has ended.
pub(super) fn listen(server: &Arc<StdioServer>, caller: &BridgeCaller) -> Option<Response> {
    let conversation: &Conversation = &server.conversation;
    let (order, events) = conversation.listen(caller)?;
    let (server, caller) = (Arc::clone(server), Arc::clone(caller));
    let session = ListeningSession { server, caller, order, events };
    let first = Some(Bytes::from_static(b": connected\n\n"));
    let events = stream::unfold((session, first), |(mut session, first)| async move {
        let text = match first {
            Some(first) => first,
            None => match timeout_at(Instant::now() + KEEP_ALIVE, session.events.next()).await {
                Ok(next) => event(&next?.text),
                Err(_) => still_here(),
            },
        };
        Some((Ok::<_, Infallible>(text), (session, None)))
    });
    Some(event_stream(Body::from_stream(events)))
}

fn event(text: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {text}\n\n"))
}

fn still_here() -> Bytes {
    Bytes::from_static(b": still here\n\n")
}

fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// Returns a response with a JSON body.
pub(super) fn json(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}
