//! Seals the event ids of a stream for their holder (`session.rs`). Everything else passes unchanged and
//! without delay, and chunks without an id are not copied.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::authenticate::Caller;
use super::session::context_of_events;
use crate::config::TargetTag;
use crate::oauth::sealed::Sealer;

/// Longest event id that is sealed, in bytes: its sealed form has to fit into what `session.rs` accepts when
/// the client sends it back. A longer id is left out.
const LONGEST: usize = 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Position in the stream (HTML Standard §9.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start, where a byte order mark may be. Holds how many of its bytes have been read.
    Beginning(usize),
    LineStart,
    /// In a line without an id.
    Line,
    /// In a line that may have an id; it is held back.
    Id,
    /// In the rest of an id that is too long and left out.
    LeftOut,
}

/// Finds the ids in a stream and replaces each with its sealed form.
struct Ids {
    at: At,
    held: Vec<u8>,
    sealer: Sealer,
    context: String,
    /// The target that the stream comes from.
    target: TargetTag,
}

impl Ids {
    /// Processes one chunk of the stream and returns what may pass already.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let mut passed: Option<Vec<u8>> = None;
        // Bytes between `from` and `here` have been scanned and pass unchanged.
        let (mut from, mut here) = (0, 0);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        while let Some(rest) = piece.get(here..).filter(|rest| !rest.is_empty()) {
            let end = rest.iter().position(is_end);
            match self.at {
                At::Beginning(read) => {
                    if rest.first() == BYTE_ORDER_MARK.get(read) {
                        here += 1;
                        self.at = At::Beginning(read + 1);
                    } else {
                        self.at = At::LineStart;
                    }
                }
                At::LineStart if may_be_id(rest) => self.at = At::Id,
                At::LineStart | At::Line => {
                    here = end.map_or(piece.len(), |end| here + end + 1);
                    self.at = if end.is_some() { At::LineStart } else { At::Line };
                }
                At::Id | At::LeftOut => {
                    let passed = passed.get_or_insert_with(|| Vec::with_capacity(piece.len() + 64));
                    passed.extend_from_slice(piece.get(from..here).unwrap_or_default());
                    let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                    if self.at == At::Id {
                        self.held.extend_from_slice(line);
                        if !may_be_id(&self.held) {
                            passed.append(&mut self.held);
                            self.at = At::Line;
                        } else if self.held.len() > "id: ".len() + LONGEST {
                            tracing::warn!("the id of an event was left out: it is too long");
                            self.held.clear();
                            passed.push(b':'); // a comment, so that the line still ends
                            self.at = At::LeftOut;
                        }
                    }
                    here += line.len();
                    from = here;
                    if end.is_some() {
                        passed.extend(self.let_go());
                        self.at = At::Line;
                    }
                }
            }
        }
        match passed {
            None => piece,
            Some(mut passed) => {
                passed.extend_from_slice(piece.get(from..here).unwrap_or_default());
                passed.into()
            }
        }
    }

    /// Releases the line that was held back, with its id sealed.
    fn let_go(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.held);
        let Some(value) = line.strip_prefix(b"id:") else { return line };
        let id = value.strip_prefix(b" ").unwrap_or(value);
        if id.is_empty() || id.contains(&0) {
            return line; // an empty id, or one with a NUL, which clients ignore
        }
        let (field, _) = line.split_at(line.len() - id.len());
        [field, self.sealer.seal_alike(&self.context, &self.target.before(id)).as_bytes()].concat()
    }
}

/// Whether a line that begins with these bytes may be an `id` field.
fn may_be_id(line: &[u8]) -> bool {
    match line {
        [b'i'] | [b'i', b'd'] => true,
        [b'i', b'd', next, ..] => *next == b':',
        _ => false,
    }
}

/// An event stream whose ids are sealed.
pub(super) struct SealedIds {
    inner: Body,
    ids: Ids,
    ended: bool,
}

impl SealedIds {
    pub(super) fn new(inner: Body, sealer: &Sealer, caller: &Caller, target: TargetTag) -> Self {
        let (sealer, context) = (sealer.clone(), context_of_events(caller));
        let ids = Ids { at: At::Beginning(0), held: Vec::new(), sealer, context, target };
        Self { inner, ids, ended: false }
    }
}

impl HttpBody for SealedIds {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let passed = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.ids.pass(data),
                    Err(_) => continue, // trailers mean nothing in an event stream
                },
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    self.ids.let_go().into()
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        let sealer = Sealer::new(b"a key");
        let target = TargetTag::of(&url::Url::parse("http://inner/mcp").unwrap());
        Ids { at: At::Beginning(0), held: Vec::new(), sealer, context: "bob".to_owned(), target }
    }

    #[test]
    fn what_holds_no_id_is_not_copied() {
        for text in
            ["data: id: 1\n\nidle: x\r\n\r\nevent: i", "\u{feff}data: x\n\n", "\n\nid\n: x\n"]
        {
            let piece = Bytes::from(text);
            let passed = ids().pass(piece.clone());
            if text.contains("id\n") {
                assert_eq!(passed, piece);
            } else {
                assert_eq!(passed.as_ptr(), piece.as_ptr(), "{text:?}");
            }
        }
    }

    #[test]
    fn gw_22_an_id_is_sealed_however_the_stream_is_cut() {
        let text = b"\xef\xbb\xbfid: 1\ndata: x\n\nid:2\r\n\r\ni\nid\rid:\nidx: 3\nid: 4";
        let whole = {
            let mut ids = ids();
            [ids.pass(Bytes::from_static(text)).to_vec(), ids.let_go()].concat()
        };
        let read = String::from_utf8_lossy(&whole).into_owned();
        for plain in ["id: 1", "id:2", "id: 4"] {
            assert!(!read.contains(&format!("{plain}\n")) && !read.ends_with(plain), "{read}");
        }
        for size in 1..text.len() {
            let mut ids = ids();
            let mut passed: Vec<u8> = Vec::new();
            for piece in text.chunks(size) {
                passed.extend(ids.pass(Bytes::from_static(piece)));
            }
            passed.extend(ids.let_go());
            assert_eq!(passed, whole, "pieces of {size}");
        }
    }
}
