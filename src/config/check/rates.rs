//! Reads rate limits, limits for concurrency, and `trusted_proxies`.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::super::reader::Reader;
use super::super::{FetchLimits, RateLimits};

pub(super) fn rates(r: &mut Reader) -> RateLimits {
    let (requests_per_person, requests_per_client) = of_person(r, "requests");
    let (streams_per_person, streams_per_client) = of_person(r, "streams");
    let mut rate = |key: &str, default: u32| {
        NonZeroU32::new(r.number(key, default, 1, 1_000_000)).unwrap_or(NonZeroU32::MIN)
    };
    RateLimits {
        authorize_per_minute: rate("limits.authorize_per_minute", 60),
        consent_per_minute: rate("limits.consent_per_minute", 30),
        sign_ins_per_minute: rate("limits.sign_ins_per_minute", 30),
        pages_per_minute: rate("limits.pages_per_minute", 300),
        token_per_minute: rate("limits.token_per_minute", 600),
        token_failures_per_minute: rate("limits.token_failures_per_minute", 60),
        admin_sign_in_failures: rate("limits.admin_sign_in_failures", 5),
        registrations_per_hour: rate("limits.registrations_per_hour", 10),
        registrations_at_once: rate("limits.registrations_at_once", 5),
        discovery_per_minute: rate("limits.discovery_per_minute", 600),
        refreshes_per_minute: rate("limits.refreshes_per_minute", 20),
        connections_per_address: r.number("limits.connections_per_address", 100, 1, 1_000_000),
        requests_per_person,
        requests_per_client,
        streams_per_person,
        streams_per_client,
    }
}

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

/// Reads the limit per person, and the share of it for one client. The share defaults to three quarters, so
/// that one client cannot use up the limit of the others.
fn of_person(r: &mut Reader, what: &str) -> (u32, u32) {
    let (person, client) =
        (format!("limits.{what}_per_person"), format!("limits.{what}_per_client"));
    let all = r.number(&person, 32, 1, 1_000_000);
    let of_client = r.number(&client, all - all / 4, 1, 1_000_000);
    if of_client > all {
        let hint = format!("make it smaller, or {person} larger");
        r.problem(&client, Some(of_client.to_string()), format!("is more than {person}"), &hint);
    }
    (all, of_client)
}

/// Reads the limits for fetching documents that clients publish.
pub(super) fn fetches(r: &mut Reader) -> FetchLimits {
    FetchLimits {
        at_once: r.number("limits.client_fetches", 16, 2, 1_000),
        per_host: r.number("limits.client_fetches_per_host", 10, 2, 100_000),
        per_address: r.number("limits.client_fetches_per_address", 10, 1, 100_000),
    }
}

/// Reads the addresses and networks whose `X-Forwarded-For` is trusted.
pub(super) fn trusted_proxies(r: &mut Reader) -> Vec<IpNet> {
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
