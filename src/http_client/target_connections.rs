//! The connections to one origin that targets of the gateway have. Each carries one request at a time (HTTP/1.1);
//! idle ones are kept for a few seconds.
//!
//! A server closes idle connections whenever it likes, often after five seconds. A request that is sent at
//! that moment is lost before the server has seen it. HTTP lets a client send it again if the connection had
//! served other requests and no byte of a response came (RFC 9112 §9.3.1). On a new connection, the server
//! may already have acted.
//!
//! The pool of `hyper-util` does the same for any number of origins and for HTTP/2. It looks the origin up by its
//! name twice for each request, copies its settings, and allocates some kilobytes for the request: together a
//! tenth of what a call through the gateway costs.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, Uri};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::target_connector::TargetConnector;
use super::watched_stream::{OnlyInterim, Talk};

/// An idle connection is closed after so many [`TICK`]s, at the latest: four seconds. Common servers wait longer
/// (uvicorn and Node: five seconds).
const IDLE: u32 = 4;
/// Idle times are counted in whole ticks, so that keeping a connection does not need the time.
const TICK: Duration = Duration::from_secs(1);

/// Why a request to a target has no response.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailed {
    /// There was no connection. Not a byte of the request was sent.
    #[error("no connection")]
    NotConnected(#[source] Box<dyn Error + Send + Sync>),
    /// The connection failed.
    #[error("the connection failed")]
    Broken {
        #[source]
        cause: hyper::Error,
        /// The connection had served others, and no byte of the response came.
        was_lost_unanswered: bool,
    },
}

impl RequestFailed {
    /// Whether the request failed on a connection that had served others, before any byte of its response came.
    pub const fn was_lost_unanswered(&self) -> bool {
        matches!(self, Self::Broken { was_lost_unanswered: true, .. })
    }

    /// Whether the target sent interim responses (1xx) and no response.
    pub fn is_only_interim(&self) -> bool {
        let first: Option<&(dyn Error + 'static)> = Some(self);
        std::iter::successors(first, |error| (*error).source()).any(|error| {
            let io = error.downcast_ref::<std::io::Error>();
            io.and_then(std::io::Error::get_ref)
                .is_some_and(<dyn Error + Send + Sync>::is::<OnlyInterim>)
        })
    }
}

/// The connections to one origin. Cheap to clone.
#[derive(Clone)]
pub struct TargetConnections(Arc<OriginConnections>);

struct OriginConnections {
    connector: TargetConnector,
    /// A URI with the scheme and the authority.
    origin: Uri,
    idle: Mutex<IdleConnections>,
}

/// A connection that carries no request.
struct OpenConnection {
    sender: SendRequest<Body>,
    talk: Talk,
}

#[derive(Default)]
struct IdleConnections {
    /// Each with the tick since when it is idle. The last one was used last.
    connections: Vec<(OpenConnection, u32)>,
    /// Counts while there are any.
    tick: u32,
    is_counting: bool,
}

impl IdleConnections {
    /// Takes the connection that was used last; `None` if none can be used.
    fn take(&mut self) -> Option<OpenConnection> {
        let tick = self.tick;
        while let Some((connection, since)) = self.connections.pop() {
            if connection.sender.is_ready() && tick.wrapping_sub(since) < IDLE {
                return Some(connection);
            }
        }
        None
    }

    /// Drops what was idle for too long, and what is closed.
    fn tick(&mut self) {
        let tick = self.tick.wrapping_add(1);
        self.tick = tick;
        self.connections.retain(|(connection, since)| {
            connection.sender.is_ready() && tick.wrapping_sub(*since) < IDLE
        });
        if self.connections.is_empty() {
            self.connections.shrink_to(0);
            self.is_counting = false;
        }
    }
}

impl TargetConnections {
    pub(super) fn new(connector: TargetConnector, origin: Uri) -> Self {
        Self(Arc::new(OriginConnections { connector, origin, idle: Mutex::default() }))
    }

    pub(super) fn origin(&self) -> &Uri {
        &self.0.origin
    }

    pub(super) fn downgrade(&self) -> WeakConnections {
        WeakConnections(Arc::downgrade(&self.0))
    }

