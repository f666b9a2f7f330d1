//! F2: what may be registered, as three readers see it.

use axum::http::Uri;
use portcullis::oauth::redirect_uri::{Destination, RedirectUri, destination};
use portcullis::oauth::web_url::{ClientIdUrl, WebUrl};
use url::Url;

use super::policy;

/// What any reader must agree on: scheme, host, port and path with query.
#[derive(Debug, PartialEq)]
struct Read {
    scheme: String,
    host: String,
    port: Option<u16>,
    target: String,
}

fn by_url(text: &str) -> Read {
    let url = Url::parse(text).expect("accepted, and not a URL");
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Read {
        scheme: url.scheme().to_owned(),
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port(),
        target: format!("{}{query}", url.path()),
    }
}

fn by_http(text: &str) -> Read {
    let uri: Uri = text.parse().unwrap_or_else(|error| panic!("{text:?} is not a URI: {error}"));
    Read {
        scheme: uri.scheme_str().unwrap_or_default().to_owned(),
        host: uri.host().unwrap_or_default().to_owned(),
        port: uri.port_u16(),
        target: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
    }
}

/// As naive clients read it: up to the first `/` or `?`, and at the last `:`.
fn by_hand(text: &str) -> Read {
    let (scheme, after) = text.split_once("://").expect("accepted, and without an authority");
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().expect("a port"))),
        _ => (authority, None),
    };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    Read {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        port,
        target: format!("{slash}{rest}"),
    }
}

/// Contradicted when readers disagree on an address that is accepted.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = destination(text);
    if let Ok(registered) = RedirectUri::register(text, &policy()) {
        assert_eq!(registered.as_str(), text);
        assert!(text.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\'), "{text:?}");
        let parsed = Url::parse(text).expect("accepted, and not a URL");
        assert!(parsed.as_str() == text || parsed.as_str() == format!("{text}/"), "{text:?}");
        assert!(!text.contains('#') && parsed.username().is_empty(), "{text:?}");
        if matches!(parsed.scheme(), "http" | "https") {
            let read = by_hand(text);
            assert_eq!(read, by_url(text), "{text:?}");
            assert_eq!(read, by_http(text), "{text:?}");
            // What the person is told is where the browser will go.
            let authority = match shown {
                Destination::Https { host, .. } => host,
                Destination::Loopback { host_and_port } => host_and_port,
                Destination::App { scheme } => panic!("{text:?} is shown as {scheme:?}"),
            };
            let port = read.port.map(|port| format!(":{port}")).unwrap_or_default();
            assert_eq!(authority, format!("{}{port}", read.host), "{text:?}");
        } else {
            assert!(matches!(shown, Destination::App { scheme } if scheme == parsed.scheme()));
            let scheme = parsed.scheme();
            assert!(scheme == "cursor" || scheme.contains('.'), "{text:?}");
        }
    }
    if let Ok(url) = WebUrl::parse(text) {
        let read = by_hand(text);
        assert_eq!(read, by_url(text), "{text:?}");
        assert_eq!(read, by_http(text), "{text:?}");
        assert_eq!((url.host(), url.as_str(), read.port), (read.host.as_str(), text, None));
        assert_eq!(url.as_str(), format!("https://{}{}", url.host(), url.target()));
    }
    if let Ok(client) = ClientIdUrl::parse(text) {
        assert!(ClientIdUrl::is_meant_by(text) && client.url().as_str() == text);
        assert!(!text.contains(['?', '#']), "{text:?}");
    }
}
