//! Scopes: RFC 6749 §3.3.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest accepted `scope` parameter, in bytes.
pub const MAX_SCOPE_PARAMETER: usize = 1000;
/// Most scopes accepted in one parameter.
pub const MAX_SCOPES: usize = 50;

/// One scope: printable ASCII without space, `"` and `\` (RFC 6749 §3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// Why a text is not a scope, or not a list of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeRefused {
    /// A character outside RFC 6749 §3.3, or an empty token.
    #[error("scope holds a character that RFC 6749 section 3.3 does not allow")]
    Malformed,
    /// More than [`MAX_SCOPE_PARAMETER`] bytes or [`MAX_SCOPES`] tokens.
    #[error("scope is too long")]
    TooLong,
}

impl Scope {
    /// Returns the scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = ScopeRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.is_empty() || !text.bytes().all(legal) {
            return Err(ScopeRefused::Malformed);
        }
        if text.len() > MAX_SCOPE_PARAMETER {
            return Err(ScopeRefused::TooLong);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes, in a stable order. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(Arc<BTreeSet<Scope>>);

impl ScopeSet {
    /// Parses a `scope` parameter: scopes separated by spaces.
    ///
    /// Leading, trailing and repeated spaces are accepted, because existing clients send them.
    pub fn parse(parameter: &str) -> Result<Self, ScopeRefused> {
        if parameter.len() > MAX_SCOPE_PARAMETER {
            return Err(ScopeRefused::TooLong);
        }
        let scopes = parameter
            .split(' ')
            .filter(|token| !token.is_empty())
            .map(Scope::from_str)
            .collect::<Result<BTreeSet<_>, _>>()?;
        if scopes.len() > MAX_SCOPES {
            return Err(ScopeRefused::TooLong);
        }
        Ok(Self(Arc::new(scopes)))
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of scopes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether `scope` is in the set.
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    /// Returns whether every scope of `self` is also in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Returns the scopes in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.0.intersection(&other.0).cloned().collect()
    }

    /// Returns the scopes in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.union(&other.0).cloned().collect()
    }

    /// Returns the scopes of `self` that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.0.difference(&other.0).cloned().collect()
    }

    /// Iterates over the scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(Arc::new(scopes.into_iter().collect()))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

/// Serialized like a `scope` parameter: scopes separated by one space.
impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn au_04_hostile_scope_parameters_are_refused() {
        for hostile in ["a\tb", "a\u{a0}b", "a\"b", "a\\b", "a\0b", "ａ", "a\nb"] {
            assert_eq!(ScopeSet::parse(hostile), Err(ScopeRefused::Malformed), "{hostile:?}");
        }
        assert_eq!(ScopeSet::parse(&"a".repeat(1001)), Err(ScopeRefused::TooLong));
        let many = (0..51).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(ScopeSet::parse(&many), Err(ScopeRefused::TooLong));
    }

    #[test]
    fn doubled_and_leading_spaces_are_forgiven_and_duplicates_merge() {
        let scopes = ScopeSet::parse("  b a  b ").unwrap();

        assert_eq!(scopes.to_string(), "a b");
    }
}
