//! A connection to a target that records which side sent last, and how much came before the response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Most bytes that a target may send before a response has begun: 2 MiB. A server may send any number of
/// interim responses (1xx) first; one that sends nothing else would keep a connection and a processor busy
/// until the response timeout. The library limits each of them, and the head of the response, to 400 KiB, and
/// reads no more of the body than fits into its buffer before the head is passed on.
const MOST_UNANSWERED: u64 = 2 * 1024 * 1024;

/// Nothing has come from the server yet.
const NEW: u8 = 0;
/// The server spoke last.
const HEARD: u8 = 1;
/// The server has spoken, and has been sent something since.
const ASKED_AGAIN: u8 = 2;

/// The server sent interim responses and no response.
#[derive(Debug, thiserror::Error)]
#[error("interim answers (1xx) and no answer")]
pub(super) struct OnlyInterim;

/// What was said on a connection; shared by its stream and its requests.
#[derive(Clone)]
pub(super) struct Talk(Arc<TalkState>);

struct TalkState {
    /// Which side sent last: [`NEW`], [`HEARD`] or [`ASKED_AGAIN`].
    last: AtomicU8,
    /// How many bytes may still come before the response to the present request; [`u64::MAX`] if no request waits
    /// for one.
    left: AtomicU64,
}

impl Talk {
    fn new() -> Self {
        Self(Arc::new(TalkState { last: AtomicU8::new(NEW), left: AtomicU64::new(u64::MAX) }))
    }

    /// Records that a request begins.
    pub(super) fn begin(&self) {
        self.0.left.store(MOST_UNANSWERED, Ordering::Relaxed);
    }

    /// Records that the response to the request has begun.
    pub(super) fn answered(&self) {
        self.0.left.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether the server had spoken before and has sent nothing since it was last asked.
    pub(super) fn is_unanswered(&self) -> bool {
        self.0.last.load(Ordering::Relaxed) == ASKED_AGAIN
    }

    fn asks(&self) {
        // Only the task of the connection reads and writes, so the value cannot change in between.
        if self.0.last.load(Ordering::Relaxed) == HEARD {
            self.0.last.store(ASKED_AGAIN, Ordering::Relaxed);
        }
    }

    fn hears(&self, bytes: usize) -> io::Result<()> {
        self.0.last.store(HEARD, Ordering::Relaxed);
        let left = self.0.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return Ok(());
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let next = left.checked_sub(bytes).ok_or_else(|| io::Error::other(OnlyInterim))?;
        // Fails if the response has begun meanwhile, and then nothing is counted any more.
        let _ = self.0.left.compare_exchange(left, next, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }
}

/// The state of TLS is in a box: it takes more than a kilobyte, which connections without TLS would reserve too.
enum TargetTransport {
    Plain(TcpStream),
    Secured(Box<TlsStream<TokioIo<TokioIo<TcpStream>>>>),
}

/// A connection to a target.
pub(super) struct WatchedStream {
    transport: TargetTransport,
    talk: Talk,
}

impl WatchedStream {
    pub(super) fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        let transport = match stream {
            MaybeHttpsStream::Http(stream) => TargetTransport::Plain(stream.into_inner()),
            MaybeHttpsStream::Https(stream) => {
                TargetTransport::Secured(Box::new(stream.into_inner()))
            }
        };
        Self { transport, talk: Talk::new() }
    }

    pub(super) fn talk(&self) -> &Talk {
        &self.talk
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.transport {
            TargetTransport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            TargetTransport::Secured(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            this.talk.hears(bytes)?;
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.talk.asks();
        match &mut this.transport {
            TargetTransport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            TargetTransport::Secured(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.talk.asks();
        match &mut this.transport {
            TargetTransport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            TargetTransport::Secured(stream) => {
                Pin::new(stream).poll_write_vectored(context, bytes)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            TargetTransport::Plain(stream) => stream.is_write_vectored(),
            TargetTransport::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            TargetTransport::Plain(stream) => Pin::new(stream).poll_flush(context),
            TargetTransport::Secured(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            TargetTransport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            TargetTransport::Secured(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
