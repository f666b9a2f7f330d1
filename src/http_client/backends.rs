//! The HTTP clients for the targets of the gateway. They detect whether a request was lost on a closed
//! connection and may be sent again.
//!
//! A server closes idle connections whenever it likes, often after five seconds. A request that is sent at
//! that moment is lost before the server has seen it. HTTP lets a client send it again if the connection had
//! served other requests and no byte of a response came (RFC 9112 §9.3.1). On a new connection, the server
//! may already have acted.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Extensions, Request, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tower_service::Service;

use super::target_faults::{ConnectTimedOut, TargetFault};
use super::{Connector, tcp, tls, wrapped};
use crate::config::TargetConnection;

/// Idle timeout of pooled connections. Shorter than that of common servers (uvicorn and Node: five seconds).
const IDLE: Duration = Duration::from_secs(4);
/// How long [`Backends::knock`] waits for an alert: 250 ms. In TLS 1.3 a server checks our certificate after
/// the handshake has ended for us.
const ALERT: Duration = Duration::from_millis(250);

/// The HTTP clients for targets with the same connection settings. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    /// Reuses connections.
    kept: Client<WatchedConnector, Body>,
    /// Opens a connection for each request.
    new: Client<WatchedConnector, Body>,
    connector: WatchedConnector,
}

impl Backends {
    /// Creates the clients; they open connections when needed. Fails if the certificates cannot be used.
    pub(crate) fn new(settings: &TargetConnection) -> Result<Self, rustls::Error> {
        let within = settings.connect_timeout;
        let inner = wrapped(tls::of_target(settings)?, tcp(within));
        let connector = WatchedConnector { inner, within };
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let kept = builder.build(connector.clone());
        let new = builder.pool_max_idle_per_host(0).build(connector.clone());
        Ok(Self { kept, new, connector })
    }

    pub fn request(&self, request: Request<Body>) -> ResponseFuture {
        self.kept.request(request)
    }

    /// Sends a request on a new connection.
    pub fn request_on_a_new_connection(&self, request: Request<Body>) -> ResponseFuture {
        self.new.request(request)
    }

    /// Connects to a target, with TLS if it is https, and says nothing. Needs no credentials of an MCP client,
    /// and the MCP server does not notice.
    pub async fn knock(&self, target: Uri) -> Result<(), TargetFault> {
        let speaks_tls = target.scheme_str() == Some("https");
        let mut connector = self.connector.clone();
        let connecting = async {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(target).await
        };
        let stream = connecting.await.map_err(|cause| TargetFault::connecting(&*cause))?;
        if !speaks_tls {
            return Ok(());
        }
        let mut stream = stream.into_inner();
        let mut byte = [0; 1];
        if let Ok(Err(cause)) = timeout(ALERT, stream.read(&mut byte)).await
            && let Some(fault) = TargetFault::alert(&cause)
        {
            return Err(fault);
        }
        let _ = timeout(ALERT, stream.shutdown()).await;
        Ok(())
    }
}

/// Whether the request failed on a connection that had served others, before any byte of its response came.
pub fn was_lost_unanswered(error: &Error) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    extras.get::<Talk>().is_some_and(|talk| talk.0.load(Ordering::Relaxed) == ASKED_AGAIN)
}

/// Nothing has come from the server yet.
const NEW: u8 = 0;
/// The server spoke last.
const HEARD: u8 = 1;
/// The server has spoken, and has been sent something since.
const ASKED_AGAIN: u8 = 2;

/// Which side sent last on a connection: [`NEW`], [`HEARD`] or [`ASKED_AGAIN`].
#[derive(Clone)]
struct Talk(Arc<AtomicU8>);

/// A connection that records which side sent last.
struct WatchedStream<T> {
    inner: T,
    talk: Talk,
}

impl<T> WatchedStream<T> {
    fn asks(&self) {
        // Only the task of the connection reads and writes, so the value cannot change in between.
        if self.talk.0.load(Ordering::Relaxed) == HEARD {
            self.talk.0.store(ASKED_AGAIN, Ordering::Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.talk.0.store(HEARD, Ordering::Relaxed);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asks();
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.asks();
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<T> Connection for WatchedStream<T> {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.talk.clone())
    }
}

#[derive(Clone)]
struct WatchedConnector {
    inner: Connector,
    /// Longest wait for a connection, including the TLS handshake.
    within: Duration,
}

type Io = <Connector as Service<Uri>>::Response;

impl Service<Uri> for WatchedConnector {
    type Response = TokioIo<WatchedStream<TokioIo<Io>>>;
    type Error = <Connector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.within, self.inner.call(uri));
        Box::pin(async move {
            let inner = TokioIo::new(connecting.await.map_err(|_| ConnectTimedOut)??);
            let talk = Talk(Arc::new(AtomicU8::new(NEW)));
            Ok(TokioIo::new(WatchedStream { inner, talk }))
        })
    }
}
