//! Forwards a request to the MCP server and streams its response back, with headers copied from allow-lists.

use axum::body::Body;
use axum::http::header::GetAll;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use tokio::sync::watch;
use url::Url;

use super::authenticate::Caller;
use super::authorize::{Authorized, step_up};
use super::challenge::{GatewayRefused, MessageRefused, beside_a_refusal};
use super::elicitation::UrlSessions;
use super::event_ids::SealedIds;
use super::exchange::{AskedAddress, Exchange, copy};
use super::idle_timeout::IdleTimeoutBody;
use super::response_head::{
    ACCEL_BUFFERING, instruct_caches, is_event_stream, one_length, readable,
    refuse_what_cannot_pass,
};
use super::safe_query::safe_query;
use super::sent_tokens::SentTokens;
use super::server_challenge::{self, ServerDemand};
use super::spans::TargetSpan;
use super::sse::{EventFilter, FilterAction, FilteredStream};
use super::stream::{PassedBody, PermitBody, RevocableBody, StreamAuthorization, until_ended};
use super::target::Target;
use super::target_list::{TargetChoice, TargetList};
use super::tasks::Remembers;
use super::tools_list::{Filtered, Hidden};
use super::usage::OpenCalls;
use super::{http_sse_transport, session};
use crate::app::App;
use crate::config::{ResourceConfig, TargetTag, Transport};
use crate::http_client::TargetBody;
use crate::rate_limits::RequestPermit;
use crate::storage::GrantState;
use crate::telemetry::metrics::TargetFailure;

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
    pub(super) targets: &'a TargetList,
    pub(super) caller: Caller,
    /// Counts as a request of this person and client until the response is sent; a stream has a permit of its
    /// own.
    pub(super) permit: RequestPermit,
    /// Changes when grants end. Created before the caller's grant was looked up.
    pub(super) ended: watch::Receiver<u64>,
    /// The tokens of services that go to the MCP server.
    pub(super) tokens: SentTokens,
    /// Remembers the session that the response begins; `None` unless the client said that it can show links.
    pub(super) url_sessions: Option<&'a UrlSessions>,
    /// Counts the calls in it. Taken by the body of the answer.
    pub(super) counted: &'a mut Option<OpenCalls>,
}

impl<'a> AdmittedCall<'a> {
    /// Sends the request to a target and returns its response for the client.
    pub(super) async fn forward(self, authorized: Authorized) -> Result<Response, GatewayRefused> {
        let Authorized { parts, body, lists_tools, may_become_a_task, .. } = authorized;
        let (app, resource, caller) = (self.app, self.resource, &self.caller);
        let (mut exchange, mut choice) = self.exchange(&parts)?;
        let span = TargetSpan::begin(choice.target(), resource.path.as_deref());
        exchange.span = Some(&span);
        exchange.name_what_is_left_out();
        let answer = {
            // Pinned here because `timeout` and `select!` would each move the future, which is some
            // kilobytes.
            let sending = std::pin::pin!(exchange.send(&mut choice, &body));
            let within = resource.timeout.unwrap_or(app.config().limits.gateway_response);
            let answer = tokio::time::timeout(within, sending);
            tokio::select! {
                answer = answer => answer,
                () = self.has_ended() => return Err(GatewayRefused::InvalidToken),
            }
        };
        let target = choice.target();
        if answer.is_err() && body.is_whole() {
            // While a body is streamed, the client may be the slow one.
            target.seen.failed(TargetFailure::Timeout, "no response in time", app.now());
        }
        let answer = answer.unwrap_or(Err(GatewayRefused::GatewayTimeout));
        span.end(&answer);
        let answer = answer?;
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
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED
            && let Some(refused) = self.tokens.refused(app, resource, caller)
        {
            return Err(refused);
        }
        let passed = self.pass_back(target, reading, answer).await;
        target.note(app, status, &passed);
        passed
    }

