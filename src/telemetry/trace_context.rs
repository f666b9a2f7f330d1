//! The trace context of the W3C: the ids of a trace and a span, and the header that carries them.

use std::fmt;

use crate::oauth::secret::random_bytes;

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Longest `traceparent` of a later version that is read. Ours is version 00, which is always 55.
const LONGEST: usize = 256;

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
        let random = random_bytes::<24>();
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        for (to, from) in trace.iter_mut().chain(&mut span).zip(random) {
            *to = from;
        }
        Self { trace, span, sampled: false }
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
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if self.sampled { "-01" } else { "-00" })
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
