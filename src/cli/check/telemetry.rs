//! Checks whether the collector of telemetry can be reached. No telemetry is sent.

use super::{Finding, Severity, finding};
use crate::app::knock_at_collector;
use crate::config::Config;

/// Returns what is found, and nothing if no telemetry is exported. A collector that cannot be reached is a
/// warning: it costs telemetry and no sign-in.
pub(super) async fn run(config: &Config) -> Option<Finding> {
    let (address, taken) = knock_at_collector(config).await?;
    Some(match taken {
        Ok(()) => finding("telemetry", Severity::Ok, format!("{address} takes telemetry")),
        Err(cause) => {
            let found = format!("{address} takes no telemetry: {cause}");
            let hint = "check telemetry.otlp and telemetry.headers, and that the collector takes OTLP over HTTP (usually port 4318)";
            Finding {
                hint: Some(hint.to_owned()),
                ..finding("telemetry", Severity::Warning, found)
            }
        }
    })
}
