//! The trace context of the W3C: the ids of a trace and a span, and the header that carries them.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::oauth::secret::random_bytes;

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Longest `traceparent` of a later version that is read. Ours is version 00, which is always 55.
const LONGEST: usize = 256;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

thread_local! {
    /// Makes the ids of traces and spans. They have to be random and need not be secret, because nobody proves
    /// anything with them. So only the seed of each thread is from the operating system: every request needs ids,
    /// and a system call for each of them would be much of what telemetry costs.
    static IDS: RefCell<SmallRng> = RefCell::new(SmallRng::from_seed(random_bytes::<32>()));
}

/// A place in a trace: the trace, a span in it, and whether the trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace: [u8; 16],
    /// Id of the span.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Makes the ids of a new trace and its first span.
    pub(super) fn generate() -> Self {
        let [high, low, span] = IDS.with_borrow_mut(|ids| [(); 3].map(|()| ids.next_u64()));
        let trace = u128::from(high) << 64 | u128::from(low.max(1));
        Self { trace: trace.to_be_bytes(), span: span_id(span), sampled: false }
    }

    /// Makes the id of a further span of this trace.
    pub(super) fn next_span(self) -> Self {
        Self { span: span_id(IDS.with_borrow_mut(SmallRng::next_u64)), ..self }
    }

    /// Returns the `traceparent`: 55 characters of ASCII.
    pub fn traceparent(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace);
        write_hex(&mut text[36..52], &self.span);
        text[54] += u8::from(self.sampled);
        text
    }

    /// Parses a `traceparent`. Returns `None` for anything that the specification calls invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (head, rest) = (bytes.get(..LENGTH)?, bytes.get(LENGTH..)?);
        let [version] = hex::<1>(head.get(..2)?)?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version may say more, after another dash.
            _ => bytes.len() <= LONGEST && rest.first().is_none_or(|next| *next == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| head.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace = hex::<16>(head.get(3..35)?)?;
        let span = hex::<8>(head.get(36..52)?)?;
        let [flags] = hex::<1>(head.get(53..)?)?;
        let known = trace != [0; 16] && span != [0; 8];
        known.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// Writes the `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.traceparent().iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// Makes an id of random bits. An id of zeros would be invalid.
fn span_id(random: u64) -> [u8; 8] {
    random.max(1).to_be_bytes()
}

/// Writes bytes as lower-case hexadecimal digits, two for each.
fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Reads lower-case hexadecimal digits, the only ones that the specification allows.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let parsed = TraceContext::parse(EXAMPLE).unwrap();
        assert!(parsed.sampled && parsed.trace[0] == 0x4b && parsed.span[7] == 0xb7);
        assert_eq!(parsed.to_string(), EXAMPLE);
        let ours = TraceContext::generate();
        assert_eq!(TraceContext::parse(&ours.to_string()), Some(ours));
    }

    #[test]
    fn no_id_is_made_twice_on_any_thread() {
        let make = || -> Vec<TraceContext> { (0..500).map(|_| TraceContext::generate()).collect() };
        let threads = [(); 4].map(|()| std::thread::spawn(make));
        let made: Vec<_> = threads.into_iter().flat_map(|made| made.join().unwrap()).collect();

        let traces: BTreeSet<_> = made.iter().map(|one| one.trace).collect();
        let spans: BTreeSet<_> =
            made.iter().flat_map(|one| [one.span, one.next_span().span]).collect();
        assert_eq!((traces.len(), spans.len()), (2000, 4000));
        assert_eq!(span_id(0), [0, 0, 0, 0, 0, 0, 0, 1], "zeros are invalid");
    }

    #[test]
    fn te_02_nothing_but_a_valid_traceparent_is_read() {
        let later = format!("cc{}-what-the-future-brings", &EXAMPLE[2..]);
        assert!(TraceContext::parse(&later).is_some());
        assert!(TraceContext::parse(&EXAMPLE.replace("-01", "-ff")).is_some());
        for wrong in [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE[..54].to_owned(),
            format!("{EXAMPLE}-more"),
            format!("{EXAMPLE}0"),
            format!("cc{}x", &EXAMPLE[2..]),
            format!("cc{}-{}", &EXAMPLE[2..], "x".repeat(LONGEST)),
            format!("ff{}", &EXAMPLE[2..]),
            EXAMPLE.replace('-', "_"),
            EXAMPLE.replace("4bf9", "4bg9"),
            EXAMPLE.replace("4bf9", "é9"),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
        ] {
            assert_eq!(TraceContext::parse(&wrong), None, "{wrong}");
        }
    }
}
