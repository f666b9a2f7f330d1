//! The checks that every request passes, before any route sees it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;
use tokio::time::Instant;

use super::request_trace;
use crate::app::App;
use crate::config::{Limits, PublicUrl, paths};
use crate::http_client::is_loopback;
use crate::telemetry::audit::Actor;
use crate::telemetry::metrics::ListenerKind;
use crate::web::client_address::ClientAddress;
use crate::web::page_error::ShownReference;
use crate::web::{error, limits};

/// The listener that a service belongs to.
pub(super) struct ListenerContext {
    pub(super) app: App,
    pub(super) side: ListenerKind,
    /// The URL that browsers use for this listener.
    pub(super) url: PublicUrl,
    pub(super) listen: SocketAddr,
}

/// What happens to requests on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AcceptMode {
    #[default]
    Serve,
    /// The process is shutting down: only health probes are served, other requests get a 503.
    Drain,
}

/// How a request arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrival {
    /// The other side of the connection.
    pub(super) peer: Option<SocketAddr>,
    pub(super) mode: AcceptMode,
    /// Its headers may have declared the length of its body twice.
    pub(super) has_length_twice: bool,
}

/// Middleware that checks what every request needs: exactly one `Host` that is ours, and a request target and
/// headers within the limits.
pub(super) async fn guard(
    State(context): State<Arc<ListenerContext>>,
    request: Request,
    next: Next,
) -> Response {
    // The metric is labelled with the pattern of the route, so that no caller can create a time series by
    // requesting a new path.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let arrival = request.extensions().get().copied().unwrap_or_default();
    let request = (Box::new(request), arrival);
    pass_guard(&context, route, request, |request| next.run(*request)).await
}

/// Checks a request, passes it on to `next`, and counts it and its duration under the label `route`. The request is
/// in a box, because every step on its way would copy it.
pub(super) async fn pass_guard<F: Future<Output = Response>>(
    context: &ListenerContext,
    route: &str,
    (request, arrival): (Box<Request>, Arrival),
    next: impl FnOnce(Box<Request>) -> F,
) -> Response {
    let begun = Instant::now();
    let trace = request_trace::begin(&context.app, context.side, route, &request, begun);
    let route = context.app.metrics().route(context.side, route);
    let checked = std::pin::pin!(check(context, (request, arrival), next));
    let response = match trace {
        None => checked.await,
        Some(trace) => request_trace::serve(trace, checked).await,
    };
    route.answered(response.status().as_u16(), begun.elapsed());
    response
}

