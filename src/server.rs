//! The listener: an accept loop of our own with time limits, the middleware, shutdown, clean-up.

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
use current_service::Present;
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
use crate::config::{Limits, PublicUrl};
use crate::gateway::GatewayRoutes;
use crate::http_client::is_loopback;
use crate::rate_limits::ConcurrencyPermit;
use crate::storage::Retention;
use crate::telemetry;
use crate::telemetry::audit::Actor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Listener;
use crate::telemetry::tasks::{Task, supervise};
use crate::web::browser::ShownReference;
use crate::web::client_address::{ClientAddress, Peer};
use crate::web::{error, limits};
use crate::{admin, endpoints};
use connection::{LengthTwice, Protocols};

/// Requests under way get this long to finish at shutdown; open streams are then cut.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections that come in while the listener closes are taken for this long.
const ACCEPT_GRACE: Duration = Duration::from_millis(20);
/// Time to read the first bytes of the last of them.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// A client that vanished closes nothing. A connection on which nothing is said is asked about after the first
/// time, and again after each second one.
const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(4));
/// It is given up when it has confirmed nothing for so long: neither that it is there, nor what it was sent. A
/// client that takes nothing of an answer looks the same, so an administrator who gives it more time than usual
/// (`limits.body_time`) gives it to both.
const GIVEN_UP: Duration = Duration::from_secs(18);
const USUAL_BODY_TIME: Duration = Duration::from_secs(30);
/// Time for the audit trail to store what it has.
const LAST_NOTES: Duration = Duration::from_secs(10);
/// Time for the last answers when the listeners are closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 100;
/// The clock may differ by this much from the time that has passed.
const LEAP: Duration = Duration::from_mins(5);
/// Time to set a clock right that leapt, before anything is deleted by it.
const AFTER_LEAP: Duration = Duration::from_hours(1);
/// How often expired rows are removed.
const SWEEP: Duration = Duration::from_mins(1);

static TOO_MANY_CONNECTIONS: LogThrottle = LogThrottle::new();
static TOO_MANY_OF_ONE: LogThrottle = LogThrottle::new();
static NOT_ACCEPTED: LogThrottle = LogThrottle::a_minute();

/// What a service answers for.
struct ListenerContext {
    app: App,
    side: Listener,
    /// The URL that browsers know it by.
    url: PublicUrl,
    listen: SocketAddr,
}

/// All that one listener serves.
pub struct Service {
    doorway: Arc<ListenerContext>,
    passages: Option<GatewayRoutes>,
    router: Router,
    /// What is not below our path.
    elsewhere: Router,
}

impl Service {
    /// The public one.
    pub fn public(app: App) -> Self {
        let routes = endpoints::routes(&app).fallback(endpoints::not_found);
        let passages = Some(GatewayRoutes::of(&app));
        let (url, listen) = (app.config().public_url.clone(), app.config().listen);
        Self::new(routes, passages, ListenerContext { app, side: Listener::Public, url, listen })
    }

    /// That of the admin listener, where there is one.
    fn admin(app: App) -> Option<Self> {
        let admin = app.config().admin.as_ref()?;
        let (url, listen) = (admin.url.clone(), admin.listen);
        let doorway = ListenerContext { app, side: Listener::Admin, url, listen };
        Some(Self::new(admin::routes(), None, doorway))
    }

    fn new(routes: Router<App>, passages: Option<GatewayRoutes>, doorway: ListenerContext) -> Self {
        let (app, doorway) = (doorway.app.clone(), Arc::new(doorway));
        let guarded = |routes: Router<App>| {
            routes
                .layer(middleware::from_fn_with_state(Arc::clone(&doorway), guard))
                .layer(CatchPanicLayer::custom(panicked))
                .with_state(app.clone())
        };
        let elsewhere = guarded(Router::new().fallback(endpoints::not_below_our_path));
        let router = guarded(routes);
        Self { doorway, passages, router, elsewhere }
    }

    /// Answers a request. Calls of MCP servers are most of all requests, and each layer of the route table
    /// would wrap them once more: they pass the same guard without it.
    ///
    /// The path of `public_url` is taken off here; nothing further in knows of it.
    pub async fn answer(&self, mut request: Request) -> Response {
        if !self.doorway.url.base_path().is_empty() {
            let Some(uri) = below_our_path(&self.doorway.url, request.uri()) else {
                let Ok(response) =
                    TowerToHyperService::new(self.elsewhere.clone()).call(request).await;
                return response;
            };
            *request.uri_mut() = uri;
        }
        let passages = self.passages.as_ref();
        let Some(passage) = passages.and_then(|passages| passages.at(request.uri().path())) else {
            let Ok(response) = TowerToHyperService::new(self.router.clone()).call(request).await;
            return response;
        };
        let next = |request| passage.pass(&self.doorway.app, request);
        let guarded = pass_guard(&self.doorway, passage.path(), request, next);
        AssertUnwindSafe(guarded).catch_unwind().await.unwrap_or_else(panicked)
    }
}

