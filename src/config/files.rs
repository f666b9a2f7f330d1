//! Reading whole files (a configuration, a secret, a logo) with a size limit, because the path may name a file that
//! never ends.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reasons why a file could not be read.
#[derive(Debug)]
pub enum Unread {
    /// An error of the operating system, or text that is not UTF-8.
    Failed(io::Error),
    /// The file exceeds the size limit.
    TooLarge,
}

/// Returns whether every user of this machine can read a file.
pub(super) fn is_readable_by_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Returns the bytes of a file of at most `most` bytes.
pub(super) fn bytes_of(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let file = File::open(path).map_err(Unread::Failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if bytes.len() as u64 > most {
        return Err(Unread::TooLarge);
    }
    Ok(bytes)
}

/// Returns the text of a file of at most `most` bytes.
pub fn text_of(path: &Path, most: u64) -> Result<String, Unread> {
    let text = bytes_of(path, most)?;
    let not_text =
        |_| Unread::Failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"));
    String::from_utf8(text).map_err(not_text)
}
