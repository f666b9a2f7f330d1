//! The HTTP server: the accept loop with connection limits, the checks that every request passes, graceful
//! shutdown, and the periodic clean-up of storage.

mod bodies;
mod connection;
mod current_service;
mod timeouts;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use current_service::CurrentService;
use futures_util::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{Limits, PublicUrl, paths};
use crate::gateway::GatewayRoutes;
use crate::http_client::is_loopback;
use crate::rate_limits::ConcurrencyPermit;
use crate::storage::{Retention, StorageError, UsageRetention};
use crate::telemetry;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::supervision::supervise;
use crate::telemetry::tasks::Task;
use crate::web::client_address::{ClientAddress, Peer};
use crate::web::page_error::ShownReference;
use crate::web::{error, limits};
use crate::{admin, endpoints};
use connection::{LengthTwice, Protocols};

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
/// TCP keep-alive: the first probe after 10 s of silence, and another every 4 s. A client that vanished does
/// not close its connection, so only unanswered probes reveal it.
const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(4));
/// `TCP_USER_TIMEOUT`: the kernel drops a connection if the peer has acknowledged neither data nor probes for
/// 18 s. A client that reads nothing of a response looks the same. So if an administrator raises
/// `limits.body_time` above [`USUAL_BODY_TIME`], that longer time is used for both cases.
const GIVEN_UP: Duration = Duration::from_secs(18);
/// The default of `limits.body_time`.
const USUAL_BODY_TIME: Duration = Duration::from_secs(30);
/// How long the audit trail and the usage may take at shutdown to store what is still in memory.
const LAST_NOTES: Duration = Duration::from_secs(10);
/// How long the last responses may take after the listeners have closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most open connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 100;
/// The wall clock leapt if it differs by more than this from the time that really passed.
const LEAP: Duration = Duration::from_mins(5);
/// Clean-up pauses for this long after the clock leapt, so that an administrator can correct it before rows
/// are deleted according to it.
const AFTER_LEAP: Duration = Duration::from_hours(1);
/// Interval between two clean-ups of expired rows.
const SWEEP: Duration = Duration::from_mins(1);

static TOO_MANY_CONNECTIONS: LogThrottle = LogThrottle::new();
static TOO_MANY_OF_ONE: LogThrottle = LogThrottle::new();
static NOT_ACCEPTED: LogThrottle = LogThrottle::a_minute();

/// The listener that a [`Service`] belongs to.
struct ListenerContext {
    app: App,
    side: ListenerKind,
    /// The URL that browsers use for this listener.
    url: PublicUrl,
    listen: SocketAddr,
}

/// Everything that one listener serves.
pub struct Service {
    context: Arc<ListenerContext>,
    gateway_routes: Option<GatewayRoutes>,
    router: Router,
    /// Responds to requests outside the path of `public_url`.
    elsewhere: Router,
}

impl Service {
    /// The service of the public listener: the OAuth endpoints and the MCP gateway.
    pub fn public(app: App) -> Self {
        let routes = endpoints::routes(&app).fallback(endpoints::not_found);
        let gateway_routes = Some(GatewayRoutes::of(&app));
        let (url, listen) = (app.config().public_url.clone(), app.config().listen);
        Self::new(
            routes,
            gateway_routes,
            ListenerContext { app, side: ListenerKind::Public, url, listen },
        )
    }

    /// The service of the admin listener; `None` if none is configured.
    fn admin(app: App) -> Option<Self> {
        let admin = app.config().admin.as_ref()?;
        let (url, listen) = (admin.url.clone(), admin.listen);
        let context = ListenerContext { app, side: ListenerKind::Admin, url, listen };
        Some(Self::new(admin::routes(), None, context))
    }

    fn new(
        routes: Router<App>,
        gateway_routes: Option<GatewayRoutes>,
        context: ListenerContext,
    ) -> Self {
        let (app, context) = (context.app.clone(), Arc::new(context));
        let guarded = |routes: Router<App>| {
            routes
                .layer(middleware::from_fn_with_state(Arc::clone(&context), guard))
                .layer(CatchPanicLayer::custom(panicked))
                .with_state(app.clone())
        };
        let elsewhere = guarded(Router::new().fallback(endpoints::not_below_our_path));
        let router = guarded(routes);
        Self { context, gateway_routes, router, elsewhere }
    }

