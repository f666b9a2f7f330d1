//! Reads a few members of JSON-RPC messages from bytes that arrive in pieces: what is called, and how the
//! call ended. Keeps nothing else, so neither arguments nor results are ever held.
//!
//! Nothing is decided by this: it is for counting only, of messages that pass in any case. It accepts anything,
//! and reads what is no JSON as if it were.

/// Longest text that is kept, in bytes as written.
const LONGEST: usize = 1024;

/// A member whose value is of interest, at the top of a message or in its `params` and `result`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Other,
    Id,
    Method,
    Params,
    Result,
    Error,
    /// Of `params`.
    Name,
    /// Of `params`.
    Meta,
    /// Of `result`.
    IsError,
}

impl Member {
    fn of_message(name: &[u8]) -> Self {
        match name {
            b"id" => Self::Id,
            b"method" => Self::Method,
            b"params" => Self::Params,
            b"result" => Self::Result,
            b"error" => Self::Error,
            _ => Self::Other,
        }
    }

    fn of_its(container: Self, name: &[u8]) -> Self {
        match (container, name) {
            (Self::Params, b"name") => Self::Name,
            (Self::Params, b"_meta") => Self::Meta,
            (Self::Result, b"isError") => Self::IsError,
            _ => Self::Other,
        }
    }
}

/// What was read of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ScannedMessage {
    /// `method`, if it has one.
    pub(super) method: Option<String>,
    /// `params.name`.
    pub(super) name: Option<String>,
    /// `params._meta.traceparent`, of a message that is alone.
    pub(super) traceparent: Option<String>,
    /// Whether it has an `id`.
    pub(super) has_id: bool,
    /// The `id` as JSON, if it is kept.
    pub(super) id: Option<String>,
    /// Whether it has a `result`.
    pub(super) has_result: bool,
    /// `result.isError`.
    pub(super) is_error: Option<bool>,
    /// Whether it has an `error`.
    pub(super) has_error: bool,
}

/// When a message has been read far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanUntil {
    /// At its end. Ids are kept in batches only.
    End,
    /// At its end, with its id.
    EndWithId,
    /// When `result` begins, for calls whose results are all alike.
    Result,
    /// When `result.isError` is known.
    IsError,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// Between values.
    #[default]
    Gap,
    Text,
    /// After a backslash in a text.
    Escape,
    /// A number, `true`, `false` or `null`.
    Literal,
}

/// The scanner. It continues where the last piece ended.
#[derive(Debug)]
pub(super) struct MessageScanner {
    until: ScanUntil,
    within: Within,
    depth: u32,
    /// The depth of the members of a message: 1, or 2 in a batch; 0 before the first bracket.
    base: u32,
    /// Whether the containers at depths 1 to 3 are objects.
    objects: [bool; 4],
    /// Whether a text is the name of a member.
    at_name: bool,
    member: Member,
    inner: Member,
    /// Whether the member of `_meta` is `traceparent`.
    at_traceparent: bool,
    /// Whether `text` keeps the current text or literal.
    keeps: bool,
    text: Vec<u8>,
    message: ScannedMessage,
}

impl MessageScanner {
    pub(super) fn new(until: ScanUntil) -> Self {
        Self {
            until,
            within: Within::Gap,
            depth: 0,
            base: 0,
            objects: [false; 4],
            at_name: false,
            member: Member::Other,
            inner: Member::Other,
            at_traceparent: false,
            keeps: false,
            text: Vec::new(),
            message: ScannedMessage::default(),
        }
    }

    /// Forgets a message that has not ended.
    pub(super) fn reset(&mut self) {
        let text = std::mem::take(&mut self.text);
        *self = Self { text, ..Self::new(self.until) };
        self.text.clear();
    }

    /// Whether no message has begun.
    pub(super) fn is_between_messages(&self) -> bool {
        self.depth == 0 && self.within == Within::Gap
    }

