//! The trace of a request, while it is served. Everything that serves the request finds it in the task: the
//! server sets it ([`within`]), and the database, the requests to the identity provider and the gateway add
//! spans ([`child`]).
//!
//! The spans of a request are kept with it until it ends, because only then is it certain which trace they
//! belong to: a step of a sign-in learns from what it reads that it continues the trace of the step before,
//! and a call of an MCP server learns it from the body. Without telemetry nothing is set, and each place costs
//! a look at the task.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::export::ExportQueue;
use super::spans::{FinishedSpan, SpanAttribute, SpanKind, SpanValue};
use super::trace_context::TraceContext;
use crate::clock::Clock;
use crate::config::TraceSampling;

/// Most spans below that of a request: 64. A request that reads and writes more is seen in part.
const MOST_CHILDREN: usize = 64;
/// Most links of a request: those of the message and of the header, and one more.
const MOST_LINKS: usize = 3;

tokio::task_local! {
    static CURRENT: RequestTrace;
}

/// Whether a new trace is recorded. Decides as `TraceIdRatioBased` of OpenTelemetry does, so that all
/// services keep the same traces.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the ratio is from 0 to 1, and the exact bound does not matter"
)]
fn takes(sampling: TraceSampling, trace: [u8; 16]) -> bool {
    let low = u128::from_be_bytes(trace) as u64; // the last half, which is always random
    let random = low >> 1;
    let bound = (sampling.ratio * (1_u64 << 63) as f64) as u64;
    random < bound
}

/// How a request begins its trace.
pub struct TraceStart<'a> {
    /// Where its spans go.
    pub queue: &'a ExportQueue,
    /// Which traces are recorded.
    pub sampling: TraceSampling,
    /// Whether a `traceparent` that comes with the request is its parent; otherwise it becomes a link.
    pub trusted: bool,
    /// Whether spans are kept although the trace is not recorded so far: the request may turn out to continue
    /// a trace that is.
    pub undecided: bool,
}

/// The trace of a request. Its spans are queued for export when the last copy of this is dropped.
#[derive(Clone)]
pub struct RequestTrace(Arc<TraceParts>);

struct TraceParts {
    queue: ExportQueue,
    sampling: TraceSampling,
    trusted: bool,
    undecided: bool,
    begun: u64,
    state: Mutex<TraceState>,
}

struct TraceState {
    /// The trace, and the span of the request.
    context: TraceContext,
    parent: Option<[u8; 8]>,
    links: Vec<TraceContext>,
    name: Cow<'static, str>,
    attributes: Vec<SpanAttribute>,
    failed: bool,
    children: Vec<FinishedSpan>,
}

impl RequestTrace {
    /// Begins the trace of a request.
    pub fn begin(start: &TraceStart<'_>, name: String, attributes: Vec<SpanAttribute>) -> Self {
        let mut context = TraceContext::generate();
        context.sampled = takes(start.sampling, context.trace);
        let state = TraceState {
            context,
            parent: None,
            links: Vec::new(),
            name: Cow::Owned(name),
            attributes,
            failed: false,
            children: Vec::new(),
        };
        Self(Arc::new(TraceParts {
            queue: start.queue.clone(),
            sampling: start.sampling,
            trusted: start.trusted,
            undecided: start.undecided,
            begun: Clock::real_nanos(),
            state: Mutex::new(state),
        }))
    }

    /// Takes note of a `traceparent` that came with the request. That of a trusted proxy becomes the parent,
    /// instead of an earlier one: that of an MCP message says more than that of the header before it. That of a
    /// stranger, who may have made it up, becomes a link. An invalid one is ignored.
    pub fn offered(&self, traceparent: &str) {
        let Some(context) = TraceContext::parse(traceparent) else { return };
        if self.0.trusted {
            self.continues(context);
            return;
        }
        let mut state = self.0.state.lock();
        if state.links.len() < MOST_LINKS && !state.links.contains(&context) {
            state.links.push(context);
        }
    }

