//! Output of the commands: tables for people, JSON for programs. Names may come from strangers, so control
//! characters are replaced before printing.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

pub(super) use crate::cli::output::print as print_as_is;
use crate::cli::output::{BOLD, PLAIN, has_colours};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;

/// A table with column headings.
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell).replace('\n', " ")).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "None.");
        }
        let headings: Vec<String> = self.headings.iter().map(|&text| text.to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&headings]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        for (index, row) in [&headings].into_iter().chain(&self.rows).enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            let line = line.trim_end();
            if index == 0 && has_colours() {
                writeln!(f, "{BOLD}{line}{PLAIN}")?;
            } else {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Formats names and values, one pair per line.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}\n", plain(value));
    facts.iter().map(line).collect()
}

/// Replaces characters that control a terminal or change the text direction.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

fn obeyed(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Prints to standard output, with control characters escaped.
pub(super) fn print(text: &str) -> Result<(), String> {
    print_as_is(&escape_control_chars(text))
}

/// Escapes control characters that are left. JSON already escapes most; the others get the equivalent escape.
/// The bold headings of our own tables stay; a cell cannot imitate them, because it has no control characters.
fn escape_control_chars(text: &str) -> String {
    if has_colours() && text.contains(BOLD) {
        let lines = text.split_inclusive('\n').map(|line| {
            match line.strip_prefix(BOLD).and_then(|rest| rest.strip_suffix("\u{1b}[0m\n")) {
                Some(heading) => format!("{BOLD}{}{PLAIN}\n", escaped(heading)),
                None => escaped(line),
            }
        });
        return lines.collect();
    }
    escaped(text)
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Formats a time for people: `2026-11-21 08:41 UTC`.
pub(super) fn utc(moment: Timestamp) -> String {
    crate::web::list_page::utc(moment)
}

/// Formats a time for a column whose heading names the zone: `2026-11-21 08:41`.
pub(super) fn utc_cell(moment: Timestamp) -> String {
    let text = utc(moment);
    text.strip_suffix(" UTC").map(str::to_owned).unwrap_or(text)
}

/// Formats a time for programs (RFC 3339, UTC).
pub(super) fn iso(moment: Timestamp) -> Value {
    chrono::DateTime::from_timestamp(moment.unix(), 0)
        .map_or(Value::Null, |time| json!(time.format("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// Formats an optional time for programs.
pub(super) fn iso_or_null(moment: Option<Timestamp>) -> Value {
    moment.map_or(Value::Null, iso)
}

/// Returns a client's display name, safe to print, and marked with `(!)` if it imitates another name.
pub(super) fn client_name(metadata: Option<&str>) -> String {
    let metadata = metadata.and_then(|text| ClientMetadata::from_stored_json(text).ok());
    let name = DisplayName::of(metadata.as_ref().and_then(|m| m.client_name.as_deref()));
    let mark = if name.suspicious { " (!)" } else { "" };
    format!("{}{mark}", name.text.unwrap_or_else(|| "(no name)".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\u{202e}d\rtwo\nlines"), "a�[2Jb�c�d�two\nlines");
        assert_eq!(escape_control_chars("\"\u{9b}\u{202e}\u{7f}\""), "\"\\u009b\\u202e\\u007f\"");
    }

    #[test]
    fn a_table_stays_a_table_whatever_is_in_it() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(vec!["1".to_owned(), "two\nlines".to_owned()]);
        table.row(vec!["22222".to_owned(), "名".to_owned()]);
        assert_eq!(table.to_string(), "ID     NAME\n1      two lines\n22222  名\n");
        assert_eq!(Table::new(&["ID"]).to_string(), "None.\n");
    }
}
