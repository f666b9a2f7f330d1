//! Server-sent events on their way through: whole events, one at a time, each passed on, changed or
//! dropped. Bounded, and nothing waits longer than for the end of its own event.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// An event is longer than the gateway holds.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// Cuts a stream into events, each with the empty line that ends it.
struct SseSplitter {
    held: Vec<u8>,
    /// How far `held` was looked at, and where the line under way began.
    scanned: usize,
    line: usize,
    /// The last line ended with a carriage return: a line feed right behind belongs to it.
    after_return: bool,
    limit: usize,
}

impl SseSplitter {
    fn new(limit: usize) -> Self {
        Self { held: Vec::new(), scanned: 0, line: 0, after_return: false, limit }
    }

    /// Takes bytes in and gives out the events that are whole now. What is given out is taken away once,
    /// at the end: a piece of ten thousand empty lines must not cost ten thousand copies of the rest.
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
                    // A line feed that belongs to this end may already be here.
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

    /// What came without an end.
    fn rest(&mut self) -> Option<Vec<u8>> {
        (self.scanned, self.line) = (0, 0);
        Some(std::mem::take(&mut self.held)).filter(|rest| !rest.is_empty())
    }
}

/// One event, as a client reads it (HTML Standard §9.2.6).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// What kind it is; `message` when it does not say.
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

/// Name and value of a line; a comment has the empty name.
fn field(line: &str) -> (&str, &str) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name, value.strip_prefix(' ').unwrap_or(value))
}

/// The event with other data; everything else of it stays.
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

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FilterAction {
    /// It passes as it is.
    Pass,
    /// It passes with this data.
    Data(String),
    /// It does not pass; the stream goes on.
    Drop,
    /// The stream ends here.
    End,
}

/// What has to be done before an event passes.
pub(super) type First = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Decides on each event.
pub(super) type EventFilter = Box<dyn FnMut(&Event) -> (FilterAction, Option<First>) + Send>;

/// A stream whose events are judged one by one.
pub(super) struct FilteredStream {
    inner: Body,
    cutter: SseSplitter,
    judge: EventFilter,
    ended: bool,
    /// What passes next, and what has to be done before.
    waiting: Option<(First, Vec<u8>)>,
}

impl FilteredStream {
    /// Events of `inner`, of at most `limit` bytes each.
    pub(super) fn new(inner: Body, limit: usize, judge: EventFilter) -> Self {
        Self { inner, cutter: SseSplitter::new(limit), judge, ended: false, waiting: None }
    }

    fn judged(&mut self, events: Vec<Vec<u8>>) -> (Vec<u8>, Option<First>) {
        let (mut passed, mut before) = (Vec::new(), None::<First>);
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
                    Err(_) => continue, // trailers say nothing to a client of events
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

    /// The events of a stream that arrives in pieces of `size` bytes.
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
