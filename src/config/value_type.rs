//! Types of configuration values, as the reference and the JSON Schema name them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Text,
    Flag,
    /// A whole number in this range.
    Integer(u64, u64),
    /// A number from 0 to 1.
    Ratio,
    /// A duration in this range: `"90s"`, `"15m"`, `"8h"`, `"14d"`, or whole seconds.
    Duration(&'static str, &'static str),
    Texts,
    Word(&'static [&'static str]),
    /// A list of these words.
    Words(&'static [&'static str]),
    /// `{ env = "NAME" }`, `{ file = "path" }`, or the secret itself.
    Secret,
    /// Scopes: a list, or a table with the text of each.
    Scopes,
    TextTable,
    /// A table of texts, each in one or in several languages.
    TranslatedTable,
    SecretTable,
    /// A table of lists of scopes.
    ScopeTable,
    /// A table of claims with a text or a list of texts.
    ClaimTable,
    /// A JSON Web Key Set: `{ file = "path" }`, or JSON.
    KeySet,
}
