//! Finds the data in event streams, without holding it: for readers that need no whole events.

/// A part of an event stream.
pub(super) enum EventPart<'a> {
    /// Some of the data of an event.
    Data(&'a [u8]),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLine {
    /// In the name of a field; so many bytes of `data:` have been read.
    Field(usize),
    /// Right after `data:`, where one space does not count.
    Colon,
    Data,
    /// In a line of another field.
    Other,
}

/// Finds the data in an event stream (HTML Standard §9.2.5).
pub(super) struct EventLines {
    at: InLine,
    after_return: bool,
}

impl Default for EventLines {
    fn default() -> Self {
        Self { at: InLine::Field(0), after_return: false }
    }
}

impl EventLines {
    /// Splits a piece of the stream. Stops when `each` returns `false`, and returns that.
    pub(super) fn read(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(EventPart<'_>) -> bool,
    ) -> bool {
        const FIELD: &[u8] = b"data:";
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            let after_return = std::mem::take(&mut self.after_return);
            if matches!(byte, b'\n' | b'\r') {
                self.after_return = byte == b'\r';
                at += 1;
                let is_empty = self.at == InLine::Field(0) && !(byte == b'\n' && after_return);
                self.at = InLine::Field(0);
                if is_empty && !each(EventPart::End) {
                    return false;
                }
                continue;
            }
            match self.at {
                InLine::Field(read) if FIELD.get(read) == Some(&byte) => {
                    at += 1;
                    let whole = read + 1 == FIELD.len();
                    self.at = if whole { InLine::Colon } else { InLine::Field(read + 1) };
                }
                // A byte order mark may precede the first field.
                InLine::Field(0) if matches!(byte, 0xef | 0xbb | 0xbf) => at += 1,
                InLine::Field(_) => self.at = InLine::Other,
                InLine::Colon => {
                    at += usize::from(byte == b' ');
                    self.at = InLine::Data;
                }
                InLine::Data | InLine::Other => {
                    let rest = piece.get(at..).unwrap_or_default();
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                    at += line.len();
                    if self.at == InLine::Data && !each(EventPart::Data(line)) {
                        return false;
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the data of each event of a stream that arrives in pieces of `size` bytes.
    fn data(stream: &str, size: usize) -> Vec<String> {
        let (mut lines, mut events) = (EventLines::default(), vec![String::new()]);
        for piece in stream.as_bytes().chunks(size) {
            lines.read(piece, |part| {
                match part {
                    EventPart::Data(data) => {
                        events.last_mut().unwrap().push_str(std::str::from_utf8(data).unwrap());
                    }
                    EventPart::End => events.push(String::new()),
                }
                true
            });
        }
        events
    }

    #[test]
    fn the_data_of_events_is_found_however_they_are_cut() {
        let stream = "\u{feff}data: {1\n: x\ndata:2}\nid: data: 3\n\ndat: 4\ndata 5\ndata:  6\n\n";
        for end in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', end);
            for size in 1..=stream.len() {
                assert_eq!(data(&stream, size), ["{12}", " 6", ""], "{end:?} in pieces of {size}");
            }
        }
    }
}
