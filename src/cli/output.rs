//! Standard output of commands.

use std::io::{ErrorKind, Write as _};

/// Prints `text`. A reader that has gone away, such as `head`, is no error; a full disk is: whatever reads the
/// file would take it for whole.
pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
            Err(format!("the answer could not be written: {cause}"))
        }
        _ => Ok(()),
    }
}
