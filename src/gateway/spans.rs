//! What the trace of a request says of the MCP messages in it, by OpenTelemetry's conventions for MCP. Neither
//! arguments nor results, and of people and clients only keyed hashes.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;

use super::authenticate::Caller;
use super::challenge::GatewayRefused;
use super::session;
use super::spelling::has_control;
use super::target::Target;
use crate::app::App;
use crate::oauth::sealed::{Purpose, Sealer};
use crate::storage::LiveGrant;
use crate::telemetry::trace::{self, OpenSpan, RecordedTrace};
use crate::telemetry::trace_context::TraceContext;

/// Characters of a keyed hash that are shown: 22, which is 132 bits.
const HASH: usize = 22;

/// Most names of tools of one MCP server that spans show: 512. Longest name, in bytes: MCP allows 128 characters.
const TOOLS: (usize, usize) = (512, 128);

/// The tools that spans name: those that have answered a call. Clients may make names up, and write into them
/// what they like.
#[derive(Default)]
pub(super) struct KnownTools(RwLock<HashSet<Box<str>>>);

impl KnownTools {
    /// Whether spans name this tool.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.read().contains(name)
    }

    /// Remembers a tool that has answered.
    pub(super) fn add(&self, name: &str) {
        let (most, longest) = TOOLS;
        if name.len() <= longest && !has_control(name) {
            let mut known = self.0.write();
            if known.len() < most {
                known.insert(name.into());
            }
        }
    }
}

/// Returns the trace of this request, with what is known of the caller; `None` if it is not recorded.
pub(super) fn of_caller(app: &App, caller: &Caller, headers: &HeaderMap) -> Option<RecordedTrace> {
    let trace = trace::recorded().filter(RecordedTrace::records)?;
    name_caller(&trace, app, &caller.grant);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(session) = text(session::SESSION_ID.as_str()) {
        trace.set("mcp.session.id", hash(app.sealer(), "session", session));
    }
    if let Some(version) = text("mcp-protocol-version").filter(|version| is_revision(version)) {
        trace.set("mcp.protocol.version", version.to_owned());
    }
    Some(trace)
}

/// Says who calls.
pub(super) fn name_caller(trace: &RecordedTrace, app: &App, grant: &LiveGrant) {
    let sealer = app.sealer();
    trace.set("user.hash", hash(sealer, "person", &grant.subject));
    trace.set("portcullis.client.hash", hash(sealer, "client", &grant.client_id));
}

/// Returns a hash that is always the same for this installation, and that nobody without its key can compute.
fn hash(sealer: &Sealer, kind: &str, id: &str) -> String {
    let mut mac = sealer.mac(Purpose::Telemetry, &[kind.as_bytes(), id.as_bytes()]);
    mac.truncate(HASH);
    mac
}

/// Whether a text is a date, as the revisions of MCP are.
fn is_revision(text: &str) -> bool {
    let like = |(byte, like): (u8, u8)| {
        if like == b'-' { byte == b'-' } else { byte.is_ascii_digit() }
    };
    text.len() == "2026-07-28".len() && text.bytes().zip("2026-07-28".bytes()).all(like)
}

/// Says what a request calls. A request with several messages is a batch, and says nothing of each.
/// `tool`: a name that is known to be one of the MCP server's.
pub(super) fn describe(
    trace: &RecordedTrace,
    nth: usize,
    method: Option<&'static str>,
    tool: Option<&str>,
) {
    if !trace.records() {
        return;
    }
    if nth > 0 {
        trace.rename("batch");
        trace.unset("mcp.method.name");
        trace.unset("gen_ai.tool.name");
        trace.unset("gen_ai.operation.name");
        return;
    }
    let Some(method) = method else { return };
    trace.set("mcp.method.name", method);
    if method == "tools/call" {
        trace.set("gen_ai.operation.name", "execute_tool");
    }
    match tool {
        Some(tool) => {
            trace.set("gen_ai.tool.name", tool.to_owned());
            trace.rename(format!("{method} {tool}"));
        }
        None => trace.rename(method),
    }
}

/// The request to the MCP server, as a span, and the header that tells the server of it.
pub(super) struct TargetSpan {
    span: Option<OpenSpan>,
    /// What the MCP server learns; `None` without traces.
    context: Option<TraceContext>,
    /// Whether the client's `tracestate` belongs to the same trace, and passes.
    pub(super) keeps_state: bool,
}

impl TargetSpan {
    pub(super) fn begin(target: &Target, path: Option<&str>) -> Self {
        let Some(place) = trace::place() else {
            return Self { span: None, context: None, keeps_state: true };
        };
        let mut span = trace::child_of_same_name();
        if let Some(span) = &mut span {
            let url = target.url();
            if let Some(host) = url.host_str() {
                span.set("server.address", host.to_owned());
            }
            if let Some(port) = url.port_or_known_default() {
                span.set("server.port", port);
            }
            if let Some(path) = path {
                span.set("portcullis.path", path.to_owned());
            }
        }
        let context = span.as_ref().map_or(place.context, OpenSpan::context);
        Self { span, context: Some(context), keeps_state: place.is_continued() }
    }

    /// Returns the `traceparent` for the MCP server; `None` without traces.
    pub(super) fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&self.context?.traceparent()).ok()
    }

    pub(super) fn end<B>(self, answer: &Result<axum::http::Response<B>, GatewayRefused>) {
        let Some(mut span) = self.span else { return };
        match answer {
            Ok(answer) => {
                let status = answer.status();
                span.set("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    span.fail(status.as_str().to_owned());
                }
            }
            Err(GatewayRefused::GatewayTimeout) => span.fail("timeout"),
            Err(_) => span.fail("unreachable"),
        }
    }
}
