//! Counts the calls in a request by what is called and how that ended: who used what. The counters and what
//! becomes of them are in `app/usage.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex as Lock;
use serde_json::Value;
use tokio::time::Instant;

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, ServiceRefused};
use super::event_lines::{EventLines, EventPart};
use super::message_scanner::{MessageScanner, ScanUntil, ScannedMessage};
use super::messages;
use super::spans::{self, KnownTools};
use super::spelling::known_method;
use super::whole_message::{WholeMessage, is_plain_result};
use crate::app::{App, CallCounter, Called};
use crate::config::ResourceConfig;
use crate::storage::{CallOutcome, LiveGrant};
use crate::telemetry::metrics::{Calls, ListenerKind, ToolCalls};
use crate::telemetry::trace::{self, RecordedTrace, RequestSpan};

/// Most messages of one request that are told apart: 1,000. All others together count as one call.
const MOST: usize = 1000;

/// The label of methods that MCP does not define.
const OTHER: &str = "other";

/// Returns the kind of error that traces and metrics show; empty if the call was answered with a result.
const fn error_type(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Answered => "",
        CallOutcome::ToolError => "tool_error",
        CallOutcome::Error => "mcp_error",
        CallOutcome::ScopeRefused => "insufficient_scope",
        CallOutcome::Refused => "refused",
        CallOutcome::Failed => "failed",
        CallOutcome::Unanswered => "unanswered",
    }
}

/// A call whose outcome is not known yet.
struct OpenCall {
    counter: Arc<CallCounter>,
    /// The method, if MCP defines it.
    method: Option<&'static str>,
    /// Whether it is a request, which the MCP server has to answer. Notifications have no answer.
    is_request: bool,
    is_tool: bool,
    /// The id, in a batch.
    id: Option<Value>,
    /// The name of a tool that is counted without it.
    late_name: Option<Box<str>>,
    /// The name of a tool that traces show once it has answered.
    new_tool: Option<Box<str>>,
}

/// What is measured of the calls through one route, and the tools that traces name.
pub(super) struct CallsOfRoute {
    pub(super) metrics: Calls,
    /// Calls of tools by how they ended.
    pub(super) ended: ToolCalls,
    pub(super) tools: KnownTools,
}

/// The calls in one request. Those that are still open when this is dropped were not answered.
pub(super) struct OpenCalls {
    app: App,
    grant: Arc<LiveGrant>,
    calls: Vec<OpenCall>,
    /// How many calls there were so far.
    added: usize,
    /// What reads the messages of a body that is streamed.
    scanner: Option<Arc<Lock<StreamedMessages>>>,
    route: Arc<CallsOfRoute>,
    begun: Instant,
    /// The trace of the request, if it is recorded; it ends with the last call.
    trace: Option<RecordedTrace>,
    /// Whether traces of other calls may name the tools of this one.
    learns_tools: bool,
}

/// The messages of a request body that passes by.
struct StreamedMessages {
    scanner: MessageScanner,
    messages: Vec<ScannedMessage>,
}

impl StreamedMessages {
    fn feed(&mut self, piece: &[u8]) {
        let messages = &mut self.messages;
        self.scanner.feed(piece, |message| {
            if messages.len() <= MOST {
                messages.push(message);
            }
            true
        });
    }
}

impl OpenCalls {
    /// Begins to count a request; `None` if it carries no messages.
    pub(super) fn of(
        app: &App,
        caller: &Caller,
        parts: &Parts,
        route: &Arc<CallsOfRoute>,
    ) -> Option<Self> {
        let trace = spans::of_caller(app, caller, &parts.headers);
        (parts.method == Method::POST).then(|| Self {
            app: app.clone(),
            grant: Arc::clone(&caller.grant),
            calls: Vec::new(),
            added: 0,
            scanner: None,
            route: Arc::clone(route),
            begun: Instant::now(),
            trace,
            learns_tools: app.tracing().is_some(),
        })
    }

    /// Adds messages that tool rules have parsed.
    pub(super) fn add_parsed(&mut self, resource: &ResourceConfig, parsed: &[Value]) {
        let in_batch = parsed.len() > 1;
        if let [message] = parsed
            && trace::is_open_to_offers()
            && let Some(traceparent) = messages::traceparent(message)
        {
            self.offered(resource, traceparent);
        }
        for message in parsed {
            let Some(method) = messages::method(message) else { continue };
            let id = message.get("id").filter(|id| !id.is_null());
            let is_request = id.is_some();
            let id = id.filter(|_| in_batch).cloned();
            let tool = messages::called_tool(message);
            self.add(resource, (method, tool), is_request, id);
        }
    }

