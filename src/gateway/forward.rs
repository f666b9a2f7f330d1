//! Forwards a request to the MCP server and streams its response back, with headers copied from allow-lists.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::authenticate::Caller;
use super::authorize::{Authorized, step_up};
use super::challenge::{GatewayRefused, beside_a_refusal};
use super::event_ids::SealedIds;
use super::exchange::{Exchange, copy};
use super::idle_timeout::IdleTimeoutBody;
use super::server_challenge::{self, ServerDemand};
use super::spelling::folds_to;
use super::sse::{EventFilter, FilterAction, FilteredStream};
use super::stream::{PermitBody, RevocableBody, StreamAuthorization, until_ended};
use super::target::Target;
use super::tasks::Remembers;
use super::tools_list::{Filtered, Hidden};
use super::usage::OpenCalls;
use super::{cache_control, http_sse_transport, session};
use crate::app::App;
use crate::config::{ResourceConfig, Transport};
use crate::rate_limits::RequestPermit;
use crate::storage::GrantState;

/// Response headers that pass to the client. Every `mcp-*` header does too.
const TO_CLIENT: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::ALLOW,
    ACCEL_BUFFERING,
    HeaderName::from_static("last-modified"),
];

/// Tells nginx and other proxies whether they may buffer a response.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What to read in a response, and what to remove from it.
struct ResponseReading {
    hidden: Option<Hidden>,
    remembers: Option<Remembers>,
    /// The stream carries only messages that the server sends on its own, and no response to a request.
    only_listens: bool,
}

/// A request that is authenticated and authorised, and that has a permit of the concurrency limits.
pub(super) struct AdmittedCall<'a> {
    pub(super) app: &'a App,
    pub(super) resource: &'a ResourceConfig,
    pub(super) target: &'a Target,
    pub(super) caller: Caller,
    /// Counts as a request of this person and client until the response is sent; a stream has a permit of its
    /// own.
    pub(super) permit: RequestPermit,
    /// Changes when grants end. Created before the caller's grant was looked up.
    pub(super) ended: watch::Receiver<u64>,
    /// Counts the calls in it. Taken by the body of the answer.
    pub(super) counted: &'a mut Option<OpenCalls>,
}

