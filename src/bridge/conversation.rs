//! What is under way between one process and its callers: which message of the process reaches which caller.
//!
//! A process that serves one session gets every message as it was sent. Where several callers share a process,
//! each request gets an id of its own, and each progress token too, so that nobody receives an answer to
//! somebody else's request. A message that belongs to nobody's request goes to callers only if it cannot tell
//! them about others.

mod routing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::ErrorCode;

use super::message::{RpcId, RpcKind, RpcMessage, error_response};
use super::queue::{QueueReceiver, QueueSender, queue};

/// Most messages that wait for a session to open a stream.
const BACKLOG: usize = 64;

/// Who uses a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    OneSession,
    /// All sessions and requests of one person.
    OnePerson,
    /// Callers without names.
    Anybody,
}

/// A caller of a shared process: the id of a session; empty for requests without sessions.
pub(super) type BridgeCaller = Arc<str>;

/// A message on its way to a caller.
pub(super) struct Delivery {
    pub(super) text: String,
    pub(super) kind: DeliveryKind,
}

/// What a message is to the caller who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryKind {
    /// A message before the answer, or without a request.
    Interim,
    /// The result of the request.
    Result,
    /// The error that answers the request, with its code.
    Error(i64),
}

type ToCaller = QueueSender<Delivery>;

/// Why a request was not begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// The process has ended.
    Ended(String),
    /// The session has a request with this id.
    IdInUse,
}

/// A request that was begun.
pub(super) struct BegunCall {
    /// The id that the process knows.
    pub(super) id: RpcId,
    /// Tells it from a later request with the same id.
    pub(super) order: u64,
    /// The message for the process.
    pub(super) text: String,
    /// The messages for the caller.
    pub(super) events: QueueReceiver<Delivery>,
}

struct PendingCall {
    raw_id: String,
    raw_token: Option<String>,
    token: Option<RpcId>,
    caller: BridgeCaller,
    to: ToCaller,
    /// Whether the caller takes other messages before the answer.
    streams: bool,
    order: u64,
}

struct SessionStream {
    to: ToCaller,
    order: u64,
}

struct ConversationState {
    next: u64,
    calls: HashMap<RpcId, PendingCall>,
    /// Progress tokens that the process knows, and the requests they belong to.
    tokens: HashMap<RpcId, RpcId>,
    streams: HashMap<BridgeCaller, SessionStream>,
    /// Requests of a shared process, and the session that has to answer each.
    asked: HashMap<RpcId, BridgeCaller>,
    backlog: VecDeque<String>,
    ended: Option<String>,
}

/// The calls and streams of one process.
pub(super) struct Conversation {
    sharing: Sharing,
    longest: usize,
    state: Mutex<ConversationState>,
}

impl Conversation {
    /// `longest` is the length of the longest message, in bytes.
    pub(super) fn new(sharing: Sharing, longest: usize) -> Self {
        let state = ConversationState {
            next: 0,
            calls: HashMap::new(),
            tokens: HashMap::new(),
            streams: HashMap::new(),
            asked: HashMap::new(),
            backlog: VecDeque::new(),
            ended: None,
        };
        Self { sharing, longest, state: Mutex::new(state) }
    }

    fn is_shared(&self) -> bool {
        self.sharing != Sharing::OneSession
    }

