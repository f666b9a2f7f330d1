//! A server that receives webhooks, keeps every request, and answers as a test says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a test waits for must come within this time; nothing depends on how soon.
const PATIENCE: Duration = Duration::from_mins(1);

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A status, and perhaps a header.
type Answer = (u16, Option<(&'static str, String)>);

#[derive(Default)]
struct State {
    received: Vec<ReceivedRequest>,
    /// The next answers; afterwards `usual`.
    answers: VecDeque<Answer>,
    usual: Option<Answer>,
}

pub(crate) struct Recorder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<ReceivedRequest>>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (sender, arrivals) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(listener, Arc::clone(&state), sender));
        Self { address, state, arrivals: tokio::sync::Mutex::new(arrivals), task }
    }

    /// A URL here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next requests are answered so, one each; those after them with 204.
    pub(crate) fn answer_next(&self, statuses: &[u16]) {
        let answers = statuses.iter().map(|status| (*status, None));
        self.state.lock().unwrap().answers.extend(answers);
    }

    /// The next request is answered with this status and header.
    pub(crate) fn answer_next_with(&self, status: u16, header: &'static str, value: &str) {
        let answer = (status, Some((header, value.to_owned())));
        self.state.lock().unwrap().answers.push_back(answer);
    }

    /// Every request is answered so from now on.
    pub(crate) fn answer_always(&self, status: u16) {
        self.state.lock().unwrap().usual = Some((status, None));
    }

    /// Waits for the next request that nobody has waited for yet.
    pub(crate) async fn next(&self) -> ReceivedRequest {
        let mut arrivals = self.arrivals.lock().await;
        tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("nothing came").unwrap()
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<ReceivedRequest> {
        self.state.lock().unwrap().received.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    state: Arc<Mutex<State>>,
    arrived: mpsc::UnboundedSender<ReceivedRequest>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (state, arrived) = (Arc::clone(&state), arrived.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let (state, arrived) = (Arc::clone(&state), arrived.clone());
                async move { Ok::<_, Infallible>(receive(&state, &arrived, request).await) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn receive(
    state: &Mutex<State>,
    arrived: &mpsc::UnboundedSender<ReceivedRequest>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let received = ReceivedRequest {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: headers.collect(),
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    };
    let (status, header) = {
        let mut state = state.lock().unwrap();
        state.received.push(received.clone());
        let next = state.answers.pop_front();
        next.or_else(|| state.usual.clone()).unwrap_or((204, None))
    };
    let _ = arrived.send(received);
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Full::default()).unwrap()
}
