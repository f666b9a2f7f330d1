//! Prepares the name that a client gives itself for display: threat PH-01, requirement REG-22.
//!
//! The registrant chooses the name freely. It can contain invisible characters, imitate a brand with letters
//! of another script, or pose as text of our own page. The displayed name is plain text of limited length,
//! and an imitation is marked.

use std::sync::LazyLock;

use quick_cache::sync::Cache;
use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

/// Longest displayed name, in characters.
const MAX_SHOWN: usize = 64;

/// Names whose result is remembered: 256, and only up to 256 bytes each. Every consent page of a client shows
/// the same name.
const NAMES: usize = 256;
const MAX_REMEMBERED: usize = 256;
static REMEMBERED: LazyLock<Cache<String, DisplayName>> = LazyLock::new(|| Cache::new(NAMES));

/// Names that people trust. A client with exactly such a name is accepted, and only its redirect URI tells
/// who it is; a client with a name that merely looks like one is an imitation.
const BRANDS: &[&str] = &[
    "Claude",
    "Claude Code",
    "Anthropic",
    "ChatGPT",
    "OpenAI",
    "Codex",
    "Cursor",
    "Copilot",
    "GitHub",
    "GitHub Copilot",
    "VS Code",
    "Visual Studio Code",
    "Microsoft",
    "Google",
    "Gemini",
    "Okta",
    "Auth0",
    "Keycloak",
    "Portcullis",
    "Zed",
    "Windsurf",
];

/// A client's name, safe to display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayName {
    /// `None` if no displayable character is left.
    pub text: Option<String>,
    /// Whether the name imitates a brand, mixes scripts, or contained deceptive characters.
    pub suspicious: bool,
}

impl DisplayName {
    /// Cleans the name that a client gives itself.
    pub fn of(raw: Option<&str>) -> Self {
        let Some(raw) = raw else {
            return Self { text: None, suspicious: false };
        };
        if raw.len() > MAX_REMEMBERED {
            return Self::compute(raw);
        }
        REMEMBERED.get(raw).unwrap_or_else(|| {
            let name = Self::compute(raw);
            REMEMBERED.insert(raw.to_owned(), name.clone());
            name
        })
    }

    fn compute(raw: &str) -> Self {
        let composed: String = raw.nfc().collect();
        let deceptive = composed.chars().any(is_deceptive);
        let kept: String = composed
            .chars()
            .map(|c| if c.is_whitespace() { ' ' } else { c })
            .filter(|c| is_shown(*c))
            .nfc() // again, because characters that stood between two others may have been removed
            .collect();
        let mut text =
            kept.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let long = text.chars().count() > MAX_SHOWN;
        if long {
            text = text.chars().take(MAX_SHOWN - 1).collect();
            text.push('…');
        }
        let imitates = imitates_brand(&text);
        let mixed = !text.split(' ').all(unicode_security::MixedScript::is_single_script);
        Self {
            suspicious: deceptive || imitates || mixed,
            text: Some(text).filter(|text| !text.is_empty()),
        }
    }
}

/// Makes a text fit for one line of a message: no control or invisible characters, no line breaks, and at most
/// `most` characters. For names of people, whose punctuation must stay.
pub fn one_line(text: &str, most: usize) -> String {
    let kept = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let kept: String = kept.filter(|c| !is_deceptive(*c)).collect();
    let mut line = kept.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if line.chars().count() > most {
        line = line.chars().take(most.saturating_sub(1)).collect();
        line.push('…');
    }
    line
}

/// Allows letters, digits and a little punctuation: enough for a name, too little to imitate a page.
fn is_shown(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, ' ' | '.' | '_' | '-' | '(' | ')' | '&' | '\'')
        || unicode_normalization::char::is_combining_mark(c)
}

/// Returns whether nobody would type this character into a name: controls, direction overrides, invisible
/// characters, tags.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}')
}

/// For each brand: the lower-case name, its visual skeleton, and its number of words.
static LOOKS: LazyLock<Vec<(String, String, usize)>> = LazyLock::new(|| {
    let brands = BRANDS.iter().map(|brand| brand.to_lowercase());
    brands
        .map(|plain| {
            let (looks, words) = (looks(&plain), plain.split(' ').count());
            (plain, looks, words)
        })
        .collect()
});

