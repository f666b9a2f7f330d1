//! A to-do MCP server for use behind Portcullis. It contains no token code and trusts the `X-Portcullis-*`
//! headers. One tool reads the person's calendar, with the token in `X-Calendar-Token`.
//!
//! It supports MCP over streamable HTTP in both generations: with sessions, an event stream and `initialize`
//! (2025-03-26 to 2025-11-25), and stateless (2026-07-28).

mod agenda;
mod refused;
mod results;
mod rpc;
mod stream;
mod tools;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use self::refused::TodoRefused;
use self::tools::Todo;
use super::http::{Gate, Recorded, Recording, Running, broken_off, serve};
use crate::clock::Clock;
use crate::oauth::secret::new_id;

/// Path of the MCP endpoint.
const PATH: &str = "/mcp";
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Start options of the to-do server.
#[derive(Clone, Debug)]
pub struct TodoServerOptions {
    /// Clock for its ids.
    pub clock: Clock,
    /// Where the calendar is that the tool `agenda` reads.
    pub calendar: Option<SocketAddr>,
}

/// Switches for misbehaviour; by default all are off.
#[derive(Clone, Debug, Default)]
pub struct TodoMisbehaviour {
    /// Every request gets this status and these headers.
    pub answer: Option<(u16, Vec<(&'static str, String)>)>,
    pub break_off: bool,
    /// Event streams have this content type.
    pub stream_type: Option<&'static str>,
}

#[derive(Clone)]
pub struct TodoServer {
    shared: Arc<TodoShared>,
    address: SocketAddr,
    running: Running,
}

struct TodoShared {
    clock: Clock,
    calendar: Option<SocketAddr>,
    gate: Gate,
    events: broadcast::Sender<String>,
    state: Mutex<TodoState>,
}

#[derive(Default)]
struct TodoState {
    todos: Vec<Todo>,
    sessions: BTreeSet<String>,
    misbehaviour: TodoMisbehaviour,
    recorded: Recording,
}

/// The caller, as named by the gateway's headers.
struct NamedCaller {
    subject: String,
    name: String,
    scopes: Vec<String>,
    /// The person's token for the calendar.
    calendar_token: Option<String>,
}

impl NamedCaller {
    fn of(request: &Recorded) -> Option<Self> {
        let subject = request.header("x-portcullis-subject")?.to_owned();
        let scopes = request.header("x-portcullis-scopes").unwrap_or_default();
        Some(Self {
            name: request.header("x-portcullis-name").unwrap_or(&subject).to_owned(),
            scopes: scopes.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            calendar_token: request.header("x-calendar-token").map(str::to_owned),
            subject,
        })
    }

    fn may(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }
}

impl TodoServer {
    /// Serves on `listener`, which must be on loopback.
    pub fn start(listener: TcpListener, options: TodoServerOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(TodoShared {
            clock: options.clock,
            calendar: options.calendar,
            gate: Gate::default(),
            events: broadcast::Sender::new(64),
            state: Mutex::default(),
        });
        let handle =
            |shared: Arc<TodoShared>, request| async move { handle(&shared, request).await };
        let running = serve(listener, Arc::clone(&shared), handle, refused::unread)?;
        Ok(Self { shared, address, running })
    }

    /// Returns the URL of the MCP endpoint.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Changes the switches for misbehaviour.
    pub fn misbehave(&self, change: impl FnOnce(&mut TodoMisbehaviour)) {
        change(&mut self.shared.state.lock().misbehaviour);
    }

    /// Returns the gate that delays responses while it is closed.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Returns all requests so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.state.lock().recorded.all()
    }

    /// Returns the number of open event streams.
    pub fn open_streams(&self) -> usize {
        self.shared.events.receiver_count()
    }

    /// Sends a message on every open event stream.
    pub fn send_event(&self, message: &Value) {
        // An error means only that no stream is open.
        let _ = self.shared.events.send(format!("event: message\ndata: {message}\n\n"));
    }

    /// Stops serving and closes open connections.
    pub fn shutdown(&self) {
        self.running.stop();
    }
}

async fn handle(server: &TodoShared, request: Recorded) -> Response {
    let misbehaviour = {
        let mut state = server.state.lock();
        state.recorded.push(request.clone());
        state.misbehaviour.clone()
    };
    server.gate.pass().await;
    if misbehaviour.break_off {
        return broken_off();
    }
    if let Some((status, headers)) = misbehaviour.answer {
        return forced(status, &headers);
    }
    if request.path != PATH {
        return refused::answer(&request, TodoRefused::NotHere);
    }
    let Some(caller) = NamedCaller::of(&request) else {
        return refused::answer(&request, TodoRefused::NamesNobody);
    };
    match request.method.as_str() {
        "POST" => rpc::post(server, &caller, &request).await,
        "GET" => {
            let mut response = get(server, &request);
            if let Some(media_type) = misbehaviour.stream_type.map(HeaderValue::from_static) {
                response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            }
            response
        }
        "DELETE" => delete(server, &request),
        _ => refused::answer(&request, TodoRefused::Method),
    }
}

fn forced(status: u16, headers: &[(&'static str, String)]) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, "told to").into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Opens the event stream of a session.
fn get(server: &TodoShared, request: &Recorded) -> Response {
    let accepts = request.header("accept").is_some_and(|a| a.contains("text/event-stream"));
    if !accepts {
        return refused::answer(request, TodoRefused::TakesNoStream);
    }
    match session_of(server, request) {
        Ok(_) => stream::events(server.events.subscribe()),
        Err(refused) => refused::answer(request, refused),
    }
}

fn delete(server: &TodoShared, request: &Recorded) -> Response {
    match session_of(server, request) {
        Ok(session) => {
            server.state.lock().sessions.remove(&session);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refused) => refused::answer(request, refused),
    }
}

fn session_of(server: &TodoShared, request: &Recorded) -> Result<String, TodoRefused> {
    let session = request.header(SESSION_ID.as_str()).ok_or(TodoRefused::NoSession)?;
    let known = server.state.lock().sessions.contains(session);
    if known { Ok(session.to_owned()) } else { Err(TodoRefused::UnknownSession) }
}

impl TodoShared {
    fn new_session(&self) -> HeaderValue {
        let session = new_id(&self.clock);
        let value = HeaderValue::from_str(&session);
        self.state.lock().sessions.insert(session);
        value.unwrap_or_else(|_| HeaderValue::from_static("session"))
    }
}

fn event_stream_headers() -> [(HeaderName, HeaderValue); 2] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}
