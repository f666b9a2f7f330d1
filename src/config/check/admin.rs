//! Reads `[admin]` and `[audit]`: people who may use the admin pages, and the metrics token.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::public_url::PublicUrl;
use super::super::reader::ConfigReader;
use super::super::values::SecretText;
use super::super::{AdminConfig, PeopleSet};
use super::{SHORTEST_KEY, address};

pub(super) fn read(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    public_url: Option<&PublicUrl>,
    has_tls: bool,
) -> Option<AdminConfig> {
    if !r.has("admin") {
        return None;
    }
    let listen = address(r, "admin.listen", SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8001));
    let tls = r.flag("admin.tls", has_tls && !listen.ip().is_loopback());
    if tls && !has_tls {
        let hint = "add [tls], whose certificate this listener uses too";
        r.problem("admin.tls", Some("true".to_owned()), "is set without [tls]", hint);
    }
    let url = url(r, listen, tls);
    if tls && url.as_ref().is_some_and(|url| !url.is_https()) {
        let hint = "write it with https://, or write admin.tls = false";
        r.problem("admin.url", None, "is http, and this listener speaks TLS (admin.tls)", hint);
    }
    let shares_origin = url.as_ref().zip(public_url).is_some_and(|(a, b)| a.origin() == b.origin());
    if shares_origin {
        r.problem(
            "admin.url",
            None,
            "is on the origin of public_url: the admin pages are never on the public listener",
            "give them a host name or port of their own",
        );
    }
    let administrators = PeopleSet {
        roles: r.texts("admin.roles").unwrap_or_default(),
        groups: r.texts("admin.groups").unwrap_or_default(),
        subjects: r.texts("admin.subjects").unwrap_or_default(),
    };
    if administrators.is_empty() {
        r.problem(
            "admin",
            None,
            "names nobody",
            "add roles, groups or subjects: who may use the admin pages",
        );
    }
    let viewers = PeopleSet {
        roles: r.texts("admin.read_only.roles").unwrap_or_default(),
        groups: r.texts("admin.read_only.groups").unwrap_or_default(),
        subjects: r.texts("admin.read_only.subjects").unwrap_or_default(),
    };
    let metrics_token = metrics_token(r, env);
    Some(AdminConfig { listen, url: url?, tls, administrators, viewers, metrics_token })
}

/// Reads the bearer token for metrics.
fn metrics_token(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Option<SecretText> {
    const KEY: &str = "admin.metrics_token";
    let token = r.has(KEY).then(|| r.secret(KEY, env)).flatten()?;
    let legal = token.expose().bytes().all(|b| b.is_ascii_graphic());
    if token.expose().len() < SHORTEST_KEY || !legal {
        let reason = format!("is not {SHORTEST_KEY} or more visible ASCII characters");
        let hint = "make one with: openssl rand -base64 32";
        r.problem(KEY, Some("********".to_owned()), reason, hint);
    }
    Some(token)
}

/// Reads the URL that administrators open. On loopback it defaults to the listener's address.
fn url(r: &mut ConfigReader, listen: SocketAddr, tls: bool) -> Option<PublicUrl> {
    const KEY: &str = "admin.url";
    let Some(text) = r.text(KEY) else {
        if !listen.ip().is_loopback() {
            r.problem(
                KEY,
                None,
                "is missing, and admin.listen is not on loopback",
                "write the address administrators type, such as \"https://mcp-admin.example.com\"",
            );
            return None;
        }
        let url = format!("{}://{listen}", if tls { "https" } else { "http" });
        r.show(KEY, url.as_str(), false);
        return PublicUrl::parse_origin(&url).ok();
    };
    PublicUrl::parse_origin(&text)
        .map_err(|(reason, hint)| r.problem(KEY, Some(format!("{text:?}")), reason, hint))
        .ok()
}