    /// Continues the trace of an earlier step of the same sign-in.
    pub fn continues(&self, context: TraceContext) {
        let mut state = self.0.state.lock();
        let TraceState { context: own, parent, links, .. } = &mut *state;
        // What was its parent before is still shown, as a link.
        if let Some(span) = parent.filter(|_| own.trace != context.trace)
            && links.len() < MOST_LINKS
        {
            links.push(TraceContext { span, ..*own });
        }
        own.trace = context.trace;
        *parent = Some(context.span);
        state.context.sampled = if self.0.sampling.follows_parent {
            context.sampled
        } else {
            takes(self.0.sampling, context.trace)
        };
    }

    /// Whether it continues a trace.
    pub fn is_continued(&self) -> bool {
        self.0.state.lock().parent.is_some()
    }

    /// The trace and the span of the request.
    pub fn context(&self) -> TraceContext {
        self.0.state.lock().context
    }

    /// Whether attributes and spans are of use.
    pub fn records(&self) -> bool {
        self.0.undecided || self.0.state.lock().context.sampled
    }

    pub fn name(&self) -> Cow<'static, str> {
        self.0.state.lock().name.clone()
    }

    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        self.0.state.lock().name = name.into();
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<SpanValue>) {
        set(&mut self.0.state.lock().attributes, name, value.into());
    }

    /// Removes an attribute.
    pub fn unset(&self, name: &'static str) {
        self.0.state.lock().attributes.retain(|(known, _)| *known != name);
    }

    /// Marks it as failed, for this reason.
    pub fn fail(&self, error: impl Into<SpanValue>) {
        let mut state = self.0.state.lock();
        state.failed = true;
        set(&mut state.attributes, "error.type", error.into());
    }
}

impl Drop for TraceParts {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if !state.context.sampled {
            return;
        }
        let mut spans = std::mem::take(&mut state.children);
        for span in &mut spans {
            // They began before it was certain which trace this is.
            span.context.trace = state.context.trace;
            span.context.sampled = true;
        }
        spans.push(FinishedSpan {
            context: state.context,
            parent: state.parent,
            name: std::mem::take(&mut state.name),
            kind: SpanKind::Server,
            time: (self.begun, Clock::real_nanos().max(self.begun)),
            attributes: std::mem::take(&mut state.attributes),
            failed: state.failed,
            links: std::mem::take(&mut state.links),
        });
        self.queue.push_spans(spans);
    }
}

fn set(attributes: &mut Vec<SpanAttribute>, name: &'static str, value: SpanValue) {
    match attributes.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => attributes.push((name, value)),
    }
}

/// A span below that of the request. It ends when it is dropped. Boxed, because futures keep it, and most
/// requests have none.
pub struct OpenSpan(Box<OpenSpanParts>);

struct OpenSpanParts {
    trace: RequestTrace,
    span: FinishedSpan,
}

impl OpenSpan {
    /// The trace and this span.
    pub fn context(&self) -> TraceContext {
        TraceContext { span: self.0.span.context.span, ..self.0.trace.context() }
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        set(&mut self.0.span.attributes, name, value.into());
    }

    /// Marks it as failed, for this reason.
    pub fn fail(&mut self, error: impl Into<SpanValue>) {
        self.0.span.failed = true;
        self.set("error.type", error);
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let mut span = self.0.span.clone();
        span.time.1 = Clock::real_nanos().max(span.time.0);
        let mut state = self.0.trace.0.state.lock();
        if state.children.len() < MOST_CHILDREN {
            state.children.push(span);
        }
    }
}

/// Returns the trace of the request that this task serves; `None` without telemetry.
pub fn current() -> Option<RequestTrace> {
    CURRENT.try_with(RequestTrace::clone).ok()
}

/// Returns where the trace of this request is, for a later request that continues it; `None` if it is not
/// recorded.
pub fn carried() -> Option<String> {
    let context = current()?.context();
    context.sampled.then(|| context.to_string())
}

/// Continues the trace that [`carried`] returned in an earlier step.
pub fn continue_from(carried: Option<&str>) {
    if let Some(context) = carried.and_then(TraceContext::parse)
        && let Some(trace) = current()
    {
        trace.continues(context);
    }
}