/// What is asked for, as our routes know it; `None` when it is not for a path of ours.
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

/// Serves until `shutdown` is ready, then drains. The admin pages, where there are any, are served on
/// `admin`.
pub async fn serve(
    app: App,
    listener: TcpListener,
    admin: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop_audit, stopped) = watch::channel(false);
    let tasks = Tasks::start(&app);
    let audit = tokio::spawn(keep_audit_trail(app.clone(), stopped));
    let (graceful, probes) = (GracefulShutdown::new(), GracefulShutdown::new());
    let limit = app.config().limits.connections;
    let public = Present::new(&app, |app| Some(Service::public(app)));
    let pages = Present::new(&app, Service::admin);
    // Both listeners, for ever.
    let serving = async |graceful: &GracefulShutdown, work: AcceptMode| {
        let accept_at = async |listener, present, side, limit| match (listener, present) {
            (Some(listener), Some(present)) => {
                // Outside: a loop that is started again counts those that the one before has let in.
                let places = Arc::new(Semaphore::new(limit));
                let accept = || accept(present, listener, graceful, side, &places, work);
                supervise(app.metrics(), accepting(side), accept).await;
            }
            _ => std::future::pending().await,
        };
        tokio::join!(
            accept_at(Some(&listener), public.as_ref(), Listener::Public, limit),
            accept_at(admin.as_ref(), pages.as_ref(), Listener::Admin, ADMIN_CONNECTIONS),
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
        // Whom the system has let in by now, on our behalf, is answered as well.
        let delay = delay.max(ACCEPT_GRACE);
        tokio::select! { () = &mut serving => {}, () = tokio::time::sleep(delay) => {} }
    }
    // Each connection has been looked at by then: what was not read from is closed unanswered.
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
        if tokio::time::timeout(LAST_NOTES, audit).await.is_err() {
            tracing::error!("the last audit events could not be stored in time");
        }
        storage.close().await;
        // The system tells of newcomers and of this at once, and newcomers come first.
        tokio::time::sleep(FIRST_LOOK).await;
    };
    tokio::select! {
        biased;
        // Whoever balances the load still asks, and must not take silence for an answer: to the very end,
        // because who is let in by the system and not by us cannot know that nothing was done.
        () = serving(&probes, AcceptMode::Drain) => {}
        () = ending => {}
    }
    drop((listener, admin));
    let _ = tokio::time::timeout(LAST_WORDS, probes.shutdown()).await;
    app.retire();
}

/// What becomes of requests on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptMode {
    /// They are served.
    Serve,
    /// The process ends: only probes are answered.
    Drain,
}

/// What runs beside the listeners as long as they do, until this is dropped.
struct Tasks([AbortHandle; 3]);

impl Tasks {
    fn start(app: &App) -> Self {
        let sweeping = app.clone();
        let (keys, storage) = (app.keys().clone(), app.storage().clone());
        Self([
            start(app, Task::CleanUp, move || sweep(sweeping.clone())),
            start(app, Task::SigningKeys, move || {
                let keys = keys.clone();
                async move { keys.run_rotation().await }
            }),
            start(app, Task::CommandLine, move || {
                let storage = storage.clone();
                async move { storage.watch_for_cli_changes().await }
            }),
        ])
    }
}

