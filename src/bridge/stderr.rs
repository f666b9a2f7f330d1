//! What a process writes to standard error goes to our log, line by line.

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio::time::{Duration, Instant};

/// The longest line that is logged, in bytes. The rest is left out.
const LONGEST: usize = 2048;
/// Most lines that are logged of one process in a second.
const A_SECOND: u32 = 50;

/// Logs the lines of the process until it closes standard error.
pub(super) async fn log_lines(mut stderr: ChildStderr, command: &str, pid: u32) {
    let (mut chunk, mut line) = ([0; 4096], Vec::new());
    let mut budget = LinesASecond { since: Instant::now(), logged: 0, left_out: 0 };
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        for byte in chunk.iter().take(length) {
            if *byte != b'\n' {
                if line.len() <= LONGEST {
                    line.push(*byte);
                }
                continue;
            }
            budget.log(command, pid, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        budget.log(command, pid, &line);
    }
}

struct LinesASecond {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl LinesASecond {
    fn log(&mut self, command: &str, pid: u32, line: &[u8]) {
        let said = printable(line);
        if said.trim().is_empty() {
            return;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.logged) = (Instant::now(), 0);
        }
        if self.logged >= A_SECOND {
            self.left_out += 1;
            return;
        }
        self.logged += 1;
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            tracing::warn!(command, pid, left_out, "lines of an MCP server that were too many");
        }
        tracing::info!(command, pid, "{said}");
    }
}

/// Returns a line without anything that a terminal or a reader of the log would obey: control characters and
/// those that change the direction of text are escaped.
pub(super) fn printable(line: &[u8]) -> String {
    let cut = line.len() > LONGEST;
    let line = line.get(..LONGEST.min(line.len())).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\t' => text.push(' '),
            c if c.is_control() || turns => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    if cut {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_process_gives_a_terminal_no_orders() {
        assert_eq!(printable(b"\x1b[2Jgone\tand \xff\r"), "\\u{1b}[2Jgone and \u{fffd}");
        assert_eq!(printable("a\u{202e}b\u{85}".as_bytes()), "a\\u{202e}b\\u{85}");
        let long = printable(&vec![b'x'; 100_000]);
        assert_eq!((long.len(), long.ends_with('…')), (LONGEST + 3, true));
    }
}