    /// Opens the ids that the request carries, and chooses its target: the one that issued them, or any.
    fn exchange<'b>(
        &'b self,
        parts: &'b Parts,
    ) -> Result<(Exchange<'b>, TargetChoice<'a>), GatewayRefused> {
        let (sealer, caller) = (self.app.sealer(), &self.caller);
        let session = parts.headers.get_all(session::SESSION_ID);
        let session = session::open(sealer, caller, &session)?;
        let event = parts.headers.get_all(session::LAST_EVENT_ID);
        let event = session::open_event(sealer, caller, &event)?;
        let address = self.address(&parts.method, parts.uri.query())?;
        let of_address = match &address {
            AskedAddress::Messages(address) => Some(address.target),
            AskedAddress::Target(_) => None,
        };
        let of_ids = [session.as_ref(), event.as_ref()].map(|id| id.map(|id| id.target));
        let choice = self.choice([of_ids[0], of_address, of_ids[1]])?;
        let exchange = Exchange {
            app: self.app,
            resource: self.resource,
            caller,
            parts,
            address,
            session: session.map(|session| session.id),
            last_event: event.map(|event| event.id),
            tokens: &self.tokens,
            span: None,
        };
        Ok((exchange, choice))
    }

    /// Returns the target that issued these ids, or any target if there are none.
    fn choice(&self, issuers: [Option<TargetTag>; 3]) -> Result<TargetChoice<'a>, GatewayRefused> {
        let mut issuers = issuers.into_iter().flatten();
        let Some(issuer) = issuers.next() else { return Ok(self.targets.any(self.app)) };
        if issuers.any(|other| other != issuer) {
            return Err(MessageRefused::UnknownEvent.into()); // an event of another session
        }
        let choice = self.targets.issuer(issuer);
        choice.ok_or_else(|| MessageRefused::UnknownSession.into())
    }

    /// Returns where the request goes: to the URL of the target with the client's query, or, in the HTTP+SSE
    /// transport, to the message address that the target's event stream named.
    fn address(
        &self,
        method: &Method,
        query: Option<&str>,
    ) -> Result<AskedAddress, GatewayRefused> {
        match (self.resource.transport, method) {
            (Transport::HttpSse, &Method::POST) => {
                let sealer = self.app.sealer();
                http_sse_transport::address(sealer, &self.caller, query).map(AskedAddress::Messages)
            }
            (Transport::HttpSse, &Method::DELETE) => Err(GatewayRefused::NoEventStream),
            _ => Ok(AskedAddress::Target(query.and_then(safe_query))),
        }
    }

    /// Builds the response for the client: seals ids, rebuilds challenges, filters the body, and cuts it when
    /// the grant ends.
    async fn pass_back(
        self,
        target: &Target,
        reading: ResponseReading,
        answer: axum::http::Response<TargetBody>,
    ) -> Result<Response, GatewayRefused> {
        let status = answer.status();
        refuse_what_cannot_pass(self.resource, status)?;
        let (mut parts, body) = answer.into_parts();
        one_length(&mut parts.headers)?;
        let session = parts.headers.get(session::SESSION_ID);
        let session =
            session.and_then(|id| session::seal(self.app.sealer(), &self.caller, target.tag, id));
        if let (Some(sessions), Some(session)) = (self.url_sessions, &session) {
            sessions.remember(session);
        }
        let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(is_event_stream);
        let challenge = if status == StatusCode::FORBIDDEN {
            let challenges = parts.headers.get_all(header::WWW_AUTHENTICATE);
            Box::pin(challenge_of(self.app, self.resource, &self.caller, &challenges)).await
        } else {
            None
        };
        let lacks_scopes = challenge.is_some();
        let body = if is_stream {
            let from = (target, status, lacks_scopes);
            self.event_stream(from, &mut parts.headers, reading, body)?
        } else if let Some(hidden) = reading.hidden {
            readable(&mut parts.headers)?;
            let body = Body::new(body);
            Box::pin(self.list_of_tools(&hidden, reading.remembers, body)).await?
        } else {
            let body = match reading.remembers {
                Some(remembers) => {
                    // A task that cannot be read could be used by everybody.
                    readable(&mut parts.headers)?;
                    PassedBody::Read(Box::pin(self.begun_task(remembers, Body::new(body))).await?)
                }
                None => PassedBody::Direct(body),
            };
            let counted = self.counted.take();
            let reader = counted.and_then(|c| c.answered(status, &parts.headers, lacks_scopes));
            let authority = StreamAuthorization::of(self.app, self.caller, self.ended, target.tag);
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
        instruct_caches(headers, is_stream);
        Ok(response)
    }

    /// Returns the body of an event stream: filtered, with sealed event ids, and cut when the grant ends.
    fn event_stream(
        self,
        (target, status, lacks_scopes): (&Target, StatusCode, bool),
        headers: &mut HeaderMap,
        reading: ResponseReading,
        body: TargetBody,
    ) -> Result<Body, GatewayRefused> {
        let Self { app, resource, caller, .. } = self;
        let only_listens = reading.only_listens;
        let body = Body::new(IdleTimeoutBody::new(body, app.config().limits.stream_idle));
        let body = match judge(app, (resource, target.url()), &caller, reading) {
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
            Body::new(SealedIds::new(body, app.sealer(), &caller, target.tag))
        };
        let (subject, client_id) = (&caller.grant.subject, &caller.grant.client_id);
        let permit = app.rates().stream(subject, client_id).map_err(GatewayRefused::TooMany)?;
        let counted = self.counted.take();
        let reader = counted.and_then(|c| c.answered(status, headers, lacks_scopes));
        let authority = StreamAuthorization::of(app, caller, self.ended, target.tag);
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

/// Returns the challenge for a 403 of the MCP server that wants scopes which the caller lacks. Returns `None`
/// if the caller has them all: asking for the same scopes again would be an endless loop.
async fn challenge_of(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    challenges: &GetAll<'_, HeaderValue>,
) -> Option<HeaderValue> {
    let ServerDemand::Scopes(needed) = server_challenge::read(resource, challenges)? else {
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
    (resource, target): (&ResourceConfig, &Url),
    caller: &Caller,
    reading: ResponseReading,
) -> Option<EventFilter> {
    let ResponseReading { hidden, remembers, .. } = reading;
    let is_old = resource.transport == Transport::HttpSse;
    let old = match &resource.path {
        Some(path) if is_old => {
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
