//! Exports spans, metrics and log lines to a collector, over OTLP (HTTP, protobuf).
//!
//! Requests never wait for it: they leave their spans in a queue, and a task sends them. A collector that
//! refuses, hangs or is gone costs telemetry only: the queue is bounded, a message is tried a few times, and
//! what was not delivered is counted. Spans, lines and metrics do not wait for each other, because a collector
//! may take one of them only.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use strum::VariantArray as _;
use tokio::sync::Mutex;
use url::Url;

use super::App;
use crate::clock::Clock;
use crate::config::{Config, TelemetryConfig, TraceSampling};
use crate::http_client::{HttpClient, HttpError};
use crate::oauth::secret::random_text;
use crate::telemetry;
use crate::telemetry::export::{ExportQueue, ExportResource, NextMessage, no_spans, rejected};
use crate::telemetry::export_signal::ExportSignal;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::Metrics;

/// Longest wait of spans and lines for the company of a whole message: 5 s, as in OpenTelemetry's own exporters.
const FLUSH: Duration = Duration::from_secs(5);
/// How often metrics are sent: once a minute, as in OpenTelemetry's own exporters.
const METRICS: Duration = Duration::from_mins(1);
/// Longest wait for an answer of the collector: 10 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is sent before it is dropped, and the first pause in between; each further pause is
/// twice as long.
const ATTEMPTS: (u32, Duration) = (4, Duration::from_secs(1));
/// How long shutdown waits for the last messages: 3 s.
const LAST: Duration = Duration::from_secs(3);
/// Longest wait of `check` for the collector: 5 s.
const KNOCK: Duration = Duration::from_secs(5);

static NOT_TAKEN: LogThrottle = LogThrottle::a_minute();

/// What exports the telemetry of this process.
pub(super) struct Exporter {
    queue: ExportQueue,
    collector: Collector,
    resource: ExportResource,
    sampling: Option<TraceSampling>,
    sends_metrics: bool,
    /// When counters began to count.
    begun: u64,
    sends_lines: bool,
    metrics: Metrics,
    /// Serialises the exports of each kind.
    sending: [Mutex<()>; ExportSignal::VARIANTS.len()],
}

/// A collector, and how requests to it are made.
struct Collector {
    http: HttpClient,
    base: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a collector did not take a message.
#[derive(Debug, thiserror::Error)]
enum NotDelivered {
    #[error("the collector answered with status {0}")]
    Status(u16),
    #[error("{0}")]
    Http(#[from] HttpError),
}

impl NotDelivered {
    /// Whether the same message may be taken later, by the specification of OTLP.
    const fn may_pass_later(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 429 | 502 | 503 | 504),
            Self::Http(_) => true,
        }
    }
}

/// Spans, points or lines that are on their way. Counts them as dropped unless they are delivered.
struct ExportInFlight<'a> {
    metrics: &'a Metrics,
    signal: ExportSignal,
    items: usize,
}

impl Drop for ExportInFlight<'_> {
    fn drop(&mut self) {
        if self.items > 0 {
            self.metrics.telemetry_dropped(self.signal, self.items);
        }
    }
}

impl Collector {
    fn of(config: &Config) -> Option<Self> {
        let TelemetryConfig { otlp, headers, .. } = &*config.telemetry;
        let base = otlp.clone()?;
        // Plain HTTP is usual within a cluster. No message has a secret, and the configuration warns of headers.
        let http = HttpClient::new(TIMEOUT, &config.upstream.proxies).allowing_http(true);
        Some(Self { http, base, headers: headers.clone() })
    }

    fn uri(&self, signal: ExportSignal) -> Option<Uri> {
        let base = self.base.as_str().trim_end_matches('/');
        format!("{base}/v1/{}", signal.word()).parse().ok()
    }

    /// Sends a message. Returns how many of its items the collector rejected.
    async fn send(&self, signal: ExportSignal, message: Vec<u8>) -> Result<usize, NotDelivered> {
        let mut request = Request::new(message);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(signal).unwrap_or_default();
        let headers = request.headers_mut();
        let media_type = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, media_type);
        let agent = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let answer = self.http.send(request).await?;
        match answer.status() {
            status if status.is_success() => Ok(rejected(answer.body())),
            status => Err(NotDelivered::Status(status.as_u16())),
        }
    }
}

