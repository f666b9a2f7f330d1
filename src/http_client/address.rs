//! Decides which addresses a stranger's URL may lead to: RFC 6890, the IANA registries of special-purpose
//! addresses, threat CI-01.
//!
//! Connections for a stranger are opened to a [`PublicAddress`] only, and only [`PublicAddress::check`]
//! creates one. IPv6 is an allow-list (global unicast, `2000::/3`) with exceptions, so that blocks that IANA
//! assigns in future are refused until somebody reviews them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IPv4 blocks that are refused: those outside the public internet, and those that lead to a special host
/// from everywhere. Network and prefix length.
const CLOSED_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),            // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared (carrier NAT; also Alibaba's metadata)
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host agent, reachable from every machine there
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, cloud metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24),  // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24),  // multicast tunnels
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(192, 175, 48, 0), 24),  // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 3),      // multicast, reserved, broadcast
];

/// The only IPv6 addresses of the public internet.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks within it that are refused. Addresses that embed an IPv4 address (6to4, Teredo) are refused
/// whichever address they embed; mapped, compatible and NAT64 addresses lie outside `2000::/3`.
const CLOSED_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo among them
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(u32::from(address)),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: u32) -> bool {
    !CLOSED_V4.iter().any(|(network, length)| (address ^ u32::from(*network)) >> (32 - length) == 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = u128::from(address);
    let within =
        |(network, length): &(Ipv6Addr, u32)| (bits ^ u128::from(*network)) >> (128 - length) == 0;
    // ISATAP embeds an IPv4 address below any prefix (RFC 5214 §6.1).
    let segments = address.segments();
    let isatap = segments[5] == 0x5efe && segments[4] & !0x0200 == 0;
    within(&GLOBAL_UNICAST) && !CLOSED_V6.iter().any(within) && !isatap
}

/// An address that was checked and is public. The client connects to this, never to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress(SocketAddr);

impl PublicAddress {
    /// Returns `None` if the address is not public.
    pub fn check(address: SocketAddr) -> Option<Self> {
        is_public(address.ip()).then_some(Self(address))
    }

    /// The address to connect to.
    pub fn socket(self) -> SocketAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The special-purpose registry as ranges, written by hand and not derived from the code.
    const CLOSED_RANGES: &[(&str, &str)] = &[
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.31.196.0", "192.31.196.255"),
        ("192.52.193.0", "192.52.193.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("192.175.48.0", "192.175.48.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
    ];

    fn number(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().unwrap().into()
    }

    /// Covers all 2³² addresses. The result of the code can change only at the edges of its own table, and it
    /// must change only at the edges of the registry. Cut at all these edges, every piece has a single
    /// result, so testing both ends of each piece is enough.
    #[test]
    fn ci_01_each_of_the_4294967296_ipv4_addresses_is_classified_as_the_registry_says() {
        let mut cuts: Vec<u64> = vec![0, 1 << 32];
        for (network, length) in CLOSED_V4 {
            assert_eq!(u64::from(u32::from(*network)) % (1 << (32 - length)), 0, "{network}");
            let first = u64::from(u32::from(*network));
            cuts.extend([first, first + (1 << (32 - length))]);
        }
        for (first, last) in CLOSED_RANGES {
            cuts.extend([u64::from(number(first)), u64::from(number(last)) + 1]);
        }
        cuts.sort_unstable();
        cuts.dedup();
        let expected = |address: u32| {
            !CLOSED_RANGES.iter().any(|(a, b)| (number(a)..=number(b)).contains(&address))
        };
        let (mut classified, mut public) = (0_u64, 0_u64);
        for piece in cuts.windows(2) {
            let (first, past) = (piece[0], piece[1]);
            for end in [first, past - 1] {
                let address = u32::try_from(end).unwrap();
                let text = Ipv4Addr::from(address);
                assert_eq!(is_public_v4(address), expected(address), "{text}");
            }
            classified += past - first;
            public += if expected(u32::try_from(first).unwrap()) { past - first } else { 0 };
        }
        assert_eq!(classified, 1 << 32);
        assert_eq!(public, PUBLIC);
    }

    /// How many of the 2³² addresses are public. Subtracted: 3 × 2²⁴ (0, 10, 127), 2²² (100.64), 2²⁰
    /// (172.16), 2 × 2¹⁶ (169.254, 192.168), 2¹⁷ (198.18), 8 × 2⁸, 1, and 2²⁹ (224 and up).
    const PUBLIC: u64 = (1 << 32)
        - 3 * (1 << 24)
        - (1 << 22)
        - (1 << 20)
        - 2 * (1 << 16)
        - (1 << 17)
        - 8 * (1 << 8)
        - 1
        - (1 << 29);

    /// The same test without relying on the table's edges: every address, one by one. Takes minutes without
    /// optimisation, seconds with it: `cargo test --release --lib -- --ignored one_by_one`.
    #[test]
    #[ignore = "for an optimised build"]
    fn ci_01_every_ipv4_address_one_by_one() {
        let ranges: Vec<(u32, u32)> =
            CLOSED_RANGES.iter().map(|(a, b)| (number(a), number(b))).collect();
        let mut next = 0;
        let mut public = 0_u64;
        for address in 0..=u32::MAX {
            while next < ranges.len() && ranges[next].1 < address {
                next += 1;
            }
            let closed = next < ranges.len() && ranges[next].0 <= address;
            assert_eq!(is_public_v4(address), !closed, "{}", Ipv4Addr::from(address));
            public += u64::from(!closed);
        }
        assert_eq!(public, PUBLIC);
    }

    #[test]
    fn ci_01_the_table_of_addresses() {
        let closed = "
            0.0.0.0 0.0.0.1 10.0.0.5 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.1.2.3
            168.63.129.16 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1
            192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.175.48.1
            198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
            255.255.255.255
            :: ::1 ::7f00:1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8
            ::ffff:0:10.0.0.1 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::a00:1 100::1 100:0:0:1::1
            2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1
            2001:db8::1 2002:a00:1:: 2002:7f00:1::1 2002:808:808::1 2620:4f:8000::1 3fff::1
            3fff:fff::1 5f00::1 4000::1 8000::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 fe80::a
            fec0::1 ff02::1 ff0e::1 2a00:1450::5efe:a00:1 2606:4700::200:5efe:a00:1";
        let public = "
            1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255
            128.0.0.0 160.79.104.10 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0
            172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255
            198.20.0.0 223.255.255.255
            2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111 2a00:1450:4001::1
            2600:1f18::1 3ffe:ffff::1 3fff:1000::1";
        let parse = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace().map(|word| word.parse().unwrap()).collect()
        };
        let (closed, public) = (parse(closed), parse(public));
        assert!(closed.len() >= 60 && public.len() >= 30, "{} {}", closed.len(), public.len());
        for address in closed {
            assert!(!is_public(address), "{address} must be closed");
        }
        for address in public {
            assert!(is_public(address), "{address} must be open");
        }
    }

    /// Each refused IPv6 block: its first and last address, and the addresses just outside.
    #[test]
    fn ci_01_the_holes_of_ipv6_have_exact_edges() {
        for (network, length) in CLOSED_V6 {
            let first = u128::from(*network);
            let last = first | (u128::MAX >> length);
            assert_eq!(first & (u128::MAX >> length), 0, "{network}");
            for (address, public) in
                [(first, false), (last, false), (first - 1, true), (last + 1, true)]
            {
                let address = Ipv6Addr::from(address);
                let beside = CLOSED_V6.iter().any(|(other, bits)| {
                    other != network
                        && (u128::from(address) ^ u128::from(*other)) >> (128 - bits) == 0
                });
                let global = address.segments()[0] >> 13 == 1;
                assert_eq!(is_public_v6(address), public && !beside && global, "{address}");
            }
        }
    }
}
