//! The trace of a request, while it is served. Everything that serves the request finds it in the task: the
//! server sets it ([`within`]), and the database, the requests to the identity provider and the gateway add
//! spans ([`child`]).
//!
//! Whether a trace is recorded is decided when the request begins. Of one that is not, the task holds only the
//! ids, which the MCP server gets: no span is built, and nothing is allocated. Without telemetry nothing is set,
//! and each place costs a look at the task.
//!
//! The spans of a recorded request are kept with it until it ends, because only then is it certain which trace
//! they belong to: a step of a sign-in learns from what it reads that it continues the trace of the step before,
//! and a call of an MCP server learns it from the body.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::export::ExportQueue;
use super::spans::{FinishedSpan, SpanAttribute, SpanKind, SpanValue};
use super::trace_context::TraceContext;
use crate::clock::Clock;
use crate::config::TraceSampling;

/// Most spans below that of a request: 64. A request that reads and writes more is seen in part.
const MOST_CHILDREN: usize = 64;
/// Most links of a request: those of the message and of the header, and one more.
const MOST_LINKS: usize = 3;
/// Attributes that the span of a request usually gets: 12.
const USUAL_ATTRIBUTES: usize = 12;

tokio::task_local! {
    static CURRENT: RefCell<RequestTrace>;
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

/// What the span of a request says from its beginning, and where it goes.
#[derive(Clone, Copy)]
pub struct RequestSpan<'a> {
    pub queue: &'a ExportQueue,
    /// The method, in the words of the conventions.
    pub method: &'static str,
    /// The pattern of the route.
    pub route: &'a str,
    /// The listener that the request came through.
    pub listener: &'static str,
}

/// How a request begins its trace.
#[derive(Clone, Copy, Debug)]
pub struct TraceStart {
    /// When the request began.
    pub begun: Instant,
    /// Which traces are recorded.
    pub sampling: TraceSampling,
    /// Whether a `traceparent` that comes with the request is its parent; otherwise it becomes a link.
    pub trusted: bool,
    /// Whether spans are kept although the trace is not recorded so far: the request may turn out to continue
    /// a trace that is.
    pub undecided: bool,
}

/// The trace of a request, as the task that serves it holds it.
#[derive(Clone)]
pub enum RequestTrace {
    /// No spans are kept.
    Unrecorded(UnrecordedTrace),
    /// Spans are kept.
    Recorded(RecordedTrace),
}

/// Where a request is in a trace.
#[derive(Clone, Copy, Debug)]
pub struct TracePlace {
    /// The trace, and the span of the request.
    pub context: TraceContext,
    /// The span above that of the request.
    parent: Option<[u8; 8]>,
}

impl TracePlace {
    /// Whether the trace was begun elsewhere.
    pub fn is_continued(&self) -> bool {
        self.parent.is_some()
    }

    /// Moves the request into the trace of `context`, below its span. Returns what was its parent before, if that
    /// is in another trace.
    fn move_below(
        &mut self,
        context: TraceContext,
        sampling: TraceSampling,
    ) -> Option<TraceContext> {
        let before = self.parent.filter(|_| self.context.trace != context.trace);
        let before = before.map(|span| TraceContext { span, ..self.context });
        self.parent = Some(context.span);
        self.context.trace = context.trace;
        self.context.sampled =
            if sampling.follows_parent { context.sampled } else { takes(sampling, context.trace) };
        before
    }
}

/// The trace of a request of which no spans are kept: it is not recorded, or there is no room for its spans.
#[derive(Clone)]
pub struct UnrecordedTrace {
    place: TracePlace,
    start: TraceStart,
    /// Counts its spans, if there is only no room for them.
    dropping: Option<ExportQueue>,
}

impl UnrecordedTrace {
    /// Begins to record, if the trace is recorded and there is room. `link`: a span of another trace that the
    /// request belongs to as well.
    fn settle(
        mut self,
        span: &RequestSpan<'_>,
        link: Option<TraceContext>,
        undecided: bool,
    ) -> RequestTrace {
        let sampled = self.place.context.sampled;
        self.dropping = self.dropping.filter(|_| sampled);
        if self.dropping.is_some() {
            // The span of the request is counted already.
        } else if sampled && !span.queue.has_room_for_spans() {
            span.queue.drop_spans(1); // that of the request
            self.dropping = Some(span.queue.clone());
        } else if sampled || undecided {
            return RequestTrace::Recorded(RecordedTrace::of(&self, span, link, undecided));
        }
        RequestTrace::Unrecorded(self)
    }

