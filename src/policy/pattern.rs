//! The names in rules: an exact name, or a pattern. Patterns match the whole name, in time linear to its
//! length, even if the pattern is malicious.

use regex::{Regex, RegexBuilder};

const GLOB: &str = "glob:";
const REGEX: &str = "regex:";
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// Largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 256 * 1024;
/// Deepest nesting of groups.
const MAX_DEPTH: u32 = 32;

/// A role, group or permission, as a rule names it.
#[derive(Clone, Debug)]
pub struct Wanted {
    written: String,
    kind: PatternKind,
}

#[derive(Clone, Debug)]
enum PatternKind {
    Exact,
    Glob,
    Regex(Regex),
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Wanted {
    /// Parses an exact name, `glob:team-*` (a star matches any text) or `regex:team-[0-9]+`. The error
    /// describes the mistake in the pattern.
    pub fn parse(written: &str) -> Result<Self, String> {
        let too_long = |pattern: &str| {
            (pattern.len() > MAX_PATTERN).then(|| format!("is longer than {MAX_PATTERN} bytes"))
        };
        let kind = if let Some(pattern) = written.strip_prefix(GLOB) {
            too_long(pattern).map_or(Ok(PatternKind::Glob), Err)?
        } else if let Some(pattern) = written.strip_prefix(REGEX) {
            too_long(pattern).map_or(Ok(()), Err)?;
            PatternKind::Regex(anchored(pattern)?)
        } else {
            PatternKind::Exact
        };
        Ok(Self { written: written.to_owned(), kind })
    }

    /// Returns the text as the administrator wrote it.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Returns whether a text is read as a pattern.
    pub fn is_pattern(text: &str) -> bool {
        text.starts_with(GLOB) || text.starts_with(REGEX)
    }

    /// Returns a name that matches; `None` for a regular expression.
    pub(super) fn example(&self) -> Option<String> {
        match &self.kind {
            PatternKind::Exact => Some(self.written.clone()),
            PatternKind::Glob => {
                Some(self.written.strip_prefix(GLOB).unwrap_or_default().replace('*', ""))
            }
            PatternKind::Regex(_) => None,
        }
    }

    /// Returns whether `name` matches. Case-sensitive.
    pub(super) fn is(&self, name: &str) -> bool {
        match &self.kind {
            PatternKind::Exact => self.written == name,
            PatternKind::Glob => {
                glob_matches(self.written.strip_prefix(GLOB).unwrap_or_default(), name)
            }
            PatternKind::Regex(regex) => regex.is_match(name),
        }
    }
}

fn anchored(pattern: &str) -> Result<Regex, String> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .nest_limit(MAX_DEPTH)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "takes too much memory".to_owned(),
                // The error text of `regex` has several lines and marks a column; the last line has the
                // reason.
                other => {
                    let text = other.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    let reason = last.trim_start_matches("error: ").to_owned();
                    format!("is not a regular expression: {reason}")
                }
            })
    };
    // First without the anchors: `a)|(b` is invalid by itself, but would escape them.
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

fn glob_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_matches_the_whole_name_and_only_when_it_says_so() {
        for (wanted, name, holds) in [
            ("glob:team-*", "team-a", true),
            ("glob:team-*", "team-", true),
            ("glob:team-*", "my-team-a", false),
            ("glob:*-admins", "todo-admins", true),
            ("glob:*-admins", "todo-admins-not", false),
            ("glob:a*b*c", "a-b-c", true),
            ("glob:a*b*c", "a-c-b", false),
            ("glob:a*a", "a", false),
            ("glob:admin", "admin", true),
            ("glob:admin", "admins", false),
            ("glob:*", "anything", true),
            ("team-*", "team-a", false),
            ("team-*", "team-*", true),
            ("regex:team-[0-9]+", "team-7", true),
            ("regex:team-[0-9]+", "my-team-7", false),
            ("regex:team-[0-9]+", "team-7\n", false),
            ("regex:team-[0-9]+", "team-7\nteam-7", false),
            ("regex:admin|owner", "owner", true),
            ("regex:admin|owner", "adminowner", false),
            ("regex:admin|owner", "administrator", false),
            ("regex:admin", "Admin", false),
            ("regex:(?i)admin", "Admin", true),
            ("regex:(?m)^admin$", "admin\nother", false),
            ("regex:.*", "any thing", true),
            ("regex:", "", true),
            ("regex:", "x", false),
        ] {
            assert_eq!(Wanted::parse(wanted).unwrap().is(name), holds, "{wanted} {name:?}");
        }
    }

    #[test]
    fn a_pattern_that_is_broken_too_large_or_too_deep_is_refused() {
        for (pattern, reason) in [
            ("a)|(b".to_owned(), "not a regular expression"),
            ("[a".to_owned(), "not a regular expression"),
            (r"(a)\1".to_owned(), "not a regular expression"),
            ("(?=a)".to_owned(), "not a regular expression"),
            (r"(\w{100}){100}".to_owned(), "too much memory"),
            (format!("{}a{}", "(".repeat(40), ")".repeat(40)), "not a regular expression"),
            ("a".repeat(600), "longer than"),
        ] {
            let refused = Wanted::parse(&format!("regex:{pattern}")).unwrap_err();
            assert!(refused.contains(reason), "{pattern}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
        assert!(Wanted::parse(&format!("glob:{}", "*".repeat(600))).is_err());
    }

    /// Patterns that make back-tracking engines run forever. Here the test ends.
    #[test]
    fn a_pattern_takes_time_in_proportion_to_the_name() {
        let name = "a".repeat(100_000) + "!";
        for pattern in ["regex:(a+)+", "regex:(a|aa)+", "regex:(a*)*b", "glob:*a*a*a*a*b"] {
            assert!(!Wanted::parse(pattern).unwrap().is(&name), "{pattern}");
        }
    }

    /// Reference implementation: matches a pattern with stars by trying every length of each.
    fn by_trying(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|taken| by_trying(rest, &name[taken..])),
            [letter, rest @ ..] => name.first() == Some(letter) && by_trying(rest, &name[1..]),
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_glob_agrees_with_trying_every_length(pattern in "[ab*é]{0,8}", name in "[ab*é]{0,10}") {
            let letters = |text: &str| text.chars().collect::<Vec<char>>();
            let expected = by_trying(&letters(&pattern), &letters(&name));
            prop_assert_eq!(Wanted::parse(&format!("glob:{pattern}")).unwrap().is(&name), expected);
        }

        #[test]
        fn no_regex_panics_and_one_that_holds_is_found_in_the_name(pattern in "[ab|()^$.*+?\\[\\]{}\\\\0-9i:]{0,12}", name in "[ab\n]{0,6}") {
            let Ok(wanted) = Wanted::parse(&format!("regex:{pattern}")) else { return Ok(()) };
            prop_assert!(!wanted.is(&name) || Regex::new(&pattern).unwrap().is_match(&name));
        }
    }
}
