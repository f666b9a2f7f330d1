//! Server-sent events.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{self, error::RecvError};

use super::event_stream_headers;

/// Keep-alive: a comment is sent every 15 s, so that proxies do not close an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Returns an event stream that stays open and delivers every broadcast message.
pub(super) fn events(events: broadcast::Receiver<String>) -> Response {
    let first = Some(": connected\n\n".to_owned());
    let stream = stream::unfold((first, events), |(first, mut events)| async move {
        let text = match first {
            Some(text) => text,
            None => match tokio::time::timeout(KEEP_ALIVE, events.recv()).await {
                Ok(Ok(text)) => text,
                Ok(Err(RecvError::Lagged(_))) | Err(_) => ": still here\n\n".to_owned(),
                Ok(Err(RecvError::Closed)) => return None,
            },
        };
        Some((Ok::<Bytes, io::Error>(Bytes::from(text)), (None, events)))
    });
    (event_stream_headers(), Body::from_stream(stream)).into_response()
}

/// Returns the messages as an event stream that then ends.
pub(super) fn single(messages: &[String]) -> Response {
    let events: Vec<String> =
        messages.iter().map(|message| format!("event: message\ndata: {message}\n\n")).collect();
    (event_stream_headers(), events.concat()).into_response()
}
