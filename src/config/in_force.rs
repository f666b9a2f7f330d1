//! What is in force of an approval: what somebody approved is the most that a client can have, and the rules
//! decide what it has.

use super::Config;
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;

/// What the rules leave of an approval now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InForce {
    /// Access with these scopes; without any where a server has none.
    Scopes(ScopeSet),
    /// No access.
    Nothing,
    /// The MCP server is not configured any more.
    ServerGone,
}

impl InForce {
    /// The scopes, if any.
    pub fn scopes(&self) -> ScopeSet {
        match self {
            Self::Scopes(scopes) => scopes.clone(),
            Self::Nothing | Self::ServerGone => ScopeSet::default(),
        }
    }

    /// What two approvals of the same client at the same server come to.
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
    /// What is in force of `approved`, by the present rules and these facts: what the next token would carry.
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
