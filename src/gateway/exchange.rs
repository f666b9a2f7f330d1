//! Builds the request to the MCP server from allow-lists and sends it. Repeats it once where that is safe, and
//! goes on to another target if the first one was not reached.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::InvalidHeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::Instant;
use url::Url;

use super::authenticate::Caller;
use super::authorize::Payload;
use super::challenge::{GatewayRefused, MessageRefused};
use super::http_sse_transport::MessageAddress;
use super::send_failed::{SendFailed, UNREACHABLE};
use super::sent_tokens::{SentTokens, remove_those_of_the_client};
use super::spans::TargetSpan;
use super::target::{Target, differs_by_the_slash, location, path_of};
use super::target_list::TargetChoice;
use super::{assertion, session};
use crate::app::App;
use crate::config::ResourceConfig;
use crate::http_client::{RequestFailed, TargetBody};
use crate::telemetry::log_throttle::LogThrottle;

/// Request headers that pass to the MCP server. Every `mcp-*` header and the configured `forward_headers` do
/// too.
pub(super) const TO_BACKEND: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::USER_AGENT,
    TRACEPARENT,
    TRACESTATE,
];

/// The W3C trace context. If traces are exported, the MCP server gets ours.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Headers that identify the caller: subject, client, scopes, name, e-mail address, and whether that is
/// verified.
const CALLER: [HeaderName; 6] = [
    HeaderName::from_static("x-portcullis-subject"),
    HeaderName::from_static("x-portcullis-client"),
    HeaderName::from_static("x-portcullis-scopes"),
    HeaderName::from_static("x-portcullis-name"),
    HeaderName::from_static("x-portcullis-email"),
    HeaderName::from_static("x-portcullis-email-verified"),
];

/// Headers that most requests have and that we always set or drop ourselves. The debug log of headers that
/// were left out does not list them.
const OF_THE_CONNECTION: [HeaderName; 6] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
];

/// About how many headers we add. The header map is allocated once with room for them.
const OURS: usize = 10;

/// Characters to percent-encode in header values: control characters and `%`; UTF-8 bytes outside ASCII are
/// encoded too.
const HEADER_TEXT: &AsciiSet = &CONTROLS.add(b'%');

/// A request is sent again only if it failed within this time. A pooled connection that the server had closed
/// while idle fails as soon as we write to it; if a request fails later, the server may already have acted on
/// it.
const AT_ONCE: Duration = Duration::from_secs(5);

static NOT_REACHED: LogThrottle = LogThrottle::new();

/// Everything that the request is built from, except for the target. A repetition is built from it again.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) resource: &'a ResourceConfig,
    pub(super) caller: &'a Caller,
    /// The head of the client's request.
    pub(super) parts: &'a Parts,
    pub(super) address: AskedAddress,
    /// The session id and event id that the target itself issued, already unsealed.
    pub(super) session: Option<HeaderValue>,
    pub(super) last_event: Option<HeaderValue>,
    /// The tokens of services that go with it.
    pub(super) tokens: &'a SentTokens,
    /// Its place in the trace of the request.
    pub(super) span: Option<&'a TargetSpan>,
}

/// Where at the target a request goes.
pub(super) enum AskedAddress {
    /// To its URL, with this query.
    Target(Option<String>),
    /// To the address of messages that its event stream named (HTTP+SSE).
    Messages(MessageAddress),
}

impl AskedAddress {
    /// Returns path and query for a request to this target.
    fn at(&self, target: &Target) -> Result<Uri, GatewayRefused> {
        match self {
            Self::Target(query) => target.address(query.as_deref()),
            Self::Messages(address) => path_of(&address.at(target.url())),
        }
    }
}

