//! Encodes what is exported as messages of OTLP.

use prost::Message;
use tracing::Level;

use super::super::spans::{FinishedSpan, SpanKind, SpanValue};
use super::messages::{
    FAILED, KINDS, OtlpAnswer, OtlpItemsOfResource, OtlpItemsOfScope, OtlpLink, OtlpLogRecord,
    OtlpRequest, OtlpResource, OtlpScope, OtlpSpan, OtlpStatus, SAMPLED, attribute, number, text,
};
use super::metrics::of_text;
use super::queue::LogLine;

/// What a process says of itself with each message.
#[derive(Clone, Debug)]
pub struct ExportResource(OtlpResource);

/// Returns a message without any span, to see whether a collector takes messages.
pub fn no_spans() -> Vec<u8> {
    OtlpRequest::default().encode_to_vec()
}

/// Returns how many items of a message a collector rejected, by its answer.
pub fn rejected(answer: &[u8]) -> usize {
    let answer = OtlpAnswer::decode(answer).unwrap_or_default();
    let rejected = answer.partial_success.map_or(0, |partial| partial.rejected);
    usize::try_from(rejected).unwrap_or(0)
}

impl ExportResource {
    /// Makes the resource of these attributes.
    pub fn of(attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        let attributes = attributes.into_iter().map(|(name, value)| attribute(&name, text(value)));
        Self(OtlpResource { attributes: attributes.collect() })
    }

    /// Returns the message with these spans.
    pub fn spans(&self, spans: Vec<FinishedSpan>) -> Vec<u8> {
        self.request(spans.into_iter().map(span))
    }

    /// Returns the message with these lines of the log.
    pub fn lines(&self, lines: Vec<LogLine>) -> Vec<u8> {
        self.request(lines.into_iter().map(record))
    }

    /// Returns the message with all metrics in a text of `OpenMetrics`. `time`: since when counters count, and
    /// now, in nanoseconds since the Unix epoch.
    pub fn metrics(&self, open_metrics: &str, time: (u64, u64)) -> Vec<u8> {
        self.request(of_text(open_metrics, time).into_iter())
    }

    fn request<M: Message>(&self, items: impl Iterator<Item = M>) -> Vec<u8> {
        let scope = OtlpScope {
            name: "portcullis".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let items = items.map(|item| item.encode_to_vec()).collect();
        let of_scope = vec![OtlpItemsOfScope { scope: Some(scope), items }];
        let of_resource = OtlpItemsOfResource { resource: Some(self.0.clone()), of_scope };
        OtlpRequest { of_resource: vec![of_resource] }.encode_to_vec()
    }
}

fn span(finished: FinishedSpan) -> OtlpSpan {
    let FinishedSpan { context, parent, name, kind, time, attributes, failed, links } = finished;
    let attributes = attributes.into_iter().map(|(name, value)| {
        let value = match value {
            SpanValue::Text(value) => text(value),
            SpanValue::Number(value) => number(value),
        };
        attribute(name, value)
    });
    let links = links.into_iter().map(|link| OtlpLink {
        trace_id: link.trace.to_vec(),
        span_id: link.span.to_vec(),
        flags: if link.sampled { SAMPLED } else { 0 },
    });
    let (server, client) = KINDS;
    OtlpSpan {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        parent_span_id: parent.map(Vec::from).unwrap_or_default(),
        name: name.into_owned(),
        kind: if kind == SpanKind::Server { server } else { client },
        start_time_unix_nano: time.0,
        end_time_unix_nano: time.1,
        attributes: attributes.collect(),
        links: links.collect(),
        status: failed.then_some(OtlpStatus { code: FAILED }),
        flags: SAMPLED,
    }
}

fn record(line: LogLine) -> OtlpLogRecord {
    // `SeverityNumber`; each level has three more in between.
    let severity_number = match line.level {
        Level::ERROR => 17,
        Level::WARN => 13,
        Level::INFO => 9,
        Level::DEBUG => 5,
        Level::TRACE => 1,
    };
    let context = line.context;
    OtlpLogRecord {
        time_unix_nano: line.at,
        observed_time_unix_nano: line.at,
        severity_number,
        severity_text: line.level.as_str().to_owned(),
        body: Some(text(line.text)),
        trace_id: context.map(|context| context.trace.to_vec()).unwrap_or_default(),
        span_id: context.map(|context| context.span.to_vec()).unwrap_or_default(),
        flags: context.map_or(0, |context| u32::from(context.sampled)),
    }
}
