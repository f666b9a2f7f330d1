//! Spans as they are exported.

use std::borrow::Cow;

use super::trace_context::TraceContext;

/// The role of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came to us.
    Server,
    /// Something that we asked of another: the database, the identity provider, an MCP server.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    Text(Cow<'static, str>),
    Number(i64),
}

impl From<&'static str> for SpanValue {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for SpanValue {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u16> for SpanValue {
    fn from(number: u16) -> Self {
        Self::Number(i64::from(number))
    }
}

/// An attribute of a span.
pub type SpanAttribute = (&'static str, SpanValue);

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct FinishedSpan {
    /// The trace and the span.
    pub context: TraceContext,
    /// The span above it, in the same trace.
    pub parent: Option<[u8; 8]>,
    pub name: Cow<'static, str>,
    /// Its role.
    pub kind: SpanKind,
    /// When it began and ended, in nanoseconds since the Unix epoch.
    pub time: (u64, u64),
    pub attributes: Vec<SpanAttribute>,
    pub failed: bool,
    /// Spans of other traces that it belongs to as well.
    pub links: Vec<TraceContext>,
}
