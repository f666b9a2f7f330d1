//! Serves one connection: HTTP/1.1, or HTTP/2. Over TLS the handshake says which (ALPN); without TLS, a proxy in
//! front may speak HTTP/2 with prior knowledge. All have the same timeouts.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::http::{HeaderValue, Version, header};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::bodies::{AnswerBody, RequestBody, Streams, waits_for_us};
use super::current_service::CurrentService;
use super::guard::{AcceptMode, Arrival};
use super::handshake::{self, AlpnOffer, HandshakeTimes};
use super::service::Service;
use super::shutdown::ShutdownWatcher;
use super::socket::{ClientStream, WriteTimeoutSocket};
use super::timeouts::{ConnectionActivity, ConnectionTimeouts, TimeoutStream};
use super::waiting_stream::{self, StreamInHyper, StreamRequest};
use crate::config::{Config, Limits};

/// HTTP/2 flow-control window of one stream: how many unread bytes a client may send on it. The window of a
/// connection is as large as those of all its streams together. Behind a proxy the streams belong to
/// different people, so a stream that an MCP server does not read must not use up the window of the others.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The largest window that HTTP/2 allows, in bytes (RFC 9113 §6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Most bytes of a response that are buffered for a stream before the client reads them.
const SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2 keep-alive: interval between pings while streams are open, and how long to wait for each reply.
const HTTP2_KEEPALIVE: Duration = Duration::from_secs(20);

/// The first bytes of the HTTP/2 preface (RFC 9113 §3.4), enough to recognise it: no HTTP/1.1 request begins
/// so.
const PREFACE: &[u8; 4] = b"PRI ";
/// First and longest pause before peeking again, while the bytes could still begin either protocol.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(256));

/// Serves connections with the protocol that the client speaks. The protocol is recognised by peeking: if the
/// bytes were read into a buffer instead, hyper would keep a buffer of twice the size for the whole
/// connection.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: Option<http2::Builder<Streams>>,
    /// What is offered in handshakes; `None`: no TLS.
    tls: Option<AlpnOffer>,
    handshake: HandshakeTimes,
    times: ConnectionTimeouts,
}

/// What a client speaks.
enum Spoken<'a> {
    Http1,
    /// With its settings.
    Http2(&'a http2::Builder<Streams>),
}

impl Protocols {
    /// `tls` says whether clients speak TLS, and `http2` whether they may speak HTTP/2.
    pub(super) fn new(config: &Config, http2: bool, tls: Option<AlpnOffer>) -> Self {
        let limits = &config.limits;
        let mut http1 = http1::Builder::new();
        http1
            .header_read_timeout(None) // `TimeoutStream` enforces this timeout
            .max_headers(limits.header_count)
            .max_buf_size((limits.request_target + limits.headers).max(8192)); // hyper's minimum
        let http2 = http2.then(|| http2_of(limits));
        let times = times(limits);
        let handshake = HandshakeTimes {
            first_byte: limits.first_byte,
            handshake: limits.header_time,
            writes: limits.body_time,
        };
        Self { http1, http2, tls, handshake, times }
    }

    /// Serves an accepted connection until it ends.
    pub(super) async fn serve(
        &self,
        (stream, peer): (TcpStream, SocketAddr),
        present: &Arc<CurrentService>,
        work: AcceptMode,
        watcher: ShutdownWatcher,
    ) {
        // In a box: the task of a connection is as large as its largest step, and this one is short.
        let opened = Box::pin(self.opened(stream, present)).await;
        let Some((stream, spoken)) = opened else { return };
        let (stream, traffic) = TimeoutStream::new(stream, self.times);
        let within = self.times.body;
        let service = service_fn(|request: Request<Incoming>| {
            let arrival = Arrival { peer: Some(peer), mode: work, has_length_twice: false };
            // Boxed, because hyper reserves memory for this future as long as the connection is open.
            Box::pin(answer(present.service(), Arc::clone(&traffic), within, (arrival, request)))
        });
        let ended = match spoken {
            Spoken::Http1 => self.serve_http1((stream, &*traffic), service, watcher).await,
            // In a box: it is much larger.
            Spoken::Http2(http2) => Box::pin(serve_http2(http2, stream, service, watcher)).await,
        };
        if let Err(cause) = ended {
            tracing::debug!(%cause, "a connection ended");
        }
    }
}

impl Protocols {
    /// Serves HTTP/1.1 with hyper, except for event streams that wait.
    async fn serve_http1<S>(
        &self,
        (mut stream, traffic): (TimeoutStream, &ConnectionActivity),
        mut service: S,
        mut watcher: ShutdownWatcher,
    ) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = AnswerBody, Error = Infallible>,
    {
        loop {
            // In a box, because it goes while a stream waits.
            let connection = self.http1.serve_connection(TokioIo::new(stream), service);
            let mut connection = Box::pin(connection);
            let waiting = poll_fn(|context| {
                if watcher.poll(context).is_ready() {
                    connection.as_mut().graceful_shutdown();
                }
                let poll = connection.as_mut().poll(context);
                match waiting_stream::take(traffic) {
                    Some(waiting) if poll.is_pending() => Poll::Ready(Ok(waiting)),
                    _ => poll.map(Err),
                }
            });
            let mut waiting = match waiting.await {
                Ok(waiting) => waiting,
                Err(ended) => return ended,
            };
            let parts = Pin::into_inner(connection).into_parts();
            (stream, service) = (parts.io.into_inner(), parts.service);
            stream.put_back(&parts.read_buf);
            let sent = waiting.send(&mut stream).await;
            if sent.is_err() || !waiting.keeps_connection || watcher.is_shutting_down() {
                let _ = stream.shutdown().await;
                return Ok(());
            }
        }
    }