impl AdmittedCall<'_> {
    /// Sends the request to the MCP server and returns its response for the client.
    pub(super) async fn forward(self, authorized: Authorized) -> Result<Response, GatewayRefused> {
        let Authorized { parts, mut body, lists_tools, may_become_a_task } = authorized;
        let (app, resource, caller) = (self.app, self.resource, &self.caller);
        let (sealer, headers) = (app.sealer(), &parts.headers);
        let exchange = Exchange {
            app,
            resource,
            target: self.target,
            caller,
            session: session::open(sealer, caller, headers)?,
            last_event: session::open_event(sealer, caller, headers)?,
            parts: &parts,
        };
        exchange.name_what_is_left_out();
        let address = self.address(&parts.method, parts.uri.query())?;
        let answer = {
            // Pinned here because `timeout` and `select!` would each move the future, which is some
            // kilobytes.
            let sending = std::pin::pin!(exchange.send(address, &mut body));
            let answer = tokio::time::timeout(app.config().limits.gateway_response, sending);
            tokio::select! {
                answer = answer => answer,
                () = self.has_ended() => return Err(GatewayRefused::InvalidToken),
            }
        };
        let answer = answer.map_err(|_| GatewayRefused::GatewayTimeout)??;
        // A list of tools comes in the response to `tools/list`, or on a GET stream, which may carry any
        // message.
        let listed = lists_tools || parts.method == Method::GET;
        let hidden = if listed { Hidden::from(resource, caller) } else { None };
        let remembers = may_become_a_task.map(|scopes| Remembers::of(app, caller, scopes));
        // `Last-Event-ID` resumes a stream that broke off, which may carry the response to a call. In the
        // HTTP+SSE transport, the one stream carries all responses.
        let only_listens = parts.method == Method::GET
            && resource.transport == Transport::StreamableHttp
            && !parts.headers.contains_key(session::LAST_EVENT_ID);
        let reading = ResponseReading { hidden, remembers, only_listens };
        self.pass_back(reading, answer).await
    }

    /// Returns the URI to send the request to: the target with the client's query, or, in the HTTP+SSE
    /// transport, the message address that the target's event stream named.
    fn address(&self, method: &Method, query: Option<&str>) -> Result<Uri, GatewayRefused> {
        match (self.resource.transport, method) {
            (Transport::HttpSse, &Method::POST) => {
                let (sealer, target) = (self.app.sealer(), self.target.url());
                let address = http_sse_transport::address(sealer, &self.caller, target, query)?;
                address.as_str().parse().map_err(|_| GatewayRefused::BadGateway("target"))
            }
            (Transport::HttpSse, &Method::DELETE) => Err(GatewayRefused::NoEventStream),
            _ => self.target.address(query.and_then(safe_query).as_deref()),
        }
    }

    /// Builds the response for the client: seals ids, rebuilds challenges, filters the body, and cuts it when
    /// the grant ends.
    async fn pass_back(
        self,
        reading: ResponseReading,
        answer: axum::http::Response<Incoming>,
    ) -> Result<Response, GatewayRefused> {
        let status = answer.status();
        refuse_what_cannot_pass(self.resource, status)?;
        let (mut parts, body) = answer.into_parts();
        one_length(&mut parts.headers)?;
        let session = parts.headers.get(session::SESSION_ID);
        let session = session.and_then(|id| session::seal(self.app.sealer(), &self.caller, id));
        let is_stream = is_event_stream(&parts.headers);
        let challenge = if status == StatusCode::FORBIDDEN {
            Box::pin(challenge_of(self.app, self.resource, &self.caller, &parts.headers)).await
        } else {
            None
        };
        let body = Body::new(body);
        let lacks_scopes = challenge.is_some();
        let body = if is_stream {
            self.event_stream((status, lacks_scopes), &mut parts.headers, reading, body)?
        } else if let Some(hidden) = reading.hidden {
            readable(&mut parts.headers)?;
            Box::pin(self.list_of_tools(&hidden, reading.remembers, body)).await?
        } else {
            let body = match reading.remembers {
                Some(remembers) => {
                    // A task that cannot be read could be used by everybody.
                    readable(&mut parts.headers)?;
                    Box::pin(self.begun_task(remembers, body)).await?
                }
                None => body,
            };
            let counted = self.counted.take();
            let reader = counted.and_then(|c| c.answered(status, &parts.headers, lacks_scopes));
            let authority = StreamAuthorization::of(self.app, self.caller, self.ended);
            Body::new(PermitBody::new(body, self.permit, authority, reader))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        copy(&parts.headers, headers, &TO_CLIENT, &[]);
        if let Some(session) = session {
            headers.insert(session::SESSION_ID, session);
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if is_stream {
            // Otherwise proxies could buffer or compress the events before they pass them on.
            headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
            let whole = HeaderValue::from_static("no-store, no-transform");
            headers.insert(header::CACHE_CONTROL, whole);
        } else {
            cache_control::at_most_private(headers);
        }
        Ok(response)
    }

    /// Returns the body of an event stream: filtered, with sealed event ids, and cut when the grant ends.
    fn event_stream(
        self,
        (status, lacks_scopes): (StatusCode, bool),
        headers: &mut HeaderMap,
        reading: ResponseReading,
        body: Body,
    ) -> Result<Body, GatewayRefused> {
        let Self { app, resource, caller, .. } = self;
        let only_listens = reading.only_listens;
        let body = Body::new(IdleTimeoutBody::new(body, app.config().limits.stream_idle));
        let body = match judge(app, resource, &caller, reading) {
            Some(judge) => {
                readable(headers)?;
                Body::new(FilteredStream::new(body, app.config().limits.gateway_body, judge))
            }
            None => body,
        };
        // Event ids inside a compressed body cannot be sealed. The client gets them as they are, and they are
        // refused when it sends one back.
        let is_packed = headers.contains_key(header::CONTENT_ENCODING);
        let inner = if is_packed {
            body
        } else {
            headers.remove(header::CONTENT_LENGTH);
            Body::new(SealedIds::new(body, app.sealer(), &caller))
        };
        let (subject, client_id) = (&caller.grant.subject, &caller.grant.client_id);
        let permit = app.rates().stream(subject, client_id).map_err(GatewayRefused::TooMany)?;
        let counted = self.counted.take();
        let reader = counted.and_then(|c| c.answered(status, headers, lacks_scopes));
        let authority = StreamAuthorization::of(app, caller, self.ended);
        let ended = Box::pin(until_ended(authority.that_only_listens(only_listens)));
        let open = app.metrics().stream();
        Ok(Body::new(RevocableBody { inner, _held: (permit, open), ended, reader }))
    }

    /// Returns a list of tools without those that the caller may not use.
    async fn list_of_tools(
        &self,
        hidden: &Hidden,
        remembers: Option<Remembers>,
        body: Body,
    ) -> Result<Body, GatewayRefused> {
        tokio::select! {
            body = without_hidden(self.app, self.resource, hidden, remembers, body) => body,
            () = self.has_ended() => Err(GatewayRefused::InvalidToken),
        }
    }

    /// Returns the body unchanged, and remembers the task that it may announce.
    async fn begun_task(&self, remembers: Remembers, body: Body) -> Result<Body, GatewayRefused> {
        let limit = self.app.config().limits.gateway_response;
        tokio::select! {
            body = tokio::time::timeout(limit, remembers.look_at(body)) => {
                body.map_err(|_| GatewayRefused::GatewayTimeout)
            }
            () = self.has_ended() => Err(GatewayRefused::InvalidToken),
        }
    }

    /// Ready when the grant has ended. Runs while a request body or a response is still arriving, which may
    /// take long.
    async fn has_ended(&self) {
        let mut ended = self.ended.clone();
        loop {
            if ended.changed().await.is_err() {
                return std::future::pending().await; // the process ends
            }
            let state =
                self.app.storage().recent_grant(&self.caller.grant.id, self.app.now()).await;
            if matches!(state, Ok(GrantState::Ended)) {
                return;
            }
        }
    }
}

/// Returns the query without `access_token` parameters, which could hand a token on to the MCP server (RFC
/// 6750 §2.3 is not offered). Parameters end at `;` too, because some servers split there. The rest stays
/// unchanged.
fn safe_query(query: &str) -> Option<String> {
    let mut kept = String::new();
    let mut rest = query;
    while !rest.is_empty() {
        let end = rest.find(['&', ';']).map_or(rest.len(), |at| at + 1);
        let (pair, after) = rest.split_at(end);
        if !is_token(pair) {
            kept.push_str(pair);
        }
        rest = after;
    }
    if !query.ends_with(['&', ';']) && kept.ends_with(['&', ';']) {
        kept.pop(); // it preceded a parameter that was removed
    }
    (!kept.is_empty()).then_some(kept)
}

/// Whether some server would read this parameter as `access_token`: in any case, with other characters for
/// `_` (PHP), as the start of a list (`[]`), or cut at a NUL.
fn is_token(pair: &str) -> bool {
    let name = pair.split(['=', '&', ';']).next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let name = name.replace('+', " ");
    let name = name.split(['[', '\0']).next().unwrap_or_default();
    folds_to(name, "access_token")
}

/// Refuses a response that no client of this gateway could use.
fn refuse_what_cannot_pass(
    resource: &ResourceConfig,
    status: StatusCode,
) -> Result<(), GatewayRefused> {
    if status == StatusCode::UNAUTHORIZED {
        // If we passed the 401 on, the client would sign in with us again, for ever.
        tracing::error!(resource = resource.id, "the MCP server asks for a sign-in of its own");
        return Err(GatewayRefused::BadGateway(
            "The MCP server asks for a sign-in of its own; behind this gateway it must not",
        ));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        tracing::error!(resource = resource.id, "the MCP server switches protocols");
        return Err(GatewayRefused::BadGateway(
            "The MCP server switches protocols, which is not offered",
        ));
    }
    Ok(())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// Returns the challenge for a 403 of the MCP server that wants scopes which the caller lacks. Returns `None`
/// if the caller has them all: asking for the same scopes again would be an endless loop.
async fn challenge_of(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    let ServerDemand::Scopes(needed) = server_challenge::read(resource, headers)? else {
        return beside_a_refusal(resource, app, None);
    };
    if needed.is_subset(&caller.may) {
        tracing::warn!(resource = resource.id, %needed, "the MCP server wants what the caller has");
        return None;
    }
    let ask = step_up(app, resource, caller, &needed).await;
    beside_a_refusal(resource, app, Some((&needed, &ask)))
}

/// Builds the filter for the events of a stream; `None` if every event passes unchanged.
fn judge(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    reading: ResponseReading,
) -> Option<EventFilter> {
    let ResponseReading { hidden, remembers, .. } = reading;
    let is_old = resource.transport == Transport::HttpSse;
    let old = match (is_old, &resource.target, &resource.path) {
        (true, Some(target), Some(path)) => {
            let path = format!("{}{path}", app.config().public_url.base_path());
            Some((app.sealer().clone(), caller.clone(), target.clone(), path))
        }
        _ => None,
    };
    if old.is_none() && hidden.is_none() && remembers.is_none() {
        return None;
    }
    Some(Box::new(move |event| {
        let data = event.data.as_deref().filter(|data| Remembers::concerns(data));
        let first = remembers.clone().zip(data).map(|(remembers, data)| {
            let remembered = remembers.remember(data.as_bytes().to_vec());
            Box::pin(remembered) as super::sse::BeforeEvent
        });
        let verdict = old.as_ref().map_or(FilterAction::Pass, |(sealer, caller, target, path)| {
            http_sse_transport::rewrite(sealer, caller, target, path, event)
        });
        let verdict = match (verdict, &hidden) {
            (FilterAction::Pass, Some(hidden)) => hidden.judge(event),
            (decided, _) => decided,
        };
        (verdict, first)
    }))
}

/// Removes `Content-Length` from a chunked response: readers could otherwise see the body end at another
/// place, and a truncated one would look complete (RFC 9112 §6.3). Refuses other transfer codings, which we
/// did not ask for.
fn one_length(headers: &mut HeaderMap) -> Result<(), GatewayRefused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !is_chunked || codings.next().is_some() {
        return Err(GatewayRefused::BadGateway(
            "The MCP server answers in a transfer coding that it was not asked for",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// Prepares a response whose body we read: it must not be compressed, and its length may change.
fn readable(headers: &mut HeaderMap) -> Result<(), GatewayRefused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(GatewayRefused::BadGateway(
            "The MCP server packs its answer, which this gateway has to read; it was not asked to",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// Reads a whole list of tools, up to `limits.gateway_body`, and removes the hidden ones.
async fn without_hidden(
    app: &App,
    resource: &ResourceConfig,
    hidden: &Hidden,
    remembers: Option<Remembers>,
    body: Body,
) -> Result<Body, GatewayRefused> {
    let limits = &app.config().limits;
    let read = Limited::new(body, limits.gateway_body).collect();
    let read = tokio::time::timeout(limits.gateway_response, read)
        .await
        .map_err(|_| GatewayRefused::GatewayTimeout)?
        .map_err(|error| {
            tracing::warn!(resource = resource.id, %error, "a list of tools cannot be read");
            GatewayRefused::BadGateway("The MCP server's list of tools is too large or broke off")
        })?
        .to_bytes();
    if let Some(remembers) = remembers {
        remembers.remember(read.to_vec()).await;
    }
    match hidden.filter(&read) {
        Filtered::Unchanged => Ok(Body::from(read)),
        Filtered::Changed(text) => Ok(Body::from(text)),
        Filtered::Unreadable => {
            Err(GatewayRefused::BadGateway("The MCP server's list of tools is not JSON"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_09_a_token_in_the_query_never_passes() {
        assert_eq!(safe_query("a=1&access_token=x&b=2").as_deref(), Some("a=1&b=2"));
        assert_eq!(safe_query("Access%5FToken=x"), None);
        for kept in ["a=1", "a;b=1", "a=1&", "=&=", "access_token_hint=1", "a=access_token"] {
            assert_eq!(safe_query(kept).as_deref(), Some(kept));
        }
        for (query, kept) in [
            ("a=1;access_token=x&b=2", Some("a=1;b=2")),
            ("a=1;access_token=x", Some("a=1")),
            ("access_token=x;a=1", Some("a=1")),
            ("access_token=x;access_token=y", None),
            ("a=1&access.token=x", Some("a=1")),
            ("a=1&access%20token=x", Some("a=1")),
            ("a=1&access+token=x", Some("a=1")),
            ("a=1&access_token[]=x&access_token%5B0%5D=y", Some("a=1")),
            ("a=1&access_token%00z=x", Some("a=1")),
            ("a=1&+access_token=x", Some("a=1")),
            ("a=1;%61ccess_toKen", Some("a=1")),
        ] {
            assert_eq!(safe_query(query).as_deref(), kept, "{query}");
        }
    }
}
