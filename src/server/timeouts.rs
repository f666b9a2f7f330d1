//! Timeouts of a connection that hyper does not have, for HTTP/1.1 and HTTP/2 alike: for request headers, and for
//! idle keep-alive connections. That for writes which the peer does not read is below TLS, in `socket`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Version, header};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::socket::ClientStream;

/// Lingering close after a response to a request whose body was not read completely: the bytes that the
/// client still sends are read and discarded for up to 2 s. If we closed at once, the kernel would send a
/// reset, and the client could lose the response.
pub(super) const LINGERING: Duration = Duration::from_secs(2);
/// Most bytes that are discarded meanwhile: 16 MiB.
pub(super) const LINGERING_OVER: u64 = 16 * 1024 * 1024;

/// How often a connection that hyper is not reading from is checked for a close by the peer.
const LOOK: Duration = Duration::from_secs(5);

/// Most unread bytes that may queue up behind a request in flight. If there are more, the peer counts as
/// gone: its FIN might be stuck behind them.
const MOST_BEHIND: usize = 32 * 1024;

/// Most header bytes to keep for comparison, more than hyper accepts.
const LONGEST_HEAD: usize = 512 * 1024;

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    /// For the headers of a request, from their first byte.
    pub(super) headers: Duration,
    /// Idle time between requests.
    pub(super) idle: Duration,
    /// For the peer to read some of what we send, and for the whole body of a request to arrive.
    pub(super) body: Duration,
}

/// What happens on a connection; shared by its stream and its requests.
pub(super) struct ConnectionActivity {
    opened: Instant,
    under_way: AtomicUsize,
    begun: AtomicU64,
    /// When the last request ended, in milliseconds after `opened`.
    quiet_since: AtomicU64,
    unread: AtomicBool,
    http2: AtomicBool,
    /// The body of the last request is still arriving. May outlast the response.
    body: AtomicBool,
    /// The raw bytes of request headers, kept until their request begins.
    head: Mutex<Vec<u8>>,
    /// How far the event stream is that hyper sends in response: a [`EventStreamProgress`].
    progress: AtomicU8,
    /// That stream.
    stream: Mutex<Option<EventStream>>,
}

/// An event stream that is being sent in response (`waiting_stream`).
pub(super) struct EventStream {
    pub(super) body: Body,
    /// Held until the stream has ended.
    pub(super) _under_way: InFlightRequest,
    /// Since when it waits; `None` if that does not matter.
    pub(super) since: Option<Instant>,
    /// Another request may follow on its connection.
    pub(super) keeps_connection: bool,
}

/// How far an event stream is that hyper sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum EventStreamProgress {
    /// There is none, or not all of it has been sent so far.
    Writing,
    /// It waits for an event. hyper may have to send what came before.
    Waiting,
    /// It waits for an event, and everything before is sent.
    Flushed,
}

/// A request in flight. It ends when its response has been passed to hyper completely.
pub(super) struct InFlightRequest(Arc<ConnectionActivity>);