    /// Returns the response to a request. Calls of MCP servers are by far the most frequent requests. They
    /// bypass the route table, because each of its layers would wrap them once more, but they pass the same
    /// guard.
    ///
    /// This is the only place that strips the path of `public_url`; the routes do not know it.
    pub async fn answer(&self, mut request: Request) -> Response {
        if !self.context.url.base_path().is_empty() {
            let Some(uri) = below_our_path(&self.context.url, request.uri()) else {
                let Ok(response) =
                    TowerToHyperService::new(self.elsewhere.clone()).call(request).await;
                return response;
            };
            *request.uri_mut() = uri;
        }
        let gateway_routes = self.gateway_routes.as_ref();
        let Some(gateway_route) =
            gateway_routes.and_then(|gateway_routes| gateway_routes.at(request.uri().path()))
        else {
            let Ok(response) = TowerToHyperService::new(self.router.clone()).call(request).await;
            return response;
        };
        let next = |request| gateway_route.pass(&self.context.app, request);
        let guarded = pass_guard(&self.context, gateway_route.path(), request, next);
        AssertUnwindSafe(guarded).catch_unwind().await.unwrap_or_else(panicked)
    }
}

/// Returns the URI without the path of `public_url`; `None` if the request is not below that path.
fn below_our_path(url: &PublicUrl, asked: &Uri) -> Option<Uri> {
    let path = url.within(asked.path())?;
    let target = match asked.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let mut parts = asked.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// Serves until `shutdown` is ready, then drains. `admin` is the listener of the admin pages, if there are
/// any.
pub async fn serve(
    app: App,
    listener: TcpListener,
    admin: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop_audit, stopped) = watch::channel(false);
    let tasks = BackgroundTasks::start(&app);
    let usage = tokio::spawn(keep_usage(app.clone(), stopped.clone()));
    let audit = tokio::spawn(keep_audit_trail(app.clone(), stopped));
    let (graceful, probes) = (GracefulShutdown::new(), GracefulShutdown::new());
    let limit = app.config().limits.connections;
    let public = CurrentService::new(&app, |app| Some(Service::public(app)));
    let pages = CurrentService::new(&app, Service::admin);
    // Serves both listeners; never returns.
    let serving = async |graceful: &GracefulShutdown, work: AcceptMode| {
        let accept_at = async |listener, present, side, limit| match (listener, present) {
            (Some(listener), Some(present)) => {
                // The semaphore is created outside the loop: an accept loop that is restarted after a panic
                // still counts the connections that the loop before it accepted.
                let permits = Arc::new(Semaphore::new(limit));
                let acceptor = Acceptor { present, listener, side, permits };
                let accept = || acceptor.accept(graceful, work);
                supervise(app.metrics(), accepting(side), accept).await;
            }
            _ => std::future::pending().await,
        };
        tokio::join!(
            accept_at(Some(&listener), public.as_ref(), ListenerKind::Public, limit),
            accept_at(admin.as_ref(), pages.as_ref(), ListenerKind::Admin, ADMIN_CONNECTIONS),
        );
    };
    {
        let mut serving = std::pin::pin!(serving(&graceful, AcceptMode::Serve));
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
    let storage = app.storage().clone();
    let ending = async move {
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::info!("open streams are cut");
        }
        drop(stop_audit);
        let last = async { tokio::join!(audit, usage) };
        if tokio::time::timeout(LAST_NOTES, last).await.is_err() {
            tracing::error!("the last audit events or the last usage could not be stored in time");
        }
        storage.close().await;
        // The kernel reports new connections together with the end of this pause, and the `select!` below
        // polls new connections first.
        tokio::time::sleep(FIRST_LOOK).await;
    };
    tokio::select! {
        biased;
        // Load balancers still send health probes and must not run into silence. Keep accepting to the very
        // end: a client whose connection only the kernel accepted cannot know that its request was not
        // processed.
        () = serving(&probes, AcceptMode::Drain) => {}
        () = ending => {}
    }
    drop((listener, admin));
    let _ = tokio::time::timeout(LAST_WORDS, probes.shutdown()).await;
    app.retire();
}

