//! Where a provider's endpoints may be: https, or this machine; with `allow_http` plain http too, for those
//! that Portcullis asks itself. People's browsers never sign in over http.

use url::Url;

use crate::http_client::is_loopback;

/// Who goes to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A person's browser.
    Browser,
    /// Portcullis.
    Server,
}

/// Members of a discovery document that name an endpoint which sign-ins need, and who goes there.
pub(super) const ENDPOINTS: [(&str, Asker); 4] = [
    ("authorization_endpoint", Asker::Browser),
    ("token_endpoint", Asker::Server),
    ("jwks_uri", Asker::Server),
    ("userinfo_endpoint", Asker::Server),
];

/// How a request to an endpoint travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// Over TLS.
    Https,
    /// In the clear, on this machine.
    Loopback,
    /// In the clear, over a network.
    Http,
}

/// How a request to `url` travels; `None` where it must not, or cannot.
pub(super) fn carriage(url: &Url, asker: Asker, allow_http: bool) -> Option<Carriage> {
    match url.scheme() {
        "https" => Some(Carriage::Https),
        "http" if url.host_str().is_some_and(is_loopback) => Some(Carriage::Loopback),
        "http" if asker == Asker::Server && allow_http => Some(Carriage::Http),
        _ => None,
    }
}

/// What can be done about an endpoint that is not admitted.
pub(super) fn hint(url: &Url, asker: Asker) -> &'static str {
    match (url.scheme(), asker) {
        ("http", Asker::Server) => {
            "allow_http in [upstream] admits it, for a provider on a network that nobody else can read"
        }
        ("http", Asker::Browser) => "people sign in over https alone",
        _ => "it must be an https URL",
    }
}
