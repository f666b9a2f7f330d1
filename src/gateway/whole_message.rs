//! Reads the same members as [`super::message_scanner`], of one JSON-RPC message that is there as a whole. Most
//! messages are: so they cost a tenth of what the scanner costs for bytes that arrive in pieces, and no memory.
//!
//! It leaves everything unusual to the scanner: batches, messages that are cut off, and names with escapes.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

/// Longest text that is returned, in bytes. The scanner reads what is longer.
const LONGEST: usize = 1024;

/// A response that has none of these neither has an `error` nor says `isError`.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("rror"));
static METHOD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"method\""));
static RESULT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"result\""));

/// Whether a whole message is a response that says nowhere that something failed: what most responses are. To
/// search for three words costs less than to read the message.
pub(super) fn is_plain_result(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii(), [b'{', .., b'}'])
        && ERROR.find(bytes).is_none()
        && METHOD.find(bytes).is_none()
        && RESULT.find(bytes).is_some()
}

/// What was read of a message. Of a request, members may be missing that come after those that say what it
/// calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WholeMessage<'a> {
    /// `method`, if it has one.
    pub(super) method: Option<&'a str>,
    /// `params.name`.
    pub(super) name: Option<&'a str>,
    /// Whether it has an `id`.
    pub(super) has_id: bool,
    /// Whether it has a `result`.
    pub(super) has_result: bool,
    /// `result.isError`.
    pub(super) is_error: Option<bool>,
    /// Whether it has an `error`.
    pub(super) has_error: bool,
}

impl<'a> WholeMessage<'a> {
    /// Reads a message; `None` if the scanner has to.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let mut message = Self::default();
        if rest.next()? != b'{' {
            return None;
        }
        let read = rest.members(|name, rest| {
            message.member(name, rest)?;
            (!message.names_a_call()).then_some(())
        });
        if message.names_a_call() {
            return Some(message); // no need to read the arguments
        }
        read?;
        rest.0.iter().all(u8::is_ascii_whitespace).then_some(message)
    }

    /// Whether everything is known that counts for a request.
    fn names_a_call(&self) -> bool {
        self.has_id
            && self.method.is_some_and(|method| method != "tools/call" || self.name.is_some())
    }

    fn member(&mut self, name: &[u8], rest: &mut Rest<'a>) -> Option<()> {
        match name {
            b"id" => self.has_id = rest.value()? != Skipped::Null,
            b"method" => rest.text_into(&mut self.method)?,
            b"params" => rest.members_or_value(|name, rest| {
                match name {
                    b"name" => rest.text_into(&mut self.name)?,
                    _ => _ = rest.value()?,
                }
                (!self.names_a_call()).then_some(())
            })?,
            b"result" => {
                self.has_result = true;
                rest.members_or_value(|name, rest| {
                    let value = rest.value()?;
                    if name == b"isError" {
                        self.is_error = Some(value == Skipped::True);
                    }
                    Some(())
                })?;
            }
            b"error" => self.has_error |= rest.value()? != Skipped::Null,
            _ => _ = rest.value()?,
        }
        Some(())
    }
}

/// A value that was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipped {
    Null,
    True,
    Other,
}

/// One in each byte.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// Returns a number whose lowest bit is in the first byte of `bytes` that is zero; zero if none is.
const fn zeros(bytes: u64) -> u64 {
    bytes.wrapping_sub(EACH) & !bytes & (EACH << 7)
}

