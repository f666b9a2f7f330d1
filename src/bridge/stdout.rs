//! The messages that a process writes to standard output, one a line.
//!
//! The lines are cut by the codec of the official SDK (`rmcp`), with a limit. Its typed messages are not used:
//! they lose members and numbers that they do not know, and its transport drops notifications that are not in
//! the standard and leaves the caller of an answer that is too large waiting.

use rmcp::transport::async_rw::{JsonRpcMessageCodec, JsonRpcMessageCodecError};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder as _;

/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// One line of a process.
#[derive(Debug)]
pub(super) enum StdoutLine {
    /// JSON of any kind.
    Json(Box<RawValue>),
    /// No JSON; many programs print a greeting.
    NotJson(String),
    /// It is longer than the limit, or has no end.
    TooLong,
}

/// The lines of a process.
pub(super) struct StdoutLines<R> {
    source: R,
    buffer: BytesMut,
    codec: JsonRpcMessageCodec<Box<RawValue>>,
}

impl<R: AsyncRead + Unpin> StdoutLines<R> {
    pub(super) fn new(source: R, longest: usize) -> Self {
        let codec = JsonRpcMessageCodec::new_with_max_length(longest);
        Self { source, buffer: BytesMut::new(), codec }
    }

    /// Returns the next line; `None` at the end. A last line without a line break is no message.
    pub(super) async fn next(&mut self) -> Option<StdoutLine> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(message)) => return Some(StdoutLine::Json(message)),
                Ok(None) => {}
                Err(JsonRpcMessageCodecError::Serde(cause)) if is_empty_line(&cause) => continue,
                Err(JsonRpcMessageCodecError::MaxLineLengthExceeded) => {
                    return Some(StdoutLine::TooLong);
                }
                Err(cause) => return Some(StdoutLine::NotJson(cause.to_string())),
            }
            self.buffer.reserve(CHUNK);
            match self.source.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }
}

fn is_empty_line(cause: &serde_json::Error) -> bool {
    cause.is_eof() && cause.column() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], longest: usize) -> Vec<String> {
        let mut lines = StdoutLines::new(text, longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            found.push(match line {
                StdoutLine::Json(message) => message.get().to_owned(),
                StdoutLine::NotJson(_) => "not JSON".to_owned(),
                StdoutLine::TooLong => "too long".to_owned(),
            });
            if found.last().is_some_and(|last| last == "too long") {
                break;
            }
        }
        found
    }

    #[tokio::test]
    async fn a_line_that_is_no_message_does_not_hide_the_next_one() {
        let text =
            b"hello\n\n\r\n{\"a\":1.0}\r\n{\"b\":\xff}\n {\"c\" : 2} \n[\n{\"d\":3}\n{\"half\":";
        let expected =
            ["not JSON", "{\"a\":1.0}", "not JSON", "{\"c\" : 2}", "not JSON", "{\"d\":3}"];
        assert_eq!(lines(text, 100).await, expected);
    }

    #[tokio::test]
    async fn a_line_has_a_limit() {
        let message = format!("{{\"a\":\"{}\"}}\n", "x".repeat(91));
        assert_eq!(lines(message.as_bytes(), 100).await.len(), 1);
        assert!(lines(message.as_bytes(), 100).await[0].starts_with('{'));
        let longer = format!("{{\"a\":\"{}\"}}\n", "x".repeat(93));
        assert_eq!(lines(longer.as_bytes(), 100).await, ["too long"]);
        assert_eq!(lines(&vec![b'x'; 1_000_000], 100).await, ["too long"]);
    }
}
