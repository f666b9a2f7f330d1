//! Which MCP servers use a connection for a person, and what they need of it.

use std::collections::BTreeSet;

use crate::config::{Config, ConnectionConfig, ResourceConfig};
use crate::policy::Facts;
use crate::storage::Connection;

/// An MCP server that uses a connection as the person.
#[derive(Clone, Copy)]
pub(super) struct UsingServer<'a> {
    pub(super) resource: &'a ResourceConfig,
    /// The scopes of the service that it needs.
    pub(super) scopes: &'a [String],
}

impl<'a> UsingServer<'a> {
    /// Returns what this MCP server needs of a connection for the person with these facts. `None` if it does not use
    /// the connection, or if the rules give the person none of what needs it.
    pub(super) fn of(resource: &'a ResourceConfig, name: &str, facts: &Facts) -> Option<Self> {
        let used = resource.connection_to(name)?;
        if !resource.policy.lets_in(facts) {
            return None;
        }
        let within_reach = resource.policy.within_reach(facts);
        let may = resource.policy.hierarchy.with_implied(&within_reach);
        let may_call =
            |tool: &String| resource.tools.get(tool).is_none_or(|needed| needed.is_subset(&may));
        let needs_it = used.tools.is_empty() || used.tools.iter().any(may_call);
        needs_it.then_some(Self { resource, scopes: &used.scopes })
    }

    /// Returns all MCP servers that use the connection `name` for the person with these facts.
    pub(super) fn all(config: &'a Config, name: &str, facts: &Facts) -> Vec<Self> {
        config.resources.iter().filter_map(|resource| Self::of(resource, name, facts)).collect()
    }

    /// Returns the display name of the MCP server, or its identifier.
    pub(super) fn shown(&self) -> &'a str {
        shown(self.resource)
    }
}

/// Returns the display name of an MCP server, or its identifier.
pub(super) fn shown(resource: &ResourceConfig) -> &str {
    resource.name.as_deref().unwrap_or(&resource.id)
}

/// A connection as it is stored, and whether it can be used.
pub(super) struct Held<'a> {
    connection: &'a ConnectionConfig,
    stored: Option<Connection>,
    /// Whether the service accepts it, as far as we know.
    works: bool,
}

impl<'a> Held<'a> {
    /// `provider_key`: what tokens of the connection belong to now; those of another client or service are of no use.
    pub(super) fn new(
        connection: &'a ConnectionConfig,
        stored: Option<Connection>,
        provider_key: &str,
    ) -> Self {
        let works = stored
            .as_ref()
            .is_some_and(|stored| stored.is_active() && stored.provider_key == provider_key);
        Self { connection, stored, works }
    }

    /// Returns what is stored, whether it works or not.
    pub(super) fn stored(&self) -> Option<&Connection> {
        self.stored.as_ref()
    }

    /// Returns whether it is connected and works.
    pub(super) fn works(&self) -> bool {
        self.works
    }

    /// Returns whether it is connected and has to be connected again.
    pub(super) fn is_broken(&self) -> bool {
        self.stored.is_some() && !self.works
    }

    /// Returns whether a refresh token is stored that the service may still accept.
    pub(super) fn has_refresh(&self) -> bool {
        self.works && self.stored().is_some_and(|stored| stored.tokens.refresh_token.is_some())
    }

    /// Returns those of these scopes that the connection does not have, in the configured order.
    pub(super) fn lacks(&self, wanted: &BTreeSet<&str>) -> Vec<&'a str> {
        let has = |scope: &str| {
            let stored = self.stored().filter(|_| self.works);
            stored.is_some_and(|stored| self.connection.preset.covers(&stored.scopes, scope))
        };
        let configured = self.connection.scopes.iter().map(String::as_str);
        configured.filter(|scope| wanted.contains(scope) && !has(scope)).collect()
    }

    /// Returns the scopes to ask the service for: what it was asked for before stays, as far as it is still configured.
    pub(super) fn with(&self, wanted: &BTreeSet<&str>) -> Vec<&'a str> {
        let before =
            |scope: &str| self.stored().is_some_and(|stored| stored.scopes.contains(scope));
        let configured = self.connection.scopes.iter().map(String::as_str);
        configured.filter(|scope| wanted.contains(scope) || before(scope)).collect()
    }
}
