//! Names that some servers read as others: without case or width, `_` as `-`.

use unicode_normalization::UnicodeNormalization;

/// Every method that MCP has defined for clients, of all revisions, and of its extension for tasks.
const METHODS: [&str; 31] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
    "subscriptions/listen",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
    "tasks/result",
    "tasks/list",
    "roots/list",
    "sampling/createMessage",
    "elicitation/create",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/message",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
    "notifications/tasks",
    "notifications/elicitation/complete",
];

/// Letters and digits alone, without case and width.
pub(super) fn folded(name: &str) -> String {
    letters(name).collect()
}

/// Whether two names differ in nothing that a lenient server would see.
pub(super) fn folds_to(name: &str, other: &str) -> bool {
    letters(name).eq(letters(other))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.nfkc()
        .filter(|char| char.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

/// Whether a text has control characters: some servers end it there.
pub(super) fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Whether a method differs from one of MCP in nothing that a lenient server would see.
pub(super) fn is_misspelled(method: &str) -> bool {
    if METHODS.contains(&method) {
        return false;
    }
    let method = folded(method);
    METHODS.iter().any(|known| {
        // Of the known ones, only letters matter: they have no digits, and are ASCII.
        let letters = known.bytes().filter(u8::is_ascii_alphabetic);
        letters.map(|byte| byte.to_ascii_lowercase()).eq(method.bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_05_known_methods_are_spelled_one_way() {
        for method in METHODS {
            assert!(!is_misspelled(method), "{method}");
            assert!(is_misspelled(&method.to_uppercase()), "{method}");
            assert!(is_misspelled(&format!("{method} ")), "{method}");
            assert_eq!(folded(method), folded(&method.to_uppercase()));
        }
        for other in ["", "x", "tools/call2", "acme/tools/call", "tools"] {
            assert!(!is_misspelled(other), "{other}");
        }
    }
}
