//! F11: which addresses a stranger may lead us to: four bytes, or sixteen, and the forms in which an
//! IPv4 address hides in an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::http_client::address::is_public;

/// The IANA IPv4 Special-Purpose Address Registry, with multicast, class E and the host agent of Azure:
/// first and last.
const CLOSED_V4: &[([u8; 4], [u8; 4])] = &[
    ([0, 0, 0, 0], [0, 255, 255, 255]),
    ([10, 0, 0, 0], [10, 255, 255, 255]),
    ([100, 64, 0, 0], [100, 127, 255, 255]),
    ([127, 0, 0, 0], [127, 255, 255, 255]),
    ([168, 63, 129, 16], [168, 63, 129, 16]),
    ([169, 254, 0, 0], [169, 254, 255, 255]),
    ([172, 16, 0, 0], [172, 31, 255, 255]),
    ([192, 0, 0, 0], [192, 0, 0, 255]),
    ([192, 0, 2, 0], [192, 0, 2, 255]),
    ([192, 31, 196, 0], [192, 31, 196, 255]),
    ([192, 52, 193, 0], [192, 52, 193, 255]),
    ([192, 88, 99, 0], [192, 88, 99, 255]),
    ([192, 168, 0, 0], [192, 168, 255, 255]),
    ([192, 175, 48, 0], [192, 175, 48, 255]),
    ([198, 18, 0, 0], [198, 19, 255, 255]),
    ([198, 51, 100, 0], [198, 51, 100, 255]),
    ([203, 0, 113, 0], [203, 0, 113, 255]),
    ([224, 0, 0, 0], [255, 255, 255, 255]),
];

/// The IANA IPv6 Special-Purpose Address Registry and what lies outside of global unicast: first and last
/// as the leading sixteen-bit groups.
const CLOSED_V6: &[([u16; 3], [u16; 3])] = &[
    ([0x0000, 0, 0], [0x1fff, 0xffff, 0xffff]), // ::, ::1, mapped, NAT64, discard
    ([0x2001, 0x0000, 0], [0x2001, 0x01ff, 0xffff]), // protocol assignments, Teredo
    ([0x2001, 0x0db8, 0], [0x2001, 0x0db8, 0xffff]), // documentation
    ([0x2002, 0, 0], [0x2002, 0xffff, 0xffff]), // 6to4
    ([0x2620, 0x004f, 0x8000], [0x2620, 0x004f, 0x8000]), // AS112
    ([0x3fff, 0x0000, 0], [0x3fff, 0x0fff, 0xffff]), // documentation
    ([0x4000, 0, 0], [0xffff, 0xffff, 0xffff]), // unassigned, SRv6, unique local, link-local, multicast
];

fn v4_is_closed(address: Ipv4Addr) -> bool {
    CLOSED_V4.iter().any(|(first, last)| (first..=last).contains(&&address.octets()))
}

fn v6_is_closed(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    CLOSED_V6.iter().any(|(first, last)| (first..=last).contains(&&[a, b, c]))
}

/// Contradicted when an address is judged otherwise than the registries say.
pub fn run(data: &[u8]) {
    if let Some(Ok(octets)) = data.get(..4).map(<[u8; 4]>::try_from) {
        let v4 = Ipv4Addr::from(octets);
        assert_eq!(is_public(IpAddr::V4(v4)), !v4_is_closed(v4), "{v4}");
        let [a, b, c, d] = octets.map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        for hidden in [
            v4.to_ipv6_mapped(),
            v4.to_ipv6_compatible(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low), // translated
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), // NAT64
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), // 6to4
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low), // Teredo
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low), // ISATAP
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x200, 0x5efe, high, low),
        ] {
            assert!(!is_public(IpAddr::V6(hidden)), "{hidden}");
        }
    }
    if let Some(Ok(octets)) = data.get(..16).map(<[u8; 16]>::try_from) {
        let v6 = Ipv6Addr::from(octets);
        let segments = v6.segments();
        let isatap = segments[5] == 0x5efe && matches!(segments[4], 0 | 0x200);
        assert_eq!(is_public(IpAddr::V6(v6)), !v6_is_closed(v6) && !isatap, "{v6}");
    }
}
