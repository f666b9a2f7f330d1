//! Logs and audit events.
//!
//! Allow-list logging: route templates, status codes, ids and reasons. Never a query, a body, a
//! cookie, a `Location`, a token. Other crates speak only when something is wrong with them.

pub mod audit;
mod lines;
pub mod metrics;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

pub use lines::limit_lines;

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

/// Sends log lines to standard error. `level` is for our own lines (`info` when absent or
/// unreadable); libraries are held at `warn`, because their finer levels may quote what they carry.
pub fn install(level: Option<&str>, format: LogFormat) {
    let level =
        level.and_then(|text| text.parse::<tracing::Level>().ok()).unwrap_or(tracing::Level::INFO);
    let filter = EnvFilter::new(format!("warn,portcullis={level}"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(lines::Lines);
    // A second call, as in tests, keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
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
