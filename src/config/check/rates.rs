//! Checks rate limits and limits for concurrency, and reads `trusted_proxies`.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::super::reader::ConfigReader;

/// Clients refresh an access token with at most five minutes left (Claude Code before each request). A token
/// with a lifetime below six minutes is almost always in that state.
pub(super) const REFRESHED_AT_EACH_REQUEST: Duration = Duration::from_mins(6);

/// Returns the refreshes per grant and minute for this token `lifetime`. A lifetime below
/// [`REFRESHED_AT_EACH_REQUEST`] needs more refreshes, in inverse proportion.
pub(super) fn refreshes_that_become_necessary(
    configured: NonZeroU32,
    lifetime: Duration,
) -> NonZeroU32 {
    let times = REFRESHED_AT_EACH_REQUEST.as_secs().div_ceil(lifetime.as_secs().max(1));
    let times = u32::try_from(times).unwrap_or(u32::MAX);
    configured.saturating_mul(NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN))
}

/// Checks that the share of one client is not larger than the limit per person.
pub(super) fn check_share(r: &mut ConfigReader, what: &str, of_client: u32, all: u32) {
    if of_client > all {
        let (person, client) =
            (format!("limits.{what}_per_person"), format!("limits.{what}_per_client"));
        let hint = format!("make it smaller, or {person} larger");
        r.problem(&client, Some(of_client.to_string()), format!("is more than {person}"), &hint);
    }
}

/// Reads the addresses and networks whose `X-Forwarded-For` is trusted.
pub(super) fn trusted_proxies(r: &mut ConfigReader) -> Vec<IpNet> {
    const KEY: &str = "trusted_proxies";
    let mut proxies = Vec::new();
    for text in r.texts(KEY).unwrap_or_default() {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net.map(canonical) {
            Ok(net) if net.prefix_len() > 0 => proxies.push(net),
            Ok(_) => {
                let shown = Some(format!("{text:?}"));
                let hint = "name the proxy's own address; anybody could pose as anybody otherwise";
                r.problem(KEY, shown, "is the whole world", hint);
            }
            Err(_) => {
                let shown = Some(format!("{text:?}"));
                let hint = "write an address or a network, such as \"10.0.0.7\" or \"10.0.0.0/24\"";
                r.problem(KEY, shown, "is not an address", hint);
            }
        }
    }
    proxies
}

/// Converts IPv4-mapped IPv6 networks to IPv4, as is done with the addresses that they are compared with.
fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return v4.into();
    }
    net
}
