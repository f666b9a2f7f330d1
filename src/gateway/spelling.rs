//! Compares names as lenient servers do: without case and width, and with `_` equal to `-`.

use unicode_normalization::UnicodeNormalization;

/// Every method that MCP defines, in all revisions and in its tasks extension.
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

/// Returns the method of MCP with exactly this name.
pub(super) fn known_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

/// Returns only the letters and digits of a name, without case and width.
pub(super) fn folded(name: &str) -> String {
    letters(name).collect()
}

/// Whether a lenient server would read two names as equal.
pub(super) fn folds_to(name: &str, other: &str) -> bool {
    letters(name).eq(letters(other))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.nfkc()
        .filter(|char| char.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

/// Whether a string has control characters, where some servers end it.
pub(super) fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Whether a lenient server would read this method as one of MCP, although it is spelled differently.
pub(super) fn is_misspelled(method: &str) -> bool {
    if METHODS.contains(&method) {
        return false;
    }
    let method = folded(method);
    METHODS.iter().any(|known| {
        // Known methods are ASCII and have no digits, so comparing their letters is enough.
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
