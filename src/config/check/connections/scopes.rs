//! Reads the scopes of a connection, and what people read of them.

use std::collections::BTreeMap;

use toml::Value;

use super::super::super::ScopeText;
use super::super::super::keys::nearest;
use super::super::super::presets::Offline;
use super::super::super::reader::ConfigReader;
use super::super::scope_texts::text_of;
use super::ServiceKind;
use crate::oauth::scope::Scope;

/// Most scopes of one connection, and their length together in bytes: a service reads them from one URL.
const MOST_SCOPES: usize = 100;
const LONGEST_SCOPES: usize = 4096;

pub(super) fn read(r: &mut ConfigReader, key: &str, kind: &ServiceKind) -> Vec<String> {
    let preset = kind.preset();
    let has_key = r.has(key);
    let names = match r.texts(key) {
        Some(names) => names,
        None if has_key => return Vec::new(), // of another type, which is reported
        None => Vec::new(),
    };
    if names.is_empty() && (kind.is_sign_in() || !preset.scopes_optional) {
        let hint = "list what MCP servers may ask for: a connection without scopes gives nothing";
        let reason = if has_key { "names no scope" } else { "is missing" };
        r.problem(key, has_key.then(|| "[]".to_owned()), reason, hint);
    }
    let mut scopes: Vec<String> = Vec::new();
    for name in names {
        let shown = Some(format!("{name:?}"));
        match check_scope(&name, kind) {
            Err((reason, hint)) => r.problem(key, shown, reason, hint),
            Ok(()) if scopes.contains(&name) => {
                r.problem(key, shown, "is listed twice", "list each scope once");
            }
            Ok(()) => scopes.push(name),
        }
    }
    if scopes.len() > MOST_SCOPES || scopes.join(" ").len() > LONGEST_SCOPES {
        let reason = format!(
            "are too many or too long for one request ({MOST_SCOPES} scopes, {LONGEST_SCOPES} characters in all)"
        );
        r.problem(key, None, reason, "list those that your MCP servers need");
    }
    if preset.name == "entra" {
        check_one_api(r, key, &scopes);
    }
    scopes
}

/// Returns reason and hint for a scope that cannot be asked for.
fn check_scope(name: &str, kind: &ServiceKind) -> Result<(), (&'static str, &'static str)> {
    if name.contains(',') {
        return Err(("contains a comma", "write each scope as a text of its own"));
    }
    if name.parse::<Scope>().is_err() {
        let hint = "use printable ASCII without spaces, quotes and backslashes";
        return Err(("is not a scope", hint));
    }
    if name == "offline_access" && kind.offline() != Offline::NoScope {
        return Err(("is added by Portcullis itself", "take it out"));
    }
    Ok(())
}

/// Refuses scopes of two APIs: an access token of Entra serves one.
fn check_one_api(r: &mut ConfigReader, key: &str, scopes: &[String]) {
    const GRAPH: &str = "https://graph.microsoft.com";
    const OF_EVERY_API: &[&str] = &["openid", "profile", "email"];
    let api = |scope: &str| {
        let api = scope.rsplit_once('/').map_or(GRAPH, |(api, _)| api);
        api.trim_end_matches('/').to_owned()
    };
    let of_one = scopes.iter().filter(|scope| !OF_EVERY_API.contains(&scope.as_str()));
    let mut apis: Vec<String> = of_one.map(|scope| api(scope)).collect();
    apis.sort();
    apis.dedup();
    if let [one, other, ..] = apis.as_slice() {
        let reason =
            format!("has scopes of {one} and of {other}, and an access token serves one API");
        r.problem(key, None, reason, "add a connection for each API");
    }
}

pub(super) fn texts(
    r: &mut ConfigReader,
    key: &str,
    scopes: &[String],
) -> BTreeMap<String, ScopeText> {
    let mut texts = BTreeMap::new();
    let table = match r.value(key) {
        None => return texts,
        Some(Value::Table(table)) => table,
        Some(other) => {
            r.wrong_type(key, &other, "a table of texts", "write { scope = \"words\" }");
            return texts;
        }
    };
    r.show(key, table.clone(), true);
    for (scope, text) in &table {
        let at = format!("{key}.{scope}");
        if !scopes.contains(scope) {
            let hint = match nearest(scope, scopes.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add it to scopes, or take its text out".to_owned(),
            };
            r.problem(&at, None, "is not a scope of this connection", hint);
            continue;
        }
        let known = r.problems.len();
        match text_of(r, &at, text) {
            Some(text) => {
                texts.insert(scope.clone(), text);
            }
            None if r.problems.len() == known => {
                r.problem(&at, None, "is empty", "write what people read on the pages");
            }
            None => {}
        }
    }
    texts
}