    /// Adds the messages of a whole body.
    pub(super) fn add_body(&mut self, resource: &ResourceConfig, body: &[u8]) {
        let reads_offers = trace::is_open_to_offers() && messages::may_have_traceparent(body);
        if !reads_offers
            && let Some(WholeMessage { method, name, has_id, .. }) = WholeMessage::read(body)
        {
            if let Some(method) = method {
                self.add(resource, (method, tool_of(method, name)), has_id, None);
            }
            return;
        }
        let all = MessageScanner::new(ScanUntil::End).feed(body, |message| {
            if let Some(traceparent) = message.traceparent.as_deref().filter(|_| reads_offers) {
                self.offered(resource, traceparent);
            }
            self.add_scanned(resource, message);
            self.calls.len() < MOST
        });
        if !all {
            self.add(resource, ("", None), false, None);
        }
    }

    /// Takes note of the `traceparent` of a message.
    fn offered(&mut self, resource: &ResourceConfig, traceparent: &str) {
        let (Some((queue, _)), Some(route)) = (self.app.tracing(), &resource.path) else { return };
        let listener = ListenerKind::Public.into();
        trace::offered(traceparent, &RequestSpan { queue, method: "POST", route, listener });
        if self.trace.is_none() {
            self.trace = trace::recorded();
            if let Some(trace) = &self.trace {
                spans::name_caller(trace, &self.app, &self.grant);
            }
        }
    }

    /// Reads the messages of a body while it is streamed.
    pub(super) fn watch_body(&mut self, body: Body) -> Body {
        let scanner = MessageScanner::new(ScanUntil::End);
        let scanner = StreamedMessages { scanner, messages: Vec::new() };
        let scanner = Arc::new(Lock::new(scanner));
        self.scanner = Some(Arc::clone(&scanner));
        Body::new(WatchedBody { inner: body, scanner })
    }

    fn add_scanned(&mut self, resource: &ResourceConfig, message: ScannedMessage) {
        let ScannedMessage { method, name, has_id, id, .. } = message;
        let Some(method) = method else { return };
        let id = id.and_then(|id| serde_json::from_str(&id).ok());
        self.add(resource, (&method, tool_of(&method, name.as_deref())), has_id, id);
    }

    /// Adds a call of a method and, if it is `tools/call`, a tool.
    fn add(
        &mut self,
        resource: &ResourceConfig,
        (method, tool): (&str, Option<&str>),
        is_request: bool,
        id: Option<Value>,
    ) {
        let method = known_method(method);
        let called = match (tool, method) {
            (Some(tool), _) => Called::Tool(tool, resource.tools.contains_key(tool)),
            (None, Some(method)) => Called::Method(method),
            (None, None) => Called::Unknown,
        };
        let (counter, named) = self.app.call_counter(&self.grant, called, self.app.now());
        let mut new_tool = None;
        if self.learns_tools {
            let is_known =
                |tool: &&str| resource.tools.contains_key(*tool) || self.route.tools.has(tool);
            let known = tool.filter(is_known);
            if let Some(trace) = &self.trace {
                spans::describe(trace, self.added, method, known);
            }
            new_tool = tool.filter(|_| known.is_none()).map(Into::into);
        }
        self.added += 1;
        let late_name = tool.filter(|_| !named).map(Into::into);
        let is_tool = tool.is_some();
        let call = OpenCall { counter, method, is_request, is_tool, id, late_name, new_tool };
        self.calls.reserve_exact(usize::from(self.calls.is_empty())); // most requests are one call
        self.calls.push(call);
    }

