//! `portcullis config show`: the merged configuration, line by line.

use std::fmt::Write as _;

/// One value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: String,
}

pub(super) fn render(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{:width$} = {}  # {}", line.key, line.value, line.origin);
    }
    text
}
