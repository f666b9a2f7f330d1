//! The messages of OTLP that we send, with the fields that we fill. Their numbers are those of
//! opentelemetry-proto 1.x, where released numbers never change; a test reads our messages with the types that
//! OpenTelemetry generates.

use prost::{Message, Oneof};

/// `SpanKind` of a request that came to us, and of one that we sent.
pub(super) const KINDS: (i32, i32) = (2, 3);
/// `StatusCode` of a span that failed.
pub(super) const FAILED: i32 = 2;
/// Bit of the flags of spans, links and log records: the trace is recorded.
pub(super) const SAMPLED: u32 = 1;
/// `AggregationTemporality`: since the start of the process.
pub(super) const CUMULATIVE: i32 = 2;

/// The value of an attribute, or the body of a log record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpValue {
    #[prost(oneof = "AnyOtlpValue", tags = "1, 3")]
    pub(super) value: Option<AnyOtlpValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum AnyOtlpValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpAttribute {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<OtlpValue>,
}

/// Returns a text as a value.
pub(super) fn text(value: impl Into<String>) -> OtlpValue {
    OtlpValue { value: Some(AnyOtlpValue::Text(value.into())) }
}

/// Returns a number as a value.
pub(super) fn number(value: i64) -> OtlpValue {
    OtlpValue { value: Some(AnyOtlpValue::Number(value)) }
}

pub(super) fn attribute(name: &str, value: OtlpValue) -> OtlpAttribute {
    OtlpAttribute { key: name.to_owned(), value: Some(value) }
}

/// The process.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpResource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<OtlpAttribute>,
}

/// What measures in it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpScope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// `ExportTraceServiceRequest`, `ExportMetricsServiceRequest` and `ExportLogsServiceRequest` have the same
/// form. They differ in the items, which are encoded already: on the wire, a message within another is bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) of_resource: Vec<OtlpItemsOfResource>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpItemsOfResource {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) of_scope: Vec<OtlpItemsOfScope>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpItemsOfScope {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<OtlpScope>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) items: Vec<Vec<u8>>,
}

/// The answer to each of them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpAnswer {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<OtlpPartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpPartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<OtlpAttribute>,
    #[prost(message, repeated, tag = "13")]
    pub(super) links: Vec<OtlpLink>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<OtlpStatus>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpLink {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    pub(super) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpStatus {
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpLogRecord {
    #[prost(fixed64, tag = "1")]
    pub(super) time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub(super) severity_number: i32,
    #[prost(string, tag = "3")]
    pub(super) severity_text: String,
    #[prost(message, optional, tag = "5")]
    pub(super) body: Option<OtlpValue>,
    #[prost(fixed32, tag = "8")]
    pub(super) flags: u32,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub(super) span_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    pub(super) observed_time_unix_nano: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpMetric {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(string, tag = "3")]
    pub(super) unit: String,
    #[prost(oneof = "OtlpPoints", tags = "5, 7, 9")]
    pub(super) data: Option<OtlpPoints>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OtlpPoints {
    #[prost(message, tag = "5")]
    Gauge(OtlpGauge),
    #[prost(message, tag = "7")]
    Sum(OtlpSum),
    #[prost(message, tag = "9")]
    Histogram(OtlpHistogram),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpGauge {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<OtlpNumberPoint>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpSum {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<OtlpNumberPoint>,
    #[prost(int32, tag = "2")]
    pub(super) aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub(super) is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpHistogram {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<OtlpHistogramPoint>,
    #[prost(int32, tag = "2")]
    pub(super) aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpNumberPoint {
    #[prost(fixed64, tag = "2")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(oneof = "OtlpNumber", tags = "4, 6")]
    pub(super) value: Option<OtlpNumber>,
    #[prost(message, repeated, tag = "7")]
    pub(super) attributes: Vec<OtlpAttribute>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(super) enum OtlpNumber {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Whole(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpHistogramPoint {
    #[prost(fixed64, tag = "2")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) count: u64,
    #[prost(double, optional, tag = "5")]
    pub(super) sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    pub(super) bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<OtlpAttribute>,
}
