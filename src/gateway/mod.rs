//! The gateway: forwards authorised MCP requests to the MCP servers, and refuses all others with a challenge.
//! Fails closed.
//!
//! `authenticate` verifies the token, `authorize` checks whether the caller may use the tools that the body
//! calls, `upstream_tokens` fetches the person's tokens of services that the call needs, and `forward` rebuilds
//! the request for the MCP server and streams the response. The MCP server never sees a client's token, and the
//! client never sees one of a service.

mod asked;
mod assertion;
mod authenticate;
mod authorize;
mod cache_control;
mod challenge;
mod denied_tool;
mod elicitation;
mod event_ids;
mod event_lines;
mod exchange;
mod forward;
mod http_sse_transport;
mod idle_timeout;
mod mcp_headers;
mod message_scanner;
mod messages;
mod missing_connection;
mod origin;
mod request_state;
mod response_head;
mod safe_query;
mod send_failed;
mod sent_tokens;
mod server_challenge;
mod session;
mod spans;
mod spelling;
mod sse;
mod stream;
mod streamed_body;
mod strict_json;
mod target;
mod target_list;
mod tasks;
mod tools_list;
mod upstream_tokens;
mod usage;
mod whole_message;

use std::net::IpAddr;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::GetAll;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::app::App;
use crate::config::ResourceConfig;
use crate::rate_limits::{LimitedAction, RequestPermit};
use crate::storage::{CallOutcome, LiveGrant};
use crate::telemetry::metrics::Passed;
use crate::web::client_address::ClientAddress;
use crate::web::landing;
use crate::web::words::Language;
use asked::{BodyReading, RequestReading};
use authenticate::authenticate;
use authorize::{Authorized, authorize};
use challenge::{GatewayRefused, ServiceRefused};
use elicitation::UrlSessions;
use forward::AdmittedCall;
use sent_tokens::SentTokens;
use spans::KnownTools;
use target_list::TargetList;
use upstream_tokens::TokenSupply;
use usage::{CallsOfRoute, OpenCalls};

/// The gateway's routes, one for each MCP server of one configuration.
pub struct GatewayRoutes(Vec<GatewayRoute>);

/// The route to one MCP server.
pub struct GatewayRoute {
    path: String,
    /// Index of its resource in `Config::resources`.
    index: usize,
    targets: TargetList,
    calls: Arc<CallsOfRoute>,
    /// The sessions whose clients can show links.
    url_sessions: UrlSessions,
}

impl GatewayRoutes {
    /// Creates a route for each resource that has a path and targets.
    pub fn of(app: &App) -> Self {
        let passage = |(index, resource): (usize, &ResourceConfig)| {
            let (path, targets) = (resource.path.clone()?, TargetList::of(app, resource)?);
            let (metrics, tools) = (app.metrics().calls(&path), KnownTools::default());
            let ended = app.metrics().tool_calls(&path, &CallOutcome::ALL.map(CallOutcome::name));
            let calls = Arc::new(CallsOfRoute { metrics, ended, tools });
            let url_sessions = UrlSessions::default();
            Some(GatewayRoute { path, index, targets, calls, url_sessions })
        };
        Self(app.config().resources.iter().enumerate().filter_map(passage).collect())
    }

    /// Returns the route for this path. A trailing slash, which people type, is the only other spelling that
    /// matches (threat GW-02). The target is configured, so nothing of the requested path reaches the MCP
    /// server.
    pub fn at(&self, path: &str) -> Option<&GatewayRoute> {
        let exactly = |path: &str| self.0.iter().find(|passage| passage.path == path);
        exactly(path).or_else(|| exactly(path.strip_suffix('/')?))
    }
}

impl GatewayRoute {
    /// The path without the path of `public_url`; also the route's label in metrics.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Forwards a request, or refuses it with a challenge. `app` must be the application that this route was
    /// created from.
    pub async fn pass(&self, app: &App, request: Box<Request>) -> Response {
        pass(app, &app.config().resources[self.index], self, request).await
    }
}

