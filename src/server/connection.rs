//! One connection, from its first byte to its last: HTTP/1.1, or HTTP/2 by prior knowledge, as a proxy in
//! front speaks it. Both are held to the same times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Version, header};
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

use super::Work;
use super::bodies::{AnswerBody, RequestBody, Streams, waits_for_us};
use super::patience::{Patient, Times, Traffic};
use super::present::Present;
use crate::config::{Config, Limits};
use crate::web::client_address::Peer;

/// Of what a client sends on one stream, and on all of a connection, before we have read it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Of an answer, before the client has taken it.
const SEND_BUFFER: usize = 64 * 1024;
/// How often we ask whether the other side is still there while streams are open, and how long we wait.
const STILL_THERE: Duration = Duration::from_secs(20);

/// How connections are served.
pub(super) struct Protocols {
    builder: Builder<Streams>,
    first_byte: Duration,
    times: Times,
}

impl Protocols {
    pub(super) fn new(config: &Config, http2: bool) -> Self {
        let limits = &config.limits;
        let mut builder = Builder::new(Streams { patience: limits.body_time });
        if !http2 {
            builder = builder.http1_only();
        }
        builder
            .http1()
            .header_read_timeout(None) // `Patient` keeps the time
            .max_headers(limits.header_count)
            .max_buf_size((limits.request_target + limits.headers).max(8192)); // hyper takes no less
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(limits.http2_resets)
            .max_local_error_reset_streams(limits.http2_resets)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(STILL_THERE)
            .keep_alive_timeout(STILL_THERE);
        Self { builder, first_byte: limits.first_byte, times: times(limits) }
    }

    /// Serves `stream` to its end.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        present: &Arc<Present>,
        work: Work,
        watcher: Watcher,
    ) {
        if !speaks(&stream, self.first_byte).await {
            return;
        }
        let (stream, traffic) = Patient::new(stream, self.times);
        let within = self.times.body;
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(work);
            answer(present.service(), Arc::clone(&traffic), within, request)
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        if let Err(cause) = watcher.watch(connection).await {
            tracing::debug!(%cause, "a connection ended");
        }
    }
}

fn times(limits: &Limits) -> Times {
    Times { headers: limits.header_time, idle: limits.idle_time, body: limits.body_time }
}

/// Whether the other side says anything in time.
async fn speaks(stream: &TcpStream, within: Duration) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(within, stream.peek(&mut byte)).await, Ok(Ok(1)))
}

/// The headers of a request said twice how long its body is.
#[derive(Clone, Copy)]
pub(super) struct LengthTwice;

async fn answer(
    service: Router,
    traffic: Arc<Traffic>,
    within: Duration,
    request: Request<Incoming>,
) -> Result<hyper::Response<AnswerBody>, std::convert::Infallible> {
    let version = request.version();
    let under_way = traffic.begin(version);
    let (mut parts, body) = request.into_parts();
    if version != Version::HTTP_2 && traffic.says_length_twice(&parts.headers) {
        parts.extensions.insert(LengthTwice);
    }
    let asks_first = parts.headers.contains_key(header::EXPECT);
    let (body, rest) = if body.is_end_stream() {
        (axum::body::Body::empty(), None)
    } else {
        let (body, rest) = RequestBody::new(body, within, Arc::clone(&traffic));
        (axum::body::Body::new(body), Some(rest))
    };
    let request = axum::extract::Request::from_parts(parts, body);
    let service = TowerToHyperService::new(service);
    let mut answering = std::pin::pin!(service.call(request));
    let Ok(mut response) = std::future::poll_fn(|context| {
        let poll = answering.as_mut().poll(context);
        if poll.is_pending() {
            waits_for_us();
        }
        poll
    })
    .await;
    // HTTP/2 ends the one stream in such a case, and knows how to say so.
    let rest = rest.filter(|_| version != Version::HTTP_2);
    if let Some(rest) = rest
        && !rest.skip(asks_first).await
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let in_pieces = version == Version::HTTP_2;
    Ok(response.map(|body| AnswerBody::new(body, in_pieces, under_way)))
}
