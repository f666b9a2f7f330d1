//! Filters server-sent events: splits a stream into whole events and passes, changes or drops each. Memory is
//! bounded, and an event is held back only until its own end has arrived.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// The event is longer than the configured limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// Splits a stream into events, each with the empty line that ends it.
struct SseSplitter {
    held: Vec<u8>,
    /// Offset in `held` up to which bytes were scanned, and where the current line begins.
    scanned: usize,
    line: usize,
    /// The last line ended with a carriage return; a line feed right after it belongs to the same line end.
    after_return: bool,
    limit: usize,
}

impl SseSplitter {
    fn new(limit: usize) -> Self {
        Self { held: Vec::new(), scanned: 0, line: 0, after_return: false, limit }
    }

    /// Appends bytes and returns the events that are complete now. The returned bytes are removed from the
    /// buffer once, at the end: otherwise a chunk of ten thousand empty lines would copy the rest ten
    /// thousand times.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        self.held.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut given = 0;
        while let Some(&byte) = self.held.get(self.scanned) {
            let after_return = std::mem::take(&mut self.after_return);
            self.scanned += 1;
            if byte == b'\n' && after_return {
                self.line = self.scanned;
            } else if matches!(byte, b'\n' | b'\r') {
                let empty = self.line + 1 == self.scanned;
                self.after_return = byte == b'\r';
                self.line = self.scanned;
                if empty {
                    // The line feed of this line end may already be here.
                    if self.after_return && self.held.get(self.scanned) == Some(&b'\n') {
                        self.scanned += 1;
                        self.after_return = false;
                    }
                    events.push(self.held.get(given..self.scanned).unwrap_or_default().to_vec());
                    given = self.scanned;
                    self.line = self.scanned;
                }
            }
        }
        self.held.drain(..given);
        (self.scanned, self.line) = (self.scanned - given, self.line - given);
        if self.held.len() > self.limit { Err(TooLong) } else { Ok(events) }
    }

    /// Takes the bytes of an event that has not ended.
    fn rest(&mut self) -> Option<Vec<u8>> {
        (self.scanned, self.line) = (0, 0);
        Some(std::mem::take(&mut self.held)).filter(|rest| !rest.is_empty())
    }
}

/// An event, parsed as clients do (HTML Standard §9.2.6).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The event type; `message` if the event names none.
    pub(super) kind: String,
    /// Its data; `None` in comments and other events without any.
    pub(super) data: Option<String>,
}

impl Event {
    fn read(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let (mut kind, mut data) = ("message".to_owned(), None::<String>);
        for (field, value) in lines(text).map(field) {
            match (field, &mut data) {
                ("event", _) => value.clone_into(&mut kind),
                ("data", None) => data = Some(value.to_owned()),
                ("data", Some(data)) => data.extend(["\n", value]),
                _ => {}
            }
        }
        Self { kind, data }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("\r\n").flat_map(|part| part.split(['\r', '\n']))
}

/// Splits a line into field name and value. The name of a comment is empty.
fn field(line: &str) -> (&str, &str) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name, value.strip_prefix(' ').unwrap_or(value))
}

/// Returns the event with its data replaced; its other fields stay. Line ends become line feeds.
fn with_data(raw: &[u8], data: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(raw);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut changed = String::new();
    for line in lines(text).filter(|line| !line.is_empty() && field(line).0 != "data") {
        changed.extend([line, "\n"]);
    }
    for line in data.split('\n') {
        changed.extend(["data: ", line, "\n"]);
    }
    changed.push('\n');
    changed.into_bytes()
}

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FilterAction {
    Pass,
    /// Pass it with this data.
    Data(String),
    /// Drop it; the stream continues.
    Drop,
    /// End the stream before this event.
    End,
}

/// Work to finish before an event is passed.
pub(super) type BeforeEvent = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Decides what to do with each event.
pub(super) type EventFilter = Box<dyn FnMut(&Event) -> (FilterAction, Option<BeforeEvent>) + Send>;

/// An event stream that a filter is applied to.
pub(super) struct FilteredStream {
    inner: Body,
    cutter: SseSplitter,
    judge: EventFilter,
    ended: bool,
    /// Bytes to pass next, and the work to finish before.
    waiting: Option<(BeforeEvent, Vec<u8>)>,
}

impl FilteredStream {
    /// Filters the events of `inner`. A longer event than `limit` bytes ends the stream.
    pub(super) fn new(inner: Body, limit: usize, judge: EventFilter) -> Self {
        Self { inner, cutter: SseSplitter::new(limit), judge, ended: false, waiting: None }
    }

