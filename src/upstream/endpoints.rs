//! Rules for the provider's endpoint URLs: https, or http on a loopback address. With `allow_http` plain http
//! is also allowed for endpoints that only Portcullis calls, never for those that a person's browser opens.

use url::Url;

use crate::http_client::is_loopback;

/// Who sends requests to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    Browser,
    /// Portcullis.
    Server,
}

/// Members of a discovery document with endpoints that sign-ins need, and who sends requests there.
pub(super) const ENDPOINTS: [(&str, Requester); 4] = [
    ("authorization_endpoint", Requester::Browser),
    ("token_endpoint", Requester::Server),
    ("jwks_uri", Requester::Server),
    ("userinfo_endpoint", Requester::Server),
];

/// How a request to an endpoint is transported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    Https,
    /// Plain http on a loopback address.
    Loopback,
    /// Plain http over a network.
    Http,
}

/// Returns how a request to `url` is transported; `None` if the URL is not allowed or not usable.
pub(super) fn carriage(url: &Url, asker: Requester, allow_http: bool) -> Option<Carriage> {
    match url.scheme() {
        "https" => Some(Carriage::Https),
        "http" if url.host_str().is_some_and(is_loopback) => Some(Carriage::Loopback),
        "http" if asker == Requester::Server && allow_http => Some(Carriage::Http),
        _ => None,
    }
}

/// Returns the hint for an endpoint URL that is not allowed.
pub(super) fn hint(url: &Url, asker: Requester) -> &'static str {
    match (url.scheme(), asker) {
        ("http", Requester::Server) => {
            "allow_http in [upstream] admits it, for a provider on a network that nobody else can read"
        }
        ("http", Requester::Browser) => "people sign in over https alone",
        _ => "it must be an https URL",
    }
}
