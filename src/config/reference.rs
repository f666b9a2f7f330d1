//! The reference of all configuration keys: type, default, meaning, and when a change applies.
//!
//! The rows are in `reference/keys.rs`, those of `[limits]` in the table of limits. `docs/configuration.md`, the
//! JSON Schema and the hints for unknown keys are made from them. A test compares them with the keys that the
//! reader reads.

mod keys;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Value;

use super::check::{self, SECRETS};
use super::keys::without_indexes;
use super::limits::{LimitTrait, limits};
use super::reader::ConfigReader;
use super::value_type::ValueType;

pub use schema::schema;

/// When a changed value applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// The running server takes it over within seconds.
    AtOnce,
    /// After a restart.
    Restart,
    /// After a restart; until then nothing else of a changed file is taken over, because stored tokens and
    /// people belong to this issuer and this provider.
    Identity,
}

/// A row of the static table.
struct KeyRow {
    key: &'static str,
    value: ValueType,
    /// The default in words, where it depends on other values; empty: as the reader shows it.
    default: &'static str,
    meaning: &'static str,
    applies: Applies,
}

/// A configuration key.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigKey {
    /// The key. `[]` marks a list of tables: `resource[].rule[].roles`.
    pub key: String,
    /// Type of the value.
    pub value: ValueType,
    /// The default, as TOML; `None` if there is none, or if it depends on other values.
    pub default: Option<Value>,
    /// The default in words, where it depends on other values; may be empty.
    pub default_in_words: &'static str,
    /// What it is for.
    pub meaning: String,
    /// When a changed value applies.
    pub applies: Applies,
}

impl ConfigKey {
    /// Returns the environment variables that set the key.
    pub fn variables(&self) -> Vec<String> {
        let settable = !matches!(
            self.value,
            ValueType::TextTable
                | ValueType::TranslatedTable
                | ValueType::SecretTable
                | ValueType::ScopeTable
                | ValueType::ClaimTable
                | ValueType::KeySet
        );
        // Of the lists of tables, the environment reaches the first resource only.
        let plain = self.key.strip_prefix("resource[].").map(|rest| format!("resource.{rest}"));
        let plain = plain.unwrap_or_else(|| self.key.clone());
        if !settable || plain.contains('[') {
            return Vec::new();
        }
        let name = format!("PORTCULLIS_{}", plain.replace('.', "__").to_ascii_uppercase());
        let in_file = SECRETS.contains(&self.key.replace("[]", "[0]").as_str());
        let file = in_file.then(|| format!("{name}_FILE"));
        std::iter::once(name).chain(file).collect()
    }
}

/// Returns all keys, in the order of the example file.
pub fn reference() -> Vec<ConfigKey> {
    let defaults = defaults();
    let default_of = |key: &str| defaults.get(&without_indexes(key)).cloned();
    let rows = keys::KEYS.iter().map(|row| ConfigKey {
        key: row.key.to_owned(),
        value: row.value,
        default: if row.default.is_empty() { default_of(row.key) } else { None },
        default_in_words: row.default,
        meaning: row.meaning.to_owned(),
        applies: row.applies,
    });
    let limits = limits().map(|limit| ConfigKey {
        key: limit.key.to_owned(),
        value: limit.value_type(),
        default: default_of(limit.key),
        default_in_words: "",
        meaning: limit.about.trim().to_owned(),
        applies: if limit.is(LimitTrait::Restart) { Applies::Restart } else { Applies::AtOnce },
    });
    rows.chain(limits).collect()
}

/// Returns the keys without indexes.
pub(super) fn known_kinds() -> BTreeSet<String> {
    let rows = keys::KEYS.iter().map(|row| without_indexes(row.key));
    rows.chain(limits().map(|limit| limit.key.to_owned())).collect()
}

/// Returns the header of each table, as a line of the file: keys of tables that are absent are not read.
fn headers() -> Vec<String> {
    let mut headers: Vec<String> = Vec::new();
    for (table, _) in keys::KEYS.iter().filter_map(|row| row.key.rsplit_once('.')) {
        let name = table.replace("[]", "");
        let header =
            if table.ends_with("[]") { format!("[[{name}]]\n") } else { format!("[{name}]\n") };
        if !headers.contains(&header) {
            headers.push(header);
        }
    }
    headers
}

/// Returns the defaults that the reader uses: it reads a configuration in which everything is left out.
fn defaults() -> BTreeMap<String, Value> {
    let mut defaults = BTreeMap::new();
    let note = |reader: &ConfigReader| {
        let shown = reader.shown.iter().filter(|shown| shown.origin == "default");
        defaults.extend(shown.map(|shown| (without_indexes(&shown.key), shown.value.clone())));
    };
    let file = (Path::new(""), headers().concat());
    let _incomplete = check::load_and_look(Some(file), &BTreeMap::new(), note);
    defaults
}

#[cfg(test)]
mod tests;
