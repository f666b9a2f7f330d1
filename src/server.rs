//! The HTTP server: what its listeners serve, and how it begins and ends. The rooms: `accept` accepts connections and
//! limits their number, `handshake` speaks TLS, `connection` serves what came through, with the time limits of
//! `timeouts` and `bodies`, and event streams that wait without hyper (`waiting_stream`); `guard` checks each request
//! before the routes of `service` see it. Beside the listeners run the tasks of `background`.

mod accept;
mod background;
mod bodies;
mod clean_up;
mod connection;
mod current_service;
mod guard;
mod handshake;
mod redirect;
mod request_trace;
mod service;
mod shutdown;
mod socket;
mod timeouts;
mod waiting_stream;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::app::App;
use crate::storage::Storage;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::supervision::supervise;
use accept::{Acceptor, accepting};
use background::{BackgroundTasks, keep_audit_trail, keep_exporting, keep_usage};
use current_service::CurrentService;
use guard::AcceptMode;
use shutdown::Shutdown;

pub use service::Service;

/// How long requests in flight may take to finish at shutdown. After that, streams that are still open are
/// cut.
const DRAIN: Duration = Duration::from_secs(10);
/// The listeners keep accepting for at least this long after the shutdown signal, because the kernel may
/// already have completed the handshakes of connections that we have not accepted yet. A longer
/// `limits.shutdown_delay` takes precedence.
const ACCEPT_GRACE: Duration = Duration::from_millis(20);
/// Time to read the first bytes of the connections that were accepted last. A connection of which nothing was
/// read by then is closed without a response.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// How long the audit trail and the usage may take at shutdown to store what is still in memory.
const LAST_NOTES: Duration = Duration::from_secs(10);
/// How long the last responses may take after the listeners have closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most open connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 100;
/// Most open connections to the listener that redirects to https: 500. They are short.
const PLAIN_CONNECTIONS: usize = 500;

/// The sockets that a server accepts connections on.
#[derive(Debug)]
pub struct Listeners {
    /// `listen`.
    pub public: TcpListener,
    /// `admin.listen`, if there are admin pages.
    pub admin: Option<TcpListener>,
    /// `listen_http`, which redirects to https.
    pub plain: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Self { public, admin: None, plain: None }
    }
}

/// Serves until `shutdown` is ready, then drains.
pub async fn serve(app: App, listeners: Listeners, shutdown: impl Future<Output = ()>) {
    let (stop_audit, stopped) = watch::channel(false);
    let tasks = BackgroundTasks::start(&app);
    let usage = tokio::spawn(keep_usage(app.clone(), stopped.clone()));
    let telemetry = tokio::spawn(keep_exporting(app.clone(), stopped.clone()));
    let audit = tokio::spawn(keep_audit_trail(app.clone(), stopped));
    let (graceful, probes) = (Shutdown::new(), Shutdown::new());
    let fronts = Fronts::new(&app, listeners);
    {
        let mut serving = std::pin::pin!(fronts.serve(&graceful, AcceptMode::Serve));
        tokio::select! { () = &mut serving => {}, () = shutdown => {} }
        app.leave();
        let delay = app.current().config().limits.shutdown_delay;
        if !delay.is_zero() {
            tracing::info!(?delay, "told to end: /ready says no, everything is still served");
        }
        // Serve connections too that the kernel has already accepted for us.
        let delay = delay.max(ACCEPT_GRACE);
        tokio::select! { () = &mut serving => {}, () = tokio::time::sleep(delay) => {} }
    }
    // After this pause each connection has been read once. A connection of which nothing was read is closed
    // without a response.
    tokio::time::sleep(FIRST_LOOK).await;
    drop(tasks);
    app.drain();
    tracing::info!("shutting down: requests under way may finish");
    let last_notes = async move {
        drop(stop_audit);
        let _ = tokio::join!(audit, usage, telemetry);
    };
    let ending = end(app.storage().clone(), graceful, last_notes);
    tokio::select! {
        biased;
        // Load balancers still send health probes and must not run into silence. Keep accepting to the very
        // end: a client whose connection only the kernel accepted cannot know that its request was not
        // processed.
        () = fronts.serve(&probes, AcceptMode::Drain) => {}
        () = ending => {}
    }
    drop(fronts);
    let _ = tokio::time::timeout(LAST_WORDS, probes.begin()).await;
    app.retire();
}

/// Waits for requests in flight, stores the last notes, and closes the database.
async fn end(storage: Storage, graceful: Shutdown, last_notes: impl Future<Output = ()>) {
    if tokio::time::timeout(DRAIN, graceful.begin()).await.is_err() {
        tracing::info!("open streams are cut");
    }
    if tokio::time::timeout(LAST_NOTES, last_notes).await.is_err() {
        tracing::error!("the last audit events or the last usage could not be stored in time");
    }
    storage.close().await;
    // The kernel reports new connections together with the end of this pause, and the `select!` of the caller
    // polls new connections first.
    tokio::time::sleep(FIRST_LOOK).await;
}

/// All listeners, and what each serves.
struct Fronts {
    app: App,
    public: Option<Front>,
    admin: Option<Front>,
    plain: Option<Front>,
}

/// One listener.
struct Front {
    listener: TcpListener,
    present: Arc<CurrentService>,
    side: ListenerKind,
    /// Most open connections.
    limit: usize,
}

impl Fronts {
    fn new(app: &App, listeners: Listeners) -> Self {
        let front = |listener: Option<TcpListener>, present, side, limit| {
            let (listener, present) = listener.zip(present)?;
            Some(Front { listener, present, side, limit })
        };
        let limit = app.config().limits.connections;
        let public = CurrentService::new(app, |app| Some(Service::public(app)));
        let pages = CurrentService::new(app, Service::admin);
        let plain = CurrentService::new(app, Service::redirecting);
        Self {
            app: app.clone(),
            public: front(Some(listeners.public), public, ListenerKind::Public, limit),
            admin: front(listeners.admin, pages, ListenerKind::Admin, ADMIN_CONNECTIONS),
            plain: front(listeners.plain, plain, ListenerKind::Plain, PLAIN_CONNECTIONS),
        }
    }

    /// Serves all listeners; never returns.
    async fn serve(&self, graceful: &Shutdown, work: AcceptMode) {
        tokio::join!(
            self.serve_at(self.public.as_ref(), graceful, work),
            self.serve_at(self.admin.as_ref(), graceful, work),
            self.serve_at(self.plain.as_ref(), graceful, work),
        );
    }

    async fn serve_at(&self, front: Option<&Front>, graceful: &Shutdown, work: AcceptMode) {
        let Some(Front { listener, present, side, limit }) = front else {
            return std::future::pending().await;
        };
        // The semaphore is created outside the loop: an accept loop that is restarted after a panic still
        // counts the connections that the loop before it accepted.
        let permits = Arc::new(Semaphore::new(*limit));
        let acceptor = Acceptor { present, listener, side: *side, permits };
        let accept = || acceptor.accept(graceful, work);
        supervise(self.app.metrics(), accepting(*side), accept).await;
    }
}