/// Responds to preflights, checks the `Origin`, and turns a refusal into a response that carries the JSON-RPC
/// id of the request.
async fn pass(
    app: &App,
    resource: &ResourceConfig,
    passage: &GatewayRoute,
    request: Box<Request>,
) -> Response {
    if request.method() == Method::OPTIONS {
        return preflight(&request);
    }
    let origin = origin::check(app, &request.headers().get_all(header::ORIGIN));
    let (parts, body) = request.into_parts();
    let parts = Box::new(parts); // every step on their way would copy them
    let page = landing::asked_for(app, &parts.method, &parts.headers);
    let page = page.map(|language| (language, ClientAddress::of(&parts.extensions)));
    let may_be_read = asked::may_be_read(&parts);
    let mut reading = RequestReading { body: BodyReading::Unread(body), counted: None };
    let (origin, answer) = match origin {
        Ok(origin) => (origin, serve(app, resource, passage, parts, &mut reading).await),
        Err(refused) => (None, Err(refused)),
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(refused) => {
            let id = if may_be_read { Box::pin(reading.body.id()).await } else { None };
            let page = page.filter(|_| refused == GatewayRefused::NoToken);
            let response = refused.into_response(resource, app, id);
            match page {
                Some(visitor) => for_a_person(app, resource, response, visitor),
                None => response,
            }
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("WWW-Authenticate, Mcp-Session-Id, Retry-After"),
        );
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Returns a page in place of the body of a refusal, for somebody who opened the MCP URL in a browser. Status and
/// challenge stay, because a program that also asks for HTML must still learn where to get a token. An address that
/// asks too often gets what programs get.
fn for_a_person(
    app: &App,
    resource: &ResourceConfig,
    refusal: Response,
    (language, address): (Language, Option<IpAddr>),
) -> Response {
    if app.rates().check(LimitedAction::Pages, address).is_err() {
        return refusal;
    }
    let mut page = landing::of_server(app, resource, language, refusal.status());
    for challenge in refusal.headers().get_all(header::WWW_AUTHENTICATE) {
        page.headers_mut().append(header::WWW_AUTHENTICATE, challenge.clone());
    }
    page.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    page
}

/// Authenticates, authorizes and forwards one request, and counts it.
async fn serve(
    app: &App,
    resource: &ResourceConfig,
    passage: &GatewayRoute,
    parts: Box<Parts>,
    reading: &mut RequestReading,
) -> Result<Response, GatewayRefused> {
    // Subscribe before the grant is looked up, so that a revocation in between is not missed.
    let ended = app.storage().grants_ended();
    // Check the token first: an unauthenticated request gets its challenge even if it has other faults.
    let caller = {
        let authorization = parts.headers.get_all(header::AUTHORIZATION);
        authenticate(app, resource, &authorization).await?
    };
    reading.counted = OpenCalls::of(app, &caller, &parts, &passage.calls);
    let sessions = &passage.url_sessions;
    let supply = TokenSupply { app, resource, caller: &caller, sessions, ended: &ended };
    let answer = match admit(&supply, parts, reading).await {
        Ok(Admitted { permit, authorized, tokens, states_links }) => {
            let begun = Instant::now();
            let call = AdmittedCall {
                app,
                resource,
                targets: &passage.targets,
                caller,
                permit,
                ended,
                tokens,
                url_sessions: states_links.then_some(sessions),
                counted: &mut reading.counted,
            };
            let answer = call.forward(authorized).await;
            passage.calls.metrics.passed(outcome(&answer), begun);
            answer
        }
        Err(refused) => Err(refused),
    };
    if let Err(refused) = &answer
        && let Some(counted) = reading.counted.take()
    {
        counted.refused(refused);
    }
    answer
}

/// A request that may be forwarded.
struct Admitted {
    permit: RequestPermit,
    authorized: Authorized,
    tokens: SentTokens,
    /// It begins a session, and says that the client can show links.
    states_links: bool,
}

/// Checks whether an authenticated request may be forwarded, and fetches the tokens that go with it.
async fn admit(
    supply: &TokenSupply<'_>,
    parts: Box<Parts>,
    reading: &mut RequestReading,
) -> Result<Admitted, GatewayRefused> {
    let TokenSupply { app, resource, caller, .. } = *supply;
    if !matches!(parts.method, Method::GET | Method::POST | Method::DELETE) {
        return Err(GatewayRefused::Method);
    }
    if asks_for_websocket(&parts.headers.get_all(header::UPGRADE)) {
        return Err(GatewayRefused::Upgrade);
    }
    let LiveGrant { subject, client_id, .. } = &*caller.grant;
    let permit = app.rates().request(subject, client_id).map_err(GatewayRefused::TooMany)?;
    let mut authorized = authorize(app, resource, caller, parts, reading).await?;
    let tokens = supply.tokens(&mut authorized).await?;
    let states_links = supply.states_links(&authorized);
    Ok(Admitted { permit, authorized, tokens, states_links })
}

/// Whether the client wants a WebSocket, and so could not use any other response. `offers` are the values of
/// `Upgrade`. Other offers to upgrade the
/// protocol are ignored, as RFC 9110 §7.8 allows: Java's HTTP client offers `h2c` with each request.
fn asks_for_websocket(offers: &GetAll<'_, HeaderValue>) -> bool {
    let mut protocols =
        offers.iter().flat_map(|offer| offer.as_bytes().split(|byte| *byte == b','));
    protocols.any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

/// Classifies the outcome of a call for the metrics, so that an administrator sees whether the MCP server
/// failed.
fn outcome(answer: &Result<Response, GatewayRefused>) -> Passed {
    match answer {
        Ok(answer) if answer.status().is_server_error() => Passed::Failed,
        Ok(_) => Passed::Answered,
        Err(GatewayRefused::GatewayTimeout) => Passed::TimedOut,
        Err(
            GatewayRefused::BadGateway(_)
            | GatewayRefused::Service(ServiceRefused::TokenRefused(_)),
        ) => Passed::Broken,
        Err(_) => Passed::Withheld,
    }
}

/// Responds to a CORS preflight. Preflights carry no token, by design of CORS. The origin is checked with the
/// request itself.
fn preflight(request: &Request) -> Response {
    let mut response = (StatusCode::NO_CONTENT, Body::empty()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
    );
    // Every requested header is allowed: `Mcp-Param-*` has no fixed list of names.
    let asked: HeaderName = header::ACCESS_CONTROL_REQUEST_HEADERS;
    if let Some(names) = request.headers().get(asked) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}