impl Exchange<'_> {
    /// Sends the request to the chosen target. If no byte of it was sent, because there was no connection, goes
    /// on to another one. On return, `choice` is the target that was asked last.
    pub(super) async fn send(
        &self,
        choice: &mut TargetChoice<'_>,
        body: &Payload,
    ) -> Result<axum::http::Response<TargetBody>, GatewayRefused> {
        loop {
            let target = choice.target();
            let failed = match self.send_to(target, body).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let now = self.app.now();
            if let Some(fault) = &failed.fault {
                target.seen.failed(fault.failure, &fault.cause, now);
            }
            if failed.is_unsent && choice.has_lost_its_session(now) {
                return Err(MessageRefused::UnknownSession.into());
            }
            if !(failed.is_unsent && body.is_here() && choice.go_on(now)) {
                return Err(self.given_up(failed));
            }
        }
    }

    fn given_up(&self, failed: SendFailed) -> GatewayRefused {
        if let (GatewayRefused::BadGateway(UNREACHABLE), Some(fault)) =
            (&failed.refused, &failed.fault)
            && let Some(left_out) = NOT_REACHED.admit()
        {
            let (resource, cause) = (&self.resource.id, &fault.cause);
            tracing::warn!(resource, cause, left_out, "the MCP server cannot be reached");
        }
        failed.refused
    }

    /// Sends the request to `target`. If it redirects to the same URL with or without a trailing slash, and the
    /// body is complete, sends it once more there, with the same method and body (307 and 308, RFC 9110
    /// §15.4.8).
    async fn send_to(
        &self,
        target: &Target,
        body: &Payload,
    ) -> Result<axum::http::Response<TargetBody>, SendFailed> {
        let address = self.address.at(target)?;
        let answer = self.send_at(target, &address, body).await?;
        if !answer.status().is_redirection() {
            return Ok(answer);
        }
        let asked = target.at(&address);
        let location = location(&asked, &answer.headers().get_all(header::LOCATION));
        let kept = matches!(
            answer.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let slash = location.as_ref().filter(|to| kept && differs_by_the_slash(&asked, to));
        let slash = slash.and_then(|to| path_of(to).ok());
        match slash.filter(|_| body.is_whole()) {
            Some(to) => {
                let again = Box::pin(self.send_at(target, &to, body)).await;
                // The target has seen the request before, whatever happens now.
                let answer = again.map_err(|failed| SendFailed { is_unsent: false, ..failed })?;
                if !answer.status().is_redirection() {
                    target.remember(&to);
                    return Ok(answer);
                }
                Err(self.redirected(answer.status(), &target.at(&to), location.as_ref()))
            }
            None => Err(self.redirected(answer.status(), &asked, location.as_ref())),
        }
    }

    fn redirected(&self, status: StatusCode, asked: &Url, location: Option<&Url>) -> SendFailed {
        let asked = asked.as_str().split('?').next().unwrap_or_default();
        let location = location.map(|url| {
            let mut url = url.clone();
            url.set_query(None);
            url.set_fragment(None);
            let _ = (url.set_username(""), url.set_password(None));
            url.as_str().chars().take(200).collect::<String>()
        });
        let location = location.as_deref().unwrap_or("no readable address");
        tracing::error!(
            resource = self.resource.id,
            status = status.as_u16(),
            "the MCP server at {asked} redirects to {location}, which is not followed; if it is there, write \
             target = \"{location}\", otherwise end the redirect"
        );
        SendFailed::broken("The MCP server redirects, which is not followed")
    }

    /// Sends the request. If the pooled connection turns out to have been closed, sends it once more on a new
    /// connection.
    async fn send_at(
        &self,
        target: &Target,
        address: &Uri,
        body: &Payload,
    ) -> Result<axum::http::Response<TargetBody>, SendFailed> {
        let begun = Instant::now();
        let connections = &target.connections;
        let gone = || SendFailed::from(GatewayRefused::BadGateway(UNREACHABLE));
        let first = self.build(target, address, body.next().ok_or_else(gone)?)?;
        let error = match connections.request(first).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let may_repeat = body.is_whole() && begun.elapsed() < AT_ONCE;
        if !(may_repeat && error.was_lost_unanswered()) {
            return Err(self.failed(&error));
        }
        let resource = &self.resource.id;
        tracing::debug!(resource, %error, "a connection had been closed; sent again");
        let again = self.build(target, address, body.next().ok_or_else(gone)?)?;
        let answer = Box::pin(connections.request_on_a_new_connection(again)).await;
        // The first attempt was sent.
        answer.map_err(|error| SendFailed { is_unsent: false, ..self.failed(&error) })
    }

    #[cold]
    fn failed(&self, error: &RequestFailed) -> SendFailed {
        if error.is_only_interim() {
            let resource = &self.resource.id;
            tracing::warn!(resource, "the MCP server sends interim answers (1xx) and no answer");
            return SendFailed::broken("The MCP server sends interim answers and no answer");
        }
        SendFailed::of(error)
    }

    fn build(&self, target: &Target, address: &Uri, body: Body) -> Result<Request, GatewayRefused> {
        let unfit = |_| GatewayRefused::BadGateway("the request cannot be rebuilt");
        let mut rebuilt = Request::new(body);
        *rebuilt.method_mut() = self.parts.method.clone();
        *rebuilt.uri_mut() = address.clone();
        let headers = rebuilt.headers_mut();
        headers.reserve(self.parts.headers.len() + OURS);
        headers.insert(header::HOST, target.host.clone());
        copy(&self.parts.headers, headers, &TO_BACKEND, &self.resource.forward_headers);
        remove_those_of_the_client(self.resource, headers);
        if let Some(span) = self.span
            && let Some(traceparent) = span.traceparent()
        {
            headers.insert(TRACEPARENT, traceparent);
            if !span.keeps_state {
                headers.remove(TRACESTATE);
            }
        }
        let grant = &self.caller.grant;
        let name = grant.person.name.as_deref();
        let email = grant.person.email.as_deref();
        let verified = grant.person.facts.email.as_ref().is_some_and(|email| email.verified);
        let verified = email.map(|_| if verified { "true" } else { "false" });
        let scopes = self.caller.may.to_string();
        let subject = Some(grant.subject.as_str());
        let client = Some(grant.client_id.as_str());
        let values = [subject, client, Some(scopes.as_str()), name, email, verified];
        for (header, value) in CALLER.into_iter().zip(values) {
            if let Some(value) = value {
                headers.insert(header, header_text(value).map_err(unfit)?);
            }
        }
        if let Some(session) = &self.session {
            headers.insert(session::SESSION_ID, session.clone());
        }
        if let Some(event) = &self.last_event {
            headers.insert(session::LAST_EVENT_ID, event.clone());
        }
        if let Some(assertion) =
            assertion::header(self.app, self.resource, self.caller, &target.audience)?
        {
            headers.insert(assertion::ASSERTION, assertion);
        }
        self.tokens.put(headers);
        Ok(rebuilt)
    }

    /// Logs which headers were left out, for an administrator who misses one.
    pub(super) fn name_what_is_left_out(&self) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let mut passed = HeaderMap::new();
        copy(&self.parts.headers, &mut passed, &TO_BACKEND, &self.resource.forward_headers);
        let ours = |name: &&HeaderName| {
            OF_THE_CONNECTION.contains(name)
                || **name == session::SESSION_ID
                || **name == session::LAST_EVENT_ID
        };
        let left_out: Vec<&str> = self
            .parts
            .headers
            .keys()
            .filter(|name| !ours(name) && !passed.contains_key(*name))
            .map(HeaderName::as_str)
            .collect();
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            let resource = &self.resource.id;
            tracing::debug!(resource, left_out, "headers that do not pass (forward_headers)");
        }
    }
}