/// What happens to requests on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptMode {
    /// Requests are served.
    Serve,
    /// The process is shutting down: only health probes are served, other requests get a 503.
    Drain,
}

/// Background tasks that run as long as the listeners. Dropping this aborts them.
struct BackgroundTasks([AbortHandle; 5]);

impl BackgroundTasks {
    fn start(app: &App) -> Self {
        let (sweeping, notifying, checking) = (app.clone(), app.clone(), app.clone());
        let (keys, storage) = (app.keys().clone(), app.storage().clone());
        Self([
            start(app, Task::CleanUp, move || sweep(sweeping.clone())),
            start(app, Task::SigningKeys, move || {
                let keys = keys.clone();
                async move { keys.run_rotation().await }
            }),
            start(app, Task::Notifications, move || {
                let app = notifying.clone();
                async move { app.keep_notifying().await }
            }),
            start(app, Task::Targets, move || {
                let app = checking.clone();
                async move { app.keep_checking_targets().await }
            }),
            start(app, Task::CommandLine, move || {
                let storage = storage.clone();
                async move { storage.watch_for_cli_changes().await }
            }),
        ])
    }
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn start<F>(app: &App, task: Task, run: impl FnMut() -> F + Send + 'static) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let metrics = app.metrics().clone();
    tokio::spawn(async move { supervise(&metrics, task, run).await }).abort_handle()
}

/// Writes the audit trail until `stopped` changes, and then stores the events that are still queued.
async fn keep_audit_trail(app: App, stopped: watch::Receiver<bool>) {
    let keep = || {
        let mut stopped = stopped.clone();
        let app = &app;
        async move {
            app.keep_audit_trail(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .await;
        }
    };
    supervise(app.metrics(), Task::AuditTrail, keep).await;
}

/// Writes the usage until `stopped` changes, and then what is still in memory.
async fn keep_usage(app: App, stopped: watch::Receiver<bool>) {
    let keep = || {
        let mut stopped = stopped.clone();
        let app = &app;
        async move {
            app.keep_usage(async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .await;
        }
    };
    supervise(app.metrics(), Task::Usage, keep).await;
}

const fn accepting(side: ListenerKind) -> Task {
    match side {
        ListenerKind::Public => Task::Connections,
        ListenerKind::Admin => Task::AdminConnections,
    }
}

/// The accept loop of one listener.
struct Acceptor<'a> {
    present: &'a Arc<CurrentService>,
    listener: &'a TcpListener,
    side: ListenerKind,
    /// Each open connection holds one permit.
    permits: Arc<Semaphore>,
}

impl Acceptor<'_> {
    /// Accepts connections for ever.
    async fn accept(&self, graceful: &GracefulShutdown, work: AcceptMode) {
        // Connection settings stay as they were at start; a reload does not change them
        // (`config/changes.rs`).
        let (protocols, body_time) = {
            let app = self.present.app();
            let http2 = self.side == ListenerKind::Public && app.config().http2;
            (Arc::new(Protocols::new(app.config(), http2)), app.config().limits.body_time)
        };
        notice_vanished_clients(self.listener, body_time);
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Usually the process is out of file descriptors: give open connections a moment to end.
                    if let Some(left_out) = NOT_ACCEPTED.admit() {
                        tracing::error!(%cause, left_out, "accepting a connection failed");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            panic_point!(accepting(self.side).name());
            let app = self.present.app();
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                app.metrics().limited("connections");
                if let Some(left_out) = TOO_MANY_CONNECTIONS.admit() {
                    tracing::warn!(left_out, "the limit of open connections is reached");
                }
                continue; // dropped: closed at once
            };
            let Ok(ours) = permit_of(&app, peer.ip()) else {
                if let Some(left_out) = TOO_MANY_OF_ONE.admit() {
                    tracing::warn!(
                        left_out,
                        "the limit of open connections of one address is reached"
                    );
                }
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (present, protocols) = (Arc::clone(self.present), Arc::clone(&protocols));
            let watcher = graceful.watcher();
            let open = app.metrics().connection(self.side);
            tokio::spawn(async move {
                let _held = (permit, ours, open);
                protocols.serve((stream, peer), &present, work, watcher).await;
            });
        }
    }
}

/// Sets the options of the listening socket that reveal vanished clients. Accepted sockets inherit them.
fn notice_vanished_clients(listener: &TcpListener, body_time: Duration) {
    let (time, interval) = TCP_KEEPALIVE;
    let asking = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(2);
    let socket = SockRef::from(listener);
    let mut asked = socket.set_tcp_keepalive(&asking);
    #[cfg(target_os = "linux")]
    {
        let given_up = if body_time > USUAL_BODY_TIME { body_time } else { GIVEN_UP };
        asked = asked.and_then(|()| socket.set_tcp_user_timeout(Some(given_up)));
    }
    if let Err(cause) = asked {
        tracing::warn!(%cause, "clients that vanish are noticed late: no TCP keep-alive");
    }
}

/// The address has reached its limit of open connections.
struct TooManyConnections;

/// Takes a permit from the connection limit of the peer's address. Returns `None` if the address may belong
/// to many clients: it is a trusted proxy's, or it is private.
fn permit_of(
    app: &App,
    peer: IpAddr,
) -> Result<Option<ConcurrencyPermit<IpAddr>>, TooManyConnections> {
    match ClientAddress::find(peer, &HeaderMap::new(), &app.config().trusted_proxies).0 {
        Some(address) => app.rates().connection(address).map(Some).ok_or(TooManyConnections),
        None => Ok(None),
    }
}

/// Middleware that checks what every request needs: exactly one `Host` that is ours, and a request target and
/// headers within the limits.
async fn guard(
    State(context): State<Arc<ListenerContext>>,
    request: Request,
    next: Next,
) -> Response {
    // The metric is labelled with the pattern of the route, so that no caller can create a time series by
    // requesting a new path.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    pass_guard(&context, route, request, |request| next.run(request)).await
}

/// Checks a request, passes it on to `next`, and counts it and its duration under the label `route`.
async fn pass_guard<F: Future<Output = Response>>(
    context: &ListenerContext,
    route: &str,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let begun = Instant::now();
    let route = context.app.metrics().route(context.side, route);
    let response = check(context, request, next).await;
    route.answered(response.status().as_u16(), begun.elapsed());
    response
}

/// Refuses requests that no route may see, passes the others on to `next`, and records an audit event if the
/// response is a page with a reference.
async fn check<F: Future<Output = Response>>(
    context: &ListenerContext,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    if let Some(refused) = refusal(context, &request) {
        return refused;
    }
    let app = &context.app;
    if let Some(Peer(peer)) = request.extensions().get().copied() {
        let trusted = &app.config().trusted_proxies;
        let address = ClientAddress::find(peer.ip(), request.headers(), trusted);
        request.extensions_mut().insert(address);
    }
    let mut response = limits::enforce(app, request, next).await;
    if let Some(shown) = response.extensions_mut().remove::<ShownReference>() {
        let event = app.event("page_shown", Actor::Person).reference(&shown.reference);
        let status = response.status().as_u16();
        app.record_soon(event.with("status", status).with("reason", shown.reason));
    }
    if context.url.is_https() {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

/// Returns the response to a request that no route may see; `None` if it may pass.
fn refusal(context: &ListenerContext, request: &Request) -> Option<Response> {
    let limits = &context.app.config().limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.request_target {
        return Some(answer(StatusCode::URI_TOO_LONG, "uri_too_long", "The URL is too long"));
    }
    if too_large(request.headers(), limits) {
        return Some(answer(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request headers are too large",
        ));
    }
    let length_twice =
        request.extensions().get::<LengthTwice>().map(|_| "it has two lengths".to_owned());
    if let Some(why) = ambiguity(request.headers()).or(length_twice) {
        let told = format!("The request is ambiguous: {why}");
        return Some(answer(StatusCode::BAD_REQUEST, "bad_request", &told));
    }
    if is_coded(request.headers()) {
        let told = "No transfer coding but chunked is supported";
        return Some(answer(StatusCode::NOT_IMPLEMENTED, "not_implemented", told));
    }
    // Orchestrators send health probes to an IP address, so probes skip the host check.
    let probe = matches!(request.uri().path(), paths::HEALTH | paths::READY);
    if !probe && request.extensions().get() == Some(&AcceptMode::Drain) {
        let mut response = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "This server is shutting down",
        );
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return Some(response);
    }
    // Prometheus scrapes by IP address. DNS rebinding needs a name, and a foreign name is still refused.
    let scrape = context.side == ListenerKind::Admin
        && request.uri().path() == "/metrics"
        && names_an_address(request);
    if !probe && !scrape && !host_is_ours(context, request) {
        return Some(answer(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "This server does not answer for that host name; a proxy in front must pass the Host header on (public_url, admin.url)",
        ));
    }
    None
}

fn too_large(headers: &HeaderMap, limits: &Limits) -> bool {
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let all: usize = headers.iter().map(length).sum();
    if headers.len() > limits.header_count {
        return true; // hyper limits their number in HTTP/1.1 only
    }
    // A bearer token has a limit of its own (`signing::MAX_TOKEN`): the gateway refuses a longer one with a
    // challenge.
    let others = headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION);
    all > limits.headers || others.map(length).max().unwrap_or(0) > limits.header
}

/// Longest part of a header's name in an error, in characters.
const SHOWN_NAME: usize = 64;
/// Prefix of headers that carry parameters of tools. MCP lets a server name them by any token (SEP-2243).
const PARAMETER: &str = "mcp-param-";

/// Whether the body has a transfer coding other than `chunked`, which nothing here would decode (RFC 9112
/// §6.1). hyper refuses requests in which `chunked` is not the last coding, because the end of their body is
/// unknown.
fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked =
        |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|first| !is_chunked(first) || codings.next().is_some())
}

