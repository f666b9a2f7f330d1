//! Lists of tools show each caller what it may call (`hide_forbidden_tools`).
//!
//! For comfort only: whoever guesses a hidden name is still refused. A page of the list may become
//! empty; its cursor stays, so paging goes on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::authenticate::Caller;
use super::sse::{Event, FilterAction};
use crate::config::ResourceConfig;

/// What one caller may not see.
pub(super) struct Hidden(BTreeSet<String>);

/// What filtering an answer came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filtered {
    /// No list of tools, or nothing in it to hide.
    Unchanged,
    /// The answer without the hidden tools.
    Changed(String),
    /// Looks like JSON and is not: what a client would make of it cannot be told.
    Unreadable,
}

impl Hidden {
    /// `None` where nothing is ever hidden.
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
        // Every message: `|` does not stop at the first change.
        let changed =
            messages.iter_mut().fold(false, |changed, one| self.filter_one(one) | changed);
        if changed { Filtered::Changed(answer.to_string()) } else { Filtered::Unchanged }
    }

    /// Whether the message was changed. Only the answer to `tools/list` has `tools` in its result.
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
        // The list is this caller's own now, whatever it was before (MCP 2026-07-28, caching).
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
