//! Checks the certificate of the listeners, or whether the ACME server answers.

use super::{Finding, Severity, finding};
use crate::app::App;
use crate::certificates::CertificateOrigin;

const PROBE: &str = "tls";

/// Returns what is known of the certificate; `None` without `[tls]`. A certificate that clients would refuse is a
/// warning of the configuration already.
pub(super) async fn run(app: &App) -> Option<Finding> {
    if let Some((CertificateOrigin::Files, expires_at)) = app.certificates().expires_at() {
        let days = expires_at.since(app.now()).as_secs() / 86_400;
        let found = format!("the certificate in tls.cert and its key fit; {days} days are left");
        return Some(finding(PROBE, Severity::Ok, found));
    }
    Some(match app.certificates().try_directory().await? {
        Ok(directory) => {
            let found = format!("the ACME server answers at {directory}");
            finding(PROBE, Severity::Ok, found)
        }
        Err(reason) => Finding {
            hint: Some(
                "without it no certificate is obtained: check tls.acme.directory, tls.acme.ca and the network"
                    .to_owned(),
            ),
            ..finding(PROBE, Severity::Failed, format!("the ACME server cannot be used: {reason}"))
        },
    })
}
