//! `[telemetry]`: what is exported over OTLP, and where to.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use url::Url;

/// What is exported, and where to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetryConfig {
    /// The base URL of the collector, OTLP over HTTP; `None`: nothing is exported.
    pub otlp: Option<Url>,
    /// Headers of each request to it. Their values are secrets, and marked as such.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Which traces are exported.
    pub traces: TraceSampling,
    /// Whether metrics are exported.
    pub metrics: bool,
    /// Whether the lines of the log are exported.
    pub logs: bool,
    /// What the process says of itself, by attribute, from `OTEL_SERVICE_NAME` and
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: BTreeMap<String, String>,
}

/// Which new traces are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TraceSampling {
    /// The share of them, from 0 to 1.
    pub ratio: f64,
    /// Whether a trace that a trusted proxy began is recorded exactly if the proxy says so.
    pub follows_parent: bool,
}
