//! The request to the MCP server, rebuilt from allow-lists, and its answer, streamed.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::watch;
use url::Url;

use super::authenticate::Caller;
use super::authorize::Authorized;
use super::challenge::Refused;
use super::events::{Judge, Judged, Verdict};
use super::idle::CutWhenIdle;
use super::stream::{Authority, CutWhenEnded, Placed, until_ended};
use super::tools_list::{Filtered, Hidden};
use super::{assertion, legacy, session};
use crate::app::App;
use crate::config::{ResourceConfig, Transport};
use crate::rates::ClientPlace;
use crate::storage::GrantState;
use crate::web::body;

/// Headers that pass to the MCP server, beside every `mcp-*`.
const TO_BACKEND: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Headers that pass back to the client, beside every `mcp-*`.
const TO_CLIENT: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::ALLOW,
    HeaderName::from_static("x-accel-buffering"),
    HeaderName::from_static("last-modified"),
];

/// Who is calling: subject, client, scopes, name, e-mail address, whether that is verified.
const CALLER: [HeaderName; 6] = [
    HeaderName::from_static("x-portcullis-subject"),
    HeaderName::from_static("x-portcullis-client"),
    HeaderName::from_static("x-portcullis-scopes"),
    HeaderName::from_static("x-portcullis-name"),
    HeaderName::from_static("x-portcullis-email"),
    HeaderName::from_static("x-portcullis-email-verified"),
];

/// Headers that we add, about: room for them is made once.
const OURS: usize = 8;

/// What a header value may hold as it is; the rest, and `%` itself, is percent-encoded UTF-8.
const HEADER_TEXT: &AsciiSet = &CONTROLS.add(b'%');

/// Where an MCP server is, as a request says it.
pub(super) struct Target {
    url: Url,
    /// The same, without a query.
    uri: Uri,
    host: HeaderValue,
}

impl Target {
    /// `None` when HTTP cannot say it.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let mut url = url.clone();
        url.set_query(None);
        let uri = url.as_str().parse().ok()?;
        let host = match (url.host_str()?, url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        Some(Self { uri, host: host.try_into().ok()?, url })
    }
}

/// Sends the request on and passes the answer back.
pub(super) async fn forward(
    app: &App,
    resource: &ResourceConfig,
    target: &Target,
    caller: Caller,
    place: ClientPlace,
    ended: watch::Receiver<u64>,
    authorized: Authorized,
) -> Result<Response, Refused> {
    let Authorized { request, lists_tools } = authorized;
    let session = session::open(app.sealer(), &caller, request.headers())?;
    let opens_stream = request.method() == Method::GET;
    let address = address(app, resource, &caller, target, &request)?;
    let mut rebuilt = rebuild(address, &target.host, &caller, request)?;
    if let Some(session) = session {
        rebuilt.headers_mut().insert(session::SESSION_ID, session);
    }
    if let Some(assertion) = assertion::header(app, resource, &caller)? {
        rebuilt.headers_mut().insert(assertion::ASSERTION, assertion);
    }
    let exchange = app.backends().request(rebuilt);
    let exchange = tokio::time::timeout(app.config().limits.gateway_response, exchange);
    let answer = tokio::select! {
        answer = exchange => answer,
        () = has_ended(app, &caller, ended.clone()) => return Err(Refused::InvalidToken),
    };
    let answer = answer.map_err(|_| Refused::GatewayTimeout)?.map_err(|error| {
        if caused_by_limit(&error) {
            return Refused::TooLarge;
        }
        if body::is_late(&error) {
            return Refused::TooSlow;
        }
        tracing::warn!(resource = resource.id, %error, "the MCP server cannot be reached");
        Refused::BadGateway("The MCP server cannot be reached")
    })?;
    // Lists of tools come in answers that asked for them, and on streams, where anything may come.
    let hidden = if lists_tools || opens_stream { Hidden::from(resource, &caller) } else { None };
    pass_back(app, resource, caller, place, ended, hidden, answer).await
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
    request: &Request,
) -> Result<Uri, Refused> {
    let address = match (resource.transport, request.method()) {
        (Transport::HttpSse, &Method::POST) => {
            legacy::address(app.sealer(), caller, &target.url, request.uri().query())?
        }
        (Transport::HttpSse, &Method::DELETE) => return Err(Refused::NoEventStream),
        _ => match request.uri().query().and_then(safe_query) {
            None => return Ok(target.uri.clone()),
            Some(query) => {
                let mut address = target.url.clone();
                address.set_query(Some(&query));
                address
            }
        },
    };
    address.as_str().parse().map_err(|_| Refused::BadGateway("target"))
}

