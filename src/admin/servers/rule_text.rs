//! The rules of an MCP server in words.

use crate::admin::advice::{ConditionWords, condition_text};
use crate::admin::configured::ConfiguredServer;
use crate::admin::links::query;
use crate::web::words::Language;

pub(super) struct RuleText {
    pub(super) name: String,
    /// File and line.
    pub(super) place: Option<String>,
    pub(super) who: Vec<(String, String)>,
    pub(super) allow: String,
    pub(super) deny: String,
    pub(super) passthrough: bool,
    /// The page where the rule is changed as a draft.
    pub(super) draft_path: String,
}

impl RuleText {
    /// Describes every rule of an MCP server.
    pub(super) fn all(server: &ConfiguredServer<'_>, language: Language) -> Vec<Self> {
        let c = ConditionWords::of(language);
        let rules = server.resource.policy.rules.iter().enumerate();
        rules
            .map(|(position, rule)| Self {
                name: rule.name_at(position),
                place: server.place_of_rule(position),
                who: rule
                    .conditions
                    .each()
                    .map(|condition| (condition_text(c, condition), condition.values().join(", ")))
                    .collect(),
                allow: rule.allow.to_string(),
                deny: rule.deny.to_string(),
                passthrough: rule.passthrough,
                draft_path: draft_path(&server.resource.id, Some(position)),
            })
            .collect()
    }
}

/// Returns the page for a draft of a rule: a new one, or a changed one in its position.
pub(super) fn draft_path(server: &str, position: Option<usize>) -> String {
    let mut query = query("/servers/draft");
    query.append_pair("server", server);
    if let Some(position) = position {
        query.append_pair("rule", &(position + 1).to_string());
    }
    query.finish()
}