    /// Reads a piece, and gives every message that was read far enough to `each`. Stops when that returns
    /// `false`.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(ScannedMessage) -> bool,
    ) -> bool {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            let mut message = None;
            match self.within {
                Within::Text => {
                    let rest = piece.get(at..).unwrap_or_default();
                    let (plain, end) = rest.split_at(plain_length(rest));
                    self.keep(plain);
                    at += plain.len();
                    match end.first() {
                        None => continue,
                        Some(b'"') => message = self.end_text(),
                        Some(_) => {
                            self.keep(b"\\");
                            self.within = Within::Escape;
                        }
                    }
                    at += 1;
                }
                Within::Escape => {
                    self.keep(&[byte]);
                    self.within = Within::Text;
                    at += 1;
                }
                Within::Literal if is_literal(byte) => {
                    self.keep(&[byte]);
                    at += 1;
                }
                Within::Literal => message = self.end_literal(),
                Within::Gap => {
                    message = self.step(byte);
                    at += 1;
                }
            }
            if let Some(message) = message
                && !each(message)
            {
                return false;
            }
        }
        true
    }

    /// Reads one byte between values.
    fn step(&mut self, byte: u8) -> Option<ScannedMessage> {
        match byte {
            b'"' => {
                self.within = Within::Text;
                self.keeps = if self.at_name {
                    self.depth <= self.base + 1 || self.in_meta()
                } else {
                    self.wants()
                };
            }
            b'{' | b'[' => return self.open(byte == b'{'),
            b'}' | b']' => return self.close(),
            b',' => {
                let place = usize::try_from(self.depth).unwrap_or(usize::MAX);
                self.at_name = self.objects.get(place).copied().unwrap_or(false);
            }
            b':' => self.at_name = false,
            byte if is_literal(byte) => {
                self.within = Within::Literal;
                self.keeps = self.depth <= self.base + 1;
                self.keep(&[byte]);
            }
            _ => {}
        }
        None
    }

    /// Whether the value that begins is one whose text is kept.
    fn wants(&self) -> bool {
        match (self.member, self.inner) {
            (Member::Method, _) => self.depth == self.base,
            (Member::Id, _) => self.depth == self.base && self.keeps_ids(),
            (Member::Params, Member::Name) => self.depth == self.base + 1,
            (Member::Params, Member::Meta) => self.in_meta() && self.at_traceparent,
            _ => false,
        }
    }

    /// Whether this is directly within `_meta` of a message that is alone.
    fn in_meta(&self) -> bool {
        self.base == 1
            && self.depth == self.base + 2
            && (self.member, self.inner) == (Member::Params, Member::Meta)
    }

    fn keeps_ids(&self) -> bool {
        self.base == 2 || self.until == ScanUntil::EndWithId
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeps {
            let room = (LONGEST + 1).saturating_sub(self.text.len()); // one more shows that it is too long
            self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }

    fn open(&mut self, is_object: bool) -> Option<ScannedMessage> {
        if self.depth == 0 {
            self.base = if is_object { 1 } else { 2 };
        }
        let message = self.value(b"{");
        self.depth = self.depth.saturating_add(1);
        let place = usize::try_from(self.depth).unwrap_or(usize::MAX);
        if let Some(object) = self.objects.get_mut(place) {
            *object = is_object;
        }
        self.at_name = is_object;
        if self.depth == self.base {
            self.message = ScannedMessage::default();
            self.member = Member::Other;
        }
        if self.depth <= self.base + 1 {
            self.inner = Member::Other;
        }
        message
    }

    fn close(&mut self) -> Option<ScannedMessage> {
        let ends = self.depth > 0 && self.depth == self.base;
        self.depth = self.depth.saturating_sub(1);
        self.at_name = false;
        if self.depth == 0 {
            (self.base, self.member, self.inner) = (0, Member::Other, Member::Other);
        }
        ends.then(|| std::mem::take(&mut self.message))
    }

    fn end_text(&mut self) -> Option<ScannedMessage> {
        self.within = Within::Gap;
        if !self.keeps {
            return if self.at_name { None } else { self.value(b"\"") };
        }
        let text = std::mem::take(&mut self.text);
        let message = if self.at_name {
            let name = unescaped(&text);
            let name = name.as_deref().unwrap_or_default().as_bytes();
            if self.depth == self.base {
                self.member = Member::of_message(name);
            } else if self.depth == self.base + 1 {
                self.inner = Member::of_its(self.member, name);
                self.at_traceparent = false;
            } else {
                self.at_traceparent = name == b"traceparent";
            }
            None
        } else {
            match (self.member, self.inner) {
                (Member::Method, _) => self.message.method = unescaped(&text),
                (Member::Id, _) => {
                    self.message.id = std::str::from_utf8(&text).ok().map(|id| format!("\"{id}\""));
                }
                (_, Member::Meta) => self.message.traceparent = unescaped(&text),
                _ => self.message.name = unescaped(&text),
            }
            self.value(b"\"")
        };
        self.text = text;
        self.text.clear();
        self.keeps = false;
        message
    }

    fn end_literal(&mut self) -> Option<ScannedMessage> {
        self.within = Within::Gap;
        let text = std::mem::take(&mut self.text);
        let message = if self.keeps { self.value(&text) } else { None };
        self.text = text;
        self.text.clear();
        self.keeps = false;
        message
    }

    /// Notes a value, of which `text` is the beginning. Returns the message if no more of it is needed.
    fn value(&mut self, text: &[u8]) -> Option<ScannedMessage> {
        let is_result = self.depth == self.base && self.member == Member::Result;
        if self.depth == self.base {
            match self.member {
                Member::Id => {
                    self.message.has_id = text != b"null";
                    if self.keeps_ids() && self.message.id.is_none() {
                        self.message.id = std::str::from_utf8(text).ok().map(str::to_owned);
                    }
                }
                Member::Result => self.message.has_result = true,
                Member::Error => self.message.has_error |= text != b"null",
                _ => {}
            }
        } else if self.depth == self.base + 1
            && (self.member, self.inner) == (Member::Result, Member::IsError)
        {
            self.message.is_error = Some(text == b"true");
            if self.until == ScanUntil::IsError {
                return Some(std::mem::take(&mut self.message));
            }
        }
        (is_result && self.until == ScanUntil::Result).then(|| std::mem::take(&mut self.message))
    }
}