impl ConnectionActivity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            under_way: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            quiet_since: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            body: AtomicBool::new(false),
            head: Mutex::default(),
            progress: AtomicU8::new(EventStreamProgress::Writing as u8),
            stream: Mutex::default(),
        }
    }

    /// Records that an event stream is sent in response.
    pub(super) fn stream_begins(&self, stream: EventStream) {
        self.progress.store(EventStreamProgress::Writing as u8, Ordering::Relaxed);
        *self.stream() = Some(stream);
    }

    /// The event stream that hyper sends.
    pub(super) fn stream(&self) -> MutexGuard<'_, Option<EventStream>> {
        self.stream.lock()
    }

    /// Records what hyper got of the stream last. All of this happens in the task of the connection.
    pub(super) fn stream_progresses(&self, progress: EventStreamProgress) {
        // What was waiting and is flushed stays so, until there is something to write.
        if progress == EventStreamProgress::Writing || self.is_at(EventStreamProgress::Writing) {
            self.progress.store(progress as u8, Ordering::Relaxed);
        }
    }

    /// Records that everything is sent that hyper has got so far.
    fn flushed(&self) {
        if self.is_at(EventStreamProgress::Waiting) {
            self.progress.store(EventStreamProgress::Flushed as u8, Ordering::Relaxed);
        }
    }

    fn is_at(&self, progress: EventStreamProgress) -> bool {
        self.progress.load(Ordering::Relaxed) == progress as u8
    }

    /// Whether an event stream waits for an event, and hyper has nothing to read or write.
    pub(super) fn is_stream_waiting(&self) -> bool {
        self.is_at(EventStreamProgress::Flushed) && !self.body.load(Ordering::Acquire)
    }

    /// Records that the headers of a request have been read.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlightRequest {
        self.http2.store(version == Version::HTTP_2, Ordering::Release);
        self.body.store(false, Ordering::Release); // the body before it no longer matters
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        InFlightRequest(Arc::clone(self))
    }

    /// Whether the headers of this request may have declared the length of its body twice. hyper drops
    /// `Content-Length` if there is a `Transfer-Encoding`, but a proxy in front may not. So for a request
    /// with `Transfer-Encoding`, the raw header bytes must be those of this very request, with as many lines
    /// as hyper reports headers. Bytes that arrived during another request, or with its body, were not
    /// recorded; such a request counts as ambiguous.
    pub(super) fn has_conflicting_length(&self, method: &Method, headers: &HeaderMap) -> bool {
        let head = std::mem::take(&mut *lock(&self.head));
        headers.contains_key(header::TRANSFER_ENCODING)
            && lines_of_headers(&head, method) != Some(headers.len())
    }

    /// Records that the current request has a body.
    pub(super) fn body_begins(&self) {
        self.body.store(true, Ordering::Release);
    }

    /// Records that this body has arrived completely.
    pub(super) fn body_ends(&self) {
        self.body.store(false, Ordering::Release);
    }

    /// Whether the next bytes can only be the headers of a request.
    fn is_between_requests(&self) -> bool {
        self.is_quiet() && !self.body.load(Ordering::Acquire)
    }

    /// Records that a body was not read completely, so the connection cannot be reused.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// Returns the number of lines after the request line. Returns `None` unless `head` is the complete head of a
/// request with this method. Skips empty lines before it, as hyper does.
fn lines_of_headers(head: &[u8], method: &Method) -> Option<usize> {
    let begin = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let head = head[begin..].strip_prefix(method.as_str().as_bytes())?.strip_prefix(b" ")?;
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(head[..end].split(|byte| *byte == b'\n').skip(1).count())
}

