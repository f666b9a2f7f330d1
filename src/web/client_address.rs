//! The client's IP address: the peer of the connection, or the address that a trusted proxy reports.

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The peer address of the connection. The listener adds it to every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The address that rate limits use. `None` if it cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    /// Returns the address that the listener determined for the request.
    pub fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().and_then(|address| address.0)
    }

    /// Returns the address for display. Where [`Self::of`] returns `None`, this is the peer of the
    /// connection.
    pub fn shown(extensions: &Extensions) -> Option<IpAddr> {
        Self::of(extensions).or_else(|| extensions.get::<Peer>().map(|peer| peer.0.ip()))
    }

    /// Determines the client's address. If the peer is a trusted proxy, reads `X-Forwarded-For` from the
    /// right and skips further trusted proxies; the next value to the left is the client, and anything left
    /// of that may be forged. If the peer is no trusted proxy, a private or loopback peer gives `None`: it
    /// may be a proxy that was not configured and forwards requests of the whole world.
    pub fn find(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        let peer = peer.to_canonical();
        if !is_trusted(&peer) {
            return Self(Some(peer).filter(is_public));
        }
        let mut values: Vec<&[u8]> = Vec::new();
        for value in headers.get_all("x-forwarded-for") {
            values.extend(value.as_bytes().split(|byte| *byte == b','));
        }
        for value in values.iter().rev() {
            // Not UTF-8: values further left may contain anything, and must not hide what the proxy wrote.
            let value = std::str::from_utf8(value).unwrap_or_default();
            let Some(address) = parse(value.trim()) else { return Self(None) };
            if !is_trusted(&address) {
                return Self(Some(address));
            }
        }
        Self(None)
    }
}

/// Parses an address with or without a port, because proxies write both.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().ok();
    address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(|ip| ip.to_canonical())
}

/// Returns whether the address is public: not loopback, private, link-local, unspecified, or shared by the
/// customers of a carrier (RFC 6598). A non-public address may be used by many customers at once.
pub fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b); // RFC 6598, 100.64.0.0/10
            let local = v4.is_loopback() || v4.is_private() || v4.is_link_local();
            !(local || shared || v4.is_unspecified())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let found = ClientAddress::find(peer.parse().unwrap(), &headers, &trusted);
        found.0.map(|address| address.to_string())
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing_of_what_the_proxy_wrote() {
        let mut headers = HeaderMap::new();
        let value = axum::http::HeaderValue::from_bytes(b"\xff, 203.0.113.7").unwrap();
        headers.insert("x-forwarded-for", value);

        let found = ClientAddress::find(
            [127, 0, 0, 1].into(),
            &headers,
            &["127.0.0.1/32".parse().unwrap()],
        );

        assert_eq!(found, ClientAddress(Some([203, 0, 113, 7].into())));
    }

    #[test]
    fn hh_03_only_configured_proxies_say_who_is_asking() {
        let ten = ["10.0.0.0/8"];
        let client = Some("203.0.113.7".to_owned());
        assert_eq!(found("203.0.113.7", &["198.51.100.1"], &ten), client);
        assert_eq!(found("10.0.0.1", &["203.0.113.7"], &ten), client);
        assert_eq!(found("10.0.0.1", &["198.51.100.9, 203.0.113.7"], &ten), client);
        assert_eq!(found("10.0.0.1", &["198.51.100.9", "203.0.113.7, 10.0.0.2"], &ten), client);
        assert_eq!(found("10.0.0.1", &["203.0.113.7:4711"], &ten), client);
        assert_eq!(found("::ffff:10.0.0.1", &["203.0.113.7"], &ten), client);
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]:80"], &ten), Some("2001:db8::1".into()));
    }

    #[test]
    fn nobody_is_judged_by_an_address_that_many_may_share() {
        for peer in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"] {
            assert_eq!(found(peer, &["203.0.113.7"], &[]), None, "{peer}");
        }
        for unreadable in ["unknown", "", "203.0.113.7, _hidden"] {
            assert_eq!(found("10.0.0.1", &[unreadable], &["10.0.0.0/8"]), None, "{unreadable}");
        }
    }
}