/// Returns how many bytes come before the next quote or backslash. Many bytes are compared at once: most of a
/// large result is text.
fn plain_length(bytes: &[u8]) -> usize {
    const AT_ONCE: usize = 32;
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
    let mut length = 0;
    for chunk in bytes.chunks(AT_ONCE) {
        // No early exit within a chunk, so that the compiler can use wide instructions.
        if chunk.iter().fold(false, |any, byte| any | ends(byte)) {
            return length + chunk.iter().position(ends).unwrap_or(chunk.len());
        }
        length += chunk.len();
    }
    length
}

const fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Returns the text between the quotes; `None` if it is too long or no JSON.
fn unescaped(text: &[u8]) -> Option<String> {
    if text.len() > LONGEST {
        return None;
    }
    if !text.contains(&b'\\') {
        return std::str::from_utf8(text).ok().map(str::to_owned);
    }
    serde_json::from_slice(&[b"\"", text, b"\""].concat()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::whole_message::WholeMessage;
    use super::*;

    /// Reads a text that arrives in pieces of `size` bytes.
    fn scan(text: &str, size: usize, until: ScanUntil) -> Vec<ScannedMessage> {
        let (mut scanner, mut read) = (MessageScanner::new(until), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            scanner.feed(piece, |message| {
                read.push(message);
                true
            });
        }
        read
    }

    /// What serde reads of the same message.
    fn expected(message: &Value, in_batch: bool) -> ScannedMessage {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let params = message.get("params").filter(|params| params.is_object());
        let result = message.get("result").filter(|result| result.is_object());
        ScannedMessage {
            method: text(message.get("method")),
            name: text(params.and_then(|params| params.get("name"))),
            traceparent: params
                .and_then(|params| text(params.get("_meta")?.get("traceparent")))
                .filter(|_| !in_batch),
            has_id: message.get("id").is_some_and(|id| !id.is_null()),
            id: message.get("id").filter(|_| in_batch).map(Value::to_string),
            has_result: message.get("result").is_some(),
            is_error: result.and_then(|result| result.get("isError")).map(|is| *is == true),
            has_error: message.get("error").is_some_and(|error| !error.is_null()),
        }
    }

    /// What counts of a request. The rest is not read if it comes later.
    fn of_a_call(message: ScannedMessage) -> ScannedMessage {
        if message.method.is_none() || !message.has_id {
            return ScannedMessage { traceparent: None, ..message };
        }
        let name = message.name.filter(|_| message.method.as_deref() == Some("tools/call"));
        ScannedMessage { method: message.method, has_id: true, name, ..Default::default() }
    }

    fn as_scanned(whole: &WholeMessage<'_>) -> ScannedMessage {
        ScannedMessage {
            method: whole.method.map(str::to_owned),
            name: whole.name.map(str::to_owned),
            traceparent: None,
            has_id: whole.has_id,
            id: None,
            has_result: whole.has_result,
            is_error: whole.is_error,
            has_error: whole.has_error,
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\é\n{}\\[\\],: ]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = prop::sample::select(vec![
                "method",
                "params",
                "name",
                "result",
                "isError",
                "error",
                "id",
                "x",
                "a\"b",
                "_meta",
                "traceparent",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((name, inner), 0..4).prop_map(|members| {
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
            ]
        })
    }

    fn message() -> impl Strategy<Value = Value> {
        let id =
            prop_oneof![any::<u32>().prop_map(Value::from), "[a-z\"]{1,9}".prop_map(Value::from)];
        let method = prop_oneof![Just("tools/call".to_owned()), "[a-z/\"\\\\]{0,9}"];
        (id, method, value(), value(), 0..4_u8).prop_map(
            |(id, method, one, other, kind)| match kind {
                0 => json!({ "id": id, "method": method, "params": { "name": one, "arguments": other } }),
                1 => json!({ "jsonrpc": "2.0", "id": id, "result": { "content": one, "isError": other } }),
                2 => json!({ "id": id, "error": one, "result": other }),
                _ => json!({ "method": method, "params": one, "x": other }),
            },
        )
    }

    proptest! {
        #[test]
        fn messages_are_read_as_serde_reads_them(
            messages in prop::collection::vec(message(), 1..4),
            size in 1..70_usize,
        ) {
            let single = &messages[0];
            let read = scan(&single.to_string(), size, ScanUntil::End);
            prop_assert_eq!(read, [expected(single, false)]);
            if let Some(whole) = WholeMessage::read(single.to_string().as_bytes()) {
                prop_assert_eq!(of_a_call(as_scanned(&whole)), of_a_call(expected(single, false)));
            }
            let batch = Value::from(messages.clone()).to_string();
            let expected: Vec<_> = messages.iter().map(|one| expected(one, true)).collect();
            prop_assert_eq!(scan(&batch, size, ScanUntil::End), expected);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..9_usize) {
            let mut scanner = MessageScanner::new(ScanUntil::End);
            for piece in bytes.chunks(size) {
                scanner.feed(piece, |_| true);
            }
            WholeMessage::read(&bytes);
            WholeMessage::read(&[b"{\"id\":", bytes.as_slice()].concat());
        }
    }

    #[test]
    fn a_message_is_read_no_further_than_is_needed() {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":["#;
        let read = scan(text, 9, ScanUntil::IsError);
        assert_eq!(read.iter().map(|one| one.is_error).collect::<Vec<_>>(), [Some(true)]);
        let read = scan(text, 9, ScanUntil::Result);
        assert_eq!(read.iter().map(|one| one.has_result).collect::<Vec<_>>(), [true]);
        assert_eq!(scan(text, 9, ScanUntil::End), []);
    }

    #[test]
    fn names_are_read_however_they_are_written() {
        let escaped = r#"{"m\u0065thod":"tools\/call","params":{"n\u0061me":"get-t\u006fdos","arguments":{"name":"x"}}}"#;
        let read = scan(escaped, 1000, ScanUntil::End);
        assert_eq!(read[0].method.as_deref(), Some("tools/call"));
        assert_eq!(read[0].name.as_deref(), Some("get-todos"));
        let long = json!({ "method": "x", "params": { "name": "y".repeat(LONGEST + 1) } });
        assert_eq!(scan(&long.to_string(), 1000, ScanUntil::End)[0].name, None);
    }
}
