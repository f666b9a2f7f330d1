//! Environment variables that Kubernetes and Docker set for a service called `portcullis` or
//! `portcullis-admin`. They have our prefix but are not configuration keys.
//!
//! The variable is ignored only if both name and value match, so that a variable that a person set is still
//! read or reported as a problem.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Returns whether a value has the expected format.
type Fits = fn(&str) -> bool;

/// Suffixes of variable names with the format of their value.
const ENDS: &[(&str, Fits)] =
    &[("SERVICE_HOST", is_host), ("SERVICE_PORT", is_port), ("PORT", is_address)];
/// Suffixes after port number and protocol: first those of Kubernetes, then Docker's port ranges.
const OF_A_PORT: &[(&str, Fits)] = &[
    ("", is_address),
    ("_PROTO", is_protocol),
    ("_PORT", is_port),
    ("_ADDR", is_host),
    ("_START", is_address),
    ("_END", is_address),
    ("_PORT_START", is_port),
    ("_PORT_END", is_port),
];

/// Returns whether a variable is a service link; `name` is the part after `PORTCULLIS_`.
pub(super) fn is_service_link(name: &str, value: &str, env: &BTreeMap<String, String>) -> bool {
    if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        // Variables that Docker copies from a linked container may have any spelling.
        return is_of_linked_container(name, env);
    }
    ENDS.iter().any(|(end, fits)| strip_end(name, end).is_some() && fits(value))
        || after(name, "SERVICE_PORT_").any(|port| !port.is_empty() && is_port(value))
        || after(name, "PORT_").any(|port| is_of_port(port, value))
        || strip_end(name, "NAME").is_some() && is_container(value)
        || is_of_linked_container(name, env)
}

/// Returns the service link that a misspelt variable was probably meant to be.
pub(super) fn nearest_link(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    ["SERVICE_HOST", "SERVICE_PORT"].into_iter().find_map(|end| {
        let at = name.rfind("SERVICE_")?;
        let near = strsim::damerau_levenshtein(&name[at..], end) <= 1;
        (near && (at == 0 || name[..at].ends_with('_')))
            .then(|| format!("PORTCULLIS_{}{end}", &name[..at]))
    })
}

/// Matches `8000_TCP_ADDR`, and so on.
fn is_of_port(port: &str, value: &str) -> bool {
    let Some((number, rest)) = port.split_once('_') else { return false };
    let protocol = ["TCP", "UDP", "SCTP"].into_iter().find_map(|name| rest.strip_prefix(name));
    is_port(number)
        && protocol
            .is_some_and(|rest| OF_A_PORT.iter().any(|(end, fits)| rest == *end && fits(value)))
}

/// Matches `NAME_ENV_…`, which Docker sets together with `NAME_NAME=/this/other`.
fn is_of_linked_container(name: &str, env: &BTreeMap<String, String>) -> bool {
    let mut aliases = name.match_indices("ENV_").filter_map(|(at, _)| {
        let alias = &name[..at];
        (alias.is_empty() || alias.ends_with('_')).then_some(alias)
    });
    aliases.any(|alias| {
        env.get(&format!("PORTCULLIS_{alias}NAME")).is_some_and(|container| is_container(container))
    })
}

/// Returns the part before `end` if `end` starts at a word boundary: empty, or the rest of the service's
/// name.
fn strip_end<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    name.strip_suffix(end).filter(|before| before.is_empty() || before.ends_with('_'))
}

/// Returns the text after each `word` that starts at a word boundary.
fn after<'a>(name: &'a str, word: &'static str) -> impl Iterator<Item = &'a str> {
    let begins = move |at: usize| at == 0 || name[..at].ends_with('_');
    let found = name.match_indices(word).filter(move |(at, _)| begins(*at));
    found.map(move |(at, _)| &name[at + word.len()..])
}

fn is_port(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_digit()) && value.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_protocol(value: &str) -> bool {
    matches!(value, "tcp" | "udp" | "sctp")
}

fn is_host(value: &str) -> bool {
    value.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Matches `tcp://10.0.0.1:8000`. IPv6 addresses have brackets, except in old releases.
fn is_address(value: &str) -> bool {
    let Some((protocol, rest)) = value.split_once("://") else { return false };
    is_protocol(protocol)
        && rest.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// Matches `/this-container/its-alias`.
fn is_container(value: &str) -> bool {
    value.starts_with('/')
}
