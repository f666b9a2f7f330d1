//! Standard output of the commands.

use std::io::{ErrorKind, Write as _};

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
