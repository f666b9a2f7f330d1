//! The listener: an accept loop of our own with time limits, the middleware, shutdown, clean-up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::http_client::is_loopback;
use crate::storage::Retention;
use crate::telemetry::audit::Actor;
use crate::web::error;
use crate::web::people::Shown;
use crate::{admin, endpoints, gateway};

/// A connection that says nothing is closed after this.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// A request's headers must have arrived by then.
const HEADERS: Duration = Duration::from_secs(10);
/// Requests under way get this long to finish at shutdown; open streams are then cut.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 100;
/// How often expired rows are removed.
const SWEEP: Duration = Duration::from_mins(1);
/// Longest request target read.
const MAX_TARGET: usize = 8 * 1024;
/// Largest header section read.
const MAX_HEADERS: usize = 16 * 1024;

/// What a service answers for.
#[derive(Clone)]
struct Doorway {
    app: App,
    /// Its origin, as browsers know it.
    origin: String,
    listen: SocketAddr,
}

/// The whole public service.
pub fn service(app: App) -> Router {
    let routes = Router::new()
        .merge(endpoints::routes(&app))
        .merge(gateway::routes(&app))
        .fallback(endpoints::not_found);
    let (origin, listen) = (app.issuer().to_owned(), app.config().listen);
    guarded(routes, Doorway { app, origin, listen })
}

/// The whole service of the admin listener, where there is one.
pub fn admin_service(app: App) -> Option<Router> {
    let admin = app.config().admin.as_ref()?;
    let (origin, listen) = (admin.url.as_str().to_owned(), admin.listen);
    Some(guarded(admin::routes(), Doorway { app, origin, listen }))
}

fn guarded(routes: Router<App>, doorway: Doorway) -> Router {
    let app = doorway.app.clone();
    routes
        .layer(middleware::from_fn_with_state(doorway, guard))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

/// Serves until `shutdown` is ready, then drains. The admin pages, where there are any, are served on
/// `admin`.
pub async fn serve(
    app: App,
    listener: TcpListener,
    admin: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let sweeper = tokio::spawn(sweep(app.clone()));
    let (stop_audit, stopped) = oneshot::channel::<()>();
    let keeper = app.clone();
    let audit = tokio::spawn(async move {
        keeper
            .keep_audit_trail(async {
                let _ = stopped.await;
            })
            .await;
    });
    let graceful = GracefulShutdown::new();
    let limit = app.config().limits.connections;
    let public = accept(listener, service(app.clone()), &graceful, limit);
    let admin_pages = async {
        match (admin, admin_service(app.clone())) {
            (Some(listener), Some(service)) => {
                accept(listener, service, &graceful, ADMIN_CONNECTIONS).await;
            }
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = public => {}
        () = admin_pages => {}
        () = shutdown => {}
    }
    sweeper.abort();
    tracing::info!("shutting down: requests under way may finish");
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::info!("open streams are cut");
    }
    drop(stop_audit);
    let _ = audit.await;
    app.storage().close().await;
}

/// Accepts connections for ever, at most `limit` at a time.
async fn accept(listener: TcpListener, service: Router, graceful: &GracefulShutdown, limit: usize) {
    let connections = Arc::new(Semaphore::new(limit));
    // HTTP/1.1 alone: a proxy in front speaks HTTP/2 to the world, and telling both apart here would wait
    // for ever on a connection that says too little.
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(64)
        .max_buf_size(MAX_TARGET + MAX_HEADERS);
    let builder = Arc::new(builder);
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(cause) => {
                // Out of file descriptors, mostly: give open connections a moment to end.
                tracing::error!(%cause, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!("the limit of open connections is reached");
            continue; // dropped: closed at once
        };
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        let builder = Arc::clone(&builder);
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _place = place;
            if !speaks(&stream).await {
                return;
            }
            let service = TowerToHyperService::new(service);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(cause) = watcher.watch(connection).await {
                tracing::debug!(%cause, "a connection ended");
            }
        });
    }
}

/// Whether the other side says anything in time. The protocol detection below us waits for ever.
async fn speaks(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(FIRST_BYTE, stream.peek(&mut byte)).await, Ok(Ok(1)))
}

/// What every request must have, whatever it is for: one `Host` that is ours, and a target of
/// bearable length.
async fn guard(State(doorway): State<Doorway>, request: Request, next: Next) -> Response {
    let app = &doorway.app;
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return answer(StatusCode::URI_TOO_LONG, "uri_too_long", "The URL is too long");
    }
    let length: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if length > MAX_HEADERS {
        return answer(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request headers are too large",
        );
    }
    if ambiguous(request.headers()) {
        return answer(StatusCode::BAD_REQUEST, "bad_request", "The request is ambiguous");
    }
    // Orchestrators probe by address.
    let probe = matches!(request.uri().path(), "/health" | "/ready");
    if !probe && !host_is_ours(&doorway, &request) {
        return answer(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "This server does not answer for that host name; a proxy in front must pass the Host header on (public_url, admin.url)",
        );
    }
    let mut response = next.run(request).await;
    if let Some(shown) = response.extensions_mut().remove::<Shown>() {
        let event = app.event("page_shown", Actor::Person).reference(&shown.reference);
        let status = response.status().as_u16();
        app.note(event.with("status", status).with("reason", shown.reason));
    }
    if doorway.origin.starts_with("https://") {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

/// Two hosts, or two ways to tell where the body ends: the next hop could read another request.
fn ambiguous(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().count() > 1
        || (headers.contains_key(header::CONTENT_LENGTH)
            && headers.contains_key(header::TRANSFER_ENCODING))
}

/// Our public host, or an address of this machine as an unconfigured proxy in front sends it. A
/// rebound DNS name is neither.
fn host_is_ours(doorway: &Doorway, request: &Request) -> bool {
    let authority = match (request.uri().authority(), request.headers().get(header::HOST)) {
        (Some(authority), Some(host)) if authority.as_str().as_bytes() != host.as_bytes() => {
            return false;
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().unwrap_or_default(),
        (None, None) => return false,
    };
    let ours = doorway.origin.split_once("://").map_or("", |(_, rest)| rest);
    authority.eq_ignore_ascii_case(ours)
        || authority
            .parse::<SocketAddr>()
            .is_ok_and(|address| address == doorway.listen || address.ip().is_loopback())
        || is_loopback(host_of(authority))
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
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a request panicked");
    answer(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Something broke on our side")
        .into_response()
}

/// Removes expired rows now and then.
async fn sweep(app: App) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let limits = &app.config().limits;
        let keep = Retention {
            unused_client: limits.unused_client_expiry,
            idle_client: limits.idle_client_expiry,
            audit: app.config().audit_retention,
        };
        loop {
            match app.storage().sweep(app.now(), keep).await {
                Ok(0) => break,
                Ok(removed) => tracing::debug!(removed, "expired rows removed"),
                Err(cause) => {
                    tracing::warn!(%cause, "clean-up failed; it is tried again");
                    break;
                }
            }
        }
    }
}