impl Drop for Tasks {
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

/// Keeps the audit trail until it is told to stop, and has stored what there was.
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

const fn accepting(side: Listener) -> Task {
    match side {
        Listener::Public => Task::Connections,
        Listener::Admin => Task::AdminConnections,
    }
}

/// Accepts connections for ever, each in one of `connections`.
async fn accept(
    present: &Arc<Present>,
    listener: &TcpListener,
    graceful: &GracefulShutdown,
    side: Listener,
    connections: &Arc<Semaphore>,
    work: AcceptMode,
) {
    // What a connection may take is as it was at the start: see `config/changes.rs`.
    let (protocols, body_time) = {
        let app = present.app();
        let http2 = side == Listener::Public && app.config().http2;
        (Arc::new(Protocols::new(app.config(), http2)), app.config().limits.body_time)
    };
    // What is accepted inherits it.
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
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(cause) => {
                // Out of file descriptors, mostly: give open connections a moment to end.
                if let Some(left_out) = NOT_ACCEPTED.admit() {
                    tracing::error!(%cause, left_out, "accepting a connection failed");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        panic_point!(accepting(side).name());
        let app = present.app();
        let Ok(place) = Arc::clone(connections).try_acquire_owned() else {
            app.metrics().limited("connections");
            if let Some(left_out) = TOO_MANY_CONNECTIONS.admit() {
                tracing::warn!(left_out, "the limit of open connections is reached");
            }
            continue; // dropped: closed at once
        };
        let Ok(ours) = place_of(&app, peer.ip()) else {
            if let Some(left_out) = TOO_MANY_OF_ONE.admit() {
                tracing::warn!(left_out, "the limit of open connections of one address is reached");
            }
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (present, protocols) = (Arc::clone(present), Arc::clone(&protocols));
        let watcher = graceful.watcher();
        let open = app.metrics().connection(side);
        tokio::spawn(async move {
            let _held = (place, ours, open);
            protocols.serve(stream, peer, &present, work, watcher).await;
        });
    }
}

/// One address has as many connections as it may.
struct TooMany;

/// A place among the connections of one address, where the address is one customer's.
fn place_of(app: &App, peer: IpAddr) -> Result<Option<ConcurrencyPermit<IpAddr>>, TooMany> {
    match ClientAddress::find(peer, &HeaderMap::new(), &app.config().trusted_proxies).0 {
        Some(address) => app.rates().connection(address).map(Some).ok_or(TooMany),
        None => Ok(None),
    }
}

/// What every request must have, whatever it is for: one `Host` that is ours, and a target of
/// bearable length.
async fn guard(
    State(doorway): State<Arc<ListenerContext>>,
    request: Request,
    next: Next,
) -> Response {
    // As the route table has it: what a caller writes names no series.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    pass_guard(&doorway, route, request, |request| next.run(request)).await
}

async fn pass_guard<F: Future<Output = Response>>(
    doorway: &ListenerContext,
    route: &str,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let begun = Instant::now();
    let route = doorway.app.metrics().route(doorway.side, route);
    let response = check(doorway, request, next).await;
    route.answered(response.status().as_u16(), begun.elapsed());
    response
}

async fn check<F: Future<Output = Response>>(
    doorway: &ListenerContext,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let app = &doorway.app;
    let limits = &app.config().limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.request_target {
        return answer(StatusCode::URI_TOO_LONG, "uri_too_long", "The URL is too long");
    }
    if too_large(request.headers(), limits) {
        return answer(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request headers are too large",
        );
    }
    if ambiguous(request.headers()) || request.extensions().get::<LengthTwice>().is_some() {
        return answer(StatusCode::BAD_REQUEST, "bad_request", "The request is ambiguous");
    }
    if is_coded(request.headers()) {
        let told = "No transfer coding but chunked is supported";
        return answer(StatusCode::NOT_IMPLEMENTED, "not_implemented", told);
    }
    // Orchestrators probe by address.
    let probe = matches!(request.uri().path(), "/health" | "/ready");
    if !probe && request.extensions().get() == Some(&AcceptMode::Drain) {
        let mut response = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "This server is shutting down",
        );
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    // A scraper knows an address. Only a name can be rebound, and a name is refused as ever.
    let scrape = doorway.side == Listener::Admin
        && request.uri().path() == "/metrics"
        && names_an_address(&request);
    if !probe && !scrape && !host_is_ours(doorway, &request) {
        return answer(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "This server does not answer for that host name; a proxy in front must pass the Host header on (public_url, admin.url)",
        );
    }
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
    if doorway.url.is_https() {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

fn too_large(headers: &HeaderMap, limits: &Limits) -> bool {
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let all: usize = headers.iter().map(length).sum();
    if headers.len() > limits.header_count {
        return true; // HTTP/2 does not count them
    }
    // A bearer token has a limit of its own, and a challenge for an answer.
    let others = headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION);
    all > limits.headers || others.map(length).max().unwrap_or(0) > limits.header
}

/// The beginning of headers that carry parameters of tools; MCP lets a server name them by any token (SEP-2243).
const PARAMETER: &str = "mcp-param-";

/// Whether the body is coded otherwise than in chunks: nobody here would decode it (RFC 9112 §6.1). Where chunks
/// are not the last coding, nobody knows where the body ends, and hyper has refused it.
fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked =
        |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|first| !is_chunked(first) || codings.next().is_some())
}

/// Two hosts, or a name that many servers read as another one: the next hop could read another request.
fn ambiguous(headers: &HeaderMap) -> bool {
    let names = || headers.keys().map(HeaderName::as_str);
    headers.get_all(header::HOST).iter().count() > 1
        || names().any(|name| name.contains('_') && !name.starts_with(PARAMETER))
        || names().filter(|name| name.starts_with(PARAMETER)).nth(1).is_some()
            && two_parameters_in_one(names())
}

/// Servers that hand headers on as variables (CGI, WSGI, Rack) write everything but letters and digits as `_`.
fn two_parameters_in_one<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let variable = |name: &str| name.replace(|char: char| !char.is_ascii_alphanumeric(), "_");
    let mut seen = HashSet::new();
    !names.filter(|name| name.starts_with(PARAMETER)).all(|name| seen.insert(variable(name)))
}

/// Our public host, or an address of this machine as an unconfigured proxy in front sends it. A
/// rebound DNS name is neither.
fn host_is_ours(doorway: &ListenerContext, request: &Request) -> bool {
    let authority = match (request.uri().authority(), request.headers().get(header::HOST)) {
        (Some(authority), Some(host)) if authority.as_str().as_bytes() != host.as_bytes() => {
            return false;
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().unwrap_or_default(),
        (None, None) => return false,
    };
    let ours = doorway.url.origin().split_once("://").map_or("", |(_, rest)| rest);
    authority.eq_ignore_ascii_case(ours)
        || authority
            .parse::<SocketAddr>()
            .is_ok_and(|address| address == doorway.listen || address.ip().is_loopback())
        || is_loopback(host_of(authority))
}

/// Whether the one host that is asked for is written as an IP address.
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
/// A panic is a fault of ours: the caller hears no more than that, the log has the message.
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!(panic = telemetry::message_of(&*panic), "a request panicked");
    answer(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Something broke on our side")
        .into_response()
}

/// Whether a clock that showed `before` must have been set, to show `now` after this time.
fn leapt(before: Timestamp, now: Timestamp, passed: Duration) -> bool {
    let expected = before.plus(passed);
    now > expected.plus(LEAP) || now.plus(LEAP) < expected
}

/// Makes people findable whom an earlier version has stored, in steps that leave room for others.
async fn index_people(app: &App) {
    const AT_ONCE: u32 = 50;
    let mut indexed = 0;
    loop {
        match app.storage().index_people(AT_ONCE).await {
            Ok(0) => break,
            Ok(more) => indexed += more,
            Err(cause) => {
                tracing::warn!(%cause, "not everybody is found by the beginnings of names yet; the next start tries again");
                break;
            }
        }
    }
    if indexed > 0 {
        tracing::info!(
            indexed,
            "people of an earlier version are found by the beginnings of names"
        );
    }
}

/// Removes expired rows now and then.
async fn sweep(app: App) {
    panic_point!("clean-up");
    app.storage().keep_reserve().await;
    index_people(&app).await;
    let (mut wall, mut steady) = (app.now(), Instant::now());
    let mut paused_until = None;
    loop {
        tokio::time::sleep(SWEEP).await;
        let app = app.current();
        app.rates().sweep();
        // A clock that leaps is wrong before or after: what it says has expired is not deleted at once.
        let (now, passed) = (app.now(), steady.elapsed());
        if leapt(wall, now, passed) {
            tracing::warn!("the clock leapt: nothing is cleaned up for an hour");
            paused_until = Some(Instant::now() + AFTER_LEAP);
        }
        (wall, steady) = (now, Instant::now());
        if paused_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        app.storage().ready(now).await; // also where nobody asks
        if let Err(cause) = app.storage().note_time(now).await {
            tracing::warn!(%cause, "the time could not be stored");
        }
        let limits = &app.config().limits;
        let keep = Retention {
            unused_client: limits.unused_client_expiry,
            idle_client: limits.idle_client_expiry,
            audit: app.config().audit_retention,
            rows: limits.sweep_rows,
        };
        // One replica at a time: what several remove at once they wait for, row by row.
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
            match app.storage().sweep(app.now(), keep).await {
                Ok(0) => break,
                Ok(removed) => tracing::debug!(removed, "expired rows removed"),
                Err(cause) => {
                    tracing::warn!(%cause, "clean-up failed; it is tried again");
                    break;
                }
            }
        }
        if let Some(until) = turn {
            // A turn that is not given back ends by itself.
            let _ = app.storage().give_clean_up_back(until).await;
        }
    }
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
