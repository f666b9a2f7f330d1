//! Which requests are answered at all: those that no web page in a browser has sent.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use url::Url;

/// Refuses requests that a web page may have sent: with a host name that is not ours (DNS rebinding, HH-04), or
/// with the origin of a page elsewhere. Returns status and reason.
pub(super) fn refusal(
    headers: &HeaderMap,
    listen: SocketAddr,
    allowed: &[String],
) -> Option<(StatusCode, &'static str)> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host = host.filter(|_| hosts.next().is_none());
    if !host.is_some_and(|host| is_ours(host, listen, allowed)) {
        let reason = "The Host is not one of this bridge (--allowed-host)";
        return Some((StatusCode::MISDIRECTED_REQUEST, reason));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if !origins.all(|origin| origin.to_str().is_ok_and(is_loopback_origin)) {
        return Some((
            StatusCode::FORBIDDEN,
            "The bridge takes no requests of web pages elsewhere",
        ));
    }
    None
}

fn is_ours(host: &str, listen: SocketAddr, allowed: &[String]) -> bool {
    let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else {
        return false;
    };
    let name = authority.host();
    is_loopback_host(name)
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        || host.parse::<SocketAddr>().is_ok_and(|address| address == listen)
}

fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_loopback_origin(origin: &str) -> bool {
    Url::parse(origin).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(is_loopback_host)
            && url.origin().ascii_serialization() == origin
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hh_04_only_pages_of_this_machine_count_as_local() {
        for good in ["http://localhost:6274", "http://127.0.0.1:1", "https://[::1]"] {
            assert!(is_loopback_origin(good), "{good}");
        }
        for bad in [
            "null",
            "http://localhost.evil.example",
            "http://127.0.0.1.nip.io",
            "http://localhost/",
            "file://localhost",
            "http://evil.example",
        ] {
            assert!(!is_loopback_origin(bad), "{bad}");
        }
    }

    #[test]
    fn hh_04_a_host_is_loopback_the_address_itself_or_named() {
        let listen = SocketAddr::from(([10, 0, 0, 7], 9000));
        let named = ["bridge".to_owned()];
        for good in ["127.0.0.1:9000", "localhost", "[::1]:1", "10.0.0.7:9000", "Bridge:9000"] {
            assert!(is_ours(good, listen, &named), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "",
            "0.0.0.0:9000",
            "10.0.0.7:9001",
            "x@localhost",
            "bridge.evil.example",
        ] {
            assert!(!is_ours(bad, listen, &named), "{bad}");
        }
    }
}
