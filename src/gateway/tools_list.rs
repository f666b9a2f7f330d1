//! Filters lists of tools, so that each caller sees only the tools that it may call (`hide_forbidden_tools`).
//!
//! This is a convenience only: a call of a hidden tool is refused anyway. A page of the list may become
//! empty; it keeps its cursor, so paging continues.

use std::collections::BTreeSet;

use serde_json::Value;

use super::authenticate::Caller;
use super::sse::{Event, FilterAction};
use crate::config::ResourceConfig;

/// The tools that are hidden from one caller.
pub(super) struct Hidden(BTreeSet<String>);

/// The result of filtering a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filtered {
    /// It is no list of tools, or there is nothing to hide in it.
    Unchanged,
    /// The response without the hidden tools.
    Changed(String),
    /// It looks like JSON but cannot be parsed, so a client might still read a list of tools from it.
    Unreadable,
}

impl Hidden {
    /// Returns the tools to hide from this caller; `None` if the resource hides no tools.
    pub(super) fn from(resource: &ResourceConfig, caller: &Caller) -> Option<Self> {
        let forbidden = |needed: &crate::oauth::scope::ScopeSet| !needed.is_subset(&caller.may);
        let names = resource.tools.iter().filter(|(_, needed)| forbidden(needed));
        let hides = resource.hide_forbidden_tools && !resource.tools.is_empty();
        hides.then(|| Self(names.map(|(name, _)| name.clone()).collect()))
    }

    /// Filters one JSON-RPC message or a batch of them.
    pub(super) fn filter(&self, json: &[u8]) -> Filtered {
        let Ok(mut answer) = serde_json::from_slice::<Value>(json) else {
            let begins = json.iter().find(|byte| !byte.is_ascii_whitespace());
            let looks_like_json = matches!(begins, Some(b'{' | b'['));
            return if looks_like_json { Filtered::Unreadable } else { Filtered::Unchanged };
        };
        let messages = match &mut answer {
            Value::Array(batch) => batch.as_mut_slice(),
            single => std::slice::from_mut(single),
        };
        // `|` and not `||`: filter every message, not only up to the first change.
        let changed =
            messages.iter_mut().fold(false, |changed, one| self.filter_one(one) | changed);
        if changed { Filtered::Changed(answer.to_string()) } else { Filtered::Unchanged }
    }

    /// Filters a message and returns whether it changed. Only responses to `tools/list` have `tools` in their
    /// result.
    fn filter_one(&self, message: &mut Value) -> bool {
        let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) else {
            return false;
        };
        let Some(tools) = result.get_mut("tools").and_then(Value::as_array_mut) else {
            return false;
        };
        let before = tools.len();
        tools.retain(|tool| {
            tool.get("name").and_then(Value::as_str).is_none_or(|name| !self.0.contains(name))
        });
        let mut changed = tools.len() < before;
        // The filtered list is for this caller only, even if the server declared it public (MCP 2026-07-28,
        // caching).
        if let Some(scope) = result.get_mut("cacheScope").filter(|scope| *scope == "public") {
            *scope = "private".into();
            changed = true;
        }
        changed
    }

    /// Filters an event of a stream.
    pub(super) fn judge(&self, event: &Event) -> FilterAction {
        let Some(data) = &event.data else { return FilterAction::Pass };
        match self.filter(data.as_bytes()) {
            Filtered::Unchanged => FilterAction::Pass,
            Filtered::Changed(data) => FilterAction::Data(data),
            Filtered::Unreadable => {
                tracing::warn!(
                    "an event was dropped: it is not JSON, and may hold a list of tools"
                );
                FilterAction::Drop
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden() -> Hidden {
        Hidden(["purge".to_owned()].into())
    }

    fn filter(json: &str) -> Filtered {
        hidden().filter(json.as_bytes())
    }

    #[test]
    fn a_hidden_tool_leaves_single_answers_and_batches_and_the_cursor_stays() {
        let single =
            r#"{"id":1,"result":{"nextCursor":"n","tools":[{"name":"purge"},{"name":"get"}]}}"#;
        let without = r#"{"id":1,"result":{"nextCursor":"n","tools":[{"name":"get"}]}}"#;
        assert_eq!(filter(single), Filtered::Changed(without.to_owned()));
        let batch = format!("[{{\"id\":0,\"result\":{{}}}},{single},{single}]");
        let expected = format!("[{{\"id\":0,\"result\":{{}}}},{without},{without}]");
        assert_eq!(filter(&batch), Filtered::Changed(expected));
    }

    #[test]
    fn everything_else_passes_byte_for_byte() {
        for other in [
            r#"{"id":1,"result":{"tools":[{"name":"get"}]}}"#,
            r#"{"id":1,"result":{"content":[{"type":"text","text":"purge"}]}}"#,
            r#"{"method":"sampling/createMessage","params":{"tools":[{"name":"purge"}]}}"#,
            "/messages?session=1",
        ] {
            assert_eq!(filter(other), Filtered::Unchanged, "{other}");
        }
        assert_eq!(filter(r#"{"result":{"tools":["#), Filtered::Unreadable);
    }

    #[test]
    fn gw_39_a_filtered_list_is_nobody_elses() {
        let public = r#"{"result":{"cacheScope":"public","tools":[{"name":"get"}]}}"#;
        let private = r#"{"result":{"cacheScope":"private","tools":[{"name":"get"}]}}"#;
        assert_eq!(filter(public), Filtered::Changed(private.to_owned()));
    }
}
