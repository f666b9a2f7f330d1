//! A request on its way to the MCP server, and its answer: rebuilt from a list, and streamed.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use tokio::sync::watch;

use super::authenticate::Caller;
use super::authorize::{Authorized, step_up};
use super::challenge::{Refused, beside_a_refusal};
use super::event_ids::SealedIds;
use super::exchange::{Exchange, copy};
use super::idle_timeout::IdleTimeoutBody;
use super::server_challenge::{self, Wanted};
use super::spelling::folds_to;
use super::sse::{EventFilter, FilterAction, FilteredStream};
use super::stream::{PermitBody, RevocableBody, StreamAuthorization, until_ended};
use super::target::Target;
use super::tasks::Remembers;
use super::tools_list::{Filtered, Hidden};
use super::{cache_control, http_sse_transport, session};
use crate::app::App;
use crate::config::{ResourceConfig, Transport};
use crate::rate_limits::RequestPermit;
use crate::storage::GrantState;

/// Headers that pass back to the client, beside every `mcp-*`.
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

/// Tells nginx, and others, whether an answer may be held back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What is looked for in an answer, and what is taken out.
struct Reading {
    hidden: Option<Hidden>,
    remembers: Option<Remembers>,
    /// A stream carries what the server has to say by itself, and no answer to a request.
    only_listens: bool,
}

/// Sends the request on and passes the answer back.
pub(super) async fn forward(
    app: &App,
    resource: &ResourceConfig,
    target: &Target,
    caller: Caller,
    place: RequestPermit,
    ended: watch::Receiver<u64>,
    authorized: Authorized,
) -> Result<Response, Refused> {
    let Authorized { parts, mut body, lists_tools, may_become_a_task } = authorized;
    let (sealer, headers) = (app.sealer(), &parts.headers);
    let exchange = Exchange {
        app,
        resource,
        target,
        caller: &caller,
        session: session::open(sealer, &caller, headers)?,
        last_event: session::open_event(sealer, &caller, headers)?,
        parts: &parts,
    };
    exchange.name_what_is_left_out();
    let address = address(app, resource, &caller, target, &parts.method, parts.uri.query())?;
    let answer = {
        // Pinned where it is: a timeout and a select would each move it, some kilobytes.
        let sending = std::pin::pin!(exchange.send(address, &mut body));
        let answer = tokio::time::timeout(app.config().limits.gateway_response, sending);
        tokio::select! {
            answer = answer => answer,
            () = has_ended(app, &caller, ended.clone()) => return Err(Refused::InvalidToken),
        }
    };
    let answer = answer.map_err(|_| Refused::GatewayTimeout)??;
    // Lists of tools come in answers that asked for them, and on streams, where anything may come.
    let listed = lists_tools || parts.method == Method::GET;
    let hidden = if listed { Hidden::from(resource, &caller) } else { None };
    let remembers = may_become_a_task.map(|scopes| Remembers::of(app, &caller, scopes));
    // An event id asks for the rest of a stream that broke off, which may be the answer to a call. In the older
    // transport all answers come on the one stream.
    let only_listens = parts.method == Method::GET
        && resource.transport == Transport::StreamableHttp
        && !parts.headers.contains_key(session::LAST_EVENT_ID);
    let reading = Reading { hidden, remembers, only_listens };
    pass_back(app, resource, caller, place, ended, reading, answer).await
}

/// Ready when the grant has ended: a body may take long to arrive, and an answer to come.
async fn has_ended(app: &App, caller: &Caller, mut ended: watch::Receiver<u64>) {
    loop {
        if ended.changed().await.is_err() {
            return std::future::pending().await; // the process ends
        }
        let state = app.storage().recent_grant(&caller.grant.id, app.now()).await;
        if matches!(state, Ok(GrantState::Ended)) {
            return;
        }
    }
}

/// Where the request goes: to the target, with the client's query; or to the one address of the target
/// that the event stream has named.
fn address(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    target: &Target,
    method: &Method,
    query: Option<&str>,
) -> Result<Uri, Refused> {
    match (resource.transport, method) {
        (Transport::HttpSse, &Method::POST) => {
            let address = http_sse_transport::address(app.sealer(), caller, target.url(), query)?;
            address.as_str().parse().map_err(|_| Refused::BadGateway("target"))
        }
        (Transport::HttpSse, &Method::DELETE) => Err(Refused::NoEventStream),
        _ => target.address(query.and_then(safe_query).as_deref()),
    }
}

/// The query without `access_token`, which would hand a token on (RFC 6750 §2.3 is not offered). Some servers
/// also end a parameter at `;`. What is kept stays as it was.
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
        kept.pop(); // it stood before what was left out
    }
    (!kept.is_empty()).then_some(kept)
}

/// Whether a parameter would be read as `access_token`: in any case, with other signs for `_` (PHP), as the
/// beginning of a list (`[]`), or up to a NUL.
fn is_token(pair: &str) -> bool {
    let name = pair.split(['=', '&', ';']).next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let name = name.replace('+', " ");
    let name = name.split(['[', '\0']).next().unwrap_or_default();
    folds_to(name, "access_token")
}

