//! The headers that carry tokens of services to an MCP server. They are removed from what a client sent, under
//! every name that a server could read as one of them, whether or not a token is set.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, ServiceRefused};
use crate::app::App;
use crate::config::{ResourceConfig, paths};
use crate::connections::ServiceToken;
use crate::telemetry::log_throttle::LogThrottle;

static REFUSED: LogThrottle = LogThrottle::new();

/// Where a token is from.
#[derive(Clone, Copy, Debug)]
pub(super) enum TokenOrigin {
    SignIn,
    /// Index in [`ResourceConfig::connections`].
    Connection(usize),
}

/// A token that goes to the MCP server in a header.
struct SentToken {
    header: HeaderName,
    value: HeaderValue,
    origin: TokenOrigin,
    version: i64,
}

/// The tokens that go with one request.
#[derive(Default)]
pub(super) struct SentTokens(Vec<SentToken>);

impl SentTokens {
    /// Adds a token. `Authorization` carries it after `Bearer`, other headers carry the bare token.
    pub(super) fn add(&mut self, origin: TokenOrigin, header: &HeaderName, token: &ServiceToken) {
        let is_authorization = *header == header::AUTHORIZATION;
        let value = if is_authorization { &token.bearer } else { &token.header_value };
        let (header, value) = (header.clone(), value.clone());
        self.0.push(SentToken { header, value, origin, version: token.version });
    }

    /// Sets the headers.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        for token in &self.0 {
            headers.insert(token.header.clone(), token.value.clone());
        }
    }

    /// Takes note that the MCP server refused the request with 401. The tokens are renewed before their next
    /// use; the request is not repeated, because the MCP server may have acted on it. Returns `None` if there
    /// were no tokens.
    pub(super) fn refused(
        &self,
        app: &App,
        resource: &ResourceConfig,
        caller: &Caller,
    ) -> Option<GatewayRefused> {
        if self.0.is_empty() {
            return None;
        }
        let grant = &caller.grant;
        for token in &self.0 {
            match (token.origin, &resource.upstream_token) {
                (TokenOrigin::Connection(index), _) => {
                    if let Some(connection) = resource.connections.get(index) {
                        app.connections().refused(&grant.subject, &connection.name, token.version);
                    }
                }
                (TokenOrigin::SignIn, Some(wanted)) => {
                    app.upstream().access_token_refused(&grant.session_id, wanted, token.version);
                }
                (TokenOrigin::SignIn, None) => {}
            }
        }
        let titles: Vec<&str> =
            self.0.iter().map(|token| service_title(app, resource, token.origin)).collect();
        let titles = titles.join(", ");
        if let Some(left_out) = REFUSED.admit() {
            let resource = &resource.id;
            tracing::warn!(
                resource,
                titles,
                left_out,
                "the MCP server refuses people's tokens (401)"
            );
        }
        let words = format!(
            "{server} does not accept your token of {titles}. It gets a new one with the next request: try again. \
             If that does not help, connect the service again at {page}",
            server = server_name(resource),
            page = app.config().public_url.join(paths::ACCOUNT_CONNECTIONS),
        );
        Some(ServiceRefused::TokenRefused(words).into())
    }
}

/// Removes every header that an MCP server could read as one of those that carry tokens, whatever a client calls
/// it: servers that pass headers on as variables (CGI, WSGI, Rack) read `_` and `.` as `-` (threat UT-03).
pub(super) fn remove_those_of_the_client(resource: &ResourceConfig, headers: &mut HeaderMap) {
    let reads_as_ours = |name: &HeaderName| {
        resource.token_headers().any(|ours| reads_alike(name.as_str(), ours.as_str()))
    };
    while let Some(name) = headers.keys().find(|&name| reads_as_ours(name)).cloned() {
        headers.remove(&name);
    }
}

/// Names of headers are in lower case here.
fn reads_alike(name: &str, other: &str) -> bool {
    let pairs = name.bytes().zip(other.bytes());
    name.len() == other.len()
        && pairs.into_iter().all(|(one, two)| {
            one == two || !(one.is_ascii_alphanumeric() || two.is_ascii_alphanumeric())
        })
}

/// The name of an MCP server for people.
pub(super) fn server_name(resource: &ResourceConfig) -> &str {
    resource.name.as_deref().unwrap_or(&resource.id)
}

/// The name of a service for people.
pub(super) fn service_title<'a>(
    app: &'a App,
    resource: &'a ResourceConfig,
    origin: TokenOrigin,
) -> &'a str {
    let config = app.config();
    let connection = match origin {
        TokenOrigin::SignIn => return &config.upstream.name,
        TokenOrigin::Connection(index) => resource.connections.get(index),
    };
    let name = connection.map_or("", |connection| connection.name.as_str());
    config.connection(name).map_or(name, |known| known.title.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ut_03_every_spelling_of_a_header_that_some_server_reads_as_ours_is_removed() {
        for (name, is_alike) in [
            ("x-github-token", true),
            ("x_github_token", true),
            ("x.github.token", true),
            ("x-github_token", true),
            ("x~github!token", true),
            ("x-github-token-", false),
            ("x-github-tokens", false),
            ("xxgithub-token", false),
            ("x-github", false),
        ] {
            assert_eq!(reads_alike(name, "x-github-token"), is_alike, "{name}");
        }
    }
}
