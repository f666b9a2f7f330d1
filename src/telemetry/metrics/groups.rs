//! Metrics that are recorded while requests are served, by subject.

use std::borrow::Cow;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::VariantArray;

use super::super::families::{Counters, Histograms, counters, duration, seconds};
use super::calls::{Calls, MCP_OPERATIONS};
use super::outcomes::{Answered, CertificateOutcome, NotifyOutcome, Passed, Rechecked, RetryCause};

/// Buckets for the number of transactions that share a commit.
const STEPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Requests to the identity provider, messages to administrators, and orders of certificates.
pub(super) struct OutgoingMetrics {
    pub(super) upstream: Vec<Counter>,
    pub(super) upstream_seconds: Histogram,
    pub(super) rechecks: Vec<Counter>,
    pub(super) notified: Vec<Counter>,
    pub(super) certificates: Vec<Counter>,
}

impl OutgoingMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let requests = ("upstream_requests", "Requests to the identity provider, by outcome");
        let rechecks =
            ("rechecks", "Whether the identity provider still vouches for people, by outcome");
        let notified = ("notifications", "Notifications to administrators, by outcome");
        let orders =
            ("certificate_orders", "Orders of certificates at the ACME server, by outcome");
        let took = "How long the identity provider took to answer";
        let outcome = "outcome";
        let answered = Answered::VARIANTS.iter().map(|one| one.word());
        let rechecked = Rechecked::VARIANTS.iter().map(|one| one.word());
        let notify = NotifyOutcome::VARIANTS.iter().map(|one| one.word());
        let ordered = CertificateOutcome::VARIANTS.iter().map(|one| one.word());
        Self {
            upstream: counters(r, requests, outcome, answered),
            upstream_seconds: duration(r, "upstream_duration", took),
            rechecks: counters(r, rechecks, outcome, rechecked),
            notified: counters(r, notified, outcome, notify),
            certificates: counters(r, orders, outcome, ordered),
        }
    }
}

/// What the gateway passes to MCP servers.
pub(super) struct PassedMetrics {
    calls: Counters<2>,
    seconds: Histograms<1>,
    tools: Counters<2>,
    operations: Histograms<3>,
}

impl PassedMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let calls = Counters::<2>::default();
        let help = "Calls that the gateway passed to MCP servers, by path and outcome";
        r.register("gateway_calls", help, calls.clone());
        let durations = Histograms::<1>::new_with_constructor(seconds);
        let help = "Until an MCP server began to answer";
        r.register_with_unit("gateway_duration", help, Unit::Seconds, durations.clone());
        let tools = Counters::<2>::default();
        let help = "Calls of tools through the gateway, by path and outcome";
        r.register("tool_calls", help, tools.clone());
        let operations = Histograms::<3>::new_with_constructor(seconds);
        let help = "Calls of MCP until their answer was read, by path, method and kind of error";
        r.register_with_unit(MCP_OPERATIONS, help, Unit::Seconds, operations.clone());
        Self { calls, seconds: durations, tools, operations }
    }

    /// Returns the metrics of calls to the MCP server at this path.
    pub(super) fn calls(&self, path: &str) -> Calls {
        let path: Cow<'static, str> = Cow::Owned(path.to_owned());
        let outcome = |outcome: &Passed| {
            let labels = [("path", path.clone()), ("outcome", outcome.word().into())];
            self.calls.get_or_create_owned(&labels)
        };
        let seconds = self.seconds.get_or_create_owned(&[("path", path.clone())]);
        let outcomes = Passed::VARIANTS.iter().map(outcome).collect();
        Calls::new(path, outcomes, seconds, self.operations.clone())
    }

    /// Returns the metrics of calls of tools there, in the order of `outcomes`.
    pub(super) fn tools(&self, path: &str, outcomes: &[&'static str]) -> ToolCalls {
        let outcome = |outcome: &&'static str| {
            let path = Cow::Owned(path.to_owned());
            let labels = [("path", path), ("outcome", Cow::Borrowed(*outcome))];
            self.tools.get_or_create_owned(&labels)
        };
        ToolCalls(outcomes.iter().map(outcome).collect())
    }
}

/// The metrics of calls of tools at one MCP server, by outcome.
#[derive(Clone)]
pub struct ToolCalls(Arc<[Counter]>);

impl ToolCalls {
    /// Counts a call. `outcome` is its place in the list that [`Metrics::tool_calls`](super::Metrics::tool_calls)
    /// was called with.
    pub fn ended(&self, outcome: usize) {
        if let Some(counter) = self.0.get(outcome) {
            counter.inc();
        }
    }
}

pub(super) struct TransactionMetrics {
    pub(super) step_wait: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) commit_steps: Histogram,
    pub(super) retries: Vec<Counter>,
}

impl TransactionMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let waited = "Until a step had the writer (SQLite) or a connection (PostgreSQL)";
        let step_wait = duration(r, "step_wait", waited);
        let commit_seconds = duration(r, "commit_duration", "Until a commit was on the disk");
        let commit_steps = Histogram::new(STEPS);
        r.register("commit_steps", "Steps that shared a commit (SQLite)", commit_steps.clone());
        let retried = ("database_retries", "What was repeated on PostgreSQL, by cause");
        let causes = RetryCause::VARIANTS.iter().map(|one| one.word());
        let retries = counters(r, retried, "cause", causes);
        Self { step_wait, commit_seconds, commit_steps, retries }
    }
}
