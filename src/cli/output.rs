//! Standard output of the commands: what is printed, in which colour, and whether at all.

use std::fmt;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prints `text`. A closed pipe, for example to `head`, is not an error. A full disk is one, because the
/// reader of the file would take incomplete output for complete.
pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
            Err(format!("the answer could not be written: {cause}"))
        }
        _ => Ok(()),
    }
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Sets whether only results, warnings and errors are printed.
pub(super) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Returns whether only results, warnings and errors are printed.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Returns whether standard output shows colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
    })
}

/// The beginning of bold text, and the end of any colour.
pub(super) const BOLD: &str = "\u{1b}[1m";
pub(super) const PLAIN: &str = "\u{1b}[0m";

/// The word before a finding, in its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FindingMark {
    Ok,
    Warning,
    Failed,
    Inconclusive,
}

impl fmt::Display for FindingMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, colour) = match self {
            Self::Ok => ("ok  ", "\u{1b}[32m"),
            Self::Warning => ("warn", "\u{1b}[33m"),
            Self::Failed => ("FAIL", "\u{1b}[1;31m"),
            Self::Inconclusive => ("?   ", "\u{1b}[33m"),
        };
        if has_colours() { write!(f, "{colour}{word}{PLAIN}") } else { f.write_str(word) }
    }
}

/// Replaces control characters, which may come from a server or a file and must not reach the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Returns a number with its noun: `1 warning`, `2 warnings`.
pub(super) fn several(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