    /// Takes note that a span is not built.
    fn pass_over(&self) {
        if let Some(queue) = &self.dropping {
            queue.drop_spans(1);
        }
    }
}

impl RequestTrace {
    /// Begins the trace of a request, and decides whether it is recorded. `traceparent`: that of its header. That
    /// of a trusted proxy becomes the parent. That of a stranger, who may have made it up, becomes a link. An
    /// invalid one is ignored.
    pub fn begin(start: TraceStart, span: &RequestSpan<'_>, traceparent: Option<&str>) -> Self {
        let mut context = TraceContext::generate();
        context.sampled = takes(start.sampling, context.trace);
        let mut place = TracePlace { context, parent: None };
        let mut link = None;
        if start.trusted || start.undecided || context.sampled {
            let offered = traceparent.and_then(TraceContext::parse);
            match offered {
                Some(offered) if start.trusted => _ = place.move_below(offered, start.sampling),
                offered => link = offered,
            }
        }
        UnrecordedTrace { place, start, dropping: None }.settle(span, link, start.undecided)
    }

    fn place(&self) -> TracePlace {
        match self {
            Self::Unrecorded(trace) => trace.place,
            Self::Recorded(trace) => trace.0.state.lock().place,
        }
    }
}

/// A trace that is recorded, or that may turn out to be. Its spans are queued for export when the last copy of
/// this is dropped.
#[derive(Clone)]
pub struct RecordedTrace(Arc<TraceParts>);

struct TraceParts {
    queue: ExportQueue,
    sampling: TraceSampling,
    trusted: bool,
    undecided: bool,
    begun: u64,
    state: Mutex<TraceState>,
}

struct TraceState {
    place: TracePlace,
    links: Vec<TraceContext>,
    name: Cow<'static, str>,
    attributes: Vec<SpanAttribute>,
    failed: bool,
    children: Vec<FinishedSpan>,
}

impl RecordedTrace {
    fn of(
        trace: &UnrecordedTrace,
        span: &RequestSpan<'_>,
        link: Option<TraceContext>,
        undecided: bool,
    ) -> Self {
        count_built();
        let RequestSpan { queue, method, route, listener } = *span;
        let TraceStart { begun, sampling, trusted, .. } = trace.start;
        let so_far = u64::try_from(begun.elapsed().as_nanos()).unwrap_or_default();
        let mut attributes = Vec::with_capacity(USUAL_ATTRIBUTES);
        attributes.push(("http.request.method", method.into()));
        attributes.push(("http.route", route.to_owned().into()));
        attributes.push(("portcullis.listener", listener.into()));
        let state = TraceState {
            place: trace.place,
            links: link.into_iter().collect(),
            name: Cow::Owned(format!("{method} {route}")),
            attributes,
            failed: false,
            children: Vec::new(),
        };
        Self(Arc::new(TraceParts {
            queue: queue.clone(),
            sampling,
            trusted,
            undecided,
            begun: Clock::real_nanos().saturating_sub(so_far),
            state: Mutex::new(state),
        }))
    }

    /// Takes note of a `traceparent` in a message. It counts before that of the header, because it says more.
    fn offered(&self, context: TraceContext) {
        if self.0.trusted {
            self.continues(context);
            return;
        }
        let mut state = self.0.state.lock();
        if state.links.len() < MOST_LINKS && !state.links.contains(&context) {
            state.links.push(context);
        }
    }

    /// Continues another trace.
    fn continues(&self, context: TraceContext) {
        let mut state = self.0.state.lock();
        // What was its parent before is still shown, as a link.
        let before = state.place.move_below(context, self.0.sampling);
        if state.links.len() < MOST_LINKS {
            state.links.extend(before);
        }
    }