/// Refuses requests that no route may see, passes the others on to `next`, and records an audit event if the
/// response is a page with a reference.
async fn check<F: Future<Output = Response>>(
    context: &ListenerContext,
    (mut request, arrival): (Box<Request>, Arrival),
    next: impl FnOnce(Box<Request>) -> F,
) -> Response {
    if let Some(refused) = refusal(context, &request, arrival) {
        return refused;
    }
    let app = &context.app;
    if let Some(peer) = arrival.peer {
        let trusted = &app.config().trusted_proxies;
        let address = ClientAddress::find(peer.ip(), request.headers(), trusted);
        // An address that is not known needs no memory.
        if address.0.is_some() {
            request.extensions_mut().insert(address);
        }
    }
    let mut response = limits::enforce(app, request, next).await;
    if let Some(shown) = response.extensions_mut().remove::<ShownReference>() {
        let event = app.event("page_shown", Actor::Person).reference(&shown.reference);
        let status = response.status().as_u16();
        app.record_soon(event.with("status", status).with("reason", shown.reason));
    }
    // Browsers must ignore the header where there is no TLS (RFC 6797 §7.2).
    if context.url.is_https() && context.side != ListenerKind::Plain {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}

/// Returns the response to a request that no route may see; `None` if it may pass.
fn refusal(context: &ListenerContext, request: &Request, arrival: Arrival) -> Option<Response> {
    let limits = &context.app.config().limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.request_target {
        return Some(answer(StatusCode::URI_TOO_LONG, "uri_too_long", "The URL is too long"));
    }
    let facts = HeaderFacts::of(request.headers());
    if facts.are_too_large(limits) {
        return Some(answer(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request headers are too large",
        ));
    }
    let length_twice = arrival.has_length_twice.then(|| "it has two lengths".to_owned());
    if let Some(why) = facts.ambiguity().or(length_twice) {
        let told = format!("The request is ambiguous: {why}");
        return Some(answer(StatusCode::BAD_REQUEST, "bad_request", &told));
    }
    if facts.is_coded() {
        let told = "No transfer coding but chunked is supported";
        return Some(answer(StatusCode::NOT_IMPLEMENTED, "not_implemented", told));
    }
    // Orchestrators send health probes to an IP address, so probes skip the host check.
    let probe = matches!(request.uri().path(), paths::HEALTH | paths::READY);
    if !probe && arrival.mode == AcceptMode::Drain {
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
    // Whatever the host, a redirect leads to `public_url`.
    let redirect = context.side == ListenerKind::Plain;
    if !probe && !scrape && !redirect && !host_is_ours(context, request) {
        return Some(answer(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "This server does not answer for that host name; a proxy in front must pass the Host header on (public_url, admin.url)",
        ));
    }
    None
}

/// What the checks read in the headers of a request, in one pass over them.
struct HeaderFacts<'a> {
    headers: &'a HeaderMap,
    /// The length of all of them in bytes, and that of the longest one.
    bytes: usize,
    longest: usize,
    hosts: usize,
    codings: usize,
    /// The first transfer coding.
    coding: Option<&'a HeaderValue>,
    /// A name with an underscore.
    with_underscore: Option<&'a str>,
    /// Headers of tools' parameters.
    parameters: usize,
}

impl<'a> HeaderFacts<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut facts = Self {
            headers,
            bytes: 0,
            longest: 0,
            hosts: 0,
            codings: 0,
            coding: None,
            with_underscore: None,
            parameters: 0,
        };
        for (name, value) in headers {
            let length = name.as_str().len() + value.len() + 4;
            facts.bytes += length;
            // A bearer token has a limit of its own (`signing::MAX_TOKEN`): the gateway refuses a longer one
            // with a challenge.
            if *name != header::AUTHORIZATION {
                facts.longest = facts.longest.max(length);
            }
            if *name == header::HOST {
                facts.hosts += 1;
            } else if *name == header::TRANSFER_ENCODING {
                facts.codings += 1;
                facts.coding = facts.coding.or(Some(value));
            } else if name.as_str().starts_with(PARAMETER) {
                facts.parameters += 1;
            } else if name.as_str().contains('_') {
                facts.with_underscore = facts.with_underscore.or(Some(name.as_str()));
            }
        }
        facts
    }

    /// Whether the body has a transfer coding other than `chunked`, which nothing here would decode (RFC 9112
    /// §6.1). hyper refuses requests in which `chunked` is not the last coding, because the end of their body is
    /// unknown.
    fn is_coded(&self) -> bool {
        let is_chunked =
            |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        self.coding.is_some_and(|first| !is_chunked(first) || self.codings > 1)
    }

    fn are_too_large(&self, limits: &Limits) -> bool {
        // hyper limits their number in HTTP/1.1 only.
        self.headers.len() > limits.header_count
            || self.bytes > limits.headers
            || self.longest > limits.header
    }

    /// Returns why the next hop could read the headers as another request: there are two hosts, or a name that
    /// many servers treat as equal to another name.
    fn ambiguity(&self) -> Option<String> {
        if self.hosts > 1 {
            return Some("it has two hosts".to_owned());
        }
        let shown = |name: &str| name.chars().take(SHOWN_NAME).collect::<String>();
        if let Some(name) = self.with_underscore {
            let name = shown(name);
            return Some(format!(
                "the header {name} has an underscore, which many servers read as a hyphen"
            ));
        }
        if self.parameters < 2 {
            return None; // most requests: they need no set
        }
        let name = two_parameters_in_one(self.headers.keys().map(HeaderName::as_str))?;
        Some(format!("many servers read the header {} and another one as the same", shown(name)))
    }
}

/// Longest part of a header's name in an error, in characters.
const SHOWN_NAME: usize = 64;
/// Prefix of headers that carry parameters of tools. MCP lets a server name them by any token (SEP-2243).
const PARAMETER: &str = "mcp-param-";

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

/// Responds with an error as JSON.
pub(super) fn answer(status: StatusCode, code: &str, description: &str) -> Response {
    error::json(status, &json!({ "error": code, "error_description": description }))
}
