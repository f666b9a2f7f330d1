//! Files that are read whole: a configuration, a secret. One that is larger than such a file can be is not read to
//! its end, which may be nowhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Why there is no text.
#[derive(Debug)]
pub enum Unread {
    /// The system says why.
    Failed(io::Error),
    /// The file is larger than it may be.
    TooLarge,
}

/// The text of a file of at most so many bytes.
pub fn text_of(path: &Path, most: u64) -> Result<String, Unread> {
    let file = File::open(path).map_err(Unread::Failed)?;
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text).map_err(Unread::Failed)?;
    if text.len() as u64 > most {
        return Err(Unread::TooLarge);
    }
    let not_text =
        |_| Unread::Failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"));
    String::from_utf8(text).map_err(not_text)
}