    /// Registers a request.
    pub(super) fn begin(
        &self,
        caller: &BridgeCaller,
        message: &RpcMessage,
        streams: bool,
    ) -> Result<BegunCall, NotBegun> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.ended {
            return Err(NotBegun::Ended(reason.clone()));
        }
        state.next += 1;
        let order = state.next;
        let number = order.to_string();
        let as_sent = message.id.as_ref().map(|id| id.id.clone());
        let ours = RpcId::Number(number.clone());
        let id = as_sent.filter(|_| !self.is_shared()).unwrap_or_else(|| ours.clone());
        if state.calls.contains_key(&id) {
            return Err(NotBegun::IdInUse);
        }
        let token = message.progress.as_ref();
        let known = token.map(|token| if self.is_shared() { ours } else { token.id.clone() });
        let text = if self.is_shared() {
            message.with(&[(message.id.as_ref(), &number), (token, &number)])
        } else {
            message.text().to_owned()
        };
        let (to, events) = queue(self.longest + 1024);
        if let Some(known) = &known {
            state.tokens.insert(known.clone(), id.clone());
        }
        let call = PendingCall {
            raw_id: message.raw_id().to_owned(),
            raw_token: token.map(|token| message.raw(token).to_owned()),
            token: known,
            caller: Arc::clone(caller),
            to,
            streams,
            order,
        };
        state.calls.insert(id.clone(), call);
        Ok(BegunCall { id, order, text, events })
    }

    /// Forgets a request that its caller does not wait for any more. Returns whether it was under way.
    pub(super) fn forget(&self, id: &RpcId, order: u64) -> bool {
        let mut state = self.state.lock();
        let is_same = state.calls.get(id).is_some_and(|call| call.order == order);
        is_same && state.take(id).is_some()
    }

    /// Opens the stream of a session for messages that belong to no request. An older one ends. Returns its
    /// number; `None` if the process has ended.
    pub(super) fn listen(&self, caller: &BridgeCaller) -> Option<(u64, QueueReceiver<Delivery>)> {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return None;
        }
        state.next += 1;
        let order = state.next;
        let (to, events) = queue(self.longest + 1024);
        while let Some(text) = state.backlog.pop_front() {
            let length = text.len();
            if to.send_now(Delivery { text, kind: DeliveryKind::Interim }, length).is_err() {
                break;
            }
        }
        state.streams.insert(Arc::clone(caller), SessionStream { to, order });
        Some((order, events))
    }

    /// Closes a stream, unless another has replaced it.
    pub(super) fn stop_listening(&self, caller: &BridgeCaller, order: u64) {
        let mut state = self.state.lock();
        if state.streams.get(caller).is_some_and(|stream| stream.order == order) {
            state.streams.remove(caller);
        }
    }

    /// Forgets a session.
    pub(super) fn leave(&self, caller: &BridgeCaller) {
        let mut state = self.state.lock();
        state.streams.remove(caller);
        state.asked.retain(|_, asked| asked != caller);
        let left: Vec<RpcId> = state.calls_of(caller).map(|(id, _)| id.clone()).collect();
        for id in left {
            state.take(&id);
        }
    }

    /// Whether a session has a request under way or a stream open.
    pub(super) fn serves(&self, caller: &BridgeCaller) -> bool {
        let state = self.state.lock();
        state.streams.contains_key(caller) || state.calls_of(caller).next().is_some()
    }

    /// Whether nobody has a request under way or a stream open.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        state.calls.is_empty() && state.streams.is_empty()
    }

    /// Returns the number of requests under way.
    pub(super) fn calls(&self) -> usize {
        self.state.lock().calls.len()
    }

    /// Whether the process has ended, or is about to.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// Returns the text of a notification or response of a caller for the process; `None` if it means nothing
    /// to it.
    pub(super) fn pass_on(&self, caller: &BridgeCaller, message: &RpcMessage) -> Option<String> {
        if !self.is_shared() {
            return Some(message.text().to_owned());
        }
        let mut state = self.state.lock();
        match (message.kind, &message.cancels) {
            (RpcKind::Response, _) => {
                let id = message.id.as_ref().map(|id| &id.id)?;
                if state.asked.get(id) != Some(caller) {
                    return None; // somebody else was asked
                }
                state.asked.remove(id);
                Some(message.text().to_owned())
            }
            (_, Some(cancels)) => {
                // Of callers without names, nobody can tell whose request it is.
                let raw = message.raw(cancels);
                let mut own = state.calls_of(caller).filter(|(_, call)| call.raw_id == raw);
                let (id, _) = own.next().filter(|_| self.sharing == Sharing::OnePerson)?;
                let id = id.to_json();
                Some(message.with(&[(Some(cancels), &id)]))
            }
            _ => Some(message.text().to_owned()),
        }
    }

    /// Ends everything that is under way, and returns the answers. Later requests get `reason`.
    pub(super) fn end(&self, reason: &str) -> Vec<(ToCaller, Delivery)> {
        let mut state = self.state.lock();
        state.ended = Some(reason.to_owned());
        state.streams.clear();
        state.tokens.clear();
        state.backlog.clear();
        let error = |call: PendingCall| {
            let code = ErrorCode::INTERNAL_ERROR;
            let text = error_response(&call.raw_id, code, reason);
            (call.to, Delivery { text, kind: DeliveryKind::Error(code.0.into()) })
        };
        state.calls.drain().map(|(_, call)| error(call)).collect()
    }
}

impl ConversationState {
    fn take(&mut self, id: &RpcId) -> Option<PendingCall> {
        let call = self.calls.remove(id)?;
        if let Some(token) = &call.token
            && self.tokens.get(token) == Some(id)
        {
            self.tokens.remove(token);
        }
        Some(call)
    }

    fn calls_of<'a>(
        &'a self,
        caller: &'a BridgeCaller,
    ) -> impl Iterator<Item = (&'a RpcId, &'a PendingCall)> {
        self.calls.iter().filter(move |(_, call)| call.caller == *caller)
    }

    fn stream_of(&self, caller: &BridgeCaller) -> Option<ToCaller> {
        let stream = self.streams.get(caller).map(|stream| stream.to.clone());
        stream.or_else(|| {
            let calls = self.calls_of(caller).filter(|(_, call)| call.streams);
            calls.max_by_key(|(_, call)| call.order).map(|(_, call)| call.to.clone())
        })
    }

    /// Keeps a message until the session opens a stream. Returns whether there was room.
    fn keep(&mut self, message: &RpcMessage) -> bool {
        let room = self.backlog.len() < BACKLOG;
        if room {
            self.backlog.push_back(message.text().to_owned());
        } else {
            tracing::debug!("a message of an MCP server that no stream is open for");
        }
        room
    }
}

impl Delivery {
    fn of(message: &RpcMessage) -> Self {
        Self { text: message.text().to_owned(), kind: DeliveryKind::Interim }
    }
}

#[cfg(test)]
mod tests;
