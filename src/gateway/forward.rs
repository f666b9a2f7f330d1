//! The request to the MCP server, rebuilt from allow-lists, and its answer, streamed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::LengthLimitError;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::watch;
use url::Url;

use super::authenticate::Caller;
use super::challenge::Refused;
use super::session;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::storage::GrantState;
use crate::upstream::recheck::Recheck;

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

/// What a header value may hold as it is; the rest, and `%` itself, is percent-encoded UTF-8.
const HEADER_TEXT: &AsciiSet = &CONTROLS.add(b'%');

/// How often an open stream asks whether its grant is still live. Revocations in this process cut it
/// at once; this bounds those of other processes, and expiry.
const STREAM_CHECK: Duration = Duration::from_secs(15);
/// A database that cannot answer for a moment cuts no stream; one that stays silent does, within a minute.
const UNANSWERED: u32 = 2;

/// Sends the request on and passes the answer back.
pub(super) async fn forward(
    app: &App,
    resource: &ResourceConfig,
    caller: Caller,
    request: Request,
) -> Result<Response, Refused> {
    let target = resource.target.as_ref().ok_or(Refused::BadGateway("no target"))?;
    let ended = app.storage().grants_ended();
    let session = session::open(app.sealer(), &caller, request.headers())?;
    let mut rebuilt = rebuild(target, &caller, request)?;
    if let Some(session) = session {
        rebuilt.headers_mut().insert(session::SESSION_ID, session);
    }
    let exchange = app.backends().request(rebuilt);
    let answer = tokio::time::timeout(app.config().limits.gateway_response, exchange)
        .await
        .map_err(|_| Refused::GatewayTimeout)?
        .map_err(|error| {
            if caused_by_limit(&error) {
                return Refused::TooLarge;
            }
            tracing::warn!(resource = resource.id, %error, "the MCP server cannot be reached");
            Refused::BadGateway("The MCP server cannot be reached")
        })?;
    pass_back(app, resource, caller, ended, answer)
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

fn rebuild(target: &Url, caller: &Caller, request: Request) -> Result<Request, Refused> {
    let unfit = |_| Refused::BadGateway("the request cannot be rebuilt");
    let (parts, body) = request.into_parts();
    let mut uri = target.as_str().to_owned();
    if let Some(query) = parts.uri.query().and_then(safe_query) {
        uri.push('?');
        uri.push_str(&query);
    }
    let mut rebuilt = Request::new(body);
    *rebuilt.method_mut() = parts.method;
    *rebuilt.uri_mut() = uri.parse::<Uri>().map_err(|_| Refused::BadGateway("target"))?;
    let headers = rebuilt.headers_mut();
    copy(&parts.headers, headers, &TO_BACKEND);
    let name = caller.grant.person.name.as_deref();
    let email = caller.grant.person.email.as_deref();
    let verified = caller.grant.person.facts.email.as_ref().is_some_and(|email| email.verified);
    let verified = email.map(|_| if verified { "true" } else { "false" });
    let scopes = caller.scopes.to_string();
    for (header, value) in [
        ("x-portcullis-subject", Some(caller.grant.subject.as_str())),
        ("x-portcullis-client", Some(caller.grant.client_id.as_str())),
        ("x-portcullis-scopes", Some(scopes.as_str())),
        ("x-portcullis-name", name),
        ("x-portcullis-email", email),
        ("x-portcullis-email-verified", verified),
    ] {
        if let Some(value) = value {
            let value = utf8_percent_encode(value, HEADER_TEXT).to_string();
            let value = HeaderValue::from_str(&value).map_err(unfit)?;
            headers.insert(HeaderName::from_static(header), value);
        }
    }
    Ok(rebuilt)
}

/// Copies listed headers and `mcp-*`; the session id is translated elsewhere. Building from a list cannot forget what must not pass:
/// `Authorization`, cookies, forwarded and identity headers of the client never do.
fn copy(from: &HeaderMap, to: &mut HeaderMap, listed: &[HeaderName]) {
    for (name, value) in from {
        let passes = listed.contains(name) || name.as_str().starts_with("mcp-");
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

fn pass_back(
    app: &App,
    resource: &ResourceConfig,
    caller: Caller,
    ended: watch::Receiver<u64>,
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
    let (parts, body) = answer.into_parts();
    let session = parts.headers.get(session::SESSION_ID);
    let session = session.and_then(|id| session::seal(app.sealer(), &caller, id));
    let is_stream = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let body = if is_stream {
        Body::new(CutWhenEnded {
            inner: body,
            ended: Box::pin(until_ended(app.clone(), caller, ended)),
        })
    } else {
        Body::new(body)
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

/// A body that ends when the future is ready, whatever the other side still has to say.
struct CutWhenEnded {
    inner: hyper::body::Incoming,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for CutWhenEnded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default() // the end is not the inner body's alone to say
    }
}

/// Ready when the grant of an open stream has ended, or nobody vouches for the person any more.
///
/// A stream may outlive its access token, or a long tool call would be cut in the middle. From then
/// on the stream itself asks the identity provider again whenever it is time.
async fn until_ended(app: App, caller: Caller, mut ended: watch::Receiver<u64>) {
    let mut unanswered = 0;
    loop {
        let hint = tokio::time::timeout(STREAM_CHECK, ended.changed()).await;
        if matches!(hint, Ok(Err(_))) {
            return; // storage is closing
        }
        match vouched_for(&app, &caller).await {
            Some(true) => unanswered = 0,
            None if unanswered < UNANSWERED => unanswered += 1,
            Some(false) | None => {
                tracing::info!(grant_id = caller.grant.id, "stream cut: the grant has ended");
                return;
            }
        }
    }
}

/// Whether the grant is live and the person vouched for; `None` when that cannot be told now.
async fn vouched_for(app: &App, caller: &Caller) -> Option<bool> {
    let now: Timestamp = app.now();
    if let GrantState::Ended = app.storage().grant(&caller.grant.id, now).await.ok()? {
        return Some(false);
    }
    if now < caller.token_expires_at {
        return Some(true);
    }
    let asked = app.upstream().recheck(&caller.grant.session_id).await.ok()?;
    Some(matches!(asked, Recheck::Fresh(_) | Recheck::Stale(_)))
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