/// Returns the visual skeleton of a text, which is equal for texts that look alike.
fn looks(text: &str) -> String {
    let compact: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    skeleton(&compact).collect::<String>().to_lowercase()
}

/// Returns whether the text looks like a brand without being spelled like it.
fn imitates_brand(text: &str) -> bool {
    let plain = text.to_lowercase();
    let words: Vec<&str> = plain.split(' ').collect();
    let whole = looks(&plain);
    let longest = LOOKS.iter().map(|(.., words)| *words).max().unwrap_or_default();
    let parts: Vec<Vec<(String, String)>> = (1..=longest)
        .map(|count| {
            let parts = words.windows(count).map(|part| part.join(" "));
            parts.map(|part| (looks(&part), part)).collect()
        })
        .collect();
    LOOKS.iter().any(|(brand, brand_looks, count)| {
        let alike = |looks: &String, part: &String| looks == brand_looks && part != brand;
        alike(&whole, &plain) || parts[count - 1].iter().any(|(looks, part)| alike(looks, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ph_01_hostile_names_are_shown_plainly_or_marked() {
        // raw, shown, suspicious
        let table: &[(&str, &str, bool)] = &[
            ("Claude", "Claude", false),
            ("claude", "claude", false),
            ("MCP Inspector", "MCP Inspector", false),
            ("Visual Studio Code", "Visual Studio Code", false),
            ("Claude Code (plugin)", "Claude Code (plugin)", false),
            ("OpenCode", "OpenCode", false),
            ("Müller & Söhne", "Müller & Söhne", false),
            ("カーソル", "カーソル", false),
            ("予定表アプリ", "予定表アプリ", false),
            ("Клиент", "Клиент", false),
            ("Сlaude", "Сlaude", true),         // Cyrillic С
            ("Clаude", "Clаude", true),         // Cyrillic а
            ("ClaudΕ", "ClaudΕ", true),         // Greek Ε
            ("C1aude", "C1aude", true),         // digit one
            ("Cl\u{200b}aude", "Claude", true), // zero-width space
            ("Claude\u{202e}", "Claude", true), // right-to-left override
            ("\u{202e}edualC", "edualC", true),
            ("Claude\u{feff}", "Claude", true),
            ("Cla\u{ad}ude", "Claude", true),    // soft hyphen
            ("Claude\u{e0041}", "Claude", true), // tag character
            ("Claude ✓ Verified by ACME", "Claude Verified by ACME", false),
            ("🔒 Secure", "Secure", false),
            (
                "Claude\n\nApproved by your administrator",
                "Claude Approved by your administrator",
                true,
            ),
            ("a\tb", "a b", true),
            ("a\0b", "ab", true),
            ("\u{1b}[2Jx", "2Jx", true),
            ("<script>alert(1)</script>", "scriptalert(1)script", false),
            ("\"><img src=x onerror=alert(1)>", "img srcx onerroralert(1)", false),
            ("&lt;b&gt;", "&ltb&gt", false),
            ("{{7*7}}", "77", false),
            ("${x}", "x", false),
            ("'; DROP TABLE clients;--", "' DROP TABLE clients--", false),
            ("   spaced    out   ", "spaced out", false),
            ("ＣｌａｕｄＥ", "ＣｌａｕｄＥ", true), // fullwidth
            ("𝐂𝐥𝐚𝐮𝐝𝐞", "𝐂𝐥𝐚𝐮𝐝𝐞", true),             // mathematical bold
            ("GitНub", "GitНub", true),             // Cyrillic Н
            ("0kta", "0kta", true),
            ("Ökta", "Ökta", false),
            ("G00gle", "G00gle", true),
            ("раураl", "раураl", true), // mixed scripts
        ];
        assert_eq!(table.len(), 40);
        let mut wrong = Vec::new();
        for (raw, shown, suspicious) in table {
            let name = DisplayName::of(Some(raw));
            if name.text.as_deref() != Some(*shown) || name.suspicious != *suspicious {
                wrong.push(format!("{raw:?} became {name:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_name_is_never_longer_than_the_page_can_bear() {
        let long = "x".repeat(2_000);
        assert_eq!(DisplayName::of(Some(&long)).text.unwrap().chars().count(), MAX_SHOWN);
        assert_eq!(DisplayName::of(Some("\u{200b}")).text, None);
        assert_eq!(DisplayName::of(None), DisplayName { text: None, suspicious: false });
    }
}
