//! Spans and log lines that wait to be exported. Bounded: what finds no room is dropped and counted, and
//! nobody waits.

use std::collections::VecDeque;
use std::sync::Arc;

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

/// What waits to be exported. Cheap to clone.
#[derive(Clone)]
pub struct ExportQueue(Arc<WaitingExports>);

struct WaitingExports {
    spans: Mutex<VecDeque<FinishedSpan>>,
    lines: Mutex<VecDeque<LogLine>>,
    /// Signals that a whole batch waits.
    full: Notify,
    metrics: Metrics,
}

impl ExportQueue {
    /// Creates a queue that counts what it drops.
    pub fn new(metrics: Metrics) -> Self {
        let (spans, lines, full) = (Mutex::default(), Mutex::default(), Notify::new());
        Self(Arc::new(WaitingExports { spans, lines, full, metrics }))
    }

    /// Adds the spans of one request: all of them, or none if there is no room.
    pub fn push_spans(&self, spans: Vec<FinishedSpan>) {
        let mut waiting = self.0.spans.lock();
        if waiting.len() + spans.len() > MOST_SPANS {
            drop(waiting);
            self.0.metrics.telemetry_dropped(ExportSignal::Traces, spans.len());
            return;
        }
        waiting.extend(spans);
        let is_full = waiting.len() >= BATCH;
        drop(waiting);
        if is_full {
            self.0.full.notify_one();
        }
    }

    /// Adds a line of the log.
    pub fn push_line(&self, line: LogLine) {
        let mut waiting = self.0.lines.lock();
        if waiting.len() >= MOST_LINES {
            drop(waiting);
            self.0.metrics.telemetry_dropped(ExportSignal::Logs, 1);
            return;
        }
        waiting.push_back(line);
        let is_full = waiting.len() >= BATCH;
        drop(waiting);
        if is_full {
            self.0.full.notify_one();
        }
    }

    /// Takes the spans of the next message; empty if none wait.
    pub fn take_spans(&self) -> Vec<FinishedSpan> {
        take(&mut self.0.spans.lock())
    }

    /// Takes the lines of the next message; empty if none wait.
    pub fn take_lines(&self) -> Vec<LogLine> {
        take(&mut self.0.lines.lock())
    }

    /// Removes everything, and returns how much that was.
    pub fn clear(&self) -> [(ExportSignal, usize); 2] {
        let spans = std::mem::take(&mut *self.0.spans.lock()).len();
        let lines = std::mem::take(&mut *self.0.lines.lock()).len();
        [(ExportSignal::Traces, spans), (ExportSignal::Logs, lines)]
    }

    /// Waits until a whole batch waits.
    pub async fn full(&self) {
        self.0.full.notified().await;
    }
}

fn take<T>(waiting: &mut VecDeque<T>) -> Vec<T> {
    let most = waiting.len().min(BATCH);
    waiting.drain(..most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Snapshot;

    fn line(text: &str) -> LogLine {
        LogLine { at: 1, level: tracing::Level::INFO, text: text.to_owned(), context: None }
    }

    #[test]
    fn te_03_a_full_queue_drops_and_counts_what_comes_last() {
        let metrics = Metrics::new();
        let queue = ExportQueue::new(metrics.clone());
        for number in 0..MOST_LINES + 3 {
            queue.push_line(line(&number.to_string()));
        }

        let text = metrics.text(&Snapshot::default()).unwrap();
        let dropped = "portcullis_telemetry_dropped_total{signal=\"logs\"} 3\n";
        assert!(text.contains(dropped), "{text}");
        let batch = queue.take_lines();
        assert_eq!((batch.len(), batch[0].text.as_str()), (BATCH, "0"));
        queue.push_line(line("there is room again"));
        let rest = std::iter::from_fn(|| Some(queue.take_lines()).filter(|some| !some.is_empty()));
        assert_eq!(rest.map(|batch| batch.len()).sum::<usize>(), MOST_LINES - BATCH + 1);
    }
}
