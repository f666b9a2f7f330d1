//! A target: the address of an MCP server, redirects that change it, and what was seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::header::GetAll;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use url::{Position, Url};

use super::challenge::GatewayRefused;
use crate::app::{App, TargetSeen};
use crate::config::TargetTag;
use crate::http_client::{Backends, TargetConnections};
use crate::telemetry::metrics::TargetFailure;

/// A target, in the form that requests need.
pub(super) struct Target {
    /// The configured URL, without its query.
    configured: Address,
    /// The configured URL with its trailing slash added or removed; `None` if its path has no other form.
    other: Option<Address>,
    /// The server redirected from the configured URL to the other one, so requests go there.
    is_other: AtomicBool,
    pub(super) host: HeaderValue,
    pub(super) connections: TargetConnections,
    /// What ids that it issues carry.
    pub(super) tag: TargetTag,
    /// The audience of assertions: its URL.
    pub(super) audience: String,
    pub(super) seen: Arc<TargetSeen>,
}

struct Address {
    url: Url,
    /// Its path.
    path: Uri,
}

impl Address {
    fn of(url: Url) -> Option<Self> {
        Some(Self { path: path_of(&url).ok()?, url })
    }
}

/// Returns path and query of a URL, as a request names them.
pub(super) fn path_of(url: &Url) -> Result<Uri, GatewayRefused> {
    let path = &url[Position::BeforePath..Position::AfterQuery];
    path.parse().map_err(|_| GatewayRefused::BadGateway("target"))
}

impl Target {
    /// Returns `None` if the URL cannot be used in an HTTP request.
    pub(super) fn of(url: &Url, backends: &Backends, seen: Arc<TargetSeen>) -> Option<Self> {
        let (tag, audience) = (TargetTag::of(url), url.to_string());
        let mut url = url.clone();
        url.set_query(None);
        let host = match (url.host_str()?, url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        Some(Self {
            host: host.try_into().ok()?,
            connections: backends.to(&url.as_str().parse().ok()?),
            other: other_form(&url).and_then(Address::of),
            configured: Address::of(url)?,
            is_other: AtomicBool::new(false),
            tag,
            audience,
            seen,
        })
    }

    /// The configured URL, without its query.
    pub(super) const fn url(&self) -> &Url {
        &self.configured.url
    }

    /// Returns path and query for requests, with this query, if any.
    pub(super) fn address(&self, query: Option<&str>) -> Result<Uri, GatewayRefused> {
        let is_other = self.is_other.load(Ordering::Relaxed);
        let address = self.other.as_ref().filter(|_| is_other).unwrap_or(&self.configured);
        let Some(query) = query else { return Ok(address.path.clone()) };
        let mut url = address.url.clone();
        url.set_query(Some(query));
        path_of(&url)
    }

    /// Returns the URL with this path and query.
    pub(super) fn at(&self, path: &Uri) -> Url {
        let mut url = self.configured.url.clone();
        url.set_path(path.path());
        url.set_query(path.query());
        url
    }

    /// Notes how a call that it has begun to answer ended.
    pub(super) fn note(
        &self,
        app: &App,
        status: StatusCode,
        passed: &Result<Response, GatewayRefused>,
    ) {
        let seen = &self.seen;
        match passed {
            Ok(_) if status.is_server_error() => {
                seen.failed(TargetFailure::Status, status.as_str(), app.now());
            }
            Ok(_) => seen.answered(app.now()),
            Err(GatewayRefused::BadGateway(why)) => {
                seen.failed(TargetFailure::Broken, why, app.now());
            }
            Err(GatewayRefused::GatewayTimeout) => {
                seen.failed(TargetFailure::Timeout, "the response did not end in time", app.now());
            }
            Err(_) => {} // not the target's fault
        }
    }

    /// Remembers where a redirect led. Later requests go there directly, including those with streamed
    /// bodies, which could not be sent a second time.
    pub(super) fn remember(&self, address: &Uri) {
        let leads_to =
            |known: &Address| known.path.path() == address.path() && address.query().is_none();
        if self.other.as_ref().is_some_and(leads_to) {
            self.is_other.store(true, Ordering::Relaxed);
        } else if leads_to(&self.configured) {
            self.is_other.store(false, Ordering::Relaxed);
        }
    }
}

/// Returns the URL with the slash at its end added or removed; `None` for a root, which has no other form.
fn other_form(url: &Url) -> Option<Url> {
    let (path, mut other) = (url.path(), url.clone());
    match path.strip_suffix('/') {
        Some(shorter) => other.set_path(shorter),
        None => other.set_path(&format!("{path}/")),
    }
    (other.path() != path).then_some(other)
}

/// Returns the target of a redirect; `None` unless there is exactly one valid `Location`.
pub(super) fn location(asked: &Url, locations: &GetAll<'_, HeaderValue>) -> Option<Url> {
    let mut values = locations.iter();
    let location = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    asked.join(location).ok()
}

/// Whether a redirect leads to the same URL with the trailing slash added or removed.
pub(super) fn differs_by_the_slash(asked: &Url, to: &Url) -> bool {
    let (short, long) = if asked.path().len() < to.path().len() {
        (asked.path(), to.path())
    } else {
        (to.path(), asked.path())
    };
    let slash = long.strip_suffix('/') == Some(short) && !short.ends_with('/');
    let plain = to.username().is_empty() && to.password().is_none() && to.fragment().is_none();
    slash && plain && asked.origin() == to.origin() && asked.query() == to.query()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_32_only_the_slash_may_differ() {
        let asked = Url::parse("http://inner:9000/mcp?a=b").unwrap();
        for (to, follows) in [
            ("http://inner:9000/mcp/?a=b", true),
            ("http://inner:9000/mcp/", false),
            ("http://inner:9000/mcp//?a=b", false),
            ("http://inner:9000/mcp?a=b", false),
            ("http://inner/mcp/?a=b", false),
            ("https://inner:9000/mcp/?a=b", false),
            ("http://inner:9000/mcp/#x", false),
        ] {
            assert_eq!(differs_by_the_slash(&asked, &Url::parse(to).unwrap()), follows, "{to}");
        }
        assert!(other_form(&Url::parse("http://inner/").unwrap()).is_none());
        let other = other_form(&Url::parse("http://inner/mcp").unwrap());
        assert_eq!(other.as_ref().map(Url::as_str), Some("http://inner/mcp/"));
    }
}
