//! Reads the keys of `[[resource]]` about scope enforcement in the gateway and in the MCP server.

use std::collections::BTreeMap;

use super::super::reader::ConfigReader;
use super::super::{SecretText, Transport};
use super::one_of;
use super::scopes::{declared_scope, tools as tools_of};
use crate::oauth::scope::{Scope, ScopeSet};
use crate::oauth::scope_hierarchy::ScopeHierarchy;

/// Minimum length of an introspection secret, in characters. Shorter secrets could be guessed.
const SHORTEST_SECRET: usize = 32;

/// Reads `[resource.implies]`: each broad scope with the narrower scopes that it implies.
pub(super) fn implies(r: &mut ConfigReader, key: &str, declared: &ScopeSet) -> ScopeHierarchy {
    let mut direct: BTreeMap<Scope, ScopeSet> = BTreeMap::new();
    for (name, implied) in tools_of(r, key, declared) {
        let at = format!("{key}.{name}");
        if let Some(scope) = declared_scope(r, &at, &name, declared) {
            direct.insert(scope, implied);
        }
    }
    ScopeHierarchy::new(&direct).unwrap_or_else(|circular| {
        let shown = Some(format!("{:?}", circular.0.as_str()));
        let hint = "take one of the implications out; scopes that imply each other are one scope";
        r.problem(key, shown, "implies itself, directly or by way of others", hint);
        ScopeHierarchy::default()
    })
}

pub(super) fn hide_forbidden_tools(
    r: &mut ConfigReader,
    key: &str,
    tools: &BTreeMap<String, ScopeSet>,
) -> bool {
    let hide = r.flag(key, false);
    if hide && tools.is_empty() {
        r.warn(key, &format!("{key} has no effect: no tool needs a scope ([resource.tools])"));
    }
    hide
}

pub(super) fn transport(r: &mut ConfigReader, key: &str, has_target: bool) -> Transport {
    let transport = one_of(r, key, Transport::StreamableHttp);
    if transport == Transport::HttpSse && !has_target {
        let hint = "write target = \"http://127.0.0.1:9000/sse\", the address of the event stream";
        r.problem(key, None, "says how the server behind speaks, and there is none", hint);
    }
    transport
}

/// Returns whether targets get assertions. The audience of each is its own URL, which is specific to this MCP
/// server.
pub(super) fn assertion(r: &mut ConfigReader, key: &str, has_target: bool) -> bool {
    let asserts = r.flag(key, false);
    if asserts && !has_target {
        let hint =
            "add target, or take assertion out: without the gateway there is nobody to assert to";
        r.problem(key, Some("true".to_owned()), "needs a target", hint);
    }
    asserts
}

pub(super) fn introspection_secret(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
) -> Option<SecretText> {
    if !r.has(key) {
        return None;
    }
    let secret = r.secret(key, env)?;
    if secret.expose().len() < SHORTEST_SECRET {
        let reason = format!("is shorter than {SHORTEST_SECRET} characters");
        r.problem(
            key,
            Some("********".to_owned()),
            reason,
            "make one with: openssl rand -base64 32",
        );
    }
    Some(secret)
}