    /// Whether attributes and spans are of use.
    pub fn records(&self) -> bool {
        self.0.undecided || self.0.state.lock().place.context.sampled
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
        let TracePlace { context, parent } = state.place;
        if !context.sampled {
            return;
        }
        let mut spans = std::mem::take(&mut state.children);
        for span in &mut spans {
            // They began before it was certain which trace this is.
            span.context.trace = context.trace;
            span.context.sampled = true;
        }
        spans.push(FinishedSpan {
            context,
            parent,
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
    trace: RecordedTrace,
    /// Its own id, in the trace as that was when it began.
    context: TraceContext,
    parent: [u8; 8],
    name: Cow<'static, str>,
    begun: u64,
    attributes: Vec<SpanAttribute>,
    failed: bool,
}

impl OpenSpan {
    /// The trace and this span.
    pub fn context(&self) -> TraceContext {
        let of_request = self.0.trace.0.state.lock().place.context;
        TraceContext { span: self.0.context.span, ..of_request }
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        set(&mut self.0.attributes, name, value.into());
    }

    /// Marks it as failed, for this reason.
    pub fn fail(&mut self, error: impl Into<SpanValue>) {
        self.0.failed = true;
        self.set("error.type", error);
    }
}

impl Drop for OpenSpanParts {
    fn drop(&mut self) {
        let span = FinishedSpan {
            context: self.context,
            parent: Some(self.parent),
            name: std::mem::take(&mut self.name),
            kind: SpanKind::Client,
            time: (self.begun, Clock::real_nanos().max(self.begun)),
            attributes: std::mem::take(&mut self.attributes),
            failed: self.failed,
            links: Vec::new(),
        };
        let mut state = self.trace.0.state.lock();
        if state.children.len() < MOST_CHILDREN {
            state.children.push(span);
        }
    }
}

/// Returns the trace of the request that this task serves, for a task of its own that serves it as well; `None`
/// without telemetry.
pub fn current() -> Option<RequestTrace> {
    CURRENT.try_with(|current| current.borrow().clone()).ok()
}

/// Returns the trace of the request, if spans of it are kept.
pub fn recorded() -> Option<RecordedTrace> {
    let recorded = |current: &RefCell<RequestTrace>| match &*current.borrow() {
        RequestTrace::Recorded(trace) => Some(trace.clone()),
        RequestTrace::Unrecorded(_) => None,
    };
    CURRENT.try_with(recorded).ok()?
}

/// Returns where the request is in its trace; `None` without telemetry.
pub fn place() -> Option<TracePlace> {
    CURRENT.try_with(|current| current.borrow().place()).ok()
}

/// Returns where the trace of this request is, for a later request that continues it; `None` if it is not
/// recorded.
pub fn carried() -> Option<String> {
    let context = place()?.context;
    context.sampled.then(|| context.to_string())
}

/// Continues the trace that [`carried`] returned in an earlier step.
pub fn continue_from(carried: Option<&str>) {
    let Some(context) = carried.and_then(TraceContext::parse) else { return };
    let _ = CURRENT.try_with(|current| match &mut *current.borrow_mut() {
        RequestTrace::Recorded(trace) => trace.continues(context),
        RequestTrace::Unrecorded(trace) => {
            trace.place.move_below(context, trace.start.sampling);
        }
    });
}

/// Keeps spans from now on although the trace of the request is not recorded so far, because the request may turn
/// out to continue one that is.
pub fn may_continue(span: &RequestSpan<'_>) {
    replace_unrecorded(|trace| trace.clone().settle(span, None, true));
}

/// Whether a `traceparent` in a message of the request counts.
pub fn is_open_to_offers() -> bool {
    let is_open = |current: &RefCell<RequestTrace>| match &*current.borrow() {
        RequestTrace::Recorded(_) => true,
        RequestTrace::Unrecorded(trace) => trace.start.trusted,
    };
    CURRENT.try_with(is_open).unwrap_or(false)
}

/// Takes note of a `traceparent` that came in a message of the request: a parent or a link, as that of the header.
/// If the request belongs to a recorded trace by it, `span` is recorded from now on.
pub fn offered(traceparent: &str, span: &RequestSpan<'_>) {
    let Some(context) = TraceContext::parse(traceparent) else { return };
    match recorded() {
        Some(trace) => trace.offered(context),
        None => replace_unrecorded(|trace| {
            let mut moved = trace.clone();
            if !moved.start.trusted {
                return RequestTrace::Unrecorded(moved);
            }
            let link = moved.place.move_below(context, moved.start.sampling);
            moved.settle(span, link, false)
        }),
    }
}

/// Replaces the trace of the request, if no spans of it are kept.
fn replace_unrecorded(replacement: impl FnOnce(&UnrecordedTrace) -> RequestTrace) {
    let _ = CURRENT.try_with(|current| {
        let mut current = current.borrow_mut();
        if let RequestTrace::Unrecorded(trace) = &*current {
            *current = replacement(trace);
        }
    });
}

/// Begins a span below that of the request; `None` if its trace is not recorded.
pub fn child(name: &'static str) -> Option<OpenSpan> {
    begin_child(|_| Cow::Borrowed(name))
}

/// Begins a span below that of the request, with the name that this one has so far.
pub fn child_of_same_name() -> Option<OpenSpan> {
    begin_child(|of_request| of_request.name.clone())
}

fn begin_child(name: impl FnOnce(&TraceState) -> Cow<'static, str>) -> Option<OpenSpan> {
    let recorded = |current: &RefCell<RequestTrace>| match &*current.borrow() {
        RequestTrace::Recorded(trace) => Some(trace.clone()),
        RequestTrace::Unrecorded(trace) => {
            trace.pass_over();
            None
        }
    };
    let trace = CURRENT.try_with(recorded).ok()??;
    let (of_request, name) = {
        let state = trace.0.state.lock();
        let context = state.place.context;
        if !(trace.0.undecided || context.sampled) {
            return None;
        }
        (context, name(&state))
    };
    count_built();
    Some(OpenSpan(Box::new(OpenSpanParts {
        trace,
        context: of_request.next_span(),
        parent: of_request.span,
        name,
        begun: Clock::real_nanos(),
        attributes: Vec::new(),
        failed: false,
    })))
}

/// Counts the spans that tests have built on this thread.
fn count_built() {
    #[cfg(test)]
    tests::BUILT.set(tests::BUILT.get() + 1);
}

/// Runs a future as part of serving the request of `trace`, if there is one. The future is pinned, so that it is
/// not kept twice.
pub async fn within<F: Future + Unpin>(trace: Option<RequestTrace>, future: F) -> F::Output {
    match trace {
        None => future.await,
        Some(trace) => CURRENT.scope(RefCell::new(trace), future).await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::telemetry::export::NextMessage;
    use crate::telemetry::metrics::{Metrics, Snapshot};

    thread_local! {
        /// How many spans were begun.
        pub(super) static BUILT: Cell<usize> = const { Cell::new(0) };
    }

    fn span(queue: &ExportQueue) -> RequestSpan<'_> {
        RequestSpan { queue, method: "GET", route: "/x", listener: "public" }
    }

    fn start(trusted: bool, ratio: f64) -> TraceStart {
        let sampling = TraceSampling { ratio, follows_parent: true };
        TraceStart { begun: Instant::now(), sampling, trusted, undecided: false }
    }

    /// Returns the spans of a request with this header, in which this happens.
    async fn spans_of(
        queue: &ExportQueue,
        start: TraceStart,
        header: Option<TraceContext>,
        serving: impl Future<Output = ()>,
    ) -> Vec<FinishedSpan> {
        let header = header.map(|header| header.to_string());
        let trace = RequestTrace::begin(start, &span(queue), header.as_deref());
        within(Some(trace), std::pin::pin!(serving)).await;
        assert!(current().is_none());
        queue.take_spans(NextMessage::Any)
    }

    fn sampled() -> TraceContext {
        TraceContext { sampled: true, ..TraceContext::generate() }
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
        let (earlier, own) = (sampled(), Cell::new(None));
        let spans = spans_of(&queue, start(false, 1.0), None, async {
            own.set(place().map(|place| place.context.span));
            drop(child("early"));
            continue_from(Some(&earlier.to_string()));
            drop(child("late"));
        });
        let spans = spans.await;

        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["early", "late", "GET /x"]);
        assert!(spans.iter().all(|span| span.context.trace == earlier.trace));
        assert!(own.get().is_some() && spans[..2].iter().all(|span| span.parent == own.get()));
        assert_eq!(spans[2].parent, Some(earlier.span));
    }

    #[tokio::test]
    async fn te_02_a_strangers_trace_is_a_link_and_decides_nothing() {
        let queue = ExportQueue::new(Metrics::new());
        let theirs = sampled();
        let of_nobody = spans_of(&queue, start(false, 0.0), Some(theirs), async {
            offered(&theirs.to_string(), &span(&queue));
        });
        assert!(of_nobody.await.is_empty(), "a stranger makes nothing be recorded");

        let message = sampled();
        let recorded = spans_of(&queue, start(false, 1.0), Some(theirs), async {
            offered(&message.to_string(), &span(&queue));
            offered("nonsense", &span(&queue));
        });
        let recorded = recorded.await.remove(0);
        assert_eq!((recorded.links, recorded.parent), (vec![theirs, message], None));
        assert_ne!(recorded.context.trace, theirs.trace);

        let of_a_proxy = spans_of(&queue, start(true, 0.0), Some(theirs), async {}).await.remove(0);
        let (trace, parent) = (of_a_proxy.context.trace, of_a_proxy.parent);
        assert_eq!((trace, parent), (theirs.trace, Some(theirs.span)));
    }

    #[tokio::test]
    async fn a_request_that_is_not_recorded_builds_no_span_and_knows_its_place() {
        let queue = ExportQueue::new(Metrics::new());
        let unsampled = TraceContext::generate();
        for (start, header) in [
            (start(false, 0.0), None),
            (start(false, 0.0), Some(sampled())),
            (start(true, 0.0), None),
            (start(true, 1.0), Some(unsampled)),
        ] {
            let spans = spans_of(&queue, start, header, async {
                assert!(child("read").is_none() && child_of_same_name().is_none());
                assert!(recorded().is_none() && carried().is_none());
                let place = place().unwrap();
                assert!(!place.context.sampled);
                let expected = header.filter(|_| start.trusted).map(|header| header.trace);
                assert_eq!(place.is_continued(), expected.is_some());
                assert!(expected.is_none_or(|trace| trace == place.context.trace));
            });
            assert!(spans.await.is_empty());
            assert_eq!(BUILT.get(), 0, "{start:?}");
        }
        spans_of(&queue, start(false, 1.0), None, async { drop(child("read")) }).await;
        assert_eq!(BUILT.get(), 2, "the counter counts");
    }

    #[tokio::test]
    async fn te_03_spans_that_find_no_room_are_counted_and_not_built() {
        let metrics = Metrics::new();
        let queue = ExportQueue::new(metrics.clone());
        let fill = async { (0..MOST_CHILDREN).for_each(|_| drop(child("read"))) };
        let trace = || RequestTrace::begin(start(false, 1.0), &span(&queue), None);
        within(Some(trace()), std::pin::pin!(fill)).await;
        while queue.has_room_for_spans() {
            drop(trace());
        }
        let dropped = || {
            let text = metrics.text(&Snapshot::default()).unwrap();
            let (_, count) = text.split_once("dropped_total{signal=\"traces\"} ").unwrap();
            count.split_once('\n').unwrap().0.parse::<usize>().unwrap()
        };
        let (before, built) = (dropped(), BUILT.get());
        let theirs = sampled();
        let serving = async {
            assert!(child("read").is_none());
            offered(&theirs.to_string(), &span(&queue));
            may_continue(&span(&queue));
            assert!(child("read").is_none() && recorded().is_none());
            let context = place().unwrap().context;
            assert!(context.sampled && context.trace == theirs.trace, "others may have room");
        };
        let trusted = RequestTrace::begin(start(true, 1.0), &span(&queue), None);
        within(Some(trusted), std::pin::pin!(serving)).await;

        assert_eq!((dropped() - before, BUILT.get() - built), (3, 0));
        queue.take_spans(NextMessage::Any);
        drop(trace());
        assert_eq!(BUILT.get() - built, 1, "there is room again");
    }

    #[tokio::test]
    async fn a_message_from_a_trusted_proxy_begins_and_ends_the_recording() {
        let queue = ExportQueue::new(Metrics::new());
        let (header, message) = (TraceContext::generate(), sampled());
        let spans = spans_of(&queue, start(true, 0.0), Some(header), async {
            assert!(child("early").is_none() && is_open_to_offers());
            offered(&message.to_string(), &span(&queue));
            drop(child("late"));
        });
        let spans = spans.await;
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["late", "GET /x"]);
        assert_eq!((spans[1].context.trace, spans[1].parent), (message.trace, Some(message.span)));
        assert_eq!(spans[1].links, [header], "what was its parent before");

        let not_recorded = TraceContext { sampled: false, ..message };
        let spans = spans_of(&queue, start(true, 0.0), Some(sampled()), async {
            offered(&not_recorded.to_string(), &span(&queue));
            assert!(child("late").is_none());
        });
        assert!(spans.await.is_empty());
    }

    #[tokio::test]
    async fn a_request_that_may_continue_a_trace_keeps_its_spans_until_it_knows() {
        let queue = ExportQueue::new(Metrics::new());
        let earlier = sampled();
        for continued in [Some(earlier.to_string()), None] {
            let spans = spans_of(&queue, start(false, 0.0), None, async {
                assert!(child("before").is_none());
                may_continue(&span(&queue));
                drop(child("early"));
                continue_from(continued.as_deref());
            });
            let spans = spans.await;
            let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
            let expected: &[&str] = if continued.is_some() { &["early", "GET /x"] } else { &[] };
            assert_eq!(names, expected);
            assert!(spans.iter().all(|span| span.context.trace == earlier.trace));
        }
    }
}