impl Exporter {
    /// Returns `None` if nothing is exported.
    pub(super) fn of(config: &Config, metrics: &Metrics) -> Option<Self> {
        let collector = Collector::of(config)?;
        let telemetry = &config.telemetry;
        let queue = ExportQueue::new(metrics.clone());
        if telemetry.logs {
            telemetry::export_lines(&queue);
        }
        let mut attributes = telemetry.resource.clone();
        let own = [
            ("service.name", "portcullis".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", random_text()),
        ];
        for (name, value) in own {
            attributes.entry(name.to_owned()).or_insert(value);
        }
        Some(Self {
            queue,
            collector,
            resource: ExportResource::of(attributes),
            sampling: Some(telemetry.traces).filter(|sampling| sampling.ratio > 0.0),
            sends_metrics: telemetry.metrics,
            sends_lines: telemetry.logs,
            begun: Clock::real_nanos(),
            metrics: metrics.clone(),
            sending: Default::default(),
        })
    }

    /// Sends a message as often as it takes, within [`ATTEMPTS`].
    async fn deliver(&self, signal: ExportSignal, items: usize, message: Vec<u8>) {
        let mut in_flight = ExportInFlight { metrics: &self.metrics, signal, items };
        let (most, mut pause) = ATTEMPTS;
        for attempt in 1..=most {
            match self.collector.send(signal, message.clone()).await {
                Ok(rejected) => {
                    in_flight.items = rejected.min(items);
                    return;
                }
                Err(cause) if cause.may_pass_later() && attempt < most => {
                    tracing::debug!(%cause, signal = signal.word(), "telemetry is sent again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(cause) => {
                    if let Some(left_out) = NOT_TAKEN.admit() {
                        let signal = signal.word();
                        tracing::warn!(%cause, signal, left_out, "telemetry is dropped: the collector does not take it");
                    }
                    return;
                }
            }
        }
    }

    /// Sends the spans that wait: a message of any size, and then further ones.
    async fn send_spans(&self, further: NextMessage) {
        let _alone = self.sending[ExportSignal::Traces as usize].lock().await;
        let mut spans = self.queue.take_spans(NextMessage::Any);
        while !spans.is_empty() {
            let (items, message) = (spans.len(), self.resource.spans(spans));
            self.deliver(ExportSignal::Traces, items, message).await;
            spans = self.queue.take_spans(further);
        }
    }

    /// Sends the lines that wait, in the same way.
    async fn send_lines(&self, further: NextMessage) {
        let _alone = self.sending[ExportSignal::Logs as usize].lock().await;
        let mut lines = self.queue.take_lines(NextMessage::Any);
        while !lines.is_empty() {
            let (items, message) = (lines.len(), self.resource.lines(lines));
            self.deliver(ExportSignal::Logs, items, message).await;
            lines = self.queue.take_lines(further);
        }
    }

    async fn send_metrics(&self, app: &App) {
        if !self.sends_metrics {
            return;
        }
        let _alone = self.sending[ExportSignal::Metrics as usize].lock().await;
        let snapshot = app.snapshot().await;
        let Ok(text) = self.metrics.text(&snapshot) else { return };
        let message = self.resource.metrics(&text, (self.begun, Clock::real_nanos()));
        self.deliver(ExportSignal::Metrics, 1, message).await;
    }

    /// Sends spans for good, if traces are exported.
    async fn keep_sending_spans(&self) {
        if self.sampling.is_none() {
            return;
        }
        loop {
            let _ = tokio::time::timeout(FLUSH, self.queue.message_of_spans()).await;
            self.send_spans(NextMessage::Full).await;
        }
    }

    /// Sends lines for good, if the log is exported.
    async fn keep_sending_lines(&self) {
        if !self.sends_lines {
            return;
        }
        loop {
            let _ = tokio::time::timeout(FLUSH, self.queue.message_of_lines()).await;
            self.send_lines(NextMessage::Full).await;
        }
    }

    /// Sends metrics for good, if they are exported.
    async fn keep_sending_metrics(&self, app: &App) {
        if !self.sends_metrics {
            return;
        }
        loop {
            tokio::time::sleep(METRICS).await;
            self.send_metrics(&app.current()).await;
        }
    }

    /// Drops and counts what still waits.
    fn give_up(&self) {
        for (signal, items) in self.queue.clear() {
            if items > 0 {
                self.metrics.telemetry_dropped(signal, items);
            }
        }
    }
}

impl App {
    /// Returns where spans go and which traces are recorded; `None` if there are no traces.
    pub fn tracing(&self) -> Option<(&ExportQueue, TraceSampling)> {
        let exporter = self.0.shared.exporter.as_ref()?;
        Some((&exporter.queue, exporter.sampling?))
    }

    /// Sends all telemetry that waits, and the metrics as they are now.
    pub async fn export_telemetry(&self) {
        let Some(exporter) = &self.0.shared.exporter else { return };
        let app = self.current();
        let (spans, lines) =
            (exporter.send_spans(NextMessage::Any), exporter.send_lines(NextMessage::Any));
        tokio::join!(spans, lines, exporter.send_metrics(&app));
    }

    /// Sends telemetry until `stop` is ready, and then what is left, within three seconds.
    pub async fn keep_exporting(&self, stop: impl Future<Output = ()>) {
        panic_point!("telemetry");
        let Some(exporter) = &self.0.shared.exporter else { return };
        let sending = async {
            let (spans, lines) = (exporter.keep_sending_spans(), exporter.keep_sending_lines());
            tokio::join!(spans, lines, exporter.keep_sending_metrics(self));
            std::future::pending::<()>().await; // nothing is exported before the end
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = sending => {}
        }
        if tokio::time::timeout(LAST, self.export_telemetry()).await.is_err() {
            tracing::warn!("the last telemetry could not be sent in time");
        }
        exporter.give_up();
    }
}

/// Asks whether the collector takes messages, without sending any telemetry. Returns its address, and what is
/// wrong with it; `None` if nothing is exported.
pub async fn knock_at_collector(config: &Config) -> Option<(String, Result<(), String>)> {
    let collector = Collector::of(config)?;
    let collector = Collector { http: collector.http.with_timeout(KNOCK), ..collector };
    let taken = collector.send(ExportSignal::Traces, no_spans()).await;
    let taken = taken.map(|_| ()).map_err(|cause| cause.to_string());
    Some((collector.base.to_string(), taken))
}
