//! Spans and log lines that wait to be exported. Bounded: what finds no room is dropped and counted, and
//! nobody waits. While there is no room, spans and lines are not even built ([`ExportQueue::has_room_for_spans`]):
//! a collector that is down must not cost processor time for each request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::export_signal::ExportSignal;
use super::super::metrics::Metrics;
use super::super::spans::FinishedSpan;
use super::super::trace_context::TraceContext;

/// Most spans that wait: 4,096, about 2 MiB.
const MOST_SPANS: usize = 4096;
/// Most log lines that wait: 4,096. With `limits.log_line` they are at most 16 MiB, and usually 1 MiB.
const MOST_LINES: usize = 4096;
/// Most spans or lines in one message: 512, as in OpenTelemetry's own exporters.
const BATCH: usize = 512;

/// A line of the log, as standard error gets it.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When it was written, in nanoseconds since the Unix epoch.
    pub at: u64,
    pub level: tracing::Level,
    /// The line, without its line feed.
    pub text: String,
    /// The trace and span in which it was written.
    pub context: Option<TraceContext>,
}

/// How many items there have to be for another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextMessage {
    /// Any.
    Any,
    /// As many as a message takes: fewer wait for company.
    Full,
}

/// What waits to be exported. Cheap to clone.
#[derive(Clone)]
pub struct ExportQueue(Arc<WaitingExports>);

struct WaitingExports {
    spans: QueuedItems<FinishedSpan>,
    lines: QueuedItems<LogLine>,
    metrics: Metrics,
}

/// The items of one kind.
struct QueuedItems<T> {
    signal: ExportSignal,
    /// The most that wait.
    most: usize,
    items: Mutex<VecDeque<T>>,
    /// Whether items found no room since the last ones were taken.
    is_full: AtomicBool,
    /// Signals that a whole message waits.
    message: Notify,
}

impl<T> QueuedItems<T> {
    fn new(signal: ExportSignal, most: usize) -> Self {
        let (items, message) = (Mutex::default(), Notify::new());
        Self { signal, most, items, is_full: AtomicBool::new(false), message }
    }

    fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Adds all of these items, or none if there is no room. Returns whether there was.
    fn add(&self, items: impl ExactSizeIterator<Item = T>) -> bool {
        let mut waiting = self.items.lock();
        if waiting.len() + items.len() > self.most {
            self.is_full.store(true, Ordering::Relaxed); // under the lock, as where it is cleared
            return false;
        }
        waiting.extend(items);
        let makes_a_message = waiting.len() >= BATCH;
        drop(waiting);
        if makes_a_message {
            self.message.notify_one();
        }
        true
    }

    fn take(&self, next: NextMessage) -> Vec<T> {
        let mut waiting = self.items.lock();
        if next == NextMessage::Full && waiting.len() < BATCH {
            return Vec::new();
        }
        self.is_full.store(false, Ordering::Relaxed);
        let most = waiting.len().min(BATCH);
        waiting.drain(..most).collect()
    }

    /// Removes everything, and returns how much that was.
    fn clear(&self) -> (ExportSignal, usize) {
        let waiting = std::mem::take(&mut *self.items.lock());
        (self.signal, waiting.len())
    }
}

impl ExportQueue {
    /// Creates a queue that counts what it drops.
    pub fn new(metrics: Metrics) -> Self {
        let spans = QueuedItems::new(ExportSignal::Traces, MOST_SPANS);
        let lines = QueuedItems::new(ExportSignal::Logs, MOST_LINES);
        Self(Arc::new(WaitingExports { spans, lines, metrics }))
    }

    /// Returns whether spans are of use. If not, they are not built, but counted with [`Self::drop_spans`].
    pub fn has_room_for_spans(&self) -> bool {
        self.0.spans.has_room()
    }

    /// Counts spans that were not built, because there is no room.
    pub fn drop_spans(&self, spans: usize) {
        self.0.metrics.telemetry_dropped(ExportSignal::Traces, spans);
    }

    /// Adds the spans of one request: all of them, or none if there is no room.
    pub fn push_spans(&self, spans: Vec<FinishedSpan>) {
        let count = spans.len();
        if !self.0.spans.add(spans.into_iter()) {
            self.drop_spans(count);
        }
    }

    /// Adds a line of the log, which is built only if there is room.
    pub fn push_line(&self, line: impl FnOnce() -> LogLine) {
        let lines = &self.0.lines;
        if !(lines.has_room() && lines.add(std::iter::once(line()))) {
            self.0.metrics.telemetry_dropped(ExportSignal::Logs, 1);
        }
    }

    /// Takes the spans of the next message; empty if too few wait.
    pub fn take_spans(&self, next: NextMessage) -> Vec<FinishedSpan> {
        self.0.spans.take(next)
    }

    /// Takes the lines of the next message; empty if too few wait.
    pub fn take_lines(&self, next: NextMessage) -> Vec<LogLine> {
        self.0.lines.take(next)
    }

    /// Removes everything, and returns how much that was.
    pub fn clear(&self) -> [(ExportSignal, usize); 2] {
        [self.0.spans.clear(), self.0.lines.clear()]
    }

    /// Waits until the spans of a whole message wait.
    pub async fn message_of_spans(&self) {
        self.0.spans.message.notified().await;
    }

    /// Waits until the lines of a whole message wait.
    pub async fn message_of_lines(&self) {
        self.0.lines.message.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Snapshot;

    fn line(text: &str) -> LogLine {
        LogLine { at: 1, level: tracing::Level::INFO, text: text.to_owned(), context: None }
    }

    fn rest(queue: &ExportQueue, next: NextMessage) -> usize {
        let batches = std::iter::from_fn(|| Some(queue.take_lines(next)).filter(|b| !b.is_empty()));
        batches.map(|batch| batch.len()).sum()
    }

    #[test]
    fn te_03_a_full_queue_drops_and_counts_what_comes_last() {
        let metrics = Metrics::new();
        let queue = ExportQueue::new(metrics.clone());
        for number in 0..=MOST_LINES {
            queue.push_line(|| line(&number.to_string()));
        }
        for _ in 0..2 {
            queue.push_line(|| panic!("a line that finds no room is not built"));
        }

        let text = metrics.text(&Snapshot::default()).unwrap();
        let dropped = "portcullis_telemetry_dropped_total{signal=\"logs\"} 3\n";
        assert!(text.contains(dropped), "{text}");
        let batch = queue.take_lines(NextMessage::Any);
        assert_eq!((batch.len(), batch[0].text.as_str()), (BATCH, "0"));
        queue.push_line(|| line("there is room again"));
        assert_eq!(rest(&queue, NextMessage::Any), MOST_LINES - BATCH + 1);
    }

    #[test]
    fn what_makes_no_whole_message_waits_for_company() {
        let queue = ExportQueue::new(Metrics::new());
        for number in 0..=2 * BATCH {
            queue.push_line(|| line(&number.to_string()));
        }

        assert_eq!(rest(&queue, NextMessage::Full), 2 * BATCH);
        assert_eq!(rest(&queue, NextMessage::Any), 1);
    }
}