async fn pass_back(
    app: &App,
    resource: &ResourceConfig,
    caller: Caller,
    place: RequestPermit,
    ended: watch::Receiver<u64>,
    reading: Reading,
    answer: axum::http::Response<hyper::body::Incoming>,
) -> Result<Response, Refused> {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED {
        // Passed on, it would send the client to sign in with us again, for ever.
        tracing::error!(resource = resource.id, "the MCP server asks for a sign-in of its own");
        return Err(Refused::BadGateway(
            "The MCP server asks for a sign-in of its own; behind this gateway it must not",
        ));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        tracing::error!(resource = resource.id, "the MCP server switches protocols");
        return Err(Refused::BadGateway("The MCP server switches protocols, which is not offered"));
    }
    let (mut parts, body) = answer.into_parts();
    one_length(&mut parts.headers)?;
    let session = parts.headers.get(session::SESSION_ID);
    let session = session.and_then(|id| session::seal(app.sealer(), &caller, id));
    let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    });
    let challenge = if status == StatusCode::FORBIDDEN {
        Box::pin(challenge_of(app, resource, &caller, &parts.headers)).await
    } else {
        None
    };
    let only_listens = reading.only_listens;
    let body = Body::new(body);
    let body = if is_stream {
        let body = Body::new(IdleTimeoutBody::new(body, app.config().limits.stream_idle));
        let body = match judge(app, resource, &caller, reading) {
            Some(judge) => {
                readable(&mut parts.headers)?;
                Body::new(FilteredStream::new(body, app.config().limits.gateway_body, judge))
            }
            None => body,
        };
        // Ids that are packed cannot be sealed, and open nothing when they come back.
        let is_packed = parts.headers.contains_key(header::CONTENT_ENCODING);
        let inner = if is_packed {
            body
        } else {
            parts.headers.remove(header::CONTENT_LENGTH);
            Body::new(SealedIds::new(body, app.sealer(), &caller))
        };
        let (subject, client_id) = (&caller.grant.subject, &caller.grant.client_id);
        let place = app.rates().stream(subject, client_id).map_err(Refused::TooMany)?;
        let authority = StreamAuthorization::of(app, caller, ended).that_only_listens(only_listens);
        let ended = Box::pin(until_ended(authority));
        let open = app.metrics().stream();
        Body::new(RevocableBody { inner, _held: (place, open), ended })
    } else if let Some(hidden) = reading.hidden {
        readable(&mut parts.headers)?;
        tokio::select! {
            body = Box::pin(without_hidden(app, resource, &hidden, reading.remembers, body)) => body?,
            () = has_ended(app, &caller, ended) => return Err(Refused::InvalidToken),
        }
    } else {
        let is_packed = parts.headers.contains_key(header::CONTENT_ENCODING);
        let body = match reading.remembers.filter(|_| !is_packed) {
            Some(remembers) => tokio::select! {
                body = Box::pin(remembers.look_at(body)) => body,
                () = has_ended(app, &caller, ended.clone()) => return Err(Refused::InvalidToken),
            },
            None => body,
        };
        Body::new(PermitBody::new(body, place, StreamAuthorization::of(app, caller, ended)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    copy(&parts.headers, response.headers_mut(), &TO_CLIENT, &[]);
    let headers = response.headers_mut();
    if let Some(session) = session {
        headers.insert(session::SESSION_ID, session);
    }
    if let Some(challenge) = challenge {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_stream {
        // Proxies would otherwise gather events, or pack them, before they pass them on.
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        let whole = HeaderValue::from_static("no-store, no-transform");
        headers.insert(header::CACHE_CONTROL, whole);
    } else {
        cache_control::at_most_private(headers);
    }
    Ok(response)
}

/// The challenge that goes with a 403 of the MCP server, where it wants scopes that the caller lacks. To ask again
/// for what the caller has would go round in circles.
async fn challenge_of(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    let Wanted::Scopes(needed) = server_challenge::read(resource, headers)? else {
        return beside_a_refusal(resource, app, None);
    };
    if needed.is_subset(&caller.may) {
        tracing::warn!(resource = resource.id, %needed, "the MCP server wants what the caller has");
        return None;
    }
    let ask = step_up(app, resource, caller, &needed).await;
    beside_a_refusal(resource, app, Some((&needed, &ask)))
}

/// What has to be decided event by event, if anything.
fn judge(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    reading: Reading,
) -> Option<EventFilter> {
    let Reading { hidden, remembers, .. } = reading;
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
            Box::pin(remembered) as super::sse::First
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

/// A body in chunks is as long as its chunks: a length that is said beside would end it elsewhere, and one that
/// was cut would look whole (RFC 9112 §6.3). Another coding was not asked for.
fn one_length(headers: &mut HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !is_chunked || codings.next().is_some() {
        return Err(Refused::BadGateway(
            "The MCP server answers in a transfer coding that it was not asked for",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

/// An answer that we read must not be packed, and its length may change.
fn readable(headers: &mut HeaderMap) -> Result<(), Refused> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::BadGateway(
            "The MCP server packs its answer, which this gateway has to read; it was not asked to",
        ));
    }
    headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

async fn without_hidden(
    app: &App,
    resource: &ResourceConfig,
    hidden: &Hidden,
    remembers: Option<Remembers>,
    body: Body,
) -> Result<Body, Refused> {
    let limits = &app.config().limits;
    let read = Limited::new(body, limits.gateway_body).collect();
    let read = tokio::time::timeout(limits.gateway_response, read)
        .await
        .map_err(|_| Refused::GatewayTimeout)?
        .map_err(|error| {
            tracing::warn!(resource = resource.id, %error, "a list of tools cannot be read");
            Refused::BadGateway("The MCP server's list of tools is too large or broke off")
        })?
        .to_bytes();
    if let Some(remembers) = remembers {
        remembers.remember(read.to_vec()).await;
    }
    match hidden.filter(&read) {
        Filtered::Unchanged => Ok(Body::from(read)),
        Filtered::Changed(text) => Ok(Body::from(text)),
        Filtered::Unreadable => {
            Err(Refused::BadGateway("The MCP server's list of tools is not JSON"))
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
