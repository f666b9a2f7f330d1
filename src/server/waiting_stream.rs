//! Event streams that wait for events, in HTTP/1.1.
//!
//! hyper keeps two buffers of 8 KiB and its own state for a connection, whatever happens on it. An event stream
//! waits most of its time, so it is taken out of hyper as soon as its head and all events so far are sent. From then
//! on the events are written here, each as a chunk (RFC 9112 §7.1). When the stream has ended, hyper serves the next
//! request of the connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Version, header};
use hyper::body::{Body as HttpBody, Buf as _, Bytes, Frame};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::timeouts::{
    ConnectionActivity, EventStream, EventStreamProgress, InFlightRequest, TimeoutStream,
};

/// How long hyper sends the stream of a POST: 10 s. Most of them answer a call and end soon. That of a GET listens.
const STAYS_IN_HYPER: Duration = Duration::from_secs(10);

/// The last chunk.
const END: &[u8] = b"0\r\n\r\n";

/// What has to be known of a request to send an event stream in response.
pub(super) struct StreamRequest {
    is_get: bool,
    keeps_connection: bool,
}

impl StreamRequest {
    /// Returns `None` if the response cannot be a chunked one.
    pub(super) fn of(version: Version, method: &Method, headers: &HeaderMap) -> Option<Self> {
        if version != Version::HTTP_11 || !matches!(*method, Method::GET | Method::POST) {
            return None;
        }
        let keeps_connection = !headers.contains_key(header::CONNECTION) || keeps(headers);
        Some(Self { is_get: *method == Method::GET, keeps_connection })
    }
}

/// Whether the other side may send another request.
fn keeps(headers: &HeaderMap) -> bool {
    let mut options = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Whether a response is an event stream that hyper sends in chunks.
pub(super) fn is_stream(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let is_events = |kind: &header::HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    response.body().size_hint().exact().is_none()
        && response.status() == axum::http::StatusCode::OK
        && headers.get(header::CONTENT_TYPE).is_some_and(is_events)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// The body of an event stream, as long as hyper sends it.
pub(super) struct StreamInHyper(Arc<ConnectionActivity>);

impl StreamInHyper {
    pub(super) fn new(
        activity: Arc<ConnectionActivity>,
        request: &StreamRequest,
        (body, under_way): (Body, InFlightRequest),
    ) -> Self {
        let since = (!request.is_get).then(Instant::now);
        let keeps_connection = request.keeps_connection;
        activity.stream_begins(EventStream {
            body,
            _under_way: under_way,
            since,
            keeps_connection,
        });
        Self(activity)
    }
}

impl HttpBody for StreamInHyper {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut place = self.0.stream();
        let Some(stream) = place.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut stream.body).poll_frame(context);
        if frame.is_ready() {
            self.0.stream_progresses(EventStreamProgress::Writing);
            if let Some(since) = &mut stream.since {
                *since = Instant::now();
            }
        } else {
            self.0.stream_progresses(EventStreamProgress::Waiting);
        }
        frame
    }
}

impl Drop for StreamInHyper {
    fn drop(&mut self) {
        // Nothing is there if it was taken out.
        *self.0.stream() = None;
    }
}

/// Takes the stream out that waits on this connection; `None` if there is none, or if hyper still has something to
/// do.
pub(super) fn take(activity: &ConnectionActivity) -> Option<EventStream> {
    if !activity.is_stream_waiting() {
        return None;
    }
    let mut place = activity.stream();
    let waiting = place
        .take_if(|stream| stream.since.is_none_or(|since| since.elapsed() >= STAYS_IN_HYPER))?;
    activity.stream_progresses(EventStreamProgress::Writing); // there is none in hyper any more
    Some(waiting)
}

impl EventStream {
    /// Sends the rest of the stream. Fails if the other side has gone, or if the stream broke off.
    pub(super) async fn send(&mut self, connection: &mut TimeoutStream) -> io::Result<()> {
        loop {
            let frame = poll_fn(|context| self.poll_next(connection, context)).await?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.into_data() else { break }; // trailers end it: no allow-list has checked them
            if data.is_empty() {
                continue; // an empty chunk would be the last one
            }
            let size = format!("{:x}\r\n", data.len());
            let mut chunk = size.as_bytes().chain(data).chain(&b"\r\n"[..]);
            connection.write_all_buf(&mut chunk).await?;
            connection.flush().await?;
        }
        connection.write_all(END).await?;
        connection.flush().await
    }

    fn poll_next(
        &mut self,
        connection: &mut TimeoutStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.transpose().map_err(io::Error::other));
        }
        ready!(connection.poll_left(context));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_unless_the_client_says_otherwise() {
        for (values, keeps) in [
            (&[][..], true),
            (&["keep-alive"], true),
            (&["Close"], false),
            (&["keep-alive, close"], false),
            (&["te", "close"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONNECTION, value.parse().unwrap());
            }
            let request = StreamRequest::of(Version::HTTP_11, &Method::GET, &headers).unwrap();
            assert_eq!(request.keeps_connection, keeps, "{values:?}");
        }
        for (version, method) in [
            (Version::HTTP_10, Method::GET),
            (Version::HTTP_2, Method::GET),
            (Version::HTTP_11, Method::HEAD),
        ] {
            assert!(StreamRequest::of(version, &method, &HeaderMap::new()).is_none());
        }
    }
}
