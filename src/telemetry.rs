//! Logs and audit events.
//!
//! Allow-list logging: route templates, status codes, ids and reasons. Never a query, a body, a
//! cookie, a `Location`, a token. Other crates speak only when something is wrong with them.

pub mod audit;
mod lately;
mod lines;
pub mod log_throttle;
pub mod metrics;
mod queue;
pub mod tasks;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::EnvFilter;

pub use lines::limit_lines;
pub use queue::flush;

use crate::oauth::secret::random_bytes;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Changes the level of the subscriber that is installed.
type ChangeLevel = Box<dyn Fn(Level) + Send + Sync>;

static CHANGE_LEVEL: OnceLock<ChangeLevel> = OnceLock::new();

/// Libraries are held at `warn`, because their finer levels may quote what they carry.
fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,portcullis={level}"))
}

/// From now on, our own lines are of this level.
pub fn set_level(level: Level) {
    if let Some(change) = CHANGE_LEVEL.get() {
        change(level);
    }
}

/// Says something on standard error that is no line of the log, behind all lines that are under way. Like
/// these, it is dropped where standard error takes nothing.
pub fn say(text: &str) {
    queue::push(text.as_bytes().to_vec());
}

/// Logs panics, as everything else is logged: the standard library would write to standard error itself, and
/// wait for whoever reads it.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let message = message_of(panic.payload());
        let backtrace = std::backtrace::Backtrace::capture(); // where RUST_BACKTRACE asks for it
        let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        let backtrace = captured.then(|| backtrace.to_string());
        tracing::error!(at, panic = message, backtrace, "a thread panicked");
    }));
}

/// What a panic says.
pub fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Sends log lines to standard error. `level` is for our own lines (`info` when absent or
/// unreadable).
pub fn install(level: Option<&str>, format: LogFormat) {
    let level = level.and_then(|text| text.parse().ok()).unwrap_or(Level::INFO);
    queue::start();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .log_internal_errors(false) // they would go to standard error past the queue
        .with_ansi(std::io::stderr().is_terminal())
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

/// A short reference that an error page shows and the log repeats: what the person reads out, the
/// administrator finds.
pub fn new_reference() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"; // no I, L, O, U to misread
    let text: String = random_bytes::<8>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect();
    format!("{}-{}", &text[..4], &text[4..])
}
