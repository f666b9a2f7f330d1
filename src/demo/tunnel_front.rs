//! What a tunnel reaches when it publishes the demo: one listener that passes each request on, to the pages of the
//! identity provider below one path, and to Portcullis everywhere else.
//!
//! The tunnel has one host name, so the provider cannot have a port of its own there. Only the pages that
//! browsers open are passed on: tokens, keys and userinfo of the provider stay on loopback, where Portcullis
//! asks for them. The same is true of the tokens and events of the calendar.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::http::{Running, serve_router};
use super::outgoing::{self, NotSent};

/// Path below which the pages of the identity provider are.
pub const PAGES_PATH: &str = "/demo-login";
/// The pages that browsers open.
const PAGES: [&str; 6] = [
    "/authorize",
    "/login",
    "/end_session",
    "/calendar/authorize",
    "/calendar/login",
    "/calendar/decide",
];
/// Headers that are about one connection only (RFC 9110 §7.6.1). hyper writes those that the next one needs.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

pub struct TunnelFront(Running);

/// Where requests go on to.
#[derive(Clone, Copy)]
struct TunnelTargets {
    portcullis: SocketAddr,
    identity_provider: SocketAddr,
}

impl TunnelFront {
    /// Serves on `listener`, which tunnels of this machine reach: on loopback, or on every address in a container.
    pub fn start(
        listener: TcpListener,
        portcullis: SocketAddr,
        identity_provider: SocketAddr,
    ) -> io::Result<Self> {
        let targets = TunnelTargets { portcullis, identity_provider };
        let router = Router::new().fallback(move |request: Request| pass_on(targets, request));
        serve_router(listener, router).map(Self)
    }

    /// Stops serving and closes open connections.
    pub fn shutdown(&self) {
        self.0.stop();
    }
}

async fn pass_on(targets: TunnelTargets, request: Request) -> Response {
    let uri = request.uri();
    // A proxy would have to write another `Host` for a whole URL; tunnels send none.
    let Some(target) = uri.path_and_query().filter(|_| uri.authority().is_none()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let passed = match page(target) {
        Page::NotOurs => exchange(targets.portcullis, target.clone(), request).await,
        Page::Of(page) => exchange(targets.identity_provider, page, request).await,
        Page::Hidden => return StatusCode::NOT_FOUND.into_response(),
    };
    passed.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// What a request is to the identity provider.
#[derive(Debug, PartialEq, Eq)]
enum Page {
    /// It is for Portcullis.
    NotOurs,
    /// A page for browsers, by its path at the provider.
    Of(PathAndQuery),
    /// It is below the path of the pages, and none of them.
    Hidden,
}

fn page(target: &PathAndQuery) -> Page {
    let below = match target.path().strip_prefix(PAGES_PATH) {
        Some(below) if below.is_empty() || below.starts_with('/') => below,
        _ => return Page::NotOurs,
    };
    let path = match target.query() {
        Some(query) => format!("{below}?{query}"),
        None => below.to_owned(),
    };
    match PathAndQuery::try_from(path) {
        Ok(path) if PAGES.contains(&below) => Page::Of(path),
        _ => Page::Hidden,
    }
}

/// Sends the request to `target`, and returns the response, whose body is passed on as it comes.
async fn exchange(
    target: SocketAddr,
    path: PathAndQuery,
    mut request: Request,
) -> Result<Response, NotSent> {
    *request.uri_mut() = Uri::from(path);
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        request.headers_mut().remove(header::CONTENT_LENGTH); // hyper has read the body by the other
    }
    without_connection_headers(request.headers_mut());
    let mut response = outgoing::send(target, request).await?;
    without_connection_headers(response.headers_mut());
    Ok(response)
}

fn without_connection_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::HOST)
        .collect();
    for name in named.into_iter().chain(OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pages_for_browsers_are_below_the_path() {
        let of = |target: &str| page(&target.parse().unwrap());
        let to = |path: &str| Page::Of(path.parse().unwrap());
        assert_eq!(of("/demo-login/authorize?a=b&c"), to("/authorize?a=b&c"));
        assert_eq!(of("/demo-login/login"), to("/login"));
        assert_eq!(of("/demo-login/calendar/authorize?a"), to("/calendar/authorize?a"));
        for hidden in [
            "/demo-login",
            "/demo-login/",
            "/demo-login/token",
            "/demo-login/jwks",
            "/demo-login/userinfo",
            "/demo-login/calendar/token",
            "/demo-login/calendar/events",
            "/demo-login/calendar/me",
            "/demo-login/moved/authorize",
            "/demo-login//authorize",
            "/demo-login/../authorize",
            "/demo-login/%61uthorize",
        ] {
            assert_eq!(of(hidden), Page::Hidden, "{hidden}");
        }
        for other in ["/", "/mcp", "/demo-loginx", "/authorize", "//demo-login/authorize"] {
            assert_eq!(of(other), Page::NotOurs, "{other}");
        }
    }

    #[test]
    fn what_is_about_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "demo.example"),
            ("connection", "close, X-Private, host"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "text/html"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        without_connection_headers(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "accept"]);
    }
}