/// The bytes that are not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Returns the next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    /// Reads the members of an object whose bracket has been read.
    fn members(&mut self, mut each: impl FnMut(&[u8], &mut Self) -> Option<()>) -> Option<()> {
        let mut byte = self.next()?;
        if byte == b'}' {
            return Some(());
        }
        loop {
            if byte != b'"' {
                return None;
            }
            let name = self.plain_text()?;
            if self.next()? != b':' {
                return None;
            }
            each(name, self)?;
            match self.next()? {
                b'}' => return Some(()),
                b',' => byte = self.next()?,
                _ => return None,
            }
        }
    }

    /// Reads the members of a value that is an object, and passes over any other.
    fn members_or_value(&mut self, each: impl FnMut(&[u8], &mut Self) -> Option<()>) -> Option<()> {
        let before = self.0;
        if self.next()? == b'{' {
            return self.members(each);
        }
        self.0 = before;
        self.value().map(|_| ())
    }

    /// Reads the value into `place` if it is a text, and passes over any other.
    fn text_into(&mut self, place: &mut Option<&'a str>) -> Option<()> {
        let before = self.0;
        if self.next()? == b'"' {
            let text = self.plain_text().filter(|text| text.len() <= LONGEST)?;
            *place = Some(std::str::from_utf8(text).ok()?);
            return Some(());
        }
        self.0 = before;
        self.value().map(|_| ())
    }

    /// Returns the text whose quote has been read; `None` if it has an escape.
    fn plain_text(&mut self) -> Option<&'a [u8]> {
        let end = self.text_end()?;
        let (text, rest) = self.0.split_at_checked(end)?;
        let (end, rest) = rest.split_first()?;
        self.0 = rest;
        (*end == b'"').then_some(text)
    }

    /// Returns how many bytes come before the next quote or backslash.
    fn text_end(&self) -> Option<usize> {
        // Names are short. To look at eight bytes at once costs less than to call a search for many.
        if let Some(first) = self.0.first_chunk() {
            let first = u64::from_le_bytes(*first);
            let found =
                zeros(first ^ (EACH * u64::from(b'"'))) | zeros(first ^ (EACH * u64::from(b'\\')));
            if found != 0 {
                return usize::try_from(found.trailing_zeros() / 8).ok();
            }
        }
        memchr2(b'"', b'\\', self.0)
    }

    /// Passes over a text whose quote has been read.
    fn skip_text(&mut self) -> Option<()> {
        loop {
            let end = self.text_end()?;
            let is_end = self.0.get(end) == Some(&b'"');
            self.0 = self.0.get(end + if is_end { 1 } else { 2 }..)?;
            if is_end {
                return Some(());
            }
        }
    }

    /// Passes over a value.
    fn value(&mut self) -> Option<Skipped> {
        match self.next()? {
            b'"' => self.skip_text()?,
            b'{' | b'[' => self.skip_container()?,
            first @ (b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                let is_end = |byte: &u8| !matches!(byte, b'a'..=b'z' | b'E' | b'0'..=b'9' | b'-' | b'+' | b'.');
                let (literal, rest) = self.0.split_at_checked(self.0.iter().position(is_end)?)?;
                self.0 = rest;
                match (first, literal) {
                    (b'n', b"ull") => return Some(Skipped::Null),
                    (b't', b"rue") => return Some(Skipped::True),
                    _ => {}
                }
            }
            _ => return None,
        }
        Some(Skipped::Other)
    }

    /// Passes over the rest of an object or array whose bracket has been read.
    fn skip_container(&mut self) -> Option<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => self.skip_text()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_request_and_a_usual_response_are_read() {
        let request = br#" {"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": {
            "arguments": {"name": "x", "deep": [{"a": "}\"]"}]}, "name": "get-todos"}} "#;
        let read = WholeMessage::read(request).unwrap();
        assert_eq!((read.method, read.name), (Some("tools/call"), Some("get-todos")));
        assert!(read.has_id && !read.has_result);
        let cut = br#"{"id":1,"method":"tools/call","params":{"name":"get-todos","arguments":"#;
        assert_eq!(WholeMessage::read(cut).unwrap().name, Some("get-todos"));
        for (response, is_error) in [
            (r#"{"id":1,"result":{"content":[{"isError":true}],"isError":false}}"#, Some(false)),
            (r#"{"id":1,"result":{"isError":true,"content":[]}}"#, Some(true)),
            (r#"{"id":1,"result":{}}"#, None),
        ] {
            let read = WholeMessage::read(response.as_bytes()).unwrap();
            assert_eq!((read.has_result, read.is_error), (true, is_error), "{response}");
        }
    }

    #[test]
    fn a_result_without_any_error_is_plain() {
        for (response, is_plain) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, true),
            (" {\"result\":1} \n", true),
            (r#"{"result":{"isError":false}}"#, false),
            (r#"{"id":1,"error":{"code":1}}"#, false),
            (r#"{"id":1,"method":"ping"}"#, false),
            (r#"{"id":1,"method":"x","params":{"result":1}}"#, false),
            (r#"{"id":1}"#, false),
            (r#"[{"id":1,"result":1}]"#, false),
            (r#"{"id":1,"result":{"content":["#, false),
            ("{", false),
            ("", false),
        ] {
            assert_eq!(is_plain_result(response.as_bytes()), is_plain, "{response}");
        }
    }

    #[test]
    fn texts_end_at_the_first_quote_or_backslash() {
        for length in 0..40 {
            for end in [b'"', b'\\'] {
                let text =
                    [vec![0xa3_u8; length], vec![end], b"\"\\ more than eight bytes".to_vec()];
                assert_eq!(Rest(&text.concat()).text_end(), Some(length));
                assert_eq!(Rest(&text[..2].concat()).text_end(), Some(length));
            }
            assert_eq!(Rest(&vec![b'!'; length]).text_end(), None);
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_scanner() {
        let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(LONGEST + 1));
        for text in [
            "",
            "{",
            "[]",
            r#"{"method":"x","id":1"#,
            r#"{"id":1}{"id":2}"#,
            r#"{"m\u0065thod":"x"}"#,
            r#"{"method":"x\n"}"#,
            r#"{"params":{"n\u0061me":"x"}}"#,
            r#"{"id":1 "method":"x"}"#,
            r"{id:1}",
            r#"{"id":"#,
            &long,
        ] {
            assert_eq!(WholeMessage::read(text.as_bytes()), None, "{text}");
        }
    }
}
