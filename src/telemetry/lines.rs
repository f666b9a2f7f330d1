//! Limits the length of log lines, because callers influence their content. A line that is too long is cut,
//! and stays one line or a valid JSON object.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::export::{ExportQueue, LogLine};
use super::{queue, trace};
use crate::clock::Clock;

/// The limit in bytes. 4096 until the configuration has been read.
static MOST: AtomicUsize = AtomicUsize::new(4096);

/// Where lines are exported to, in addition to standard error; none unless this process exports its log.
static EXPORT: OnceLock<ExportQueue> = OnceLock::new();

/// Exports all lines from now on. A second call changes nothing: a process has one log.
pub fn export_lines(queue: &ExportQueue) {
    let _ = EXPORT.set(queue.clone());
}

/// Sets the longest log line, in bytes.
pub fn limit_lines(bytes: usize) {
    MOST.store(bytes, Ordering::Relaxed);
}

/// Writes lines to the queue for standard error.
pub(super) struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter {
        LineWriter(*metadata.level())
    }
}

/// Writer for one line. The subscriber writes each line with a single call.
pub(super) struct LineWriter(Level);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let most = MOST.load(Ordering::Relaxed);
        let written = cut(line, most).unwrap_or_else(|| line.to_vec());
        if let Some(export) = EXPORT.get() {
            export.push_line(|| LogLine {
                at: Clock::real_nanos(),
                level: self.0,
                text: plain(&written),
                context: trace::place().map(|place| place.context),
            });
        }
        queue::push(written);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the text of a line, without its line feed and the colours that a terminal gets.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut pieces = text.trim_end_matches('\n').split('\u{1b}');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.split_once('m').map_or(piece, |(_, rest)| rest);
        plain.push_str(rest);
    }
    plain
}

/// Returns the line cut to at most `most` bytes; `None` if it is short enough.
fn cut(line: &[u8], most: usize) -> Option<Vec<u8>> {
    if line.len() <= most {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    if let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) {
        // Shortens all strings until the line fits, so that a collector can still parse it and see what it is
        // about.
        let mut each = most;
        while each > 8 {
            each /= 2;
            for value in fields.values_mut() {
                shorten(value, each);
            }
            let mut shorter = serde_json::to_vec(&fields).unwrap_or_default();
            shorter.push(b'\n');
            if shorter.len() <= most {
                return Some(shorter);
            }
        }
    }
    let mut shorter = beginning(&text, most.saturating_sub("…\n".len())).to_owned();
    shorter.push_str("…\n");
    Some(shorter.into_bytes())
}

fn shorten(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.len() > most => {
            *text = format!("{}…", beginning(text, most.saturating_sub("…".len())));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| shorten(value, most)),
        Value::Object(fields) => fields.values_mut().for_each(|value| shorten(value, most)),
        _ => {}
    }
}

fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_text(line: &str, most: usize) -> Option<String> {
        cut(line.as_bytes(), most).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn a_line_holds_at_its_number() {
        let line = "x".repeat(4095) + "\n";
        assert_eq!(cut_text(&line, 4096), None);
        let cut = cut_text(&("é".repeat(2048) + "\n"), 4096).unwrap();
        assert!(cut.len() <= 4096 && cut.len() > 4090 && cut.ends_with("é…\n"), "{cut}");
    }

    #[test]
    fn an_exported_line_has_neither_colours_nor_a_line_feed() {
        let line = b"\x1b[2m2026-11-21T00:00:00Z\x1b[0m \x1b[32m INFO\x1b[0m serving\n";
        assert_eq!(plain(line), "2026-11-21T00:00:00Z  INFO serving");
    }

    #[test]
    fn a_line_of_json_that_is_cut_is_still_json() {
        let long = "é\\\"\n".repeat(5000);
        let line =
            serde_json::json!({ "level": "INFO", "message": long, "deep": { "list": [long] } });
        let cut = cut_text(&format!("{line}\n"), 4096).unwrap();
        assert!(cut.len() <= 4096 && cut.ends_with("}\n"));
        let cut: Value = serde_json::from_str(&cut).unwrap();
        assert_eq!(cut["level"], "INFO");
        assert!(cut["message"].as_str().unwrap().starts_with("é\\\"\n"));
    }
}
