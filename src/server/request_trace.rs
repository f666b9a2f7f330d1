//! The trace of each request, if traces are exported.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::time::Instant;

use crate::app::App;
use crate::config::paths;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::trace::{self, RecordedTrace, RequestSpan, RequestTrace, TraceStart};
use crate::web::client_address::Peer;

/// Routes that programs ask all the time, and whose traces would hide all others.
const UNSEEN: [&str; 3] = [paths::HEALTH, paths::READY, "/metrics"];

/// The steps of a sign-in that may turn out to continue the trace of the step before. The last one, at
/// [`paths::TOKEN`], says so itself: most requests there are none.
const STEPS: [&str; 4] = [paths::AUTHORIZE, paths::CONSENT, paths::CALLBACK, paths::WAITING];

/// Begins the trace of a request that came at `begun`; `None` if traces are not exported. `route` is the pattern
/// of the route, so that nothing of the path is shown.
pub(super) fn begin(
    app: &App,
    listener: ListenerKind,
    route: &str,
    request: &Request,
    begun: Instant,
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
    let undecided = listener == ListenerKind::Public && STEPS.contains(&route);
    let start = TraceStart { begun, sampling, trusted, undecided };
    let method = known(request.method());
    let span = RequestSpan { queue, method, route, listener: listener.into() };
    // Two values are no context: nobody knows which of them is meant.
    let mut values = request.headers().get_all("traceparent").iter();
    let traceparent = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    Some(RequestTrace::begin(start, &span, traceparent))
}

/// Serves a request as part of its trace, and takes note of the response.
pub(super) async fn serve(
    trace: RequestTrace,
    served: impl Future<Output = Response> + Unpin,
) -> Response {
    let serving = std::pin::pin!(async {
        let response = served.await;
        if let Some(trace) = trace::recorded() {
            end(&trace, response.status());
        }
        response
    });
    trace::within(Some(trace), serving).await
}

fn end(trace: &RecordedTrace, status: StatusCode) {
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
