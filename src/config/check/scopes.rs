//! Reads names of scopes, which must be declared by their resource.

use std::collections::BTreeMap;

use toml::Value;

use super::super::reader::ConfigReader;
use crate::oauth::scope::{Scope, ScopeSet};

/// Reads the name of one scope of an MCP server.
pub(super) fn scope(r: &mut ConfigReader, key: &str, name: &str) -> Option<Scope> {
    if name == "offline_access" || name == "openid" {
        let reason = "is not a scope of an MCP server";
        r.problem(key, Some(format!("{name:?}")), reason, "take it out; Portcullis handles it");
        return None;
    }
    name.parse()
        .map_err(|_| {
            let hint = "use printable ASCII without spaces, quotes and backslashes";
            r.problem(key, Some(format!("{name:?}")), "is not a scope", hint);
        })
        .ok()
}

/// Reads a list of scopes, which the resource must declare.
pub(super) fn declared_scopes(
    r: &mut ConfigReader,
    key: &str,
    declared: &ScopeSet,
) -> Option<ScopeSet> {
    let names = r.texts(key)?;
    Some(names.iter().filter_map(|name| declared_scope(r, key, name, declared)).collect())
}

/// Reads the name of a scope that the resource must declare.
pub(super) fn declared_scope(
    r: &mut ConfigReader,
    key: &str,
    name: &str,
    declared: &ScopeSet,
) -> Option<Scope> {
    let scope = scope(r, key, name)?;
    if declared.contains(&scope) {
        return Some(scope);
    }
    let nearest = super::super::keys::nearest(name, declared.iter().map(Scope::as_str));
    let hint = match nearest {
        Some(nearest) => format!("did you mean {nearest:?}? Scopes are declared in scopes"),
        None => "declare it in scopes of this resource".to_owned(),
    };
    r.problem(key, Some(format!("{name:?}")), "is not a scope of this resource", hint);
    None
}

/// Reads a table of names with lists of scopes, which the resource must declare.
pub(super) fn tools(
    r: &mut ConfigReader,
    key: &str,
    declared: &ScopeSet,
) -> BTreeMap<String, ScopeSet> {
    let mut tools = BTreeMap::new();
    let Some(Value::Table(table)) = r.value(key) else { return tools };
    r.show(key, table.clone(), true);
    for (name, value) in table {
        let at = format!("{key}.{name}");
        let list = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        let Some(list) = list.filter(|list| !list.is_empty()) else {
            r.wrong_type(&at, &value, "a list of scopes", "write [\"scope\"]");
            continue;
        };
        let scopes =
            list.iter().filter_map(|name| declared_scope(r, &at, name, declared)).collect();
        tools.insert(name, scopes);
    }
    tools
}
