//! Export over OTLP: what waits to be sent, and the messages that carry it. `app/exporter.rs` sends them.

mod encode;
mod messages;
mod metrics;
mod queue;

pub use encode::{ExportResource, no_spans, rejected};
pub use queue::{ExportQueue, LogLine, NextMessage};