    /// Sends a request, on an idle connection if there is one. Its URI has path and query alone, and it has a
    /// `Host` header.
    pub async fn request(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<TargetBody>, RequestFailed> {
        loop {
            let Some(connection) = self.0.idle.lock().take() else { break };
            match self.send(connection, request).await? {
                Sent::Answered(response) => return Ok(response),
                // It was closed before anything was sent.
                Sent::Nothing(unsent, _) => request = *unsent,
            }
        }
        // In a box: it is rare, and the future of each request would reserve memory for it.
        Box::pin(self.request_on_a_new_connection(request)).await
    }

    /// Sends a request on a new connection.
    pub async fn request_on_a_new_connection(
        &self,
        request: Request<Body>,
    ) -> Result<Response<TargetBody>, RequestFailed> {
        let connection = self.connect().await?;
        match self.send(connection, request).await? {
            Sent::Answered(response) => Ok(response),
            Sent::Nothing(_, cause) => {
                Err(RequestFailed::Broken { cause, was_lost_unanswered: false })
            }
        }
    }

    async fn connect(&self) -> Result<OpenConnection, RequestFailed> {
        let stream = self.0.connector.connect(self.0.origin.clone()).await;
        let stream = stream.map_err(RequestFailed::NotConnected)?;
        let talk = stream.talk().clone();
        let broken = |cause| RequestFailed::Broken { cause, was_lost_unanswered: false };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(cause) = connection.await {
                tracing::debug!(%cause, "a connection to an MCP server ended");
            }
        });
        Ok(OpenConnection { sender, talk })
    }

    async fn send(
        &self,
        mut connection: OpenConnection,
        request: Request<Body>,
    ) -> Result<Sent, RequestFailed> {
        connection.talk.begin();
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                connection.talk.answered();
                let connections = self.clone();
                Ok(Sent::Answered(
                    response.map(|body| TargetBody::new(body, connections, connection)),
                ))
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => Ok(Sent::Nothing(Box::new(unsent), error.into_error())),
                None => Err(RequestFailed::Broken {
                    cause: error.into_error(),
                    was_lost_unanswered: connection.talk.is_unanswered(),
                }),
            },
        }
    }

    /// Keeps a connection for the next request, as soon as its last response has arrived completely. One that
    /// closes instead is dropped.
    fn keep(self, mut connection: OpenConnection) {
        if !connection.sender.is_ready() {
            // It is not needed any more when the runtime has ended.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(async move {
                    if connection.sender.ready().await.is_ok() {
                        self.keep_idle(connection);
                    }
                });
            }
            return;
        }
        self.keep_idle(connection);
    }

    fn keep_idle(self, connection: OpenConnection) {
        let mut idle = self.0.idle.lock();
        let tick = idle.tick;
        idle.connections.push((connection, tick));
        if !idle.is_counting
            && let Ok(runtime) = Handle::try_current()
        {
            idle.is_counting = true;
            runtime.spawn(count(Arc::downgrade(&self.0)));
        }
    }
}

/// Counts the idle times until no connection is idle.
async fn count(connections: Weak<OriginConnections>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(connections) = connections.upgrade() else { return };
        let mut idle = connections.idle.lock();
        idle.tick();
        if !idle.is_counting {
            return;
        }
    }
}

/// A reference that does not keep the connections.
pub(super) struct WeakConnections(Weak<OriginConnections>);

impl WeakConnections {
    pub(super) fn upgrade(&self) -> Option<TargetConnections> {
        self.0.upgrade().map(TargetConnections)
    }
}

/// What became of a request.
enum Sent {
    Answered(Response<TargetBody>),
    /// Nothing of it was sent: the connection was closed.
    Nothing(Box<Request<Body>>, hyper::Error),
}

/// The body of a response. Its connection carries the next request when it has arrived completely.
pub struct TargetBody {
    incoming: Incoming,
    /// `None` once the connection has been given back.
    connection: Option<(TargetConnections, OpenConnection)>,
}

impl TargetBody {
    fn new(incoming: Incoming, connections: TargetConnections, connection: OpenConnection) -> Self {
        let mut body = Self { incoming, connection: Some((connections, connection)) };
        body.give_back_if_ready();
        body
    }

    /// Gives the connection back if it has received the whole body already: what most responses are.
    fn give_back_if_ready(&mut self) {
        if self.connection.as_ref().is_some_and(|(_, connection)| connection.sender.is_ready()) {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some((connections, connection)) = self.connection.take() {
            connections.keep(connection);
        }
    }
}

impl Drop for TargetBody {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl HttpBody for TargetBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(context));
        if this.connection.is_some() && (frame.is_none() || this.incoming.is_end_stream()) {
            this.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
