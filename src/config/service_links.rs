//! Variables that Kubernetes and Docker make by themselves for a service called `portcullis`, or
//! `portcullis-admin`: they have our prefix and are no keys of the configuration.
//!
//! Name and value must both fit, so that what a person wrote is still read, or reported as a mistake.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Whether a value can stand there.
type Fits = fn(&str) -> bool;

/// Ends of names, with what stands there.
const ENDS: &[(&str, Fits)] =
    &[("SERVICE_HOST", is_host), ("SERVICE_PORT", is_port), ("PORT", is_address)];
/// What may follow the number and protocol of a port: Kubernetes, then ranges of Docker.
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

/// Whether a variable belongs to a service; `name` is what follows `PORTCULLIS_`.
pub(super) fn is_service_link(name: &str, value: &str, env: &BTreeMap<String, String>) -> bool {
    if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        // What another container's environment brings may be spelt in any way.
        return is_of_linked_container(name, env);
    }
    ENDS.iter().any(|(end, fits)| strip_end(name, end).is_some() && fits(value))
        || after(name, "SERVICE_PORT_").any(|port| !port.is_empty() && is_port(value))
        || after(name, "PORT_").any(|port| is_of_port(port, value))
        || strip_end(name, "NAME").is_some() && is_container(value)
        || is_of_linked_container(name, env)
}

/// The variable that a misspelt one was meant to be.
pub(super) fn nearest_link(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    ["SERVICE_HOST", "SERVICE_PORT"].into_iter().find_map(|end| {
        let at = name.rfind("SERVICE_")?;
        let near = strsim::damerau_levenshtein(&name[at..], end) <= 1;
        (near && (at == 0 || name[..at].ends_with('_')))
            .then(|| format!("PORTCULLIS_{}{end}", &name[..at]))
    })
}

/// `8000_TCP_ADDR`, and so on.
fn is_of_port(port: &str, value: &str) -> bool {
    let Some((number, rest)) = port.split_once('_') else { return false };
    let protocol = ["TCP", "UDP", "SCTP"].into_iter().find_map(|name| rest.strip_prefix(name));
    is_port(number)
        && protocol
            .is_some_and(|rest| OF_A_PORT.iter().any(|(end, fits)| rest == *end && fits(value)))
}

/// `NAME_ENV_…`: Docker adds it where there is `NAME_NAME=/this/other`.
fn is_of_linked_container(name: &str, env: &BTreeMap<String, String>) -> bool {
    let mut aliases = name.match_indices("ENV_").filter_map(|(at, _)| {
        let alias = &name[..at];
        (alias.is_empty() || alias.ends_with('_')).then_some(alias)
    });
    aliases.any(|alias| {
        env.get(&format!("PORTCULLIS_{alias}NAME")).is_some_and(|container| is_container(container))
    })
}

/// What stands before `end`, where that begins a word: nothing, or the rest of the service's name.
fn strip_end<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    name.strip_suffix(end).filter(|before| before.is_empty() || before.ends_with('_'))
}

/// What follows each `word` that begins a word.
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

/// `tcp://10.0.0.1:8000`; an IPv6 address has brackets, and had none in old releases.
fn is_address(value: &str) -> bool {
    let Some((protocol, rest)) = value.split_once("://") else { return false };
    is_protocol(protocol)
        && rest.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// `/this-container/its-alias`.
fn is_container(value: &str) -> bool {
    value.starts_with('/')
}
