//! The test of one client, and what it finds.

use url::Url;

use super::clients::ClientProfile;
use super::wire::Wire;
use crate::upstream::probe::{Finding, Severity};

/// The test of one client.
pub(super) struct Visit<'a> {
    pub(super) client: &'static ClientProfile,
    pub(super) mcp: &'a Url,
    pub(super) wire: &'a mut Wire,
    pub(super) findings: Vec<Finding>,
}

impl Visit<'_> {
    pub(super) fn ok(&mut self, probe: &'static str, found: impl Into<String>) {
        self.findings.push(Finding {
            probe,
            severity: Severity::Ok,
            found: found.into(),
            hint: None,
        });
    }

    pub(super) fn warn(&mut self, probe: &'static str, found: impl Into<String>, hint: &str) {
        let hint = Some(hint.to_owned());
        self.findings.push(Finding {
            probe,
            severity: Severity::Warning,
            found: found.into(),
            hint,
        });
    }

    pub(super) fn fail(&mut self, probe: &'static str, found: impl Into<String>, hint: &str) {
        let hint = Some(hint.to_owned());
        self.findings.push(Finding {
            probe,
            severity: Severity::Failed,
            found: found.into(),
            hint,
        });
    }
}
