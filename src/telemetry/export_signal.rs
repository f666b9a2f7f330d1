//! The kinds of telemetry that are exported.

use strum::{IntoStaticStr, VariantArray};

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum ExportSignal {
    /// Spans.
    #[strum(serialize = "traces")]
    Traces,
    /// The metrics of this process.
    #[strum(serialize = "metrics")]
    Metrics,
    /// Lines of the log.
    #[strum(serialize = "logs")]
    Logs,
}

impl ExportSignal {
    /// Returns the label in metrics, which is also how the path of a collector ends.
    pub fn word(self) -> &'static str {
        self.into()
    }
}
