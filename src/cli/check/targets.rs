//! Checks whether each target of the gateway can be reached, with TLS where it is https. No request is sent.

use super::{Finding, Severity, finding};
use crate::app::{App, CheckedTarget};
use crate::telemetry::metrics::TargetFailure;

const PROBE: &str = "target";

/// Connects to every target of every resource.
pub(super) async fn run(app: &App) -> Vec<Finding> {
    app.knock_at_targets(true).await.into_iter().map(told).collect()
}

fn told(checked: CheckedTarget<'_>) -> Finding {
    let CheckedTarget { resource, target, outcome } = checked;
    let of = resource.path.as_deref().unwrap_or(&resource.id);
    let Err(fault) = outcome else {
        let how = if target.scheme() == "https" { ", and its certificate is trusted" } else { "" };
        return finding(PROBE, Severity::Ok, format!("{of}: {target} accepts connections{how}"));
    };
    let found = format!("{of}: {target} cannot be reached: {}", fault.cause);
    // An MCP server may start later than Portcullis. What is wrong with certificates stays wrong.
    let severity = match fault.failure {
        TargetFailure::Certificate | TargetFailure::ClientCertificate | TargetFailure::Tls => {
            Severity::Failed
        }
        _ => Severity::Warning,
    };
    Finding { hint: Some(hint(fault.failure).to_owned()), ..finding(PROBE, severity, found) }
}

/// Returns how to repair a failure of this class.
const fn hint(failure: TargetFailure) -> &'static str {
    match failure {
        TargetFailure::Name => "correct the host in target, or the DNS of this machine",
        TargetFailure::Certificate => {
            "name the file of its certificate authority in ca, and write the host in target as the certificate does"
        }
        TargetFailure::ClientCertificate => {
            "name a certificate that this MCP server accepts in client_cert, and its key in client_key"
        }
        TargetFailure::Tls => "does this port speak TLS? Otherwise write http:// in target",
        TargetFailure::ConnectTimeout => {
            "look at the network and firewalls between, or raise connect_timeout"
        }
        _ => "start the MCP server, or correct host and port in target",
    }
}
