//! Logs, metrics and audit events.
//!
//! Log lines are built from an allow-list: route templates, status codes, ids and reasons. They never contain
//! a query, a body, a cookie, a `Location` or a token. Other crates log warnings and errors only. The same is true
//! of what is exported over OTLP ([`trace`], [`export`]).

pub mod audit;
pub mod export;
pub mod export_signal;
mod families;
mod lately;
mod lines;
pub mod log_throttle;
pub mod metrics;
mod queue;
pub mod spans;
pub mod supervision;
pub mod tasks;
pub mod trace;
pub mod trace_context;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::EnvFilter;

pub use lines::{export_lines, limit_lines};
pub use queue::flush;

use crate::oauth::secret::random_bytes;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Changes the level of the installed subscriber.
type ChangeLevel = Box<dyn Fn(Level) + Send + Sync>;

static CHANGE_LEVEL: OnceLock<ChangeLevel> = OnceLock::new();

/// Libraries log at `warn` only, because their finer levels may quote request data.
fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,portcullis={level}"))
}

/// Sets the level of our own log lines.
pub fn set_level(level: Level) {
    if let Some(change) = CHANGE_LEVEL.get() {
        change(level);
    }
}

/// Writes text to standard error that is no log line. It is queued behind all log lines, and like these
/// dropped if standard error accepts no data.
pub fn say(text: &str) {
    queue::push(text.as_bytes().to_vec());
}

/// Installs a panic hook that logs panics. The hook of the standard library would write to standard error
/// itself, and block if nothing reads it.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let message = message_of(panic.payload());
        let backtrace = std::backtrace::Backtrace::capture(); // only if RUST_BACKTRACE asks for it
        let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        let backtrace = captured.then(|| backtrace.to_string());
        tracing::error!(at, panic = message, backtrace, "a thread panicked");
    }));
}

/// Returns the message of a panic.
pub fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Installs the subscriber that writes log lines to standard error. `level` applies to our own lines; `info`
/// if it is absent or cannot be parsed.
pub fn install(level: Option<&str>, format: LogFormat) {
    let level = level.and_then(|text| text.parse().ok()).unwrap_or(Level::INFO);
    queue::start();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .log_internal_errors(false) // they would bypass the queue
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty()),
        )
        .with_writer(lines::Lines);
    // A second call, as in tests, keeps the first subscriber.
    let (installed, change): (_, ChangeLevel) = match format {
        LogFormat::Text => {
            let lines = lines.with_target(false).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |level| drop(handle.reload(filter(level)))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |level| drop(handle.reload(filter(level)))))
        }
    };
    if installed.is_ok() {
        let _ = CHANGE_LEVEL.set(change);
    }
}

/// Creates a short reference for an error page. The log contains it too, so the administrator finds the line
/// when a person reads the reference out.
pub fn new_reference() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // no I, L, O, U to misread
    let text: String = random_bytes::<8>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect();
    format!("{}-{}", &text[..4], &text[4..])
}
