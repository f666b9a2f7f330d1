//! Reads the scopes of an MCP server, and what people read of them.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::super::reader::ConfigReader;
use super::super::{LANGUAGES, ScopeConfig, ScopeText};
use super::scopes::scope;
use crate::oauth::scope::Scope;

/// What a table of scopes may say about one of them.
const KEYS: [&str; 2] = ["text", "destructive"];

/// Reads the scopes: a list, or a table with the text of each for people. In place of the text there may be a table:
/// `{ text = "…", destructive = true }`, and in place of that text one for each language.
pub(super) fn scopes(r: &mut ConfigReader, key: &str) -> Vec<ScopeConfig> {
    let value = r.value(key);
    if let Some(Value::Table(table)) = &value {
        let table = table.clone();
        r.show(key, table.clone(), true);
        return table
            .iter()
            .filter_map(|(name, about)| {
                let scope = scope(r, key, name)?;
                described(r, &format!("{key}.{name}"), scope, about)
            })
            .collect();
    }
    let names = r.texts(key).unwrap_or_default();
    let plain = |scope| ScopeConfig { scope, text: None, destructive: false };
    names.iter().filter_map(|name| scope(r, key, name).map(plain)).collect()
}

/// Reads what a table of scopes says about one of them.
fn described(r: &mut ConfigReader, at: &str, scope: Scope, about: &Value) -> Option<ScopeConfig> {
    match about {
        Value::String(plain) => {
            Some(ScopeConfig { scope, text: untranslated(plain), destructive: false })
        }
        Value::Table(table) => {
            if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
                let hint = "write { text = \"…\", destructive = true }";
                r.problem(&format!("{at}.{unknown}"), None, "is not a key", hint);
            }
            let text = table.get("text").and_then(|text| text_of(r, &format!("{at}.text"), text));
            let destructive = destructive(r, &format!("{at}.destructive"), table);
            Some(ScopeConfig { scope, text, destructive })
        }
        other => {
            let hint =
                "write the words of the consent page, or { text = \"…\", destructive = true }";
            r.wrong_type(at, other, "a text or a table", hint);
            None
        }
    }
}

fn untranslated(text: &str) -> Option<ScopeText> {
    let otherwise = text.to_owned();
    (!text.is_empty()).then(|| ScopeText { otherwise, translated: BTreeMap::new() })
}

/// Reads a text, or a table with a text for each language.
pub(super) fn text_of(r: &mut ConfigReader, at: &str, value: &Value) -> Option<ScopeText> {
    match value {
        Value::String(text) => untranslated(text),
        Value::Table(table) => translated(r, at, table),
        other => {
            let hint = "write the words of the consent page, or { en = \"…\", ja = \"…\" }";
            r.wrong_type(at, other, "a text or a table of texts", hint);
            None
        }
    }
}

fn translated(r: &mut ConfigReader, at: &str, table: &Table) -> Option<ScopeText> {
    let mut translated = BTreeMap::new();
    for (language, text) in table {
        let key = format!("{at}.{language}");
        if !LANGUAGES.contains(&language.as_str()) {
            let hint = format!("the pages are in {}", LANGUAGES.join(", "));
            r.problem(&key, None, "is not a language of the pages", hint);
            continue;
        }
        match text {
            Value::String(text) if !text.is_empty() => {
                translated.insert(language.clone(), text.clone());
            }
            other => r.wrong_type(&key, other, "a text", "write the words of the consent page"),
        }
    }
    let english = translated.get("en").cloned();
    if english.is_none() && !table.contains_key("en") {
        let hint = "add en = \"…\": it is shown in every language that has no text of its own";
        r.problem(at, None, "has no text in English", hint);
    }
    Some(ScopeText { otherwise: english?, translated })
}

fn destructive(r: &mut ConfigReader, at: &str, table: &Table) -> bool {
    match table.get("destructive") {
        None => false,
        Some(Value::Boolean(destructive)) => *destructive,
        Some(other) => {
            r.wrong_type(at, other, "true or false", "write true or false");
            false
        }
    }
}