    /// Counts a refusal by the gateway.
    pub(super) fn refused(mut self, refused: &GatewayRefused) {
        let outcome = match refused {
            GatewayRefused::InsufficientScope { .. } | GatewayRefused::DeniedTool(_) => {
                CallOutcome::ScopeRefused
            }
            GatewayRefused::BadGateway(_)
            | GatewayRefused::GatewayTimeout
            | GatewayRefused::Unavailable
            | GatewayRefused::Broken
            | GatewayRefused::Service(
                ServiceRefused::Unavailable(_) | ServiceRefused::TokenRefused(_),
            ) => CallOutcome::Failed,
            GatewayRefused::InvalidToken => CallOutcome::Unanswered,
            GatewayRefused::NoToken
            | GatewayRefused::MalformedAuthorization
            | GatewayRefused::Origin
            | GatewayRefused::Method
            | GatewayRefused::Upgrade
            | GatewayRefused::TooLarge
            | GatewayRefused::TooSlow
            | GatewayRefused::Message(_)
            | GatewayRefused::BrokenBody
            | GatewayRefused::NoEventStream
            | GatewayRefused::TooMany(_)
            | GatewayRefused::Service(
                ServiceRefused::NotConnected(_) | ServiceRefused::Forbidden(_),
            ) => CallOutcome::Refused,
        };
        self.take_streamed();
        if self.calls.is_empty() {
            let (counter, _) = self.app.call_counter(&self.grant, Called::Unknown, self.app.now());
            counter.count(outcome);
            self.route.metrics.operation((OTHER, error_type(outcome)), self.begun);
            if let Some(trace) = &self.trace {
                trace.fail(error_type(outcome));
            }
        }
        self.end(outcome);
    }

    /// Counts all calls that are still open.
    fn end(&mut self, outcome: CallOutcome) {
        for call in std::mem::take(&mut self.calls) {
            self.count(&call, outcome);
        }
    }

    fn count(&self, call: &OpenCall, outcome: CallOutcome) {
        call.counter.count(outcome);
        if call.is_tool {
            self.route.ended.ended(outcome as usize);
        }
        let error = error_type(outcome);
        self.route.metrics.operation((call.method.unwrap_or(OTHER), error), self.begun);
        if outcome == CallOutcome::Answered
            && let Some(name) = &call.late_name
        {
            self.app.prove_tool(&self.grant.resource, name);
        }
        if outcome == CallOutcome::Answered
            && let Some(name) = &call.new_tool
        {
            self.route.tools.add(name);
            if let Some(trace) = self.trace.as_ref().filter(|_| self.added == 1)
                && self.route.tools.has(name)
            {
                spans::describe(trace, 0, call.method, Some(name));
            }
        }
        if let Some(trace) = self.trace.as_ref().filter(|_| !error.is_empty()) {
            trace.fail(error);
        }
    }

    /// Adds what was read of a body that is streamed.
    fn take_streamed(&mut self) {
        let Some(scanner) = self.scanner.take() else { return };
        let messages = std::mem::take(&mut scanner.lock().messages);
        let app = self.app.clone();
        let Some(resource) = app.resource(&self.grant.resource) else { return };
        let all = messages.len() <= MOST;
        for message in messages.into_iter().take(MOST) {
            self.add_scanned(resource, message);
        }
        if !all {
            self.add(resource, ("", None), false, None);
        }
    }

    /// Takes note of the head of an answer. Returns what reads the outcome in its body, if that is where it is.
    /// `lacks_scopes`: the MCP server said that scopes are missing.
    pub(super) fn answered(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        lacks_scopes: bool,
    ) -> Option<AnswerReader> {
        self.take_streamed();
        let outcome = match status.as_u16() {
            500.. => Some(CallOutcome::Failed),
            400.. if lacks_scopes => Some(CallOutcome::ScopeRefused),
            400.. => Some(CallOutcome::Error),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.end(outcome);
            return None;
        }
        if self.calls.iter().any(|call| !call.is_request) {
            let (calls, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.calls).into_iter().partition(|call| call.is_request);
            self.calls = others;
            self.end(CallOutcome::Answered);
            self.calls = calls;
        }
        let lines = match media_type(headers) {
            Some(b"application/json") => None,
            Some(b"text/event-stream") => Some(EventLines::default()),
            // The answer comes elsewhere (HTTP+SSE), or cannot be read.
            _ => {
                self.end(CallOutcome::Answered);
                None
            }
        };
        let until = match self.calls.as_slice() {
            [] => return None,
            [one] if one.id.is_some() => ScanUntil::EndWithId,
            [one] if one.is_tool => ScanUntil::IsError,
            [_] => ScanUntil::Result,
            _ => ScanUntil::EndWithId,
        };
        Some(AnswerReader { calls: self, until, scanner: None, lines })
    }

    /// Whether it is known without an id which call a response answers.
    fn is_one(&self) -> bool {
        matches!(self.calls.as_slice(), [one] if one.id.is_none())
    }

