//! The metrics of calls to one MCP server.

use std::borrow::Cow;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::super::families::Histograms;
use super::outcomes::Passed;

/// The name of the histogram of calls by method and kind of error, as it is registered.
pub const MCP_OPERATIONS: &str = "mcp_operation_duration";

/// A method of MCP and a kind of error, which is empty if there was none. Both are from fixed lists.
type Operation = (&'static str, &'static str);

/// The metrics of calls to one MCP server.
pub struct Calls {
    path: Cow<'static, str>,
    outcomes: Vec<Counter>,
    seconds: Histogram,
    /// Of all MCP servers.
    operations: Histograms<3>,
    /// Those of this one that have occurred. A list, because it is short: the lists that they are from have few
    /// members, and most servers answer to three methods.
    known: RwLock<Vec<(Operation, Histogram)>>,
}

impl Calls {
    pub(super) fn new(
        path: Cow<'static, str>,
        outcomes: Vec<Counter>,
        seconds: Histogram,
        operations: Histograms<3>,
    ) -> Self {
        Self { path, outcomes, seconds, operations, known: RwLock::default() }
    }

    /// Records a forwarded call and its duration.
    pub fn passed(&self, outcome: Passed, since: Instant) {
        self.outcomes[outcome as usize].inc();
        self.seconds.observe(since.elapsed().as_secs_f64());
    }

    /// Records a message of MCP, its kind of error (empty: none), and the time until that was known.
    pub fn operation(&self, operation: Operation, since: Instant) {
        let took = since.elapsed().as_secs_f64();
        let is_known = |(known, _): &&(Operation, Histogram)| *known == operation;
        if let Some((_, known)) = self.known.read().iter().find(is_known) {
            known.observe(took);
            return;
        }
        let (method, error) = operation;
        let labels = [
            ("path", self.path.clone()),
            ("method", Cow::Borrowed(method)),
            ("error_type", Cow::Borrowed(error)),
        ];
        let histogram = self.operations.get_or_create_owned(&labels);
        histogram.observe(took);
        let mut known = self.known.write();
        if !known.iter().any(|(other, _)| *other == operation) {
            known.push((operation, histogram));
        }
    }
}
