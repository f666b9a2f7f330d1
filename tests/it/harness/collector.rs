//! A collector of OpenTelemetry: what it was sent, read with the types of the protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use super::Setup;
use super::recorder::{ReceivedRequest, Recorder};

pub(crate) struct Collector {
    pub(crate) recorder: Recorder,
}

/// A span that was received. Ids are hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedSpan {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub is_server: bool,
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    pub time: (u64, u64),
}

impl ReceivedSpan {
    #[track_caller]
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self { recorder: Recorder::start().await }
    }

    pub(crate) fn url(&self) -> String {
        self.recorder.url("")
    }

    /// A server that exports to it; `more` are further keys of `[telemetry]`.
    pub(crate) fn setup(&self, more: &str) -> Setup {
        Setup::toml(format!("[telemetry]\notlp = \"{}\"\n{more}", self.url()))
    }

    /// The messages of one kind, undecoded.
    pub(crate) fn messages(&self, signal: &str) -> Vec<ReceivedRequest> {
        let path = format!("/v1/{signal}");
        let received = self.recorder.received().into_iter();
        received.filter(|request| request.path == path && !request.body.is_empty()).collect()
    }

    fn decoded<M: Message + Default>(&self, signal: &str) -> Vec<M> {
        let messages = self.messages(signal).into_iter();
        messages
            .map(|request| {
                assert_eq!(request.method, "POST");
                assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
                M::decode(request.body.as_slice()).unwrap()
            })
            .collect()
    }

    pub(crate) fn spans(&self) -> Vec<ReceivedSpan> {
        let messages = self.decoded::<ExportTraceServiceRequest>("traces");
        let resources = messages.into_iter().flat_map(|message| message.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(|span| ReceivedSpan {
            is_server: span.kind() == SpanKind::Server,
            failed: span.status.is_some_and(|status| status.code == 2),
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: attributes(span.attributes),
            links: span
                .links
                .into_iter()
                .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                .collect(),
            time: (span.start_time_unix_nano, span.end_time_unix_nano),
        });
        spans.collect()
    }

    /// The only span of this name.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> ReceivedSpan {
        let spans = self.spans();
        let mut named = spans.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
        assert!(named.next().is_none(), "several {name}: {spans:#?}");
        span.clone()
    }

    /// The metrics that came last.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let last = self.decoded::<ExportMetricsServiceRequest>("metrics").pop().unwrap();
        let scopes = last.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).collect()
    }

    pub(crate) fn lines(&self) -> Vec<LogRecord> {
        let messages = self.decoded::<ExportLogsServiceRequest>("logs");
        let resources = messages.into_iter().flat_map(|message| message.resource_logs);
        let scopes = resources.flat_map(|resource| resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records).collect()
    }

    /// What the process says of itself in its first message with spans.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let first = self.decoded::<ExportTraceServiceRequest>("traces").remove(0);
        let resource: Resource = first.resource_spans[0].resource.clone().unwrap();
        attributes(resource.attributes)
    }

    /// Everything that it was sent, as text: names, attributes, bodies, headers.
    pub(crate) fn everything(&self) -> String {
        let mut text = String::new();
        for message in self.decoded::<ExportTraceServiceRequest>("traces") {
            let _ = writeln!(text, "{message:?}");
        }
        for message in self.decoded::<ExportMetricsServiceRequest>("metrics") {
            let _ = writeln!(text, "{message:?}");
        }
        for message in self.decoded::<ExportLogsServiceRequest>("logs") {
            let _ = writeln!(text, "{message:?}");
        }
        // Whatever no type reads.
        for request in self.recorder.received() {
            let _ = writeln!(text, "{}", String::from_utf8_lossy(&request.body));
        }
        text
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.into_iter().map(|one| (one.key, text(one.value))).collect()
}
