//! Broad scopes that imply narrower ones: MCP 2026-07-28, step-up authorization.
//!
//! If `admin:todos` implies `read:todos`, a token with `admin:todos` may do what needs `read:todos`.
//! Implication is transitive. A cycle is refused, because two scopes that imply each other are one scope
//! with two names.

use std::collections::BTreeMap;

use super::scope::{Scope, ScopeSet};

/// Which scopes imply which. The transitive closure is computed once, on creation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeHierarchy(BTreeMap<Scope, ScopeSet>);

/// A scope implies itself, directly or through others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} implies itself")]
pub struct Circular(pub Scope);

impl ScopeHierarchy {
    /// Computes the transitive closure of the direct implications. Fails on a cycle.
    pub fn new(direct: &BTreeMap<Scope, ScopeSet>) -> Result<Self, Circular> {
        let mut implied = BTreeMap::new();
        for scope in direct.keys() {
            let mut reached = ScopeSet::default();
            let mut next: Vec<&Scope> = vec![scope];
            while let Some(from) = next.pop() {
                for to in direct.get(from).into_iter().flat_map(ScopeSet::iter) {
                    if to == scope {
                        return Err(Circular(scope.clone()));
                    }
                    if !reached.contains(to) {
                        reached = reached.union(&std::iter::once(to.clone()).collect());
                        next.push(to);
                    }
                }
            }
            implied.insert(scope.clone(), reached);
        }
        Ok(Self(implied))
    }

    /// Returns the scopes that `scope` implies, without itself.
    pub fn implied_by(&self, scope: &Scope) -> impl Iterator<Item = &Scope> {
        self.0.get(scope).into_iter().flat_map(ScopeSet::iter)
    }

    /// Returns `scopes` and all that they imply.
    #[must_use]
    pub fn with_implied(&self, scopes: &ScopeSet) -> ScopeSet {
        scopes
            .iter()
            .filter_map(|scope| self.0.get(scope))
            .fold(scopes.clone(), |all, implied| all.union(implied))
    }

    /// Returns `scopes` and all that imply one of them. These must be taken away together.
    #[must_use]
    pub fn with_implying(&self, scopes: &ScopeSet) -> ScopeSet {
        let implying = self
            .0
            .iter()
            .filter(|(_, implied)| !implied.intersection(scopes).is_empty())
            .map(|(scope, _)| scope.clone());
        scopes.union(&implying.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> ScopeSet {
        ScopeSet::parse(text).unwrap()
    }

    fn hierarchy(pairs: &[(&str, &str)]) -> Result<ScopeHierarchy, Circular> {
        let direct = pairs.iter().map(|(from, to)| (from.parse().unwrap(), scopes(to)));
        ScopeHierarchy::new(&direct.collect())
    }

    #[test]
    fn gw_07_implication_is_followed_to_its_end() {
        let hierarchy =
            hierarchy(&[("owner", "admin"), ("admin", "read write"), ("write", "read")]).unwrap();

        assert_eq!(hierarchy.with_implied(&scopes("owner")), scopes("owner admin read write"));
        assert_eq!(hierarchy.with_implied(&scopes("write other")), scopes("write other read"));
        assert_eq!(hierarchy.with_implied(&scopes("read")), scopes("read"));
        assert_eq!(hierarchy.with_implying(&scopes("write")), scopes("write admin owner"));
        assert_eq!(hierarchy.with_implying(&scopes("owner")), scopes("owner"));
    }

    #[test]
    fn a_circle_is_refused_however_long() {
        assert!(hierarchy(&[("a", "a")]).is_err());
        assert!(hierarchy(&[("a", "b"), ("b", "a")]).is_err());
        assert!(hierarchy(&[("a", "b"), ("b", "c"), ("c", "d b")]).is_err());
        assert!(
            hierarchy(&[("a", "b c"), ("b", "d"), ("c", "d")]).is_ok(),
            "a diamond is no circle"
        );
    }
}
