//! Connects to targets of the gateway.

use std::error::Error;
use std::future::poll_fn;
use std::time::Duration;

use axum::http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tower_service::Service as _;

use super::target_faults::{ConnectTimedOut, TargetFault};
use super::watched_stream::WatchedStream;
use super::{Connector, tcp, tls, wrapped};
use crate::config::TargetConnection;

/// How long [`TargetConnector::knock`] waits for an alert: 250 ms. In TLS 1.3 a server checks our certificate
/// after the handshake has ended for us.
const ALERT: Duration = Duration::from_millis(250);

/// Connects to targets with the same connection settings. Cheap to clone.
#[derive(Clone)]
pub(super) struct TargetConnector {
    inner: Connector,
    /// Longest wait for a connection, including the TLS handshake.
    within: Duration,
}

impl TargetConnector {
    /// Fails if the certificates cannot be used.
    pub(super) fn new(settings: &TargetConnection) -> Result<Self, rustls::Error> {
        let within = settings.connect_timeout;
        Ok(Self { inner: wrapped(tls::of_target(settings)?, tcp(within)), within })
    }

    /// Connects to the origin of a URI, with TLS if it is https.
    pub(super) async fn connect(
        &self,
        uri: Uri,
    ) -> Result<WatchedStream, Box<dyn Error + Send + Sync>> {
        let mut connector = self.inner.clone();
        let connecting = async {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(uri).await
        };
        let connected = timeout(self.within, connecting).await.map_err(|_| ConnectTimedOut)??;
        Ok(WatchedStream::new(connected))
    }

    /// Connects to a target, with TLS if it is https, and says nothing. Needs no credentials of an MCP client,
    /// and the MCP server does not notice.
    pub(super) async fn knock(&self, target: Uri) -> Result<(), TargetFault> {
        let speaks_tls = target.scheme_str() == Some("https");
        let connected = self.connect(target).await;
        let mut stream = connected.map_err(|cause| TargetFault::connecting(&*cause))?;
        if !speaks_tls {
            return Ok(());
        }
        let mut byte = [0; 1];
        if let Ok(Err(cause)) = timeout(ALERT, stream.read(&mut byte)).await
            && let Some(fault) = TargetFault::alert(&cause)
        {
            return Err(fault);
        }
        let _ = timeout(ALERT, stream.shutdown()).await;
        Ok(())
    }
}
