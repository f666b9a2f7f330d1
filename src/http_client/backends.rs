//! The connections to the targets of the gateway with the same connection settings.

use std::sync::Arc;

use axum::http::Uri;
use parking_lot::Mutex;

use super::target_connections::{TargetConnections, WeakConnections};
use super::target_connector::TargetConnector;
use super::target_faults::TargetFault;
use crate::config::TargetConnection;

/// Connects to targets with the same connection settings, and keeps the connections. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    connector: TargetConnector,
    /// Those that a target of some configuration uses.
    origins: Arc<Mutex<Vec<WeakConnections>>>,
}

impl Backends {
    /// Connections are opened when needed. Fails if the certificates cannot be used.
    pub(crate) fn new(settings: &TargetConnection) -> Result<Self, rustls::Error> {
        Ok(Self { connector: TargetConnector::new(settings)?, origins: Arc::default() })
    }

    /// Returns the connections to the origin of `target`. All its targets share them, also those of a newer
    /// configuration.
    pub fn to(&self, target: &Uri) -> TargetConnections {
        let mut origins = self.origins.lock();
        origins.retain(|known| known.upgrade().is_some());
        let mut known = origins.iter().filter_map(WeakConnections::upgrade);
        let is_same = |known: &TargetConnections| {
            let origin = known.origin();
            origin.scheme() == target.scheme() && origin.authority() == target.authority()
        };
        if let Some(known) = known.find(is_same) {
            return known;
        }
        let made = TargetConnections::new(self.connector.clone(), target.clone());
        origins.push(made.downgrade());
        made
    }

    /// Connects to a target, with TLS if it is https, and says nothing. Needs no credentials of an MCP client,
    /// and the MCP server does not notice.
    pub async fn knock(&self, target: Uri) -> Result<(), TargetFault> {
        self.connector.knock(target).await
    }
}