/// Returns why the next hop could read the headers as another request: there are two hosts, or a name that
/// many servers treat as equal to another name.
fn ambiguity(headers: &HeaderMap) -> Option<String> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Some("it has two hosts".to_owned());
    }
    let names = || headers.keys().map(HeaderName::as_str);
    let shown = |name: &str| name.chars().take(SHOWN_NAME).collect::<String>();
    if let Some(name) = names().find(|name| name.contains('_') && !name.starts_with(PARAMETER)) {
        let name = shown(name);
        return Some(format!(
            "the header {name} has an underscore, which many servers read as a hyphen"
        ));
    }
    // Most requests have none or one, and need no set.
    names().filter(|name| name.starts_with(PARAMETER)).nth(1)?;
    let name = two_parameters_in_one(names())?;
    Some(format!("many servers read the header {} and another one as the same", shown(name)))
}

/// Returns one of two `mcp-param-*` headers that become the same variable in servers that pass headers on as
/// variables (CGI, WSGI, Rack): these replace every character except letters and digits with `_`.
fn two_parameters_in_one<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let variable = |name: &str| name.replace(|char: char| !char.is_ascii_alphanumeric(), "_");
    let mut seen = HashSet::new();
    names.find(|&name| name.starts_with(PARAMETER) && !seen.insert(variable(name)))
}