fn caused_by_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn rebuild(
    address: Uri,
    host: &HeaderValue,
    caller: &Caller,
    request: Request,
) -> Result<Request, Refused> {
    let unfit = |_| Refused::BadGateway("the request cannot be rebuilt");
    let (parts, body) = request.into_parts();
    let mut rebuilt = Request::new(body);
    *rebuilt.method_mut() = parts.method;
    *rebuilt.uri_mut() = address;
    let headers = rebuilt.headers_mut();
    headers.reserve(parts.headers.len() + OURS);
    headers.insert(header::HOST, host.clone());
    copy(&parts.headers, headers, &TO_BACKEND);
    let name = caller.grant.person.name.as_deref();
    let email = caller.grant.person.email.as_deref();
    let verified = caller.grant.person.facts.email.as_ref().is_some_and(|email| email.verified);
    let verified = email.map(|_| if verified { "true" } else { "false" });
    let scopes = caller.may.to_string();
    let subject = Some(caller.grant.subject.as_str());
    let client = Some(caller.grant.client_id.as_str());
    let values = [subject, client, Some(scopes.as_str()), name, email, verified];
    for (header, value) in CALLER.into_iter().zip(values) {
        if let Some(value) = value {
            let value = Cow::from(utf8_percent_encode(value, HEADER_TEXT)); // mostly as it is
            headers.insert(header, HeaderValue::from_str(&value).map_err(unfit)?);
        }
    }
    Ok(rebuilt)
}

/// Copies listed headers and `mcp-*`; the session id is translated elsewhere. Building from a list cannot forget what must not pass:
/// `Authorization`, cookies, forwarded and identity headers of the client never do.
fn copy(from: &HeaderMap, to: &mut HeaderMap, listed: &[HeaderName]) {
    for (name, value) in from {
        // Many servers read `_` as `-`: `mcp-session_id` would be the session id that is translated.
        let passes = listed.contains(name)
            || (name.as_str().starts_with("mcp-") && !name.as_str().contains('_'));
        if passes && *name != session::SESSION_ID {
            to.append(name.clone(), value.clone());
        }
    }
}

/// The query without `access_token`, which would hand a token on (RFC 6750 §2.3 is not offered).
fn safe_query(query: &str) -> Option<String> {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            !name.eq_ignore_ascii_case("access_token")
        })
        .collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then_some(kept)
}

async fn pass_back(
    app: &App,
    resource: &ResourceConfig,
    caller: Caller,
    place: ClientPlace,
    ended: watch::Receiver<u64>,
    hidden: Option<Hidden>,
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
    if status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
        tracing::error!(
            resource = resource.id,
            status = status.as_u16(),
            "the MCP server redirects"
        );
        return Err(Refused::BadGateway("The MCP server redirects, which is not followed"));
    }
    let (mut parts, body) = answer.into_parts();
    let session = parts.headers.get(session::SESSION_ID);
    let session = session.and_then(|id| session::seal(app.sealer(), &caller, id));
    let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    });
    let body = Body::new(body);
    let body = if is_stream {
        let body = Body::new(CutWhenIdle::new(body, app.config().limits.stream_idle));
        let inner = match judge(app, resource, &caller, hidden) {
            Some(judge) => {
                readable(&mut parts.headers)?;
                Body::new(Judged::new(body, app.config().limits.gateway_body, judge))
            }
            None => body,
        };
        let (subject, client_id) = (&caller.grant.subject, &caller.grant.client_id);
        let place = app.rates().stream(subject, client_id).map_err(Refused::TooMany)?;
        let ended = Box::pin(until_ended(Authority::of(app, caller, ended)));
        let open = app.metrics().stream();
        Body::new(CutWhenEnded { inner, _held: (place, open), ended })
    } else if let Some(hidden) = hidden {
        readable(&mut parts.headers)?;
        tokio::select! {
            body = without_hidden(app, resource, &hidden, body) => body?,
            () = has_ended(app, &caller, ended) => return Err(Refused::InvalidToken),
        }
    } else {
        Body::new(Placed::new(body, place, Authority::of(app, caller, ended)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    copy(&parts.headers, response.headers_mut(), &TO_CLIENT);
    if let Some(session) = session {
        response.headers_mut().insert(session::SESSION_ID, session);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What has to be decided event by event, if anything.
fn judge(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    hidden: Option<Hidden>,
) -> Option<Judge> {
    if resource.transport == Transport::HttpSse {
        let target = resource.target.clone()?;
        let path = format!("{}{}", app.config().public_url.base_path(), resource.path.as_ref()?);
        let (sealer, caller) = (app.sealer().clone(), caller.clone());
        return Some(Box::new(move |event| {
            match legacy::rewrite(&sealer, &caller, &target, &path, event) {
                Verdict::Pass => {
                    hidden.as_ref().map_or(Verdict::Pass, |hidden| hidden.judge(event))
                }
                decided => decided,
            }
        }));
    }
    let hidden = hidden?;
    Some(Box::new(move |event| hidden.judge(event)))
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
        assert_eq!(safe_query("a=1").as_deref(), Some("a=1"));
    }

    #[test]
    fn gw_01_only_listed_headers_pass() {
        let mut from = HeaderMap::new();
        for name in [
            "authorization",
            "cookie",
            "x-portcullis-subject",
            "x_portcullis_subject",
            "x-forwarded-user",
            "x-user",
            "connection",
            "proxy-authorization",
            "forwarded",
            "host",
            "te",
            "transfer-encoding",
            "dpop",
            "mcp-session-id", // translated, not copied
        ] {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("evil"));
        }
        from.insert("mcp-param-x", HeaderValue::from_static("p"));
        from.insert("accept", HeaderValue::from_static("text/event-stream"));
        let mut to = HeaderMap::new();

        copy(&from, &mut to, &TO_BACKEND);

        let mut names: Vec<&str> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "mcp-param-x"]);
    }
}