    /// Returns the connection after its handshake, if it has one, and the protocol that the client speaks.
    async fn opened(
        &self,
        stream: TcpStream,
        present: &CurrentService,
    ) -> Option<(ClientStream, Spoken<'_>)> {
        let Some(offer) = self.tls else {
            let spoken = self.spoken(&stream).await?;
            return Some((
                ClientStream::Plain(WriteTimeoutSocket::new(stream, self.times.body)),
                spoken,
            ));
        };
        let app = present.app();
        let stream = handshake::accept(stream, &app, offer, self.handshake).await?;
        let chosen = stream.get_ref().1.alpn_protocol();
        let spoken = match &self.http2 {
            Some(http2) if chosen == Some(&b"h2"[..]) => Spoken::Http2(http2),
            _ => Spoken::Http1,
        };
        Some((ClientStream::Secured(stream), spoken))
    }

    /// Recognises the protocol of the client; `None` if it sends nothing in time.
    async fn spoken(&self, stream: &TcpStream) -> Option<Spoken<'_>> {
        let until = Instant::now() + self.handshake.first_byte;
        let mut pause = LOOKS.0;
        loop {
            let mut said = [0; PREFACE.len()];
            let length = timeout_at(until, stream.peek(&mut said)).await.ok()?.ok()?;
            let said = said.get(..length).filter(|said| !said.is_empty())?;
            match &self.http2 {
                Some(http2) if said == PREFACE => return Some(Spoken::Http2(http2)),
                Some(_) if PREFACE.starts_with(said) && Instant::now() < until => {
                    sleep_until(until.min(Instant::now() + pause)).await;
                    pause = LOOKS.1.min(pause * 2);
                }
                _ => return Some(Spoken::Http1),
            }
        }
    }
}

async fn serve_http2<S>(
    http2: &http2::Builder<Streams>,
    stream: TimeoutStream,
    service: S,
    mut watcher: ShutdownWatcher,
) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = AnswerBody, Error = Infallible>,
    S::Future: Send + 'static,
{
    let mut connection = pin!(http2.serve_connection(TokioIo::new(stream), service));
    poll_fn(|context| {
        if watcher.poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await
}

fn http2_of(limits: &Limits) -> http2::Builder<Streams> {
    let connection_window = STREAM_WINDOW.saturating_mul(limits.http2_streams);
    let mut builder = http2::Builder::new(Streams { timeout: limits.body_time });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window.min(LARGEST_WINDOW))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(HTTP2_KEEPALIVE)
        .keep_alive_timeout(HTTP2_KEEPALIVE);
    builder
}

fn times(limits: &Limits) -> ConnectionTimeouts {
    ConnectionTimeouts {
        headers: limits.header_time,
        idle: limits.idle_time,
        body: limits.body_time,
    }
}

async fn answer(
    service: Arc<Service>,
    traffic: Arc<ConnectionActivity>,
    within: Duration,
    (mut arrival, request): (Arrival, Request<Incoming>),
) -> Result<hyper::Response<AnswerBody>, Infallible> {
    let version = request.version();
    let under_way = traffic.begin(version);
    let (parts, body) = request.into_parts();
    arrival.has_length_twice =
        version != Version::HTTP_2 && traffic.has_conflicting_length(&parts.method, &parts.headers);
    let asks_first = parts.headers.contains_key(header::EXPECT);
    let mut streams = StreamRequest::of(version, &parts.method, &parts.headers);
    let (body, rest) = if body.is_end_stream() {
        (axum::body::Body::empty(), None)
    } else {
        let (body, rest) = RequestBody::new(body, within, Arc::clone(&traffic));
        (axum::body::Body::new(body), Some(rest))
    };
    let request = Box::new(axum::extract::Request::from_parts(parts, body));
    let mut answering = pin!(service.answer_to(request, arrival));
    let mut response = poll_fn(|context| {
        let poll = answering.as_mut().poll(context);
        if poll.is_pending() {
            waits_for_us();
        }
        poll
    })
    .await;
    if let Some(rest) = rest {
        if version == Version::HTTP_2 {
            rest.linger(asks_first);
        } else if !rest.skip(asks_first).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            streams = None;
        }
    }
    if let Some(request) = streams
        && waiting_stream::is_stream(&response)
    {
        return Ok(response.map(|body| {
            let body = StreamInHyper::new(traffic, &request, (body, under_way));
            AnswerBody::new(axum::body::Body::new(body), false, None)
        }));
    }
    let in_pieces = version == Version::HTTP_2;
    Ok(response.map(|body| AnswerBody::new(body, in_pieces, Some(under_way))))
}
