//! Who gets a message of the process.

use std::sync::Arc;

use rmcp::model::ErrorCode;

use super::super::message::{RpcKind, RpcMessage, error_response};
use super::{BridgeCaller, Conversation, ConversationState, Delivery, DeliveryKind, ToCaller};

/// Most requests of a shared process that wait for the answer of a caller.
const ASKED: usize = 256;

/// What to do with a message of the process.
#[derive(Default)]
pub(in crate::bridge) struct RoutedMessage {
    pub(in crate::bridge) deliveries: Vec<(ToCaller, Delivery)>,
    /// An answer for the process itself.
    pub(in crate::bridge) reply: Option<String>,
}

impl Conversation {
    /// Decides who gets a message of the process.
    pub(in crate::bridge) fn route(&self, message: &RpcMessage) -> RoutedMessage {
        let mut state = self.state.lock();
        match message.kind {
            RpcKind::Response => self.route_answer(&mut state, message),
            RpcKind::Notification => self.route_notification(&mut state, message),
            RpcKind::Request => self.route_question(&mut state, message),
        }
    }

    fn route_answer(&self, state: &mut ConversationState, message: &RpcMessage) -> RoutedMessage {
        let call = message.id.as_ref().and_then(|id| state.take(&id.id));
        let Some(call) = call else {
            tracing::debug!("an answer of an MCP server that nobody waits for");
            return RoutedMessage::default();
        };
        let text = if self.is_shared() {
            let raw = call.raw_id.as_str();
            message.with(&[(message.id.as_ref(), raw), (message.subscription.as_ref(), raw)])
        } else {
            message.text().to_owned()
        };
        let kind = message.error.map_or(DeliveryKind::Result, DeliveryKind::Error);
        RoutedMessage::to(call.to, Delivery { text, kind })
    }

    fn route_notification(
        &self,
        state: &mut ConversationState,
        message: &RpcMessage,
    ) -> RoutedMessage {
        let shared = self.is_shared();
        let token = message.progress.as_ref();
        let of_token = token.and_then(|token| state.tokens.get(&token.id));
        let of_stream = message.subscription.as_ref().map(|subscription| &subscription.id);
        if let Some(call) = of_token.or(of_stream).and_then(|id| state.calls.get(id)) {
            if !call.streams {
                return RoutedMessage::default();
            }
            let text = if shared {
                let raw_token = call.raw_token.as_deref().unwrap_or("null");
                message.with(&[(token, raw_token), (message.subscription.as_ref(), &call.raw_id)])
            } else {
                message.text().to_owned()
            };
            return RoutedMessage::to(
                call.to.clone(),
                Delivery { text, kind: DeliveryKind::Interim },
            );
        }
        if shared && (token.is_some() || of_stream.is_some()) {
            return RoutedMessage::default(); // of a request that is over
        }
        if let (true, Some(cancels)) = (shared, &message.cancels) {
            // The process gives up a question of its own.
            let asked = state.asked.remove(&cancels.id);
            let to = asked.and_then(|caller| state.stream_of(&caller));
            return to.map_or_else(RoutedMessage::default, |to| {
                RoutedMessage::to(to, Delivery::of(message))
            });
        }
        let mut routed = RoutedMessage::default();
        for stream in state.streams.values() {
            routed.deliveries.push((stream.to.clone(), Delivery::of(message)));
        }
        if !routed.deliveries.is_empty() {
            return routed;
        }
        let calls = state.calls.values().filter(|call| call.streams);
        let newest = calls.max_by_key(|call| call.order).map(|call| call.to.clone());
        match newest {
            // Of several callers, nobody can tell which one it is for.
            Some(to) if !shared || state.calls.len() == 1 => {
                RoutedMessage::to(to, Delivery::of(message))
            }
            _ if shared => RoutedMessage::default(),
            _ => {
                state.keep(message);
                RoutedMessage::default()
            }
        }
    }

    /// A request of the process goes to exactly one stream.
    fn route_question(&self, state: &mut ConversationState, message: &RpcMessage) -> RoutedMessage {
        let shared = self.is_shared();
        // Requests without sessions (2026-07-28) may not be asked anything.
        let has_session = |caller: &BridgeCaller| !shared || !caller.is_empty();
        let calls = state.calls.values().filter(|call| call.streams && has_session(&call.caller));
        let of_call = calls.max_by_key(|call| call.order).map(|call| (&call.caller, &call.to));
        let streams = state.streams.iter().max_by_key(|(_, stream)| stream.order);
        let to = of_call.or_else(|| streams.map(|(caller, stream)| (caller, &stream.to)));
        let to = to.map(|(caller, to)| (Arc::clone(caller), to.clone()));
        match to {
            Some((caller, to)) if !shared || state.asked.len() < ASKED => {
                if let (true, Some(id)) = (shared, &message.id) {
                    state.asked.insert(id.id.clone(), caller);
                }
                RoutedMessage::to(to, Delivery::of(message))
            }
            None if !shared && state.keep(message) => RoutedMessage::default(),
            _ => RoutedMessage {
                reply: Some(error_response(
                    message.raw_id(),
                    ErrorCode::METHOD_NOT_FOUND,
                    "No client of this bridge can be asked now",
                )),
                ..RoutedMessage::default()
            },
        }
    }
}

impl RoutedMessage {
    fn to(to: ToCaller, delivery: Delivery) -> Self {
        Self { deliveries: vec![(to, delivery)], reply: None }
    }
}
