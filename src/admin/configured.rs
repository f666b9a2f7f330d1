//! MCP servers with the file and the lines where they are configured.

use crate::config::{Config, ConfigSource, ResourceConfig};

/// An MCP server of the configuration.
#[derive(Clone, Copy)]
pub(crate) struct ConfiguredServer<'a> {
    pub(crate) resource: &'a ResourceConfig,
    /// Its position in the configuration, from 0.
    index: usize,
    source: &'a ConfigSource,
    /// Name of the identity provider.
    pub(crate) provider: &'a str,
}

impl<'a> ConfiguredServer<'a> {
    /// Returns all MCP servers, in the order of the configuration.
    pub(crate) fn all(config: &'a Config, source: &'a ConfigSource) -> impl Iterator<Item = Self> {
        let provider = config.upstream.name.as_str();
        config.resources.iter().enumerate().map(move |(index, resource)| Self {
            resource,
            index,
            source,
            provider,
        })
    }

    /// Returns the MCP server with exactly this identifier.
    pub(crate) fn with_id(config: &'a Config, source: &'a ConfigSource, id: &str) -> Option<Self> {
        Self::all(config, source).find(|server| server.resource.id == id)
    }

    /// Returns its name, or its identifier.
    pub(crate) fn name(&self) -> &'a str {
        self.resource.name.as_deref().unwrap_or(&self.resource.id)
    }

    /// Returns where it is configured, such as `portcullis.toml:10`. `None` if the environment configures it.
    pub(crate) fn place(&self) -> Option<String> {
        self.source.place(&format!("resource[{}]", self.index)).map(|place| place.to_string())
    }

    /// Returns where a rule of it is configured.
    pub(crate) fn place_of_rule(&self, position: usize) -> Option<String> {
        let key = format!("resource[{}].rule[{position}]", self.index);
        self.source.place(&key).map(|place| place.to_string())
    }
}