/// Begins a span below that of the request; `None` if its trace is not recorded.
pub fn child(name: impl Into<Cow<'static, str>>) -> Option<OpenSpan> {
    let trace = current().filter(RequestTrace::records)?;
    let parent = Some(trace.context().span);
    let begun = Clock::real_nanos();
    let span = FinishedSpan {
        context: TraceContext::generate(),
        parent,
        name: name.into(),
        kind: SpanKind::Client,
        time: (begun, begun),
        attributes: Vec::new(),
        failed: false,
        links: Vec::new(),
    };
    Some(OpenSpan(Box::new(OpenSpanParts { trace, span })))
}

/// Runs a future as part of serving the request of `trace`, if there is one.
pub fn within<F: Future + Unpin>(trace: Option<RequestTrace>, future: F) -> WithinTrace<F> {
    WithinTrace { trace, future }
}

/// A future that finds the trace of its request while it runs.
pub struct WithinTrace<F> {
    trace: Option<RequestTrace>,
    future: F,
}

impl<F: Future + Unpin> Future for WithinTrace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { trace, future } = &mut *self;
        match trace {
            None => Pin::new(future).poll(context),
            Some(trace) => CURRENT.sync_scope(trace.clone(), || Pin::new(future).poll(context)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn begin(queue: &ExportQueue, trusted: bool, ratio: f64) -> RequestTrace {
        let sampling = TraceSampling { ratio, follows_parent: true };
        let start = TraceStart { queue, sampling, trusted, undecided: false };
        RequestTrace::begin(&start, "GET /x".to_owned(), Vec::new())
    }

    #[test]
    fn a_ratio_takes_about_so_many_and_always_the_same() {
        let taken = |ratio: f64| {
            let sampling = TraceSampling { ratio, follows_parent: true };
            let traces = (0..1000).map(|_| TraceContext::generate().trace);
            let both = traces.map(|trace| (takes(sampling, trace), takes(sampling, trace)));
            both.filter(|(one, other)| {
                assert_eq!(one, other);
                *one
            })
            .count()
        };
        assert_eq!((taken(0.0), taken(1.0)), (0, 1000));
        let some = taken(0.1);
        assert!((30..=250).contains(&some), "{some}");
    }

    #[tokio::test]
    async fn spans_follow_their_request_into_the_trace_that_it_continues() {
        let queue = ExportQueue::new(Metrics::new());
        let trace = begin(&queue, false, 1.0);
        let before = trace.context();
        let earlier = TraceContext { sampled: true, ..TraceContext::generate() };
        let serving = std::pin::pin!(async {
            drop(child("early"));
            continue_from(Some(&earlier.to_string()));
            drop(child("late"));
        });
        within(Some(trace.clone()), serving).await;
        assert!(current().is_none());
        drop(trace);

        let spans = queue.take_spans();
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["early", "late", "GET /x"]);
        assert!(spans.iter().all(|span| span.context.trace == earlier.trace));
        assert!(spans[..2].iter().all(|span| span.parent == Some(before.span)));
        assert_eq!(spans[2].parent, Some(earlier.span));
    }

    #[test]
    fn te_02_a_strangers_trace_is_a_link_and_decides_nothing() {
        let queue = ExportQueue::new(Metrics::new());
        let theirs = TraceContext { sampled: true, ..TraceContext::generate() };
        let of_nobody = begin(&queue, false, 0.0);
        of_nobody.offered(&theirs.to_string());
        drop(of_nobody);
        assert!(queue.take_spans().is_empty(), "a stranger makes nothing be recorded");

        let recorded = begin(&queue, false, 1.0);
        recorded.offered(&theirs.to_string());
        recorded.offered("nonsense");
        drop(recorded);
        let span = queue.take_spans().remove(0);
        assert_eq!((span.links, span.parent), (vec![theirs], None));
        assert_ne!(span.context.trace, theirs.trace);

        let of_a_proxy = begin(&queue, true, 0.0);
        of_a_proxy.offered(&theirs.to_string());
        drop(of_a_proxy);
        let span = queue.take_spans().remove(0);
        assert_eq!((span.context.trace, span.parent), (theirs.trace, Some(theirs.span)));
    }
}
