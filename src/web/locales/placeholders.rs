//! Texts with placeholders, such as `Continue to {provider}`.

use serde::Deserialize;

/// A text with one placeholder, such as `Continue to {provider}`: what is before and what is after it. A page
/// puts an element there, with the value escaped.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Around(pub String, pub String);

impl Around {
    /// Returns the text with `value` in place of the placeholder.
    pub fn with(&self, value: impl std::fmt::Display) -> String {
        format!("{}{value}{}", self.0, self.1)
    }
}

impl TryFrom<String> for Around {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let [before, after] = split(&text)?;
        Ok(Self(before, after))
    }
}

/// A text with two placeholders, always in the order of the English text: what is before, between and after them.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Between(pub String, pub String, pub String);

impl Between {
    /// Returns the text with these values in place of the placeholders.
    pub fn with(&self, first: impl std::fmt::Display, second: impl std::fmt::Display) -> String {
        format!("{}{first}{}{second}{}", self.0, self.1, self.2)
    }
}

impl TryFrom<String> for Between {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let [before, between, after] = split(&text)?;
        Ok(Self(before, between, after))
    }
}

/// Splits a text at its placeholders, of which it must have one less than there are parts.
fn split<const PARTS: usize>(text: &str) -> Result<[String; PARTS], String> {
    let next = |rest: &str| {
        let (before, rest) = rest.split_once('{')?;
        let (_, after) = rest.split_once('}')?;
        Some((before.to_owned(), after.to_owned()))
    };
    let (mut parts, mut rest) = (Vec::new(), text.to_owned());
    while let Some((before, after)) = next(&rest) {
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    let whole = !parts.iter().any(|part| part.contains(['{', '}']));
    match <[String; PARTS]>::try_from(parts) {
        Ok(parts) if whole => Ok(parts),
        _ => Err(format!("{text:?} must have the placeholders of the English file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_exactly_the_placeholders_of_its_type() {
        let around = |text: &str| Around::try_from(text.to_owned());
        let expected = Around("Continue to ".to_owned(), "!".to_owned());
        assert_eq!(around("Continue to {provider}!").unwrap(), expected);
        assert_eq!(expected.with("Okta"), "Continue to Okta!");
        assert_eq!(around("{x}").unwrap().with(3), "3");
        for wrong in ["", "none", "{a} and {b}", "{open", "close}", "}{", "{a}}"] {
            assert!(around(wrong).is_err(), "{wrong}");
        }
        let between = |text: &str| Between::try_from(text.to_owned());
        let expected = Between(String::new(), " wants ".to_owned(), "!".to_owned());
        assert_eq!(between("{a} wants {b}!").unwrap(), expected);
        for wrong in ["", "{a}", "{a} {b} {c}", "{a} {b"] {
            assert!(between(wrong).is_err(), "{wrong}");
        }
    }
}
