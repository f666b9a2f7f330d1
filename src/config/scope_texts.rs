//! What people read of scopes.

use std::collections::BTreeMap;
use std::fmt;

use super::ResourceConfig;
use crate::oauth::scope::{Scope, ScopeSet};

/// The languages in which texts may be configured: those of people's pages (BCP 47).
pub const LANGUAGES: [&str; 6] = ["en", "de", "es", "fr", "ja", "zh-Hans"];

/// A scope of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeConfig {
    pub scope: Scope,
    pub text: Option<ScopeText>,
    /// Whether the consent page warns that this scope deletes or overwrites.
    pub destructive: bool,
}

/// The text of a scope, in one or in several languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeText {
    /// The text for people whose language has none of its own.
    pub otherwise: String,
    /// The texts by language.
    pub translated: BTreeMap<String, String>,
}

/// The text for people whose language has none of its own.
impl fmt::Display for ScopeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.otherwise)
    }
}

impl ScopeConfig {
    /// Returns the text for people who read this language ([`LANGUAGES`]).
    pub fn text_in(&self, language: &str) -> Option<&str> {
        Some(self.text.as_ref()?.in_language(language))
    }
}

impl ScopeText {
    /// Returns the text for people who read this language ([`LANGUAGES`]).
    pub fn in_language(&self, language: &str) -> &str {
        self.translated.get(language).unwrap_or(&self.otherwise)
    }
}

/// Returns what people read of these scopes: the configured texts, and otherwise the names.
pub fn scope_texts<'a>(
    resource: Option<&'a ResourceConfig>,
    scopes: &'a ScopeSet,
    language: &str,
) -> Vec<&'a str> {
    let known = resource.map(|resource| resource.scopes.as_slice()).unwrap_or_default();
    let texts = scopes.iter().map(|scope| {
        let known = known.iter().find(|known| known.scope == *scope);
        known.and_then(|known| known.text_in(language)).unwrap_or(scope.as_str())
    });
    texts.collect()
}
