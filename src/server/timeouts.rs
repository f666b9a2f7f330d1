//! A connection whose other side has to keep going: to say its headers, to come back, to read what it is
//! sent. What hyper does not time is timed here, for HTTP/1.1 and HTTP/2 alike.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Version, header};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// After an answer to a request that was not read whole, what the client still sends is thrown away for
/// so long, and so much of it: closed at once, the system would take the answer back with a reset.
pub(super) const LINGERING: Duration = Duration::from_secs(2);
pub(super) const LINGERING_OVER: u64 = 16 * 1024 * 1024;

/// How often it is looked at whether a client has closed that is not being read from.
const LOOK: Duration = Duration::from_secs(5);

/// Most that may wait unread behind a request until that is answered.
const MOST_BEHIND: usize = 32 * 1024;

/// More than hyper reads of headers is not kept.
const LONGEST_HEAD: usize = 512 * 1024;

/// How long the other side may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For the headers of a request, from their first byte.
    pub(super) headers: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// To take a little of what it is sent, and for the whole body of a request.
    pub(super) body: Duration,
}

/// What goes on on a connection.
pub(super) struct ConnectionActivity {
    opened: Instant,
    under_way: AtomicUsize,
    begun: AtomicU64,
    /// Milliseconds after `opened`.
    quiet_since: AtomicU64,
    unread: AtomicBool,
    http2: AtomicBool,
    /// The body of the last request is still arriving, also when its answer has been handed over.
    body: AtomicBool,
    /// Headers as they came, until their request begins.
    head: Mutex<Vec<u8>>,
}

/// A request that is under way until its answer has been handed over.
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
        }
    }

    /// A request has been read as far as its headers.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlightRequest {
        self.http2.store(version == Version::HTTP_2, Ordering::Release);
        self.body.store(false, Ordering::Release); // whatever became of the one before
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        InFlightRequest(Arc::clone(self))
    }

    /// Whether the headers of the request that begins now may have said twice how long its body is: hyper
    /// forgets `Content-Length` where there is `Transfer-Encoding`, and a proxy in front may not. So the head
    /// as it came must be this very request, with as many lines as hyper tells of. What came while another
    /// request was under way, or its body, was not looked at, and counts as yes.
    pub(super) fn has_conflicting_length(&self, method: &Method, headers: &HeaderMap) -> bool {
        let head = std::mem::take(&mut *lock(&self.head));
        headers.contains_key(header::TRANSFER_ENCODING)
            && lines_of_headers(&head, method) != Some(headers.len())
    }

    /// The request that has begun has a body.
    pub(super) fn body_begins(&self) {
        self.body.store(true, Ordering::Release);
    }

    /// All of that body has arrived.
    pub(super) fn body_ends(&self) {
        self.body.store(false, Ordering::Release);
    }

    /// Whether what comes now can only be the head of a request.
    fn is_between_requests(&self) -> bool {
        self.is_quiet() && !self.body.load(Ordering::Acquire)
    }

    /// A body was not read to its end: the connection cannot go on.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// How many lines follow the request line; `None` when this is not the head of such a request from its
/// beginning to its end. Empty lines before it are skipped, as hyper does.
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

/// Headers that have begun to arrive.
struct Head {
    since: Instant,
    /// Requests before this one.
    begun: u64,
}

/// The connection.
pub(super) struct TimeoutStream {
    stream: TcpStream,
    times: Times,
    traffic: Arc<ConnectionActivity>,
    head: Option<Head>,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
    /// What may still be thrown away; `None`: not shut down yet.
    lingering: Option<u64>,
    /// Whoever reads is woken when something comes, and so when the other side closes.
    is_being_read: bool,
    /// The other side had closed when it was looked at last.
    had_closed: bool,
}

impl TimeoutStream {
    /// A connection on which something has been said.
    pub(super) fn new(stream: TcpStream, times: Times) -> (Self, Arc<ConnectionActivity>) {
        let traffic = Arc::new(ConnectionActivity::new());
        let patient = Self {
            stream,
            times,
            traffic: Arc::clone(&traffic),
            head: None,
            reading: None,
            writing: None,
            lingering: None,
            is_being_read: true,
            had_closed: false,
        };
        (patient, traffic)
    }

    /// Whether headers are on their way, as far as can be told from outside.
    fn in_head(&self) -> Option<&Head> {
        let begun = self.traffic.begun.load(Ordering::Acquire);
        self.head.as_ref().filter(|head| head.begun == begun && self.traffic.is_quiet())
    }

    /// Something came between requests.
    fn hear(&mut self, bytes: &[u8]) {
        if self.traffic.http2.load(Ordering::Acquire) {
            return; // HTTP/2 says other things between requests; that counts as idle
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

    /// When the other side has been waited for long enough.
    fn due(&self) -> Instant {
        if let Some(head) = self.in_head() {
            return head.since + self.times.headers;
        }
        if !self.traffic.is_quiet() {
            return Instant::now() + self.times.idle; // looked at again then
        }
        let since = Duration::from_millis(self.traffic.quiet_since.load(Ordering::Acquire));
        self.traffic.opened + since + self.times.idle
    }

    /// Ready when nothing has come in time. A deadline that moves on costs nothing: the clock is looked
    /// at when the old one has come.
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

    /// Passes on what a write came to, unless the other side has taken nothing for too long.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.writing = None;
            return outcome;
        }
        let due = self.times.body;
        let sleep = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + due)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")))
    }

    /// Ready when the other side has closed while nobody reads: hyper does not, while it has something that it
    /// cannot take yet, such as an empty line behind a request. Looked at twice: a client that closes behind the
    /// last of several requests still gets answers as long as they come.
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
            let has_closed = has_closed(&self.stream) || self.hides_its_end(context);
            if has_closed && self.had_closed {
                return Poll::Ready(());
            }
            self.had_closed = has_closed;
        }
    }

    /// Whether so much stands behind the request under way that the end could not arrive: it comes behind all that
    /// was sent, and the window is full. More of a body is another matter: somebody will read it.
    fn hides_its_end(&self, context: &mut Context<'_>) -> bool {
        if self.traffic.body.load(Ordering::Acquire) {
            return false;
        }
        let mut behind = vec![0; MOST_BEHIND];
        let mut buffer = ReadBuf::new(&mut behind);
        let looked = self.stream.poll_peek(context, &mut buffer);
        looked.is_ready() && buffer.remaining() == 0
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
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            let read = u64::try_from(buffer.filled().len()).unwrap_or(u64::MAX);
            self.lingering = Some(left.saturating_sub(read));
        }
    }
}

/// Whether the other side has closed, whatever of what it sent has not been read.
fn has_closed(stream: &TcpStream) -> bool {
    let ready = std::pin::pin!(stream.ready(Interest::READABLE));
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
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
        Poll::Ready(Ok(())) // for whoever reads, the other side has gone
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_gone(context).is_ready() {
            tracing::debug!("the other side has closed in the middle of a request");
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut this.stream).poll_flush(context)
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
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.written(context, outcome)
    }
}