/// Whether the host is ours: that of the listener's URL, or an address of this machine, which a proxy in
/// front sends if nobody configured it to keep the `Host`. A DNS name that an attacker rebound is neither.
fn host_is_ours(context: &ListenerContext, request: &Request) -> bool {
    let authority = match (request.uri().authority(), request.headers().get(header::HOST)) {
        (Some(authority), Some(host)) if authority.as_str().as_bytes() != host.as_bytes() => {
            return false;
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().unwrap_or_default(),
        (None, None) => return false,
    };
    let ours = context.url.origin().split_once("://").map_or("", |(_, rest)| rest);
    authority.eq_ignore_ascii_case(ours)
        || authority
            .parse::<SocketAddr>()
            .is_ok_and(|address| address == context.listen || address.ip().is_loopback())
        || is_loopback(host_of(authority))
}

/// Whether the request names its host once, as an IP address.
fn names_an_address(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().is_none()
        && host.is_some_and(|host| {
            host.parse::<SocketAddr>().is_ok() || host_of(host).parse::<IpAddr>().is_ok()
        })
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn answer(status: StatusCode, code: &str, description: &str) -> Response {
    error::json(status, &json!({ "error": code, "error_description": description }))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
/// Responds with a bare 500 after a panic; only the log has the panic message.
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!(panic = telemetry::message_of(&*panic), "a request panicked");
    answer(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Something broke on our side")
        .into_response()
}

/// Whether the clock was set between two readings: it showed `before`, `passed` went by, and it shows `now`.
fn leapt(before: Timestamp, now: Timestamp, passed: Duration) -> bool {
    let expected = before.plus(passed);
    now > expected.plus(LEAP) || now.plus(LEAP) < expected
}

/// Removes expired rows once a [`SWEEP`]. Also sweeps the rate limits and fills the disk reserve.
async fn sweep(app: App) {
    panic_point!("clean-up");
    app.storage().keep_reserve().await;
    let (mut wall, mut steady) = (app.now(), Instant::now());
    let mut paused_until = None;
    loop {
        tokio::time::sleep(SWEEP).await;
        let app = app.current();
        app.rates().sweep();
        // A clock that leapt was wrong before or is wrong now, so rows that expire according to it are not
        // deleted at once.
        let (now, passed) = (app.now(), steady.elapsed());
        if leapt(wall, now, passed) {
            tracing::warn!("the clock leapt: nothing is cleaned up for an hour");
            paused_until = Some(Instant::now() + AFTER_LEAP);
        }
        (wall, steady) = (now, Instant::now());
        if paused_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        app.storage().ready(now).await; // runs even if nobody requests `/ready`
        if let Err(cause) = app.storage().note_time(now).await {
            tracing::warn!(%cause, "the time could not be stored");
        }
        let limits = &app.config().limits;
        let keep = Retention {
            unused_client: limits.unused_client_expiry,
            idle_client: limits.idle_client_expiry,
            audit: app.config().audit_retention,
            refused_person: limits.refused_person_expiry,
            rows: limits.sweep_rows,
        };
        // Only one replica cleans up at a time: several would wait for each other's row locks.
        let mut turn = None;
        loop {
            match app.storage().take_clean_up(app.now(), turn).await {
                Ok(Some(until)) => turn = Some(until),
                Ok(None) => {
                    turn = None;
                    break;
                }
                Err(cause) => {
                    tracing::warn!(%cause, "clean-up failed; it is tried again");
                    break;
                }
            }
            match remove_expired(&app, keep).await {
                Ok(0) => break,
                Ok(removed) => tracing::debug!(removed, "expired rows removed"),
                Err(cause) => {
                    tracing::warn!(%cause, "clean-up failed; it is tried again");
                    break;
                }
            }
        }
        if let Some(until) = turn {
            // If the release fails, the turn expires by itself.
            let _ = app.storage().give_clean_up_back(until).await;
        }
    }
}

/// Removes rows that have expired, and usage beyond what is kept. Returns how many.
async fn remove_expired(app: &App, keep: Retention) -> Result<u64, StorageError> {
    let usage = UsageRetention {
        age: app.config().usage_retention,
        hours: app.config().limits.usage_rows,
        rows: keep.rows,
    };
    let now = app.now();
    Ok(app.storage().sweep(now, keep).await? + app.storage().sweep_usage(now, usage).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_leaps_when_it_shows_more_or_less_than_the_time_that_passed() {
        let before = Timestamp::from_unix(1_800_000_000);
        let after = |seconds: i64| Timestamp::from_unix(1_800_000_000 + seconds);
        let minute = Duration::from_mins(1);

        for (now, leaps) in [(60, false), (360, false), (361, true), (-240, false), (-241, true)] {
            assert_eq!(leapt(before, after(now), minute), leaps, "{now}");
        }
        assert!(!leapt(before, after(86_400), Duration::from_hours(24)), "a long pause is no leap");
    }
}