    fn judged(&mut self, events: Vec<Vec<u8>>) -> (Vec<u8>, Option<BeforeEvent>) {
        let (mut passed, mut before) = (Vec::new(), None::<BeforeEvent>);
        for raw in events {
            let (verdict, first) = (self.judge)(&Event::read(&raw));
            before = match (before, first) {
                (Some(one), Some(other)) => Some(Box::pin(async move {
                    one.await;
                    other.await;
                })),
                (one, other) => one.or(other),
            };
            match verdict {
                FilterAction::Pass => passed.extend(raw),
                FilterAction::Data(data) => passed.extend(with_data(&raw, &data)),
                FilterAction::Drop => {}
                FilterAction::End => {
                    self.ended = true;
                    break;
                }
            }
        }
        (passed, before)
    }
}

impl HttpBody for FilteredStream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Some((first, _)) = &mut self.waiting {
                if first.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let passed = self.waiting.take().map(|(_, passed)| passed).unwrap_or_default();
                if !passed.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(passed.into()))));
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let events = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.cutter.push(&data),
                    Err(_) => continue, // trailers mean nothing in an event stream
                },
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    Ok(self.cutter.rest().into_iter().collect())
                }
            };
            let Ok(events) = events else {
                tracing::warn!("stream cut: an event is longer than limits.gateway_body");
                self.ended = true;
                return Poll::Ready(None);
            };
            match self.judged(events) {
                (passed, Some(first)) => self.waiting = Some((first, passed)),
                (passed, None) if passed.is_empty() => {}
                (passed, None) => return Poll::Ready(Some(Ok(Frame::data(passed.into())))),
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

    /// Splits a stream that arrives in chunks of `size` bytes.
    fn cut(stream: &str, size: usize) -> Vec<String> {
        let mut cutter = SseSplitter::new(1000);
        let mut events: Vec<Vec<u8>> =
            stream.as_bytes().chunks(size).flat_map(|piece| cutter.push(piece).unwrap()).collect();
        events.extend(cutter.rest());
        events.into_iter().map(|event| String::from_utf8(event).unwrap()).collect()
    }

    #[test]
    fn a_piece_of_many_empty_lines_is_cut_without_copying_the_rest_each_time() {
        let mut cutter = SseSplitter::new(1_000_000);

        let events = cutter.push(&vec![b'\n'; 400_000]).unwrap();

        assert_eq!(events.len(), 400_000);
        assert_eq!(cutter.push(b"data: x\n\ndata").unwrap(), [b"data: x\n\n".to_vec()]);
        assert_eq!(cutter.rest().unwrap(), b"data");
    }

    #[test]
    fn events_are_cut_alike_however_they_arrive_and_whatever_ends_their_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let stream =
                ": hi\n\nevent: a\ndata: 1\ndata: 2\n\ndata\n\ndata: open".replace('\n', end);
            for size in 1..=stream.len() {
                let read: Vec<Event> =
                    cut(&stream, size).iter().map(|event| Event::read(event.as_bytes())).collect();
                let read: Vec<_> =
                    read.iter().map(|event| (event.kind.as_str(), event.data.as_deref())).collect();
                assert_eq!(
                    read,
                    [
                        ("message", None),
                        ("a", Some("1\n2")),
                        ("message", Some("")),
                        ("message", Some("open")),
                    ],
                    "{end:?} in pieces of {size}"
                );
            }
            assert_eq!(cut(&stream, 3).concat(), stream, "nothing is lost");
        }
    }

    #[test]
    fn an_event_without_end_is_not_held_for_ever() {
        let mut cutter = SseSplitter::new(10);
        assert_eq!(cutter.push(b"data: 1234"), Ok(vec![]));
        assert_eq!(cutter.push(b"5"), Err(TooLong));
    }

    #[test]
    fn data_behind_a_byte_order_mark_is_replaced_as_it_is_read() {
        let raw = "\u{feff}data: old\n\n".as_bytes();
        assert_eq!(Event::read(raw).data.as_deref(), Some("old"));
        assert_eq!(with_data(raw, "new"), b"data: new\n\n");
    }

    #[test]
    fn other_data_leaves_the_rest_of_an_event_as_it_was() {
        let raw = b"id: 7\r\nevent: message\r\ndata: old\r\ndata: older\r\nretry: 5\r\n\r\n";
        let changed = with_data(raw, "new\nnewer");
        let text = "id: 7\nevent: message\nretry: 5\ndata: new\ndata: newer\n\n";
        assert_eq!(String::from_utf8(changed).unwrap(), text);
    }
}
