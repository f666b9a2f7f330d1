//! Shared by the demo servers: serving on loopback, recording requests, and delaying responses on command.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Largest request body that is read, in bytes: 1 MiB.
const MAX_BODY: usize = 1024 * 1024;
/// Most requests that are recorded: 50,000, and 64 MiB of bodies. The demo may run for days, and through a
/// tunnel anybody can send it requests.
const MAX_RECORDED: usize = 50_000;
const MAX_RECORDED_BYTES: usize = 64 * 1024 * 1024;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `GET`, `POST`, …
    pub method: String,
    pub path: String,
    /// Query as received, without the question mark.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Recorded {
    pub(super) async fn read(request: Request) -> Result<Self, StatusCode> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?
            .to_bytes();
        Ok(Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
        })
    }

    pub fn query_param(&self, name: &str) -> Option<String> {
        param(self.query.as_bytes(), name)
    }

    /// Returns a field of the form in the body.
    pub fn form_field(&self, name: &str) -> Option<String> {
        param(&self.body, name)
    }

    /// Returns a header if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        self.headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// The latest requests; the oldest are dropped first.
#[derive(Default)]
pub(super) struct Recording {
    requests: VecDeque<Recorded>,
    bytes: usize,
}

impl Recording {
    pub(super) fn push(&mut self, request: Recorded) {
        self.bytes += request.body.len();
        self.requests.push_back(request);
        while self.requests.len() > MAX_RECORDED || self.bytes > MAX_RECORDED_BYTES {
            let Some(oldest) = self.requests.pop_front() else { return };
            self.bytes -= oldest.body.len();
        }
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.requests.iter().cloned().collect()
    }

    /// Returns the number of recorded requests to `path`.
    pub(super) fn count_of(&self, path: &str) -> usize {
        self.requests.iter().filter(|request| request.path == path).count()
    }
}

fn param(encoded: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(encoded)
        .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
}

/// A gate that delays requests while it is closed, so that tests can simulate a slow server.
#[derive(Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    /// Makes requests wait from now on.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Releases all waiting requests and lets later ones pass.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until at least `count` requests wait.
    pub async fn until_waiting(&self, count: usize) {
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    pub(super) async fn pass(&self) {
        let mut open = self.open.subscribe();
        if *open.borrow() {
            return;
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waits = CountedWait(&self.waiting);
        let _ = open.wait_for(|open| *open).await;
    }
}

struct CountedWait<'a>(&'a watch::Sender<usize>);

impl Drop for CountedWait<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// The task of a server. It ends when its last handle is dropped.
#[derive(Clone)]
pub(super) struct Running(Arc<watch::Sender<bool>>);

impl Running {
    pub(super) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.stop();
        }
    }
}

/// Serves requests with `handle`, and requests with a body that is too large with `unread`.
pub(super) fn serve<S, H, F>(
    listener: TcpListener,
    state: S,
    handle: H,
    unread: fn(StatusCode) -> Response,
) -> io::Result<Running>
where
    S: Clone + Send + Sync + 'static,
    H: Fn(S, Recorded) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let router = Router::new().fallback(move |request: Request| {
        let (state, handle) = (state.clone(), handle.clone());
        async move {
            match Recorded::read(request).await {
                Ok(request) => handle(state, request).await,
                Err(status) => unread(status),
            }
        }
    });
    serve_router(listener, router)
}

/// Serves `router` until the last handle is dropped: on loopback, or on every address, as in a container, which
/// only `portcullis demo --listen 0.0.0.0:…` asks for.
pub(super) fn serve_router(listener: TcpListener, router: Router) -> io::Result<Running> {
    let ip = listener.local_addr()?.ip();
    if !ip.is_loopback() && !ip.is_unspecified() {
        return Err(io::Error::other("the demo servers listen on loopback, or on every address"));
    }
    let stop = Arc::new(watch::Sender::new(false));
    let mut stopped = stop.subscribe();
    tokio::spawn(async move {
        let serve = axum::serve(listener, router);
        tokio::select! {
            _ = serve => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
    Ok(Running(stop))
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body.to_string()).into_response()
}

/// Builds a response whose body fails before it is complete.
pub(super) fn broken_off() -> Response {
    let failure: Result<Bytes, io::Error> = Err(io::Error::other("broken off on purpose"));
    Response::new(Body::from_stream(futures_util::stream::iter([failure])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_demo_remembers_has_a_limit() {
        let request = |path: &str, length: usize| Recorded {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'x'; length]),
        };
        let mut recording = Recording::default();
        recording.push(request("/first", MAX_BODY));
        for _ in 1..MAX_RECORDED_BYTES / MAX_BODY {
            recording.push(request("/next", MAX_BODY));
        }
        assert_eq!(recording.count_of("/first"), 1);
        recording.push(request("/last", 1));
        assert_eq!((recording.count_of("/first"), recording.count_of("/last")), (0, 1));

        for _ in 0..MAX_RECORDED {
            recording.push(request("/small", 0));
        }
        assert_eq!((recording.all().len(), recording.bytes), (MAX_RECORDED, 0));
    }
}
