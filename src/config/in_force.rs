//! What remains of a consent under the current rules. A consent is an upper bound; the rules decide what the
//! client gets of it.

use super::Config;
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;

/// What the current rules leave of a consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InForce {
    /// Access with these scopes; an empty set is normal for a server without scopes.
    Scopes(ScopeSet),
    Nothing,
    /// The MCP server is no longer configured.
    ServerGone,
}

impl InForce {
    /// Returns the scopes, or an empty set.
    pub fn scopes(&self) -> ScopeSet {
        match self {
            Self::Scopes(scopes) => scopes.clone(),
            Self::Nothing | Self::ServerGone => ScopeSet::default(),
        }
    }

    /// Combines two consents to the same client for the same server.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Scopes(one), Self::Scopes(other)) => Self::Scopes(one.union(&other)),
            (scopes @ Self::Scopes(_), _) | (_, scopes @ Self::Scopes(_)) => scopes,
            (one, _) => one,
        }
    }
}

impl Config {
    /// Applies the current rules and these facts to `approved`. The result is what the next token would
    /// contain.
    pub fn in_force(
        &self,
        resource: &str,
        client_id: &str,
        facts: &Facts,
        approved: &ScopeSet,
    ) -> InForce {
        let Some(resource) = self.resources.iter().find(|known| known.id == resource) else {
            return InForce::ServerGone;
        };
        let granted = resource.policy.decide(facts, client_id, approved).granted;
        if granted.is_empty() && resource.policy.refuses(approved) {
            return InForce::Nothing;
        }
        InForce::Scopes(granted)
    }
}