fn lock(head: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    head.lock()
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(since, Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Request headers that are arriving.
struct Head {
    since: Instant,
    /// How many requests had begun before this one.
    begun: u64,
}

/// A connection with timeouts, with or without TLS.
pub(super) struct TimeoutStream {
    stream: ClientStream,
    times: ConnectionTimeouts,
    traffic: Arc<ConnectionActivity>,
    head: Option<Head>,
    reading: Option<Pin<Box<Sleep>>>,
    /// How many bytes may still be discarded while lingering; `None` before shutdown.
    lingering: Option<u64>,
    /// hyper has a pending read, so it notices by itself when data arrives or the peer closes.
    is_being_read: bool,
    /// The peer had closed at the last check.
    had_closed: bool,
    /// Bytes of the next request, which came before the present one was answered.
    early: Vec<u8>,
}

impl TimeoutStream {
    /// Wraps a connection on which the first byte has arrived.
    pub(super) fn new(
        stream: ClientStream,
        times: ConnectionTimeouts,
    ) -> (Self, Arc<ConnectionActivity>) {
        let traffic = Arc::new(ConnectionActivity::new());
        let patient = Self {
            stream,
            times,
            traffic: Arc::clone(&traffic),
            head: None,
            reading: None,
            lingering: None,
            is_being_read: true,
            had_closed: false,
            early: Vec::new(),
        };
        (patient, traffic)
    }

    /// Puts bytes back that were read too early.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.early.extend_from_slice(bytes);
    }

    /// Ready when the peer has gone, while nothing is expected from it. Reads a little of what comes all the same,
    /// as hyper does, and leaves the rest in the socket.
    pub(super) fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.early.is_empty() {
            let mut bytes = [0; 256];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *self).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            self.early.extend_from_slice(buffer.filled());
        }
        match Pin::new(self).poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Returns the headers that are arriving, as far as this can be seen below hyper.
    fn in_head(&self) -> Option<&Head> {
        let begun = self.traffic.begun.load(Ordering::Acquire);
        self.head.as_ref().filter(|head| head.begun == begun && self.traffic.is_quiet())
    }

    /// Records bytes that arrived between requests.
    fn hear(&mut self, bytes: &[u8]) {
        if self.traffic.http2.load(Ordering::Acquire) {
            return; // HTTP/2 sends other frames between requests; these count as idle time
        }
        let begins = self.in_head().is_none();
        if begins {
            let begun = self.traffic.begun.load(Ordering::Acquire);
            self.head = Some(Head { since: Instant::now(), begun });
        }
        let mut head = lock(&self.traffic.head);
        if begins {
            head.clear();
        }
        if head.len() < LONGEST_HEAD {
            head.extend_from_slice(bytes);
        }
    }

    /// Returns the time at which the read timeout expires.
    fn due(&self) -> Instant {
        if let Some(head) = self.in_head() {
            return head.since + self.times.headers;
        }
        if !self.traffic.is_quiet() {
            return Instant::now() + self.times.idle; // checked again at that time
        }
        let since = Duration::from_millis(self.traffic.quiet_since.load(Ordering::Acquire));
        self.traffic.opened + since + self.times.idle
    }

    /// Ready when the read timeout has expired. A deadline that moves back costs nothing: the timer is not
    /// reset but compared with the new deadline when it fires.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.due();
            let sleep = self.reading.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if due < sleep.deadline() {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(context));
            let due = self.due();
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            if let Some(sleep) = &mut self.reading {
                sleep.as_mut().reset(due);
            }
        }
    }

    /// Ready when the peer has closed while hyper does not read. hyper stops reading while it holds bytes
    /// that it cannot process yet, such as an empty line after a request. Two checks in a row must find the
    /// connection closed: a client that half-closes after its last pipelined request still gets its responses
    /// as long as they come.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_being_read || self.traffic.http2.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let pause = LOOK.min(self.times.body);
        loop {
            let due = Instant::now() + pause;
            let sleep = self.reading.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if due < sleep.deadline() {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(context));
            sleep.as_mut().reset(due);
            let has_closed = self.stream.socket().has_closed() || self.hides_its_end(context);
            if has_closed && self.had_closed {
                return Poll::Ready(());
            }
            self.had_closed = has_closed;
        }
    }

    /// Whether so many bytes wait behind the request in flight that a FIN could not arrive: it comes after
    /// all data, and the receive window is full. Bytes of a body do not count, because something will read
    /// them.
    fn hides_its_end(&self, context: &mut Context<'_>) -> bool {
        !self.traffic.body.load(Ordering::Acquire)
            && self.stream.socket().has_unread(MOST_BEHIND, context)
    }

    fn poll_lingering(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut thrown_away = [0; 8 * 1024];
        loop {
            let left = self.lingering.unwrap_or(0);
            let sleep = self.reading.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
            if left == 0 || sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut thrown_away);
            // Below TLS: what is thrown away need not be decrypted.
            let socket = Pin::new(self.stream.socket_mut());
            let read = ready!(socket.poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            let read = u64::try_from(buffer.filled().len()).unwrap_or(u64::MAX);
            self.lingering = Some(left.saturating_sub(read));
        }
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let (now, later) = this.early.split_at(this.early.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.early = later.to_vec();
            this.is_being_read = false;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        this.had_closed = false;
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.is_being_read = false;
            let came = buffer.filled().len() > before;
            if came && this.traffic.is_between_requests() {
                this.hear(&buffer.filled()[before..]);
            }
            return Poll::Ready(read);
        }
        this.is_being_read = true;
        ready!(this.poll_late(context));
        tracing::debug!("a connection said too little for too long");
        Poll::Ready(Ok(())) // to hyper this looks as if the peer had closed
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_gone(context).is_ready() {
            tracing::debug!("the other side has closed in the middle of a request");
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        this.traffic.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            let unread = this.traffic.unread.load(Ordering::Acquire) || this.in_head().is_some();
            this.lingering = Some(if unread { LINGERING_OVER } else { 0 });
            this.reading = Some(Box::pin(sleep_until(Instant::now() + LINGERING)));
        }
        this.poll_lingering(context).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }
}
