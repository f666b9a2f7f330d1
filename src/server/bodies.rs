//! Timeouts for bodies on a connection: a request body must arrive in time, and the client must read a
//! response in time.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, Sleep, sleep_until};

use super::timeouts::{ConnectionActivity, InFlightRequest, LINGERING, LINGERING_OVER};
use crate::web::body::Broken;

/// How many bytes of a body that no handler read are still read, so that an HTTP/1.1 connection can be
/// reused. The connection of a larger body is closed.
const SKIPPED: u64 = 64 * 1024;
/// How long such a body is read for.
const SKIPPING: Duration = Duration::from_secs(1);
/// HTTP/2 responses are passed to hyper in pieces of 16 KiB. The client must read each piece before the
/// timeout.
const PIECE: usize = 16 * 1024;

thread_local! {
    /// The progress of the stream that this thread is polling.
    static STREAM: Cell<StreamProgress> = const { Cell::new(StreamProgress::Stuck) };
}

/// The progress that an HTTP/2 stream made in one poll.
#[derive(Clone, Copy)]
enum StreamProgress {
    /// None: it waits for the client.
    Stuck,
    /// The client opened its window for another piece of the response.
    Moved,
    /// It waits for a handler, or for an upstream server.
    WaitsForUs,
}

/// The body of a request, as a handler reads it.
pub(super) struct RequestBody(Arc<Mutex<Arriving>>);

/// The same body, for use after the response is ready.
pub(super) struct RestOfBody(Arc<Mutex<Arriving>>);

struct Arriving {
    incoming: Incoming,
    ended: bool,
    due: Instant,
    late: Option<Pin<Box<Sleep>>>,
    traffic: Arc<ConnectionActivity>,
}

impl RequestBody {
    /// Wraps a body that must arrive completely `within` that time.
    pub(super) fn new(
        incoming: Incoming,
        within: Duration,
        traffic: Arc<ConnectionActivity>,
    ) -> (Self, RestOfBody) {
        let due = Instant::now() + within;
        traffic.body_begins();
        let arriving = Arriving { incoming, ended: false, due, late: None, traffic };
        let arriving = Arc::new(Mutex::new(arriving));
        (Self(Arc::clone(&arriving)), RestOfBody(arriving))
    }
}

fn lock(arriving: &Mutex<Arriving>) -> MutexGuard<'_, Arriving> {
    arriving.lock()
}

impl Arriving {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            self.ended = !matches!(frame, Some(Ok(_))) || self.incoming.is_end_stream();
            if self.ended {
                self.traffic.body_ends();
            }
            let frame = frame.map(|frame| frame.map_err(|cause| axum::Error::new(Broken(cause))));
            return Poll::Ready(frame);
        }
        let due = self.due;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(late.as_mut().poll(context));
        let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time");
        Poll::Ready(Some(Err(axum::Error::new(late))))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.ended {
            self.traffic.leave_unread();
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        lock(&self.0).poll(context)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).incoming.size_hint()
    }
}

impl RestOfBody {
    /// Reads a small rest of a body that no handler read. Returns whether the body has been read completely.
    /// If not, the connection has to be closed after the response, and a client that is still writing could
    /// lose that response. A body that something still reads is left alone.
    pub(super) async fn skip(self, asks_first: bool) -> bool {
        if Arc::strong_count(&self.0) > 1 {
            return true;
        }
        let (ended, declared) = {
            let arriving = lock(&self.0);
            (arriving.ended, arriving.incoming.size_hint().lower())
        };
        // A client that sent `Expect: 100-continue` does not send the body after a final status.
        if ended || declared > SKIPPED || asks_first {
            return ended;
        }
        tokio::time::timeout(SKIPPING, self.read_away(SKIPPED)).await.unwrap_or(false)
    }

    /// Reads the rest of an HTTP/2 body in the background while the response is sent. If the stream were
    /// reset at once, some proxies would discard the response.
    pub(super) fn linger(self, asks_first: bool) {
        if Arc::strong_count(&self.0) > 1 || lock(&self.0).ended || asks_first {
            return;
        }
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LINGERING, self.read_away(LINGERING_OVER)).await;
        });
    }

    /// Reads to the end, or until `most` bytes have been read. Returns whether the end was reached.
    async fn read_away(&self, most: u64) -> bool {
        let mut left = most;
        std::future::poll_fn(|context| {
            loop {
                match ready!(lock(&self.0).poll(context)) {
                    None => return Poll::Ready(true),
                    Some(Err(_)) => return Poll::Ready(false),
                    Some(Ok(frame)) => {
                        let length = frame.data_ref().map_or(0, Bytes::len);
                        left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                        if left == 0 {
                            return Poll::Ready(false);
                        }
                    }
                }
            }
        })
        .await
    }
}

/// The body of a response. Its request counts as in flight until this is dropped.
pub(super) struct AnswerBody {
    inner: Body,
    /// In HTTP/2, the part of the last frame that was not passed to hyper yet.
    rest: Option<Bytes>,
    /// `None` if the body has it.
    _under_way: Option<InFlightRequest>,
}

impl AnswerBody {
    pub(super) fn new(inner: Body, in_pieces: bool, under_way: Option<InFlightRequest>) -> Self {
        Self { inner, rest: in_pieces.then(Bytes::new), _under_way: under_way }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let waiting = this.rest.as_mut().filter(|rest| !rest.is_empty());
        let frame = match waiting {
            Some(rest) => Frame::data(rest.split_off(0)),
            None => match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(other) => return Poll::Ready(other),
                Poll::Pending => {
                    waits_for_us();
                    return Poll::Pending;
                }
            },
        };
        STREAM.set(StreamProgress::Moved);
        // Trailers end the body here: no allow-list has checked them.
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        if let Some(rest) = &mut this.rest {
            *rest = if data.len() > PIECE { data.split_off(PIECE) } else { Bytes::new() };
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(Bytes::is_empty) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len() as u64);
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Records that the stream being polled waits for us: for a handler, or for an upstream server.
pub(super) fn waits_for_us() {
    STREAM.set(StreamProgress::WaitsForUs);
}

/// Runs the streams of HTTP/2 connections. A stream is reset if its client does not open a window for the
/// response, or does not read it, for `timeout`; other streams of the connection continue.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub(super) timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let timeout = self.timeout;
        tokio::spawn(Taken { stream: Box::pin(stream), timeout, late: None });
    }
}

struct Taken<F> {
    stream: Pin<Box<F>>,
    timeout: Duration,
    late: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Taken<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        STREAM.set(StreamProgress::Stuck);
        if this.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match STREAM.get() {
            StreamProgress::WaitsForUs => {
                this.late = None;
                return Poll::Pending;
            }
            StreamProgress::Moved => this.late = None,
            StreamProgress::Stuck => {}
        }
        let timeout = this.timeout;
        let late = this.late.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(late.as_mut().poll(context));
        tracing::debug!("a stream was not taken away in time");
        Poll::Ready(()) // dropping the stream resets it
    }
}
