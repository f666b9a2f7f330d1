//! Builds the request to the MCP server from allow-lists and sends it. Repeats it once where that is safe.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::InvalidHeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Error, ResponseFuture};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::Instant;
use url::Url;

use super::authenticate::Caller;
use super::authorize::Payload;
use super::challenge::GatewayRefused;
use super::target::{Target, differs_by_the_slash, location};
use super::{assertion, session};
use crate::app::App;
use crate::config::ResourceConfig;
use crate::http_client::{InterimAnswers, was_lost_unanswered};
use crate::web::body;

/// Request headers that pass to the MCP server. Every `mcp-*` header and the configured `forward_headers` do
/// too.
pub(super) const TO_BACKEND: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

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

/// Everything that the request is built from. A repetition is built from it again.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) resource: &'a ResourceConfig,
    pub(super) target: &'a Target,
    pub(super) caller: &'a Caller,
    /// The head of the client's request.
    pub(super) parts: &'a Parts,
    /// The session id and event id that the MCP server itself issued, already unsealed.
    pub(super) session: Option<HeaderValue>,
    pub(super) last_event: Option<HeaderValue>,
}

impl Exchange<'_> {
    /// Sends the request to `address`. If the server redirects to the same URL with or without a trailing
    /// slash, and the body is complete, sends it once more there, with the same method and body (307 and 308,
    /// RFC 9110 §15.4.8).
    pub(super) async fn send(
        &self,
        address: Uri,
        body: &mut Payload,
    ) -> Result<axum::http::Response<Incoming>, GatewayRefused> {
        let answer = self.send_to(&address, body).await?;
        if !answer.status().is_redirection() {
            return Ok(answer);
        }
        let location = location(&address, answer.headers());
        let kept = matches!(
            answer.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let slash = location.as_ref().filter(|to| kept && differs_by_the_slash(&address, to));
        let slash = slash.and_then(|to| to.as_str().parse::<Uri>().ok());
        match slash.filter(|_| body.is_whole()) {
            Some(to) => {
                let answer = Box::pin(self.send_to(&to, body)).await?;
                if !answer.status().is_redirection() {
                    self.target.remember(&to);
                    return Ok(answer);
                }
                Err(self.redirected(answer.status(), &to, location.as_ref()))
            }
            None => Err(self.redirected(answer.status(), &address, location.as_ref())),
        }
    }

    fn redirected(
        &self,
        status: StatusCode,
        asked: &Uri,
        location: Option<&Url>,
    ) -> GatewayRefused {
        let asked = asked.to_string();
        let asked = asked.split('?').next().unwrap_or_default();
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
        GatewayRefused::BadGateway("The MCP server redirects, which is not followed")
    }

    /// Sends the request. If the pooled connection turns out to have been closed, sends it once more on a new
    /// connection.
    async fn send_to(
        &self,
        address: &Uri,
        body: &mut Payload,
    ) -> Result<axum::http::Response<Incoming>, GatewayRefused> {
        let begun = Instant::now();
        let backends = self.app.backends();
        let gone = GatewayRefused::BadGateway("The MCP server cannot be reached");
        let Some(first) = body.next() else { return Err(gone) };
        let first = self.build(address, first)?;
        let answer = self.answer(first, |request| backends.request(request)).await?;
        let answer = match answer {
            Err(error)
                if body.is_whole() && was_lost_unanswered(&error) && begun.elapsed() < AT_ONCE =>
            {
                let resource = &self.resource.id;
                tracing::debug!(resource, %error, "a connection had been closed; sent again");
                let Some(again) = body.next() else { return Err(gone) };
                let again = self.build(address, again)?;
                let send = |request| backends.request_on_a_new_connection(request);
                Box::pin(self.answer(again, send)).await?
            }
            answer => answer,
        };
        answer.map_err(|error| self.failed(&error))
    }

    /// Waits for the response, and gives up after too many interim responses (1xx).
    async fn answer(
        &self,
        mut request: Request,
        send: impl FnOnce(Request) -> ResponseFuture,
    ) -> Result<Result<axum::http::Response<Incoming>, Error>, GatewayRefused> {
        let interim = InterimAnswers::of(&mut request);
        tokio::select! {
            biased;
            answer = send(request) => Ok(answer),
            () = interim.are_too_many() => {
                let resource = &self.resource.id;
                tracing::warn!(resource, "the MCP server sends interim answers (1xx) and no answer");
                Err(GatewayRefused::BadGateway("The MCP server sends interim answers and no answer"))
            }
        }
    }

    fn failed(&self, error: &Error) -> GatewayRefused {
        if caused_by_limit(error) {
            return GatewayRefused::TooLarge;
        }
        if body::is_late(error) {
            return GatewayRefused::TooSlow;
        }
        if body::is_broken(error) {
            return GatewayRefused::BrokenBody;
        }
        tracing::warn!(resource = self.resource.id, %error, "the MCP server cannot be reached");
        GatewayRefused::BadGateway("The MCP server cannot be reached")
    }

    fn build(&self, address: &Uri, body: Body) -> Result<Request, GatewayRefused> {
        let unfit = |_| GatewayRefused::BadGateway("the request cannot be rebuilt");
        let mut rebuilt = Request::new(body);
        *rebuilt.method_mut() = self.parts.method.clone();
        *rebuilt.uri_mut() = address.clone();
        let headers = rebuilt.headers_mut();
        headers.reserve(self.parts.headers.len() + OURS);
        headers.insert(header::HOST, self.target.host.clone());
        copy(&self.parts.headers, headers, &TO_BACKEND, &self.resource.forward_headers);
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
        if let Some(assertion) = assertion::header(self.app, self.resource, self.caller)? {
            headers.insert(assertion::ASSERTION, assertion);
        }
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