    /// Counts the call that a message answers. Returns whether others are still open.
    fn settle(&mut self, message: &ScannedMessage) -> bool {
        // The MCP server may send requests and notifications of its own first.
        if message.method.is_some() || !(message.has_result || message.has_error) {
            return !self.calls.is_empty();
        }
        let place = if self.is_one() {
            Some(0)
        } else {
            let id = message.id.as_deref().and_then(|id| serde_json::from_str::<Value>(id).ok());
            id.and_then(|id| self.calls.iter().position(|call| call.id.as_ref() == Some(&id)))
        };
        if let Some(place) = place {
            self.settle_at(place, message.has_error, message.is_error);
        }
        !self.calls.is_empty()
    }

    /// The same, for the only call.
    fn settle_one(&mut self, message: &WholeMessage<'_>) -> bool {
        let is_response = message.method.is_none() && (message.has_result || message.has_error);
        if is_response && self.is_one() {
            self.settle_at(0, message.has_error, message.is_error);
        }
        !self.calls.is_empty()
    }

    fn settle_at(&mut self, place: usize, has_error: bool, is_error: Option<bool>) {
        let call = self.calls.swap_remove(place);
        let outcome = if has_error {
            CallOutcome::Error
        } else if call.is_tool && is_error == Some(true) {
            CallOutcome::ToolError
        } else {
            CallOutcome::Answered
        };
        self.count(&call, outcome);
    }
}

/// Returns the tool that a message calls.
fn tool_of<'a>(method: &str, name: Option<&'a str>) -> Option<&'a str> {
    name.filter(|_| method == "tools/call")
}

impl Drop for OpenCalls {
    fn drop(&mut self) {
        self.take_streamed();
        self.end(CallOutcome::Unanswered);
    }
}

/// Returns the media type of an answer that can be read.
fn media_type(headers: &HeaderMap) -> Option<&'static [u8]> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let value = value.split(|byte| *byte == b';').next()?.trim_ascii();
    let known: [&[u8]; 2] = [b"application/json", b"text/event-stream"];
    known.into_iter().find(|known| value.eq_ignore_ascii_case(known))
}

/// Reads the outcome of calls in the body of their answer.
pub(super) struct AnswerReader {
    calls: OpenCalls,
    until: ScanUntil,
    /// Made for the first message that is not there as a whole.
    scanner: Option<Box<MessageScanner>>,
    /// For an event stream.
    lines: Option<EventLines>,
}

impl AnswerReader {
    /// Reads a piece of the body. Returns whether any call is still open.
    pub(super) fn see(&mut self, piece: &[u8]) -> bool {
        let Self { calls, until, scanner, lines } = self;
        match lines {
            None => see_data(calls, *until, scanner, piece),
            Some(lines) => lines.read(piece, |part| match part {
                EventPart::Data(data) => see_data(calls, *until, scanner, data),
                EventPart::End => {
                    if let Some(scanner) = scanner {
                        scanner.reset();
                    }
                    true
                }
            }),
        }
    }
}

fn see_data(
    calls: &mut OpenCalls,
    until: ScanUntil,
    scanner: &mut Option<Box<MessageScanner>>,
    data: &[u8],
) -> bool {
    if scanner.as_ref().is_none_or(|scanner| scanner.is_between_messages()) && calls.is_one() {
        if is_plain_result(data) {
            calls.settle_at(0, false, None);
            return false;
        }
        if let Some(message) = WholeMessage::read(data) {
            return calls.settle_one(&message);
        }
    }
    let scanner = scanner.get_or_insert_with(|| Box::new(MessageScanner::new(until)));
    scanner.feed(data, |message| calls.settle(&message))
}

/// Shows a frame of a body to its reader. A reader that knows all outcomes goes.
pub(super) fn show(
    reader: &mut Option<AnswerReader>,
    frame: &Poll<Option<Result<Frame<Bytes>, axum::Error>>>,
) {
    if let Some(reading) = reader
        && let Poll::Ready(Some(Ok(frame))) = frame
        && let Some(data) = frame.data_ref()
        && !reading.see(data)
    {
        *reader = None;
    }
}

/// A request body whose messages are read while it passes.
struct WatchedBody {
    inner: Body,
    scanner: Arc<Lock<StreamedMessages>>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.scanner.lock().feed(data);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