/// Returns a text as a header value. Most texts need no encoding, and looking for that is cheaper than the
/// encoder.
fn header_text(value: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%') {
        return HeaderValue::from_str(value);
    }
    HeaderValue::from_str(&Cow::from(utf8_percent_encode(value, HEADER_TEXT)))
}

/// Copies listed, configured and `mcp-*` headers; session and event ids are translated elsewhere. An
/// allow-list cannot forget to remove a header: `Authorization`, cookies, and the client's forwarded and
/// identity headers never pass.
pub(super) fn copy(
    from: &HeaderMap,
    to: &mut HeaderMap,
    listed: &[HeaderName],
    configured: &[HeaderName],
) {
    for (name, value) in from {
        let passes = listed.contains(name) || is_mcp(name.as_str()) || configured.contains(name);
        if passes && *name != session::SESSION_ID {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Whether this is an MCP header that passes. Many servers treat other characters as equal to `-`, such as
/// `_` or `.`: they could read `mcp-session.id` as the session id, which must be translated. Headers with
/// parameters of tools mean nothing to us and may have any name.
fn is_mcp(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    name.starts_with("mcp-param-") || (name.starts_with("mcp-") && name.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "mcp-session_id",
            "mcp-session.id",
            "mcp-session~id",
            "mcp-name.",
            "last-event-id",
        ] {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("evil"));
        }
        for name in ["mcp-param-x", "mcp-param-a_b", "accept", "x-tenant-id"] {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("p"));
        }
        let mut to = HeaderMap::new();

        copy(&from, &mut to, &TO_BACKEND, &[HeaderName::from_static("x-tenant-id")]);

        let mut names: Vec<&str> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "mcp-param-a_b", "mcp-param-x", "x-tenant-id"]);
    }
}
