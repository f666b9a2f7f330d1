//! Keeps the certificate of the listeners current.

use std::time::Duration;

use super::App;
use crate::telemetry::log_throttle::LogThrottle;

static NOT_LOOKED_AT: LogThrottle = LogThrottle::a_minute();

/// Interval between two looks into the database: 5 s. So a certificate that one replica obtained is in use on all of
/// them within that time.
const LOOK: Duration = Duration::from_secs(5);

impl App {
    /// Loads and renews the certificate from the ACME server; never returns.
    pub async fn keep_certificates(&self) {
        panic_point!("certificates");
        loop {
            let app = self.current();
            if let Err(cause) = Box::pin(app.certificates().round()).await
                && let Some(left_out) = NOT_LOOKED_AT.admit()
            {
                tracing::warn!(%cause, left_out, "the certificate could not be looked at");
            }
            drop(app);
            tokio::time::sleep(LOOK).await;
        }
    }
}
