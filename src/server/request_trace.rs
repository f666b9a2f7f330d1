//! The span of each request, if traces are exported.

use axum::extract::Request;
use axum::http::{Method, StatusCode};

use crate::app::App;
use crate::config::paths;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::trace::{RequestTrace, TraceStart};
use crate::web::client_address::Peer;

/// Routes that programs ask all the time, and whose traces would hide all others.
const UNSEEN: [&str; 3] = [paths::HEALTH, paths::READY, "/metrics"];

/// The steps of a sign-in. Each may turn out to continue the trace of the step before.
const STEPS: [&str; 5] =
    [paths::AUTHORIZE, paths::CONSENT, paths::CALLBACK, paths::WAITING, paths::TOKEN];

/// Begins the trace of a request; `None` if traces are not exported. `route` is the pattern of the route, so
/// that nothing of the path is shown.
pub(super) fn begin(
    app: &App,
    listener: ListenerKind,
    route: &str,
    request: &Request,
) -> Option<RequestTrace> {
    let (queue, sampling) = app.tracing()?;
    if UNSEEN.contains(&route) {
        return None;
    }
    let peer = request.extensions().get::<Peer>();
    let trusted = peer.is_some_and(|Peer(peer)| {
        let peer = peer.ip().to_canonical();
        app.config().trusted_proxies.iter().any(|network| network.contains(&peer))
    });
    let method = known(request.method());
    let attributes = vec![
        ("http.request.method", method.into()),
        ("http.route", route.to_owned().into()),
        ("portcullis.listener", <&'static str>::from(listener).into()),
    ];
    let undecided = listener == ListenerKind::Public && STEPS.contains(&route);
    let start = TraceStart { queue, sampling, trusted, undecided };
    let trace = RequestTrace::begin(&start, format!("{method} {route}"), attributes);
    // Two values are no context: nobody knows which of them is meant.
    let mut values = request.headers().get_all("traceparent").iter();
    if let (Some(value), None) = (values.next(), values.next())
        && let Ok(text) = value.to_str()
    {
        trace.offered(text);
    }
    Some(trace)
}

/// Takes note of the response.
pub(super) fn end(trace: &RequestTrace, status: StatusCode) {
    trace.set("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        trace.fail(status.as_str().to_owned());
    }
}

/// Returns the name of a method; a caller's own invention is `_OTHER`, as in the conventions.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}
