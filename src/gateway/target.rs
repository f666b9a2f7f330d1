//! The address of an MCP server, and redirects that change it.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use url::Url;

use super::challenge::GatewayRefused;

/// The address of an MCP server, in the form that requests need.
pub(super) struct Target {
    /// The configured URL, without its query.
    configured: Address,
    /// The configured URL with its trailing slash added or removed; `None` if its path has no other form.
    other: Option<Address>,
    /// The server redirected from the configured URL to the other one, so requests go there.
    is_other: AtomicBool,
    pub(super) host: HeaderValue,
}

struct Address {
    url: Url,
    /// The URL as a [`Uri`].
    uri: Uri,
}

impl Address {
    fn of(url: Url) -> Option<Self> {
        Some(Self { uri: url.as_str().parse().ok()?, url })
    }
}

impl Target {
    /// Returns `None` if the URL cannot be used in an HTTP request.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let mut url = url.clone();
        url.set_query(None);
        let host = match (url.host_str()?, url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let mut other = url.clone();
        let path = url.path();
        match path.strip_suffix('/') {
            Some(shorter) => other.set_path(shorter),
            None => other.set_path(&format!("{path}/")),
        }
        let other = (other.path() != path).then_some(other).and_then(Address::of);
        Some(Self {
            configured: Address::of(url)?,
            other,
            is_other: AtomicBool::new(false),
            host: host.try_into().ok()?,
        })
    }

    /// The configured URL, without its query.
    pub(super) const fn url(&self) -> &Url {
        &self.configured.url
    }

    /// Returns the URI for requests, with this query, if any.
    pub(super) fn address(&self, query: Option<&str>) -> Result<Uri, GatewayRefused> {
        let is_other = self.is_other.load(Ordering::Relaxed);
        let address = self.other.as_ref().filter(|_| is_other).unwrap_or(&self.configured);
        let Some(query) = query else { return Ok(address.uri.clone()) };
        let mut url = address.url.clone();
        url.set_query(Some(query));
        url.as_str().parse().map_err(|_| GatewayRefused::BadGateway("target"))
    }

    /// Remembers where a redirect led. Later requests go there directly, including those with streamed
    /// bodies, which could not be sent a second time.
    pub(super) fn remember(&self, address: &Uri) {
        let leads_to =
            |known: &Address| known.uri.path() == address.path() && address.query().is_none();
        if self.other.as_ref().is_some_and(leads_to) {
            self.is_other.store(true, Ordering::Relaxed);
        } else if leads_to(&self.configured) {
            self.is_other.store(false, Ordering::Relaxed);
        }
    }
}

/// Returns the target of a redirect; `None` unless there is exactly one valid `Location`.
pub(super) fn location(asked: &Uri, headers: &HeaderMap) -> Option<Url> {
    let mut values = headers.get_all(header::LOCATION).iter();
    let location = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    Url::parse(&asked.to_string()).ok()?.join(location).ok()
}

/// Whether a redirect leads to the same URL with the trailing slash added or removed.
pub(super) fn differs_by_the_slash(asked: &Uri, to: &Url) -> bool {
    let Ok(asked) = Url::parse(&asked.to_string()) else { return false };
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
        let asked: Uri = "http://inner:9000/mcp?a=b".parse().unwrap();
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
        let target = Target::of(&Url::parse("http://inner/").unwrap()).unwrap();
        assert!(target.other.is_none(), "a root has no other form");
    }
}
